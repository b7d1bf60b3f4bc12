"""Calibration of one device: which networks it measures, and when it is enough.

First synthetic chains, chosen D-optimally over the features of the latency and of the memory model
together; then whole networks, small synthetic ones and candidates of the space 'mobile', D-optimal
given what was measured, a few at a time; and, where a limit is given, those candidates whose
interval straddles it. The device need not be there for this to be understood: it is a function of
what `measure` answers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from cost_models.design import d_optimal
from cost_models.latency import LatencyModel
from cost_models.memory import PeakMemoryModel
from cost_models.nnls import FloatArray
from host.calibration.specimens import Specimen, SpecimenKind
from host.errors import GenbaError
from host.measurement import Measurement

MIN_ROWS = 9
"""Fewer leave no 90 % interval (cost_models.intervals)."""
MICROGRAPHS = 10
"""So many synthetic chains at most. More of them predict whole networks worse: what they lack, such
as weights that no cache keeps, is a tenth of a network's time.
"""
BATCH = 3
"""Candidates between two fits."""
POOL = 300
"""Candidates among which those to measure are chosen."""

_LIMIT_SHARE = 0.5  # of the candidates, for those near a limit
_LONGEST_SECONDS = 0.5  # of a candidate: slower ones leave too few samples in a quick run
_IMPROVEMENT = 0.05
_PATIENCE = 3  # batches without improvement
_LEAST_SHARE = 2 / 3  # of the measurements, before a calibration may end early

Phase = Literal["micro-graphs", "candidates", "limit"]
Ended = Literal["budget", "settled", "nothing straddles", "nothing left"]


class TooFewRowsError(GenbaError):
    """The device measured too little to predict anything from it."""


@dataclass(frozen=True)
class Row:
    """A network and its measurement; `number` is how people call that."""

    name: str
    kind: SpecimenKind
    measurement: Measurement
    number: int | None


@dataclass(frozen=True)
class LeftOut:
    """A network that no fit may use, and why."""

    name: str
    kind: SpecimenKind
    why: str


Measure = Callable[[Sequence[Specimen]], Mapping[str, Row | LeftOut]]
"""Measures all of them, by name; may raise to stop."""


@dataclass(frozen=True)
class Wish:
    """How much to measure, and near which latency it matters most."""

    measurements: int = 24
    limit_seconds: float | None = None
    level: float = 0.9

    @property
    def micrographs(self) -> int:
        """How many of the measurements are of synthetic chains."""
        return min(MICROGRAPHS, self.measurements)


@dataclass(frozen=True)
class Calibration:
    """What came of it: fitted models, and the networks behind them in the order of their rows."""

    latency: LatencyModel
    memory: PeakMemoryModel
    rows: tuple[Row, ...]
    left_out: tuple[LeftOut, ...]
    ended: Ended


@dataclass
class Calibrator:
    """Chooses, has measured, and fits; `others` are latency models of other devices.

    `candidates` are whole networks, of a search space or synthetic.

    `on_phase` is told before each batch: the phase, how many were measured, how many will be at
    most.
    """

    micrographs: Sequence[Specimen]
    candidates: Sequence[Specimen]
    measure: Measure
    wish: Wish = field(default_factory=Wish)
    threads: int = 1
    others: Sequence[LatencyModel] = ()
    on_phase: Callable[[Phase, int, int], None] = lambda _phase, _done, _total: None
    after_batch: Callable[[Sequence[Row], LatencyModel], bool] = lambda _rows, _model: False
    """Told of all rows after each fit; returns whether `latency_of` has changed since."""
    latency_of: Callable[[Measurement], float] = lambda measurement: measurement.latency_seconds
    """The latency to fit; another one than was measured where the device has drifted since."""

    def __post_init__(self) -> None:
        self._rows: list[Row] = []
        self._left_out: list[LeftOut] = []
        self._latency = LatencyModel(self.wish.level, threads=self.threads)
        self._memory = PeakMemoryModel(self.wish.level, threads=self.threads)
        self._asked: dict[str, Specimen] = {}
        self._features: dict[str, tuple[FloatArray, FloatArray]] = {}

    def run(self) -> Calibration:
        """Calibrate. Raises TooFewRowsError where the device could measure hardly anything."""
        self._batch("micro-graphs", self._best(self.micrographs, self.wish.micrographs))
        while self._rows and len(self._rows) < MIN_ROWS and self._left():
            count = min(MIN_ROWS - len(self._rows), self._left())
            self._batch("micro-graphs", self._best(self.micrographs, count))
        if len(self._rows) < MIN_ROWS:
            reasons = "; ".join(dict.fromkeys(one.why for one in self._left_out))
            raise TooFewRowsError(
                f"only {len(self._rows)} networks could be measured, {MIN_ROWS} are needed to"
                f" predict from: {reasons}"
            )
        ended = self._measure_candidates()
        return Calibration(
            self._latency, self._memory, tuple(self._rows), tuple(self._left_out), ended
        )

    def _measure_candidates(self) -> Ended:
        left = self._left()
        near_limit = int(_LIMIT_SHARE * left) if self.wish.limit_seconds is not None else 0
        history = [self._quality()]
        ended: Ended = "budget"
        while self._left() > near_limit:
            count = min(BATCH, self._left() - near_limit)
            chosen = self._best(self._quick_enough(), count)
            if not chosen:
                ended = "nothing left"
                break
            self._batch("candidates", chosen)
            history.append(self._quality())
            spent = len(self._asked) / self.wish.measurements
            if spent >= _LEAST_SHARE and _is_settled(history):
                ended = "settled"
                break
        if self.wish.limit_seconds is None:
            return ended
        return self._measure_near(self.wish.limit_seconds)

    def _measure_near(self, limit_seconds: float) -> Ended:
        while self._left() > 0:
            unmeasured = [
                one
                for one in self.candidates
                if one.kind == "candidate" and one.name not in self._asked
            ]
            if not unmeasured:
                return "nothing straddles"
            foretold = self._latency.predict_rows(self._rows_of(unmeasured)[0])
            straddling = [
                one
                for one, told in zip(unmeasured, foretold, strict=True)
                if told.low <= limit_seconds <= told.high
            ]
            if not straddling:
                return "nothing straddles"
            self._batch("limit", self._best(straddling, min(BATCH, self._left(), len(straddling))))
        return "budget"

    def _batch(self, phase: Phase, chosen: Sequence[Specimen]) -> None:
        self.on_phase(phase, len(self._asked), self.wish.measurements)
        self._asked |= {one.name: one for one in chosen}
        answers = self.measure(chosen)
        for one in chosen:
            answer = answers[one.name]
            if isinstance(answer, Row):
                self._rows.append(answer)
            else:
                self._left_out.append(answer)
        if len(self._rows) < MIN_ROWS:
            return
        self._fit()
        if self.after_batch(self._rows, self._latency):
            self._fit()

    def _fit(self) -> None:
        latency, memory = self._rows_of([self._asked[row.name] for row in self._rows])
        seconds = [self.latency_of(row.measurement) for row in self._rows]
        peaks = [float(row.measurement.peak_rss_bytes) for row in self._rows]
        self._latency.fit_rows(latency, np.array(seconds), self.others)
        self._memory.fit_rows(memory, np.array(peaks))

    def _best(self, pool: Sequence[Specimen], count: int) -> list[Specimen]:
        """D-optimal ones that were not asked for, given what was measured."""
        free = [one for one in pool if one.name not in self._asked]
        count = min(count, len(free))
        if not count:
            return []
        known = [self._asked[row.name] for row in self._rows]
        # Each synthetic network has few columns, and what many of them have matters no less.
        chosen = d_optimal(
            self._design(free), count, chosen_rows=self._design(known), scale="largest"
        )
        return [free[index] for index in chosen]

    def _design(self, specimens: Sequence[Specimen]) -> FloatArray:
        """The features of both models side by side, each weighted as its fit weighs it."""
        latency, memory = self._rows_of(specimens)
        return np.hstack([self._latency.design_rows(latency), self._memory.design_rows(memory)])

    def _rows_of(self, specimens: Sequence[Specimen]) -> tuple[FloatArray, FloatArray]:
        """Latency and memory features, one row a specimen."""
        new = [one for one in specimens if one.name not in self._features]
        graphs = [one.kernels for one in new]
        latency, memory = self._latency.features(graphs), self._memory.features(graphs)
        for one, of_latency, of_memory in zip(new, latency, memory, strict=True):
            self._features[one.name] = of_latency, of_memory
        empty = self._latency.features([]), self._memory.features([])
        found = [self._features[one.name] for one in specimens]
        if not found:
            return empty
        return np.stack([row for row, _ in found]), np.stack([row for _, row in found])

    def _quick_enough(self) -> list[Specimen]:
        """Candidates that the device runs often enough in a quick measurement, as far as is known;
        on a device too slow for all of them the quickest tenth.
        """
        rows, _ = self._rows_of(self.candidates)
        seconds = np.array([told.value for told in self._latency.predict_rows(rows)])
        bound = max(_LONGEST_SECONDS, float(np.quantile(seconds, 0.1))) if len(seconds) else 0.0
        return [one for one, value in zip(self.candidates, seconds, strict=True) if value <= bound]

    def _left(self) -> int:
        return self.wish.measurements - len(self._asked)

    def _quality(self) -> tuple[float, float]:
        """Median held-out error and half-width of the interval, both on the logarithm."""
        return float(np.median(np.abs(self._latency.log_errors))), self._latency.half_width


def _is_settled(history: Sequence[tuple[float, float]]) -> bool:
    """Whether neither the median error nor the half-width improved over the last batches."""
    if len(history) <= _PATIENCE:
        return False
    before, after = history[:-_PATIENCE], history[-_PATIENCE:]
    return all(
        min(one[index] for one in after) > (1 - _IMPROVEMENT) * min(one[index] for one in before)
        for index in range(2)
    )
