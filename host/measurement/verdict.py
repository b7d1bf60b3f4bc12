"""Whether a measurement can be trusted, and why not."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["OK", "WARN", "REJECT"]


@dataclass(frozen=True)
class Reason:
    """Why a measurement is not simply OK: a code for programs and a sentence for people."""

    code: str
    level: Literal["WARN", "REJECT"]
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """The worst level of all reasons; OK has none."""

    level: Level
    reasons: tuple[Reason, ...] = ()

    @property
    def codes(self) -> tuple[str, ...]:
        return tuple(reason.code for reason in self.reasons)
