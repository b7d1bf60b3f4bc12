"""From a report to what is kept: meters of the network, energies, estimates and the verdict."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from host.device import Device
from host.errors import GenbaError
from host.gateway.checks import MessageError
from host.gateway.evaluation import Evaluation
from host.gateway.reports import Reports
from host.job import Job
from host.measurement import (
    PRESETS,
    Measurement,
    MeasureSpec,
    Outcome,
    Phase,
    PowerSeries,
    Reason,
    Spec,
    Verdict,
)
from host.store import Store
from protos import genba_agent_pb2 as pb

if TYPE_CHECKING:
    from tests.host.conftest import Fleet

MakeSamples = Callable[[], pb.MeasuredSamples]
MakeMeasurement = Callable[..., Measurement]
IDLE_WATTS, BUSY_WATTS = 2.0, 6.0
WINDOW_SECONDS = 10.0


class ScriptedMetering:
    """Keeps what it is told and gives one series."""

    def __init__(self, series: tuple[PowerSeries, ...] = (), because: str = "") -> None:
        self.told: list[tuple[Any, ...]] = []
        self.broken = False
        self._answer = series, because

    def started(self, device_id: str, job_id: str, spec: Spec) -> None:
        self.told.append(("started", device_id, job_id, spec))
        if self.broken:
            raise GenbaError("the meter's address is no address")

    def finished(
        self, job_id: str, sent_monotonic_seconds: float | None, phases: Sequence[Phase]
    ) -> tuple[tuple[PowerSeries, ...], str]:
        self.told.append(("finished", job_id, sent_monotonic_seconds, len(phases)))
        return self._answer

    def dropped(self, job_id: str) -> None:
        self.told.append(("dropped", job_id))


def phases() -> list[pb.Phase]:
    """The load step, then five busy windows with an idle one before and after each."""
    kinds = [(pb.Phase.KIND_IDLE, 3.0), (pb.Phase.KIND_STEP, 5.0), (pb.Phase.KIND_IDLE, 3.0)]
    for _ in range(5):
        kinds += [
            (pb.Phase.KIND_IDLE, WINDOW_SECONDS),
            (pb.Phase.KIND_BUSY, WINDOW_SECONDS),
        ]
    kinds.append((pb.Phase.KIND_IDLE, WINDOW_SECONDS))
    messages, at = [], 100.0
    for kind, seconds in kinds:
        messages.append(
            pb.Phase(
                kind=kind,
                started_monotonic_seconds=at,
                ended_monotonic_seconds=at + seconds,
                inferences=200 if kind == pb.Phase.KIND_BUSY else 0,
            )
        )
        at += seconds
    return messages


def series_of(source: str = "plug", busy_watts: float = BUSY_WATTS) -> PowerSeries:
    """What a meter on the device's clock says of `phases()`, ten times a second."""
    times, watts = [], []
    for phase in phases():
        loaded = phase.kind in (pb.Phase.KIND_STEP, pb.Phase.KIND_BUSY)
        lasted = phase.ended_monotonic_seconds - phase.started_monotonic_seconds
        for i in range(round(lasted * 10)):
            times.append(phase.started_monotonic_seconds + i / 10)
            watts.append(busy_watts + 0.01 * (i % 2) if loaded else IDLE_WATTS + 0.01 * (i % 2))
    return PowerSeries(source, "wall", "measured", 100.0, tuple(times), power_watts=tuple(watts))


@pytest.fixture
def report(make_samples: MakeSamples) -> pb.ReportRequest:
    """A report with an energy run of which the board itself measured nothing."""
    samples = make_samples()
    samples.energy.phases.extend(phases())
    samples.energy.cpu_utilisation = 0.5
    samples.energy_absent_because = ""
    return pb.ReportRequest(measured=samples, sent_monotonic_seconds=321.5)


@pytest.fixture
def device(fleet: "Fleet") -> Device:
    return fleet.device()


@pytest.fixture
def job(store: Store, fleet: "Fleet", device: Device) -> Job:
    spec = MeasureSpec(fleet.run(), PRESETS["quick"].with_energy())
    return store.jobs.submit(device.id, spec)


def evaluated(reports: Reports, request: pb.ReportRequest, job: Job, store: Store) -> Outcome:
    """What comes of a report that arrives now."""
    metered = reports.end_metering(request, job)
    return Evaluation(store).outcome(request, job, store.now(), metered, {})


