"""What commands share that measure for the cost models of one device: options, manner, waiting."""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from host.api.asking import purpose_of
from host.cli.console import note
from host.cli.measure import Preset
from host.device import CalibratedRuntime

if TYPE_CHECKING:
    from host.calibration.measuring import Manner
    from host.device import Device
    from host.job import Job
    from host.measurement import Measured, Outcome, Plan, Readiness
    from host.store import Store
    from host.workspace import Workspace

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the device.")]
RuntimeOption = Annotated[CalibratedRuntime, typer.Option(help="Which of the device's runtimes.")]
PresetOption = Annotated[Preset, typer.Option(help="How carefully to measure each network.")]
EnergyOption = Annotated[
    bool, typer.Option("--energy", help="Measure energy too: two minutes more a network.")
]


def manner_of(
    store: "Store",
    device: "Device",
    preset: Preset,
    ready: "Readiness",
    purpose: str,
    *,
    energy: bool,
    again: bool,
) -> "Manner":
    """How to measure each network; with energy the windows suit the device's meter. What is
    measured `again` no later command finds.
    """
    from host.calibration.measuring import Manner
    from host.calibration.timing import enough_seconds, metered
    from host.measurement import PRESETS, MeasureSpec, ModelRun

    plan = PRESETS[preset].with_energy() if energy else PRESETS[preset]
    spec = MeasureSpec(ModelRun("", 0), plan, ready, enough_seconds(plan, ready))
    told = purpose_of(purpose, again=again)
    with_meter, purpose = metered(store, device, spec, told, note)
    if not isinstance(with_meter, MeasureSpec):
        raise TypeError(f"{type(with_meter)} measures nothing")
    return Manner(with_meter.plan, ready, with_meter.timeout_seconds, purpose)


def measuring_seconds(plan: "Plan", ready: "Readiness") -> float:
    """How long one measurement takes at most on a device that is ready."""
    from host.calibration.timing import planned_seconds

    return planned_seconds(plan, ready.observe_seconds)


class Waiter:
    """Waits for measurements of one device and shows how far they are; serves the workspace from
    the first wait until the stack is closed, where nobody else does.

    Jobs that nobody waits for any longer stay queued where the same command finds them again
    (`findable`), and are withdrawn otherwise, as rounds of sentinels always are.
    """

    def __init__(
        self,
        workspace: "Workspace",
        store: "Store",
        device: "Device",
        stack: ExitStack,
        timeout: float | None,
        *,
        findable: bool,
    ) -> None:
        self.known = 0
        """How many networks had been measured already, sentinels apart."""
        self._workspace, self._store, self._device = workspace, store, device
        self._stack = stack
        self._is_serving = False
        self._timeout = timeout
        self._ends_at: float | None = None
        self._findable = findable

    def __call__(self, jobs: "Mapping[str, Job]") -> "dict[str, Measured]":
        """The outcomes in the order of the jobs, by the name of what is measured."""
        from host.api.asking import Asked
        from host.calibration.sentinels import is_of_round, is_of_sentinel
        from host.cli.jobs import await_outcomes
        from host.measurement import Measured

        found: dict[str, Measured] = {}

        def take(one: Asked, outcome: "Outcome") -> None:
            if not isinstance(outcome, Measured):
                raise TypeError(f"job {one.job.id} asked for a measurement: {type(outcome)}")
            found[one.model] = outcome

        self._serve(jobs)
        known = await_outcomes(
            self._workspace,
            self._store,
            [
                Asked(job, self._device, name, f"measuring {job.label}", _seconds(job))
                for name, job in jobs.items()
            ],
            take,
            timeout=self._seconds_left(),
            findable=self._findable and not any(map(is_of_round, jobs.values())),
        )
        if not any(map(is_of_sentinel, jobs.values())):
            self.known += known
        return {name: found[name] for name in jobs}

    def tell_known(self) -> None:
        """Say that nothing new was measured of some networks."""
        if self.known:
            note(f"{self.known} of them had been measured before; --again measures anew")

    def _seconds_left(self) -> float | None:
        """Of the time to wait, which begins with the first wait; as people say it."""
        if self._timeout is None:
            return None
        if self._ends_at is None:
            self._ends_at = time.monotonic() + self._timeout
            return self._timeout
        return round(max(0.0, self._ends_at - time.monotonic()), 1)

    def _serve(self, jobs: "Mapping[str, Job]") -> None:
        """Between two batches the device would otherwise lose its host and come back late."""
        from host.gateway.server import ensure_gateway

        progress = self._store.jobs.progress([job.id for job in jobs.values()])
        if not self._is_serving and any(one.outcome is None for one in progress.values()):
            self._stack.enter_context(ensure_gateway(self._workspace, self._store))
            self._is_serving = True


def _seconds(job: "Job") -> float:
    from host.measurement import MeasureSpec

    if not isinstance(job.spec, MeasureSpec):
        raise TypeError(f"job {job.id} measures nothing: {type(job.spec)}")
    return measuring_seconds(job.spec.plan, job.spec.readiness)
