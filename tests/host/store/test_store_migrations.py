"""A store of an older schema opens with everything that it held."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import insert, inspect, text
from sqlalchemy.sql.schema import Table

import host.store.migrations
from host.device import DeviceFacts
from host.measurement import (
    Energy,
    Measurement,
    MeasurementFailure,
    MeasureSpec,
    ModelRun,
    Thermal,
)
from host.store import Store, StoreError
from host.store.codec import to_plain
from host.store.database import Database
from host.store.tables import Base
from host.workspace import Workspace

NOON = datetime(2026, 9, 1, 12, 0, tzinfo=UTC)
DEVICE, MODEL, OTHER = "d" * 32, "a" * 64, "b" * 64
OLD_SPEC = {
    "model_sha256": MODEL,
    "model_size_bytes": 7,
    "runtime": "onnx",
    "threads": 2,
    "warmup_runs": 5,
    "warmup_seconds": 0.2,
    "min_samples": 30,
    "min_seconds": 0.5,
    "timeout_seconds": 120.0,
    "protocol": "genba-measure/1",
}
OLD_MEASUREMENT = {
    "idempotency_key": "k",
    "device_id": DEVICE,
    "model_sha256": MODEL,
    "protocol": "genba-measure/1",
    "runtime": "onnx",
    "runtime_library": "onnxruntime",
    "runtime_version": "1.23.2",
    "threads": 2,
    "latency_samples_seconds": [0.010, 0.011, 0.0135],
    "runs_per_sample": 4,
    "warmup_runs": 6,
    "load_seconds": 0.03,
    "first_inference_seconds": 0.02,
    "base_rss_bytes": 50_000_000,
    "load_rss_bytes": 60_000_000,
    "peak_rss_bytes": 5_000_000_000,
    "power": None,
    "power_absent_because": "no powercap zone",
    "temperature_start_celsius": 40.0,
    "temperature_end_celsius": None,
    "governor": "performance",
    "load_average_start": 0.25,
    "runtime_options": ["intra_op_num_threads=2"],
    "cpu_seconds": 3.1,
    "measured_at": NOON,
}
OLD_POWER = {
    "source": "rapl",
    "scope": "package",
    "kind": "measured",
    "energy_joules": 5.0,
    "window_seconds": 2.0,
    "inferences": 100,
    "idle_watts": 1.5,
}


class OldStore:
    """A store of the schema 0001, filled through its own tables."""

    def __init__(self, place: str | Path, folder: Path) -> None:
        self.place = place
        self.folder = folder
        self._database = Database(place)
        self.migrate(command.upgrade, "0001")
        self.add("devices", id=DEVICE, name="kiosk", spki_sha256="s", enrolled_at=NOON, facts=None)
        for sha256 in (MODEL, OTHER):
            self.add("blobs", sha256=sha256, size_bytes=7, created_at=NOON)

    def migrate(self, how: Callable[[Config, str], None], revision: str) -> None:
        config = Config()
        scripts = Path(host.store.migrations.__file__).parent
        config.set_main_option("script_location", str(scripts).replace("%", "%%"))
        with self._database.connect_to_migrate() as connection:
            config.attributes["connection"] = connection
            how(config, revision)
        self._tables: dict[str, Table] = {}

    def add(self, name: str, /, **values: Any) -> None:
        self.add_all(name, [values])

    def add_all(self, name: str, rows: list[dict[str, Any]]) -> None:
        with self._database.write() as session:
            session.execute(insert(self._table(name)), rows)

    def add_job(self, job_id: str, state: str) -> None:
        self.add(
            "jobs",
            id=job_id,
            key=job_id * 2,
            device_id=DEVICE,
            model_sha256=MODEL,
            spec=OLD_SPEC,
            state=state,
            attempt=1,
            lost_attempts=0,
            priority=0,
            purpose="measure",
            study_id=None,
            created_at=NOON,
            finished_at=NOON if state == "done" else None,
        )
        self.add(
            "leases",
            id=job_id,
            job_id=job_id,
            device_id=DEVICE,
            session_id="s",
            attempt=1,
            lease_seconds=60.0,
            taken_at=NOON,
            expires_at=NOON,
            ended_at=None if state == "leased" else NOON,
        )

    def close(self) -> None:
        self._database.close()

    def open_new(self) -> Store:
        self.close()
        return Store.open(self.place, blobs_folder=self.folder)

    def _table(self, name: str) -> Table:
        # The columns as they are in the database; the types as the tables of today have them.
        if name not in self._tables:
            types = {
                column.name: column.type
                for table in Base.metadata.sorted_tables
                for column in table.columns
                if table.name == name
            }
            reflected = inspect(self._database.engine).get_columns(name)
            self._tables[name] = _as_table(name, reflected, types)
        return self._tables[name]


def _as_table(name: str, reflected: list[Any], types: dict[str, Any]) -> Table:
    from sqlalchemy import Column, MetaData

    return Table(
        name, MetaData(), *(Column(c["name"], types.get(c["name"], c["type"])) for c in reflected)
    )


@pytest.fixture
def old(empty_place: str | Path, workspace: Workspace) -> Iterator[OldStore]:
    opened = OldStore(empty_place, workspace.blobs_folder)
    yield opened
    opened.close()


def test_measurements_of_the_old_protocol_are_kept_with_a_warning(old: OldStore) -> None:
    old.add_job("1" * 32, "done")
    old.add("measurements", job_id="1" * 32, **OLD_MEASUREMENT)

    with old.open_new() as store:
        [stored] = store.measurements.list(DEVICE, MODEL)
        outcome = store.jobs.outcome("1" * 32)

    kept = stored.measurement
    assert kept == outcome
    assert kept.run == ModelRun(MODEL, 7, "onnx", threads=2)
    assert (kept.protocol, kept.plan, kept.preflight) == ("genba-measure/1", None, None)
    assert (kept.latency_seconds, kept.latency_kind) == (0.011, "measured")
    assert kept.sample_count == 3
    [process] = kept.processes
    [block] = process.blocks
    assert (process.runs_per_sample, process.warmup_runs) == (4, 6)
    assert (block.latency_seconds, block.run_delay_seconds) == ((0.010, 0.011, 0.0135), None)
    assert block.lasted_seconds == pytest.approx(4 * 0.0345)
    assert kept.peak_rss_bytes == 5_000_000_000
    assert kept.thermal == Thermal(start_celsius=40.0)
    assert kept.runtime_options == ("intra_op_num_threads=2",)
    assert (kept.energies, kept.energy_absent_because) == ((), "no powercap zone")
    assert (kept.verdict.level, kept.verdict.codes) == ("WARN", ("OLD_PROTOCOL",))
    assert kept.measured_at == NOON


def test_power_of_the_old_protocol_becomes_an_energy(old: OldStore) -> None:
    old.add_job("1" * 32, "done")
    old.add(
        "measurements",
        job_id="1" * 32,
        **OLD_MEASUREMENT | {"power": OLD_POWER, "power_absent_because": ""},
    )

    with old.open_new() as store:
        [stored] = store.measurements.list()

    energy = stored.measurement.energy
    assert isinstance(energy, Energy)
    assert (energy.source, energy.scope, energy.kind) == ("rapl", "package", "measured")
    assert energy.gross_joules == pytest.approx(0.05)
    assert energy.net_joules == pytest.approx(0.05 - 1.5 * 2 / 100)
    assert energy.power_watts == pytest.approx(2.5)
    assert stored.measurement.energy_absent_because == ""


def test_a_power_without_idle_is_no_energy_and_says_so(old: OldStore) -> None:
    old.add_job("1" * 32, "done")
    power = OLD_POWER | {"idle_watts": None}
    old.add("measurements", job_id="1" * 32, **OLD_MEASUREMENT | {"power": power})

    with old.open_new() as store:
        [stored] = store.measurements.list()

    assert stored.measurement.energies == ()
    assert "without the idle power" in stored.measurement.energy_absent_because


def test_old_jobs_are_read_and_those_not_done_are_cancelled(old: OldStore) -> None:
    states = ("done", "failed", "queued", "leased", "cancelled")
    for number, state in enumerate(states):
        old.add_job(str(number) * 32, state)
    old.add(
        "measurement_failures",
        job_id="1" * 32,
        idempotency_key="k",
        device_id=DEVICE,
        model_sha256=MODEL,
        kind="timeout",
        message="because",
        failed_at=NOON,
    )

    with old.open_new() as store:
        jobs = [store.jobs.get(str(number) * 32) for number in range(5)]
        failure = store.jobs.outcome("1" * 32)
        waiting = store.jobs.waiting(DEVICE)

    assert [job.state for job in jobs] == ["done", "failed", "cancelled", "cancelled", "cancelled"]
    spec = jobs[0].spec
    assert isinstance(spec, MeasureSpec)
    assert spec.run == ModelRun(MODEL, 7, "onnx", threads=2)
    assert (spec.plan.min_samples, spec.plan.warmup_seconds) == (30, 0.2)
    assert (spec.timeout_seconds, spec.protocol) == (120.0, "genba-measure/1")
    assert [job.key for job in jobs] == [str(number) * 64 for number in range(5)]
    assert isinstance(failure, MeasurementFailure)
    assert (failure.kind, failure.model_sha256) == ("timeout", MODEL)
    assert waiting == 0


def test_many_measurements_are_brought_over(old: OldStore) -> None:
    ids = [f"{number:032}" for number in range(1203)]
    old.add_all("jobs", [_job(job_id) for job_id in ids])
    old.add_all("measurements", [{"job_id": job_id} | OLD_MEASUREMENT for job_id in ids])

    with old.open_new() as store:
        kept = store.measurements.of_device(DEVICE)

    assert len(kept) == 1203
    assert all(isinstance(measurement, Measurement) for measurement in kept)


def _job(job_id: str) -> dict[str, Any]:
    return {
        "id": job_id,
        "key": job_id * 2,
        "device_id": DEVICE,
        "model_sha256": MODEL,
        "spec": OLD_SPEC,
        "state": "done",
        "attempt": 1,
        "lost_attempts": 0,
        "priority": 0,
        "purpose": "measure",
        "created_at": NOON,
    }


def test_the_schema_brought_over_is_that_of_the_tables(old: OldStore) -> None:
    old.add_job("1" * 32, "done")
    with old.open_new() as store, store._database.read() as session:
        context = MigrationContext.configure(session.connection(), opts={"compare_type": True})

        assert compare_metadata(context, Base.metadata) == []


def test_a_store_brought_over_holds_new_jobs_and_its_references(
    old: OldStore,
) -> None:
    old.add_job("1" * 32, "queued")
    with old.open_new() as store:
        store.devices.add_token("press", "h", datetime(2099, 1, 1, tzinfo=UTC))
        spec = MeasureSpec(ModelRun(MODEL, 7))

        job = store.jobs.submit(DEVICE, spec)

        assert job.spec == spec
        with pytest.raises(StoreError), store._database.write() as session:
            session.execute(text("UPDATE jobs SET device_id = 'nobody'"))


def test_a_migration_that_would_break_a_reference_does_not_happen(
    old: OldStore,
) -> None:
    if not isinstance(old.place, Path):
        pytest.skip("only SQLite looks at references after a migration")
    old.add_job("1" * 32, "done")
    with old._database.engine.connect() as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
        raw.execute("PRAGMA foreign_keys = OFF")
        raw.execute("UPDATE leases SET job_id = 'nothing'")

    with pytest.raises(StoreError, match="'leases' refers to one of 'jobs'"):
        old.open_new()

    untouched = Database(old.place)
    with untouched.read() as session:
        assert session.execute(text("SELECT version_num FROM alembic_version")).scalar() == "0001"
        assert "kind" not in {c["name"] for c in inspect(untouched.engine).get_columns("jobs")}
    untouched.close()


def a_queued_job(job_id: str) -> dict[str, Any]:
    """A row of jobs as the schema 0002 has them."""
    spec = MeasureSpec(ModelRun(MODEL, 7))
    return _job(job_id) | {
        "kind": spec.kind,
        "spec": to_plain(spec),
        "label": "a label",
        "state": "queued",
        "attempt": 0,
        "refusals": 0,
    }


@pytest.fixture
def second(old: OldStore) -> OldStore:
    """A store of the schema 0002 with a measurement, a queued job and one under a lease."""
    old.add_job("1" * 32, "done")
    old.add("measurements", job_id="1" * 32, **OLD_MEASUREMENT)
    old.migrate(command.upgrade, "0002")
    old.add("jobs", **a_queued_job("2" * 32))
    old.add("jobs", **a_queued_job("3" * 32) | {"state": "leased", "attempt": 1})
    old.add(
        "leases",
        id="3" * 32,
        job_id="3" * 32,
        device_id=DEVICE,
        session_id="s",
        attempt=1,
        lease_seconds=60.0,
        taken_at=NOON,
        expires_at=NOON,
        ended_at=None,
    )
    return old


def test_the_second_schema_is_brought_over_with_its_queue(second: OldStore) -> None:
    with second.open_new() as store:
        jobs = [store.jobs.get(str(number) * 32) for number in (1, 2, 3)]
        device = store.devices.by_name("kiosk")
        kept = store.measurements.of_device(DEVICE)
        session = store.devices.session_of(DEVICE)

        assert [job.state for job in jobs] == ["done", "queued", "leased"]
        assert jobs[1].label == "a label"
        assert (device.id, device.revoked_at, session) == (DEVICE, None, None)
        assert len(kept) == 1
        assert list(store.audit.entries()) == []


def test_the_jobs_of_the_second_schema_are_claimed(second: OldStore) -> None:
    facts = DeviceFacts("k", "x86_64", 64, "c", (), None, 1, 1, "d", "6", "3.11", None, None, None)
    with second.open_new() as store:
        assert store.devices.open_session(DEVICE, "new", agent_version="1", facts=facts) == 1

        lease = store.jobs.claim(DEVICE, "new", 60)

        assert lease is not None
        assert lease.job.id in ("2" * 32, "3" * 32)


def test_the_log_is_guarded_in_a_store_brought_over(second: OldStore) -> None:
    with second.open_new() as store:
        store.audit.note("login", "web", {})

        for statement in ("DELETE FROM audit_log", "UPDATE audit_log SET actor = 'nobody'"):
            with (
                pytest.raises(StoreError, match="only grows"),
                store._database.write() as session,
            ):
                session.execute(text(statement))

        assert store.audit.verify().entries == 1


def test_the_log_cannot_be_migrated_away(second: OldStore) -> None:
    with second.open_new() as store:
        store.audit.note("login", "web", {})

    with pytest.raises(NotImplementedError, match="restore the copy"):
        second.migrate(command.downgrade, "0002")

    with second.open_new() as store:
        assert [entry.action for entry in store.audit.entries()] == ["login"]
