"""What was measured, kept in a JSON file after every look, so that a stop loses nothing."""

import dataclasses
import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.arbitrary_onnx.runner import Look, NotMeasuredError, look

FORMAT = 1
MOST_LOOKS = 8
REFERENCE_SLACK = 1.08
"""How much slower than in the quickest tenth of all looks the reference model may run in a look
that counts. A neighbour on the same core slows small networks by two, and no statistic of their
own samples tells.
"""


@dataclass(frozen=True)
class Job:
    """A model file to be measured on so many threads; `key` is its place in the file."""

    name: str
    path: Path
    shapes: dict[str, tuple[int, ...]]
    threads: int

    @property
    def runtime(self) -> str:
        return "litert" if self.path.suffix == ".tflite" else "onnx"

    @property
    def key(self) -> str:
        return f"{self.name} {self.runtime} {self.threads}"


@dataclass(frozen=True)
class Measured:
    """The figures of a job: the median of its looks that count, and the largest memory.

    `quiet` is off where none counts; the figure is then that of the look with the quickest
    reference.
    """

    latency_seconds: float
    peak_rss_bytes: int
    quiet: bool


class Measurements:
    """Looks by job, and jobs that failed with the reason; read from `path` where that exists."""

    def __init__(self, path: Path | None) -> None:
        """Raises ValueError for a file that is no such record."""
        self._path = path
        self._looks: dict[str, list[Look]] = {}
        self.failed: dict[str, str] = {}
        if path is not None and path.exists():
            self._read(path)

    def measured(self, key: str) -> Measured | None:
        """The figure of a job, None where there is none."""
        looks = self._looks.get(key)
        if not looks:
            return None
        counted = self._counted(key)
        best = min(looks, key=_reference)
        seconds = [each.latency_seconds for each in counted or [best]]
        return Measured(
            statistics.median(seconds), max(each.peak_rss_bytes for each in looks), bool(counted)
        )

    def _counted(self, key: str) -> list[Look]:
        """The looks during which the machine ran as quickly as it ever does in that setting."""
        setting = key.split()[-2:]
        every = sorted(
            _reference(each)
            for other, looks in self._looks.items()
            if other.split()[-2:] == setting
            for each in looks
        )
        bound = REFERENCE_SLACK * every[len(every) // 10] if every else math.inf
        return [one for one in self._looks.get(key, ()) if one.quiet and _reference(one) <= bound]

    def spread(self) -> float | None:
        """Median over the jobs of how much slower the slowest look that counts is than the
        quickest: the noise floor.
        """
        counted = [[each.latency_seconds for each in self._counted(key)] for key in self._looks]
        ranges = [max(found) / min(found) - 1 for found in counted if len(found) > 1]
        return statistics.median(ranges) if ranges else None

    def take(self, jobs: Sequence[Job], looks: int, say: Callable[[str], None]) -> None:
        """Measure what is missing, until `looks` looks of each job count, and MOST_LOOKS times
        at most. The rounds interleave the jobs, so that a slow hour of the machine meets all of
        them alike.
        """
        for number in range(MOST_LOOKS):
            for count, job in enumerate(jobs, 1):
                done = len(self._looks.get(job.key, ()))
                if done > number or job.key in self.failed or len(self._counted(job.key)) >= looks:
                    continue
                say(f"round {number + 1}: {count} of {len(jobs)}: {job.key}")
                self._look(job)

    def _look(self, job: Job) -> None:
        try:
            found = look(job.path, job.threads, job.shapes)
        except NotMeasuredError as error:
            self.failed[job.key] = str(error)
        else:
            self._looks.setdefault(job.key, []).append(found)
        self._write()

    def _read(self, path: Path) -> None:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(stored, dict) or stored.get("format") != FORMAT:
            raise ValueError(f"{path} holds no measurements of this benchmark: name another file")
        self.failed = dict(stored["failed"])
        self._looks = {
            key: [Look(**each) for each in looks] for key, looks in stored["looks"].items()
        }

    def _write(self) -> None:
        if self._path is None:
            return
        looks = {
            key: [dataclasses.asdict(each) for each in looks] for key, looks in self._looks.items()
        }
        text = json.dumps({"format": FORMAT, "failed": self.failed, "looks": looks}, indent=1)
        scratch = self._path.with_suffix(".part")
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(self._path)


def _reference(one: Look) -> float:
    return math.inf if one.reference_seconds is None else one.reference_seconds
