"""What a running study tells the person who waits for it."""

from collections.abc import Mapping
from typing import Protocol


class Reporter(Protocol):
    """Receives what happens, in order. What it does with it must not change the study."""

    def stage(self, name: str) -> None:
        """Another part of the study begins."""
        ...

    def progress(self, what: str, done: int, total: int) -> None:
        """So much of the current stage's work of that kind is done."""
        ...

    def say(self, text: str) -> None:
        """A sentence that a person should read."""
        ...

    def found(self, kind: str, facts: Mapping[str, object], text: str) -> None:
        """How the study stands: as facts for a program, and as a line for a person."""
        ...