def measured(reports: Reports, request: pb.ReportRequest, job: Job, store: Store) -> Measurement:
    outcome = evaluated(reports, request, job, store)
    assert isinstance(outcome, Measurement)
    return outcome


def test_a_meter_on_the_network_gives_the_energy(
    store: Store, job: Job, report: pb.ReportRequest
) -> None:
    metering = ScriptedMetering((series_of(),))
    reports = Reports(store, metering)
    reports.claimed(job)

    outcome = measured(reports, report, job, store)

    assert metering.told == [
        ("started", job.device_id, job.id, job.spec),
        ("finished", job.id, 321.5, 14),
    ]
    assert outcome.energy is not None
    assert (outcome.energy.source, outcome.energy.scope) == ("plug", "wall")
    assert outcome.energy.gross_joules == pytest.approx(6.005 * 10 / 200, rel=0.02)
    assert outcome.energy.net_joules == pytest.approx(4.0 * 10 / 200, rel=0.02)
    assert outcome.energy_absent_because == ""
    assert outcome.energy_run is not None
    assert outcome.energy_run.series == (series_of(),)


def test_why_a_meter_gave_nothing_stands_in_the_result(
    store: Store, job: Job, report: pb.ReportRequest
) -> None:
    reports = Reports(store, ScriptedMetering((), "the plug at 10.0.0.7 did not answer"))
    reports.claimed(job)

    outcome = measured(reports, report, job, store)

    assert outcome.energy is None
    assert "10.0.0.7 did not answer" in outcome.energy_absent_because


def test_why_a_meter_gave_nothing_is_a_warning_where_the_board_measured(
    store: Store, job: Job, report: pb.ReportRequest
) -> None:
    board = series_of("ina226")
    report.measured.energy.series.append(
        pb.PowerSeries(
            source="ina226",
            scope="board",
            kind="measured",
            max_watts=100.0,
            monotonic_seconds=board.monotonic_seconds,
            power_watts=board.power_watts,
        )
    )
    reports = Reports(store, ScriptedMetering((), "the plug did not answer"))
    reports.claimed(job)

    outcome = measured(reports, report, job, store)

    assert outcome.energy is not None
    assert outcome.energy.source == "ina226"
    assert "the plug did not answer" in outcome.energy.warnings


def test_a_report_without_the_time_of_sending_is_told_to_the_meter(
    store: Store, job: Job, report: pb.ReportRequest
) -> None:
    metering = ScriptedMetering()
    reports = Reports(store, metering)
    reports.claimed(job)
    report.ClearField("sent_monotonic_seconds")

    evaluated(reports, report, job, store)

    assert metering.told[-1] == ("finished", job.id, None, 14)


def test_jobs_without_an_energy_run_start_no_meter(
    store: Store, device: Device, fleet: "Fleet"
) -> None:
    metering = ScriptedMetering()
    reports = Reports(store, metering)

    for spec in (fleet.spec(), fleet.verify_spec()):
        reports.claimed(store.jobs.submit(device.id, spec))

    assert metering.told == []


def test_a_meter_is_dropped_when_nobody_wants_its_series(store: Store, job: Job) -> None:
    metering = ScriptedMetering()
    reports = Reports(store, metering)

    reports.claimed(job)
    reports.left(job.device_id)
    reports.claimed(job)
    reports.claimed(job)
    reports.close()
    reports.claimed(job)
    failure = pb.Failure(kind=pb.Failure.KIND_TIMEOUT)
    evaluated(reports, pb.ReportRequest(failure=failure), job, store)
    reports.left(job.device_id)

    started, dropped = ("started", job.device_id, job.id, job.spec), ("dropped", job.id)
    assert metering.told == [
        started,
        dropped,
        started,
        dropped,
        started,
        dropped,
        started,
        dropped,
    ]


def test_a_meter_that_cannot_be_read_does_not_keep_a_device_from_its_job(
    store: Store, job: Job
) -> None:
    metering = ScriptedMetering()
    metering.broken = True

    Reports(store, metering).claimed(job)

    assert metering.told == [("started", job.device_id, job.id, job.spec)]


