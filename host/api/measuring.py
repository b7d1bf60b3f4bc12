"""Models measured on devices, as plain values."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from host.errors import GenbaError

if TYPE_CHECKING:
    from host.api.asking import Asked
    from host.measurement import Measured, Measurement
    from host.store import Store, Waiting


class NotMeasuredError(GenbaError):
    """A device could not measure the model."""


class TimedOutError(GenbaError):
    """Nothing came back in time."""


@dataclass(frozen=True)
class MeasuredModel:
    """What one device made of one file.

    `outcome` is a Measurement with its figures, samples and verdict, or a MeasurementFailure that
    says why there is none. `number` is that of the measurement in the workspace.
    """

    model: str
    device: str
    number: int | None
    outcome: "Measured"

    @property
    def measurement(self) -> "Measurement":
        """The figures. Raises NotMeasuredError where the device could not measure the model."""
        from host.measurement import MeasurementFailure

        if isinstance(self.outcome, MeasurementFailure):
            kind, message = self.outcome.kind.replace("_", " "), self.outcome.message.rstrip(".")
            raise NotMeasuredError(
                f"{self.device} could not measure {self.model}: {kind}: {message}"
            )
        return self.outcome


@dataclass(frozen=True)
class MeasuringProgress:
    """How far a call of `measure` is: `newest` came just now, the rest is still waited for.

    `offline` are devices that cannot work now; `not_ready` says why one refused for the moment.
    """

    done: int
    total: int
    newest: MeasuredModel | None
    offline: tuple[str, ...] = ()
    not_ready: tuple[str, ...] = ()


OnProgress = Callable[[MeasuringProgress], None]


def is_answered(store: "Store", asked: "Sequence[Asked]") -> bool:
    """Whether every job has its outcome already."""
    progress = store.jobs.progress({one.job.id for one in asked})
    return all(found.outcome is not None for found in progress.values())


def await_measured(
    store: "Store",
    asked: "Sequence[Asked]",
    *,
    timeout_seconds: float | None,
    withdraw: bool,
    on_progress: OnProgress | None,
) -> list[MeasuredModel]:
    """What comes of the jobs, in their order; a gateway must serve the workspace meanwhile.

    Raises TimedOutError; the jobs are then withdrawn (`withdraw`) or stay queued.
    """
    from host.store import wait_for_outcomes

    jobs = {one.job.id: one.job for one in asked}
    outcomes: dict[str, object] = {}
    told = _Told(len(jobs), on_progress)
    deadline = None if timeout_seconds is None else monotonic() + timeout_seconds

    def on_wait(waiting: "Waiting") -> None:
        told.waiting(len(outcomes), waiting)
        if deadline is not None and monotonic() >= deadline:
            left = len(jobs) - len(outcomes)
            what = "are withdrawn" if withdraw else "stay queued: the same call finds them later"
            raise TimedOutError(f"no result within {timeout_seconds:g} s; {left} jobs {what}")

    with _withdrawn(store, list(jobs)) if withdraw else nullcontext():
        for job, outcome in wait_for_outcomes(store, list(jobs.values()), on_wait=on_wait):
            outcomes[job.id] = outcome
            one = next(each for each in asked if each.job.id == job.id)
            told.came(len(outcomes), _measured(store, one, outcome))
    # Files of equal bytes share a job, and each keeps its own name.
    return [_measured(store, one, outcomes[one.job.id]) for one in asked]


class _Told:
    """Calls back when something came, and when that which is waited for changes."""

    def __init__(self, total: int, on_progress: OnProgress | None) -> None:
        self._total = total
        self._on_progress = on_progress
        self._last: MeasuringProgress | None = None

    def came(self, done: int, newest: MeasuredModel) -> None:
        self._tell(MeasuringProgress(done, self._total, newest))

    def waiting(self, done: int, waiting: "Waiting") -> None:
        offline = tuple(device.name for device in waiting.offline)
        refusals = tuple(dict.fromkeys(waiting.not_ready.values()))
        self._tell(MeasuringProgress(done, self._total, None, offline, refusals))

    def _tell(self, progress: MeasuringProgress) -> None:
        if self._on_progress is not None and progress != self._last:
            self._last = progress
            self._on_progress(progress)


def _measured(store: "Store", one: "Asked", outcome: object) -> MeasuredModel:
    from host.measurement import Measurement, MeasurementFailure

    if not isinstance(outcome, Measurement | MeasurementFailure):
        raise NotMeasuredError(f"job {one.job.id} has a result of another kind: {type(outcome)}")
    number = store.measurements.number_of(one.job.id)
    return MeasuredModel(one.model, one.device.name, number, outcome)


@contextmanager
def _withdrawn(store: "Store", job_ids: Sequence[str]) -> Iterator[None]:
    """No later call would find these jobs, and a device should not work for nobody."""
    try:
        yield
    except BaseException:
        store.jobs.cancel(job_ids)
        raise
