"""Jobs of several kinds, whole measurements as compressed JSON, and meters on the network."""

import json
import statistics
import zlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

ROWS_AT_ONCE = 500
OLD_PROTOCOL = "genba-measure/1"
_JSON = sa.JSON(none_as_null=True)
_OLD_COLUMNS: tuple[sa.Column[Any], ...] = (
    sa.Column("latency_samples_seconds", _JSON),
    sa.Column("runs_per_sample", sa.Integer()),
    sa.Column("warmup_runs", sa.Integer()),
    sa.Column("load_seconds", sa.Double()),
    sa.Column("first_inference_seconds", sa.Double()),
    sa.Column("base_rss_bytes", sa.BigInteger()),
    sa.Column("load_rss_bytes", sa.BigInteger()),
    sa.Column("power", _JSON),
    sa.Column("power_absent_because", sa.Text()),
    sa.Column("temperature_start_celsius", sa.Double()),
    sa.Column("temperature_end_celsius", sa.Double()),
    sa.Column("governor", sa.Text()),
    sa.Column("load_average_start", sa.Double()),
    sa.Column("runtime_options", _JSON),
    sa.Column("cpu_seconds", sa.Double()),
)
_MEASUREMENTS = sa.table(
    "measurements",
    sa.column("id", sa.Integer()),
    sa.column("job_id", sa.String()),
    sa.column("device_id", sa.String()),
    sa.column("model_sha256", sa.String()),
    sa.column("protocol", sa.Text()),
    sa.column("runtime", sa.Text()),
    sa.column("runtime_library", sa.Text()),
    sa.column("runtime_version", sa.Text()),
    sa.column("threads", sa.Integer()),
    sa.column("peak_rss_bytes", sa.BigInteger()),
    sa.column("measured_at", sa.DateTime(timezone=True)),
    sa.column("latency_seconds", sa.Double()),
    sa.column("latency_kind", sa.String()),
    sa.column("verdict", sa.String()),
    sa.column("energy_kind", sa.String()),
    sa.column("content", sa.LargeBinary()),
    *(sa.column(column.name, column.type) for column in _OLD_COLUMNS),
)
_JOBS = sa.table(
    "jobs",
    sa.column("number", sa.Integer()),
    sa.column("id", sa.String()),
    sa.column("kind", sa.String()),
    sa.column("spec", _JSON),
    sa.column("label", sa.Text()),
    sa.column("refusals", sa.Integer()),
    sa.column("state", sa.String()),
    sa.column("finished_at", sa.DateTime(timezone=True)),
)
_BLOBS = sa.table("blobs", sa.column("sha256", sa.String()), sa.column("size_bytes", sa.Integer()))