def keep(
    store: Store, fleet: "Fleet", device: Device, make: MakeMeasurement, utilisation: float
) -> None:
    spec = fleet.spec(f"{device.id} {utilisation}".encode())
    measurement = make(device.id, spec.run.model_sha256)
    [energy] = measurement.energies
    assert measurement.energy_run is not None
    metered = replace(
        measurement,
        energies=(replace(energy, power_watts=2.0 + 8.0 * utilisation, scope="wall"),),
        energy_run=replace(measurement.energy_run, cpu_utilisation=utilisation),
    )
    job = store.jobs.submit(device.id, spec)
    store.jobs.report(device.id, job.id, 1, "k", metered)


@pytest.mark.parametrize("owner", ["itself", "another with its CPU"])
def test_without_a_meter_energy_is_estimated_from_what_meters_said_before(
    store: Store,
    fleet: "Fleet",
    device: Device,
    job: Job,
    report: pb.ReportRequest,
    make_measurement: MakeMeasurement,
    owner: str,
) -> None:
    metered = device if owner == "itself" else fleet.device("press")
    for utilisation in (0.25, 0.5, 0.75):
        keep(store, fleet, metered, make_measurement, utilisation)

    outcome = measured(Reports(store, None), report, job, store)

    assert outcome.energy is not None
    assert (outcome.energy.kind, outcome.energy.scope) == ("estimated", "wall")
    assert outcome.energy.power_watts == pytest.approx(6.0)
    assert outcome.energy_absent_because == ""
    assert any("nothing measured the power" in w for w in outcome.energy.warnings)


def test_too_little_history_is_no_estimate_and_says_so(
    store: Store,
    fleet: "Fleet",
    device: Device,
    job: Job,
    report: pb.ReportRequest,
    make_measurement: MakeMeasurement,
) -> None:
    keep(store, fleet, device, make_measurement, 0.5)

    outcome = measured(Reports(store, None), report, job, store)

    assert outcome.energy is None
    assert "no estimate: 1 energy measurements are too few" in outcome.energy_absent_because


def test_a_throttled_cpu_is_not_estimated(
    store: Store,
    fleet: "Fleet",
    device: Device,
    job: Job,
    report: pb.ReportRequest,
    make_measurement: MakeMeasurement,
) -> None:
    for utilisation in (0.25, 0.5, 0.75):
        keep(store, fleet, device, make_measurement, utilisation)
    report.measured.thermal.throttle_events = 3

    outcome = measured(Reports(store, None), report, job, store)

    assert outcome.energy is None
    assert "throttled" in outcome.energy_absent_because
    assert "THROTTLED" in outcome.verdict.codes


def test_what_the_device_found_before_it_measured_is_in_the_verdict(
    store: Store, job: Job, report: pb.ReportRequest
) -> None:
    report.measured.preflight.problems.append("busy: 34 % of the CPU was in use by others")

    verdict = measured(Reports(store, None), report, job, store).verdict

    assert verdict == Verdict(
        "WARN", (Reason("BUSY", "WARN", "34 % of the CPU was in use by others"),)
    )


def test_what_an_emulated_device_measures_is_rejected_for_that(
    store: Store, device: Device, job: Job, report: pb.ReportRequest
) -> None:
    assert device.facts is not None
    facts = replace(device.facts, emulated=True)
    store.devices.open_session(device.id, "s", agent_version="0.1.0", facts=facts)

    verdict = measured(Reports(store, None), report, job, store).verdict

    assert (verdict.level, verdict.codes) == ("REJECT", ("EMULATED",))


def test_the_meter_of_a_report_that_makes_no_sense_is_dropped_with_its_job(
    store: Store, job: Job, report: pb.ReportRequest
) -> None:
    metering = ScriptedMetering()
    reports = Reports(store, metering)
    reports.claimed(job)
    report.measured.energy.phases[0].kind = pb.Phase.KIND_UNSPECIFIED

    with pytest.raises(MessageError):
        evaluated(reports, report, job, store)
    reports.left(job.device_id)

    assert metering.told[-1] == ("dropped", job.id)


def test_a_report_sent_again_has_what_the_meter_said(
    store: Store, job: Job, report: pb.ReportRequest
) -> None:
    metering = ScriptedMetering((series_of(),))
    reports = Reports(store, metering)
    reports.claimed(job)

    first, second = (measured(reports, report, job, store) for _ in range(2))

    assert first.energies == second.energies != ()
    assert len(metering.told) == 2
