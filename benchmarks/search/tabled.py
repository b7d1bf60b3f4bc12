"""A device that is a column of a table, and cells whose trained accuracies are known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.cost_models.tables import TableError, read_table
from host.config import DeviceConfig
from host.study.limits import Target
from host.study.proposal import Proposal
from host.study.report import Reporter


@dataclass(frozen=True)
class Truth:
    """Percent and milliseconds of every cell that has a path and runs, by its text."""

    accuracies: Mapping[str, float]
    latencies: Mapping[str, float]

    @classmethod
    def of(cls, accuracies: Mapping[str, float], latencies: Mapping[str, float]) -> "Truth":
        """Of the cells that both know."""
        known = sorted(accuracies.keys() & latencies.keys())
        return cls({t: accuracies[t] for t in known}, {t: latencies[t] for t in known})

    def objectives(self, texts: Sequence[str]) -> np.typing.NDArray[np.float64]:
        """Rows (1 - place of the accuracy, place of the latency), each from 0 to 1 over the better
        half of the accuracies and over all latencies: both are to be small. What is in no table
        has the worst of both.
        """
        floor, top = np.median(list(self.accuracies.values())), max(self.accuracies.values())
        low, high = min(self.latencies.values()), max(self.latencies.values())
        rows = [
            (
                (top - self.accuracies[text]) / (top - floor),
                (self.latencies[text] - low) / (high - low),
            )
            if text in self.accuracies
            else (1.0, 1.0)
            for text in texts
        ]
        return np.array(rows).reshape(-1, 2)


@dataclass(frozen=True)
class TableDevice:
    """What a search asks of a device profile."""

    name: str
    runtime: str = "onnx"
    config: DeviceConfig = field(default_factory=lambda: DeviceConfig(name="table"))


class TableLedger:
    """Answers at once what the column says; keeps the order in which cells were measured."""

    def __init__(self, name: str, truth: Truth, reporter: Reporter) -> None:
        self.devices = (TableDevice(name),)
        self.reporter = reporter
        self.has_lost = False
        self.order: list[str] = []
        """The cells that were measured, by their text."""
        self._truth = truth
        self._seconds: dict[str, float | None] = {}

    @property
    def keys(self) -> set[str]:
        """The candidates that were asked for."""
        return set(self._seconds)

    def measure(self, proposals: Sequence[Proposal]) -> None:
        """Look them up."""
        for proposal in proposals:
            if proposal.key not in self._seconds:
                found = self._truth.latencies.get(proposal.text)
                self._seconds[proposal.key] = None if found is None else found / 1000
                self.order.append(proposal.text)

    def outcome(self, key: str, _device: str) -> float | None:
        """What was looked up."""
        return self._seconds.get(key)

    def complete(self, key: str) -> bool:
        """Whether the device has measured it."""
        return self._seconds.get(key) is not None

    def usable(self, _device: str) -> list[str]:
        """All that it has measured."""
        return [key for key in sorted(self._seconds) if self.complete(key)]

    def value(self, key: str, _device: str, target: Target) -> float | None:
        """The latency; a column knows no memory, so that is the same for all."""
        seconds = self._seconds.get(key)
        return seconds if target == "latency_seconds" or seconds is None else 1.0

    def upper_value(self, key: str, device: str, target: Target) -> float | None:
        """The column has no interval."""
        return self.value(key, device, target)

    def device_seconds(self) -> float:
        """A look takes no time."""
        return 0.0


def column(path: Path, name: str) -> dict[str, float]:
    """The numbers of a column above zero, by the text of a cell that has a path.

    Raises TableError.
    """
    table = read_table(path, [name])
    found = {
        cell.text: float(value)
        for cell, value in zip(table.cells, table.values[name], strict=True)
        if value > 0 and cell.is_connected
    }
    if not found:
        raise TableError(f"{path} has nothing above zero in {name}")
    return found
