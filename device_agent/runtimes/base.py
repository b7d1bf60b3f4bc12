"""What every runtime offers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from device_agent.scan_limits import ScanLimits
from device_agent.work import InputShape, ModelRun, OperatorTime


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


@dataclass(frozen=True)
class ModelInput:
    """An input of a model. `dtype` is numpy's name of its type, or the library's where numpy has
    none; a size is None where the model leaves it open.
    """

    name: str
    dtype: str
    sizes: tuple[int | None, ...]


class LoadedModel(Protocol):
    """One model, ready to run."""

    @property
    def inputs(self) -> tuple[ModelInput, ...]:
        """The inputs that every run needs."""

    @property
    def options(self) -> tuple[str, ...]:
        """Every option that was set, as "name=value"."""

    def make_inputs(self, seed: int, shapes: Sequence[InputShape] = ()) -> None:
        """Fill the inputs with the same values for the same seed.

        An open batch axis is 1; another open axis needs a shape. Raises ModelRejectedError where
        a shape is missing, does not fit or names no input, and ResourceError where memory does
        not suffice.
        """

    def set_inputs(self, arrays: Mapping[str, Any]) -> None:
        """Use these numpy arrays as inputs. Raises ModelRejectedError where they do not fit."""

    def run(self) -> None:
        """One inference. Raises ModelRejectedError or ResourceError where it fails."""

    def outputs(self) -> Mapping[str, Any]:
        """Copies of the outputs of the last run, numpy arrays by name."""


class Runtime(Protocol):
    """A library that runs models. Making one imports the library, so only a worker does."""

    name: str
    library: str
    version: str

    @property
    def reference_path(self) -> Path:
        """The reference model that is shipped with the agent for this runtime."""

    def scan(self, path: Path, limits: ScanLimits) -> None:
        """Refuse a file that must not reach the library. Raises ModelRejectedError."""

    def load(self, path: Path, run: ModelRun) -> LoadedModel:
        """Set up a model as `run` says (threads, options); its hash and size are not looked at.

        Raises ModelRejectedError where the library refuses the file or an option is unknown,
        ResourceError where memory does not suffice.
        """

    def load_tiny(self) -> LoadedModel:
        """A model that computes almost nothing: its run is the overhead of a call."""

    def profile(
        self, path: Path, run: ModelRun, *, runs: int, scratch: Path
    ) -> tuple[float, tuple[OperatorTime, ...]]:
        """Mean seconds of an inference and of each operator in it, slowest first.

        Raises as `load` and `make_inputs` do, and NoRuntimeError where this library cannot tell.
        """

    def self_test(self) -> None:
        """Run a tiny model and compare its answer. Raises NoRuntimeError where it is wrong."""
