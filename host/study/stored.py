"""What the store holds of a study, read without anything that computes."""

from dataclasses import dataclass
from typing import Literal, Self, TypeVar

from pydantic import ValidationError, model_validator

from host.errors import GenbaError
from host.store.store import Store
from host.store.studies import Study
from host.study.finalist import FinalistResult, TrialsReport, finalist_memo
from host.study.front import FRONT, FrontReport, Value

TRIALS = "trials"
"""Name of the stored result that holds everything that was trained."""
FINGERPRINT = "fingerprint"
"""Name of the stored result that holds the fingerprint of the data."""
DATA = "data"
"""Name of the stored result that holds the facts of the data."""

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")
_Kept = TypeVar("_Kept", bound=Value)


class NoFrontError(GenbaError):
    """The study has not come so far."""


class OtherVersionError(GenbaError):
    """Stored results cannot be read by this version."""


class DataFacts(Value):
    """The data of a study. `counts` has for each part the samples of every class, in their order;
    the fingerprint is that of the whole folder.
    """

    folder: str
    classes: list[str]
    counts: dict[Part, list[int]]
    fingerprint: str
    licence: str | None = None

    @model_validator(mode="after")
    def _every_part_counts_every_class(self) -> Self:
        if any(len(counts) != len(self.classes) for counts in self.counts.values()):
            raise ValueError("every part needs a count for each class")
        return self


@dataclass(frozen=True)
class StudyResult:
    """What a finished study found."""

    front: FrontReport
    finalists: tuple[FinalistResult, ...]
    trials: TrialsReport | None = None


def stored_result(store: Store, study: Study) -> StudyResult | None:
    """The front, the finalists and what was trained, as the store holds them of a study; None
    before there is a front.

    Raises OtherVersionError where another version of genba wrote them.
    """
    front = _kept(store, study, FRONT, FrontReport)
    if front is None:
        return None
    memos = [finalist_memo(row.key) for row in front.rows]
    finalists = [_kept(store, study, memo, FinalistResult) for memo in memos]
    return StudyResult(
        front=front,
        finalists=tuple(finalist for finalist in finalists if finalist is not None),
        trials=_kept(store, study, TRIALS, TrialsReport),
    )


def require_result(store: Store, study: Study) -> StudyResult:
    """The same of a study that has a front. Raises NoFrontError and OtherVersionError."""
    result = stored_result(store, study)
    if result is None:
        raise NoFrontError(
            f"the study {study.name!r} has no front yet: go on with it by `genba search resume"
            f" {study.name}`"
        )
    return result


def stored_facts(store: Store, study: Study) -> DataFacts | None:
    """The facts of its data; None before they are kept. Raises OtherVersionError."""
    return _kept(store, study, DATA, DataFacts)


def _kept(store: Store, study: Study, name: str, kind: type[_Kept]) -> _Kept | None:
    text = store.studies.result(study.id, name)
    if text is None:
        return None
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise OtherVersionError(
            f"the results of the study {study.name} were written by another version of genba: read"
            " them with that one, or run the study again under another name"
        ) from error