def upgrade() -> None:
    """Change the tables and bring over what they hold."""

    _change_jobs()
    _change_failures()
    _change_measurements()
    op.create_table(
        "job_results",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("idempotency_key", sa.String(length=100), nullable=False),
        sa.Column("device_id", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("reported_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["device_id"], ["devices.id"], name=op.f("fk_job_results_device_id_devices")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_results_job_id_jobs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_results")),
        sa.UniqueConstraint("job_id", name=op.f("uq_job_results_job_id")),
    )
    op.create_index("ix_job_results_latest", "job_results", ["device_id", "kind", "id"])
    op.create_table(
        "meters",
        sa.Column("device_id", sa.String(length=32), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("options", _JSON, nullable=False),
        sa.ForeignKeyConstraint(
            ["device_id"], ["devices.id"], name=op.f("fk_meters_device_id_devices")
        ),
        sa.PrimaryKeyConstraint("device_id", name=op.f("pk_meters")),
    )


def _change_jobs() -> None:
    with op.batch_alter_table("jobs") as jobs:
        jobs.alter_column("model_sha256", existing_type=sa.String(length=64), nullable=True)
        jobs.add_column(sa.Column("inputs_sha256", sa.String(length=64), nullable=True))
        jobs.add_column(sa.Column("kind", sa.String(length=16), nullable=True))
        jobs.add_column(sa.Column("label", sa.Text(), nullable=True))
        jobs.add_column(sa.Column("refusals", sa.Integer(), nullable=True))
        jobs.add_column(sa.Column("not_before", sa.DateTime(timezone=True), nullable=True))
        jobs.add_column(sa.Column("not_ready_because", sa.Text(), nullable=True))
        jobs.create_foreign_key(
            op.f("fk_jobs_inputs_sha256_blobs"), "blobs", ["inputs_sha256"], ["sha256"]
        )
    connection = op.get_bind()
    connection.execute(sa.update(_JOBS).values(kind="measure", label="", refusals=0))
    # No agent measures by the old protocol any more: whoever wants the figure asks anew.
    connection.execute(
        sa.update(_JOBS)
        .where(_JOBS.c.state.in_(("queued", "leased")))
        .values(state="cancelled", finished_at=datetime.now(UTC))
    )
    for rows in _in_parts(sa.select(_JOBS.c.number, _JOBS.c.spec), _JOBS.c.number):
        for row in rows:
            connection.execute(
                sa.update(_JOBS)
                .where(_JOBS.c.number == row["number"])
                .values(spec=_new_spec(row["spec"]))
            )
    with op.batch_alter_table("jobs") as jobs:
        for name, kind in (
            ("kind", sa.String(16)),
            ("label", sa.Text()),
            ("refusals", sa.Integer()),
        ):
            jobs.alter_column(name, existing_type=kind, nullable=False)


def _change_failures() -> None:
    with op.batch_alter_table("measurement_failures") as failures:
        failures.alter_column("model_sha256", existing_type=sa.String(length=64), nullable=True)


def _change_measurements() -> None:
    added: tuple[sa.Column[Any], ...] = (
        sa.Column("latency_seconds", sa.Double()),
        sa.Column("latency_kind", sa.String(length=16)),
        sa.Column("verdict", sa.String(length=16)),
        sa.Column("content", sa.LargeBinary()),
    )
    with op.batch_alter_table("measurements") as measurements:
        for column in added:
            measurements.add_column(column)
        measurements.add_column(sa.Column("energy_kind", sa.String(length=16), nullable=True))
    connection = op.get_bind()
    sizes = sa.select(_MEASUREMENTS, _BLOBS.c.size_bytes).join_from(
        _MEASUREMENTS, _BLOBS, _BLOBS.c.sha256 == _MEASUREMENTS.c.model_sha256
    )
    for rows in _in_parts(sizes, _MEASUREMENTS.c.id):
        for row in rows:
            new = _new_measurement(row)
            content = json.dumps(new, allow_nan=False, separators=(",", ":"))
            connection.execute(
                sa.update(_MEASUREMENTS)
                .where(_MEASUREMENTS.c.id == row["id"])
                .values(
                    latency_seconds=statistics.median(row["latency_samples_seconds"]),
                    latency_kind="measured",
                    verdict="WARN",
                    energy_kind=new["energies"][0]["kind"] if new["energies"] else None,
                    content=zlib.compress(content.encode()),
                )
            )
    with op.batch_alter_table("measurements") as measurements:
        for column in added:
            measurements.alter_column(column.name, existing_type=column.type, nullable=False)
        for column in _OLD_COLUMNS:
            measurements.drop_column(column.name)


def _in_parts(
    statement: sa.Select[Any], key: sa.ColumnClause[int]
) -> Iterator[list[Mapping[str, Any]]]:
    """The rows in the order of their key, a few at a time: a fleet measures for years."""
    last = -1
    while True:
        part = statement.where(key > last).order_by(key).limit(ROWS_AT_ONCE)
        rows: list[Mapping[str, Any]] = [*op.get_bind().execute(part).mappings()]
        if not rows:
            return
        last = rows[-1][key.name]
        yield rows


def _new_spec(old: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "run": {
            "model_sha256": old["model_sha256"],
            "model_size_bytes": old["model_size_bytes"],
            "runtime": old["runtime"],
            "threads": old["threads"],
            "input_shapes": [],
            "options": [],
        },
        "plan": {
            "processes": 1,
            "warmup_runs": old["warmup_runs"],
            "warmup_seconds": old["warmup_seconds"],
            "min_blocks": 1,
            "block_runs": old["min_samples"],
            "block_seconds": old["min_seconds"],
            "min_samples": old["min_samples"],
            "half_width": 1.0,  # it did not look at the interval
            "budget_seconds": old["timeout_seconds"],
            "energy_windows": 0,
            "energy_window_seconds": 0.0,
            "paced_hertz": None,
        },
        "readiness": {
            "observe_seconds": 0.0,
            "max_foreign_cpu": 1.0,
            "min_free_ram_bytes": 0,
            "max_start_celsius": None,
            "wait_seconds": 0.0,
            "measure_when_busy": True,
        },
        "timeout_seconds": old["timeout_seconds"],
        "protocol": old["protocol"],
    }


def _new_measurement(old: Mapping[str, Any]) -> dict[str, Any]:
    power = old["power"]
    energies = [] if power is None or power["idle_watts"] is None else [_new_energy(power)]
    because = old["power_absent_because"]
    if power is not None and not energies:
        because = f"{power['source']} was read without the idle power, so there is no net energy"
    measured_at: datetime = old["measured_at"]
    if measured_at.tzinfo is None:  # SQLite keeps UTC without saying so
        measured_at = measured_at.replace(tzinfo=UTC)
    return {
        "device_id": old["device_id"],
        "run": {
            "model_sha256": old["model_sha256"],
            "model_size_bytes": old["size_bytes"],
            "runtime": old["runtime"],
            "threads": old["threads"],
            "input_shapes": [],
            "options": [],
        },
        "plan": None,
        "protocol": old["protocol"],
        "runtime_library": old["runtime_library"],
        "runtime_version": old["runtime_version"],
        "runtime_options": old["runtime_options"],
        "cpus": [],
        "preflight": None,
        "processes": [_new_process(old)],
        "thermal": {
            "start_celsius": old["temperature_start_celsius"],
            "end_celsius": old["temperature_end_celsius"],
        },
        "governor": old["governor"],
        "load_average_start": old["load_average_start"],
        "energy_run": None,
        "energies": energies,
        "energy_absent_because": "" if energies else because,
        "verdict": {
            "level": "WARN",
            "reasons": [
                {
                    "code": "OLD_PROTOCOL",
                    "level": "WARN",
                    "sentence": (
                        f"it was measured by {old['protocol']}, which did not look for what"
                        " disturbed it: measure the model again"
                    ),
                }
            ],
        },
        "measured_at": measured_at.isoformat(),
    }


def _new_process(old: Mapping[str, Any]) -> dict[str, Any]:
    # What the old protocol did not look at is empty, or 0 where a number must stand.
    samples = old["latency_samples_seconds"]
    return {
        "memory": {name: old[name] for name in _MEMORY},
        "load_seconds": old["load_seconds"],
        "first_inference_seconds": old["first_inference_seconds"],
        "warmup_runs": old["warmup_runs"],
        "steady": False,
        "runs_per_sample": old["runs_per_sample"],
        "call_overhead_seconds": 0.0,
        "blocks": [
            {
                "started_monotonic_seconds": 0.0,
                "lasted_seconds": sum(samples) * old["runs_per_sample"],
                "canary_seconds": 0.0,
                "reference_seconds": [],
                "reference_cpu_seconds": [],
                "latency_seconds": samples,
                "cpu_seconds": [],
            }
        ],
    }


_MEMORY = ("base_rss_bytes", "load_rss_bytes", "peak_rss_bytes")


def _new_energy(power: Mapping[str, Any]) -> dict[str, Any]:
    gross = power["energy_joules"] / power["inferences"]
    net = gross - power["idle_watts"] * power["window_seconds"] / power["inferences"]
    return {
        "source": power["source"],
        "scope": power["scope"],
        "kind": power["kind"],
        "gross_joules": gross,
        "gross_interval_joules": [gross, gross],
        "net_joules": net,
        "net_interval_joules": [net, net],
        "power_watts": power["energy_joules"] / power["window_seconds"],
        "idle_watts": power["idle_watts"],
        "windows": 1,
        "inferences": power["inferences"],
        "readings": 2,
        "reading_hertz": 1 / power["window_seconds"],
        "lag_seconds": 0.0,
        "warnings": [f"one window of {OLD_PROTOCOL}: the interval is not known"],
    }


def downgrade() -> None:
    """Refuse: the new measurements do not fit into the old tables."""
    raise NotImplementedError("restore the copy of the store that was made before the update")
