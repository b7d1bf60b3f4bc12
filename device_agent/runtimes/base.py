"""What every runtime offers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class RuntimeFacts:
    """A library that runs models, as probed in a child process. `version` is empty where none
    is installed.
    """

    name: str
    library: str
    version: str
    works: bool
    why_not: str


class LoadedModel(Protocol):
    """One model, ready to run."""

    @property
    def options(self) -> tuple[str, ...]:
        """Every option that was set, as "name=value"."""

    def make_inputs(self, seed: int) -> None:
        """Fill the inputs with the same values for the same seed.

        Raises ModelRejectedError for a shape that is not fixed apart from the batch, which is 1.
        """

    def run(self) -> None:
        """One inference. Raises ModelRejectedError or ResourceError where it fails."""


class Runtime(Protocol):
    """A library that runs models. Making one imports the library, so only a worker does."""

    name: str
    library: str
    version: str

    def load(self, path: Path, threads: int) -> LoadedModel:
        """Raises ModelRejectedError where the library refuses the file, ResourceError where
        memory does not suffice.
        """

    def self_test(self) -> None:
        """Run a tiny model and compare its answer. Raises NoRuntimeError where it is wrong."""
