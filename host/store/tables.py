"""The tables of the store. Rows stay inside `host.store`; its methods give frozen values."""

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

ID_LENGTH = 32  # a UUID in hexadecimal
SHA256_LENGTH = 64
KEY_LENGTH = 128


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time: aware and in UTC in Python, whatever the database keeps."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(
        self,
        value: datetime | None,
        dialect: Dialect,  # noqa: ARG002 - the base's signature
    ) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(
        self,
        value: Any | None,
        dialect: Dialect,  # noqa: ARG002 - the base's signature
    ) -> datetime | None:
        if value is None:
            return None
        # SQLite has no time zones: what it gives back is the UTC that was put in.
        moment: datetime = value
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class Base(DeclarativeBase):
    """All tables of the store."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcDateTime(),
        float: Double(),
        dict[str, Any]: JSON(none_as_null=True),
        bytes: LargeBinary(),
    }


class DeviceRow(Base):
    """A registered machine; a removed one keeps its row, and its name becomes free.

    A revoked one keeps its name and may enrol again. `session_id` is that of the last Hello.
    """

    __tablename__ = "devices"
    __table_args__ = (
        Index(
            "uq_devices_name_active",
            "name",
            unique=True,
            sqlite_where=text("removed_at IS NULL"),
            postgresql_where=text("removed_at IS NULL"),
        ),
        Index(
            "uq_devices_spki_active",
            "spki_sha256",
            unique=True,
            sqlite_where=text("removed_at IS NULL"),
            postgresql_where=text("removed_at IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    spki_sha256: Mapped[str] = mapped_column(String(SHA256_LENGTH))
    enrolled_at: Mapped[datetime]
    last_seen_at: Mapped[datetime | None]
    agent_version: Mapped[str | None] = mapped_column(Text)
    facts: Mapped[dict[str, Any] | None]
    removed_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    session_id: Mapped[str | None] = mapped_column(String(64))


class TokenRow(Base):
    """A one-time right to enrol one device; of its secret only the hash is kept."""

    __tablename__ = "enrolment_tokens"

    secret_sha256: Mapped[str] = mapped_column(String(SHA256_LENGTH), primary_key=True)
    device_name: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class BlobRow(Base):
    """A file kept under the SHA-256 of its content."""

    __tablename__ = "blobs"

    sha256: Mapped[str] = mapped_column(String(SHA256_LENGTH), primary_key=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]


class StudyRow(Base):
    """One search from start to end."""

    __tablename__ = "studies"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    config_json: Mapped[str] = mapped_column(Text)
    seed: Mapped[int] = mapped_column(BigInteger)
    stage: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    failed_because: Mapped[str | None] = mapped_column(Text)


class JobRow(Base):
    """The queue between whoever wants something of a device and the gateway.

    `inputs_sha256` is that of a verify job; `not_before` is set while its device was not ready.
    `turn` orders the jobs of different studies on one device so that they take turns.
    """

    __tablename__ = "jobs"
    __table_args__ = (Index("ix_jobs_queue", "device_id", "state", "priority", "turn", "number"),)

    number: Mapped[int] = mapped_column(primary_key=True)  # the order of submission
    id: Mapped[str] = mapped_column(String(ID_LENGTH), unique=True)
    key: Mapped[str] = mapped_column(String(SHA256_LENGTH), unique=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    model_sha256: Mapped[str | None] = mapped_column(ForeignKey("blobs.sha256"))
    inputs_sha256: Mapped[str | None] = mapped_column(ForeignKey("blobs.sha256"))
    kind: Mapped[str] = mapped_column(String(16))
    spec: Mapped[dict[str, Any]]
    label: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16))
    attempt: Mapped[int]
    lost_attempts: Mapped[int]  # since the job was last queued by a person or a study
    refusals: Mapped[int]  # likewise: how often its device was not ready
    not_before: Mapped[datetime | None]
    not_ready_because: Mapped[str | None] = mapped_column(Text)
    priority: Mapped[int]
    turn: Mapped[int] = mapped_column(BigInteger)
    purpose: Mapped[str] = mapped_column(String(200))
    study_id: Mapped[int | None] = mapped_column(ForeignKey("studies.id"), index=True)
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]


class LeaseRow(Base):
    """An attempt at a job; open until `ended_at` is set."""

    __tablename__ = "leases"
    __table_args__ = (Index("ix_leases_open", "device_id", "ended_at"),)

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    session_id: Mapped[str] = mapped_column(String(64))
    attempt: Mapped[int]
    lease_seconds: Mapped[float]
    taken_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class MeasurementRow(Base):
    """What a device measured; never changed. The columns are for queries and lists: `content`
    holds everything, with every raw sample.
    """

    __tablename__ = "measurements"
    __table_args__ = (Index("ix_measurements_model", "device_id", "model_sha256"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), unique=True)
    idempotency_key: Mapped[str] = mapped_column(String(100))
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    model_sha256: Mapped[str] = mapped_column(ForeignKey("blobs.sha256"))
    protocol: Mapped[str] = mapped_column(Text)
    runtime: Mapped[str] = mapped_column(Text)
    runtime_library: Mapped[str] = mapped_column(Text)
    runtime_version: Mapped[str] = mapped_column(Text)
    threads: Mapped[int]
    latency_seconds: Mapped[float]
    latency_kind: Mapped[str] = mapped_column(String(16))
    verdict: Mapped[str] = mapped_column(String(16))
    energy_kind: Mapped[str | None] = mapped_column(String(16))
    peak_rss_bytes: Mapped[int] = mapped_column(BigInteger)
    measured_at: Mapped[datetime]
    content: Mapped[bytes]


class ResultRow(Base):
    """What came of a verify, profile or probe job, as compressed JSON; never changed."""

    __tablename__ = "job_results"
    __table_args__ = (Index("ix_job_results_latest", "device_id", "kind", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), unique=True)
    idempotency_key: Mapped[str] = mapped_column(String(100))
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    kind: Mapped[str] = mapped_column(String(16))
    reported_at: Mapped[datetime]
    content: Mapped[bytes]


class MeterRow(Base):
    """The meter on the network that measures a device's supply."""

    __tablename__ = "meters"

    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    url: Mapped[str] = mapped_column(Text)
    options: Mapped[dict[str, Any]]


class FailureRow(Base):
    """Why a job has no result; never changed."""

    __tablename__ = "measurement_failures"

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), unique=True)
    idempotency_key: Mapped[str | None] = mapped_column(String(100))  # None: the host said so
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    model_sha256: Mapped[str | None] = mapped_column(ForeignKey("blobs.sha256"))
    kind: Mapped[str] = mapped_column(String(32))
    message: Mapped[str] = mapped_column(Text)
    failed_at: Mapped[datetime]


class CandidateRow(Base):
    """A network that may be chosen, under the key of its live graph."""

    __tablename__ = "candidates"

    key: Mapped[str] = mapped_column(String(KEY_LENGTH), primary_key=True)
    space: Mapped[str] = mapped_column(String(64))
    text: Mapped[str] = mapped_column(Text)
    macs: Mapped[int] = mapped_column(BigInteger)
    parameters: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]


class ScoreRow(Base):
    """What a proxy said of an untrained candidate; a value of None was not finite."""

    __tablename__ = "scores"

    candidate_key: Mapped[str] = mapped_column(ForeignKey("candidates.key"), primary_key=True)
    proxy: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[str] = mapped_column(String(64), primary_key=True)
    input_key: Mapped[str] = mapped_column(String(KEY_LENGTH), primary_key=True)
    value: Mapped[float | None]


class CostModelRow(Base):
    """A fitted cost model of a device, as JSON."""

    __tablename__ = "cost_models"
    __table_args__ = (Index("ix_cost_models_latest", "device_id", "target", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    target: Mapped[str] = mapped_column(String(64))
    model_json: Mapped[str] = mapped_column(Text)
    n: Mapped[int]
    created_at: Mapped[datetime]


class StudyCandidateRow(Base):
    """The part that a candidate plays in a study."""

    __tablename__ = "study_candidates"

    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), primary_key=True)
    candidate_key: Mapped[str] = mapped_column(ForeignKey("candidates.key"), primary_key=True)
    role: Mapped[str] = mapped_column(String(32), primary_key=True)
    position: Mapped[int]


class PredictionRecord(Base):
    """What a cost model said of a candidate on a device, with its interval."""

    __tablename__ = "predictions"

    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), primary_key=True)
    candidate_key: Mapped[str] = mapped_column(ForeignKey("candidates.key"), primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    target: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[float]
    low: Mapped[float]
    high: Mapped[float]
    level: Mapped[float]
    model_id: Mapped[int | None] = mapped_column(ForeignKey("cost_models.id"))


class AccuracyRecord(Base):
    """How a trained form of a candidate does on data that it was not trained on."""

    __tablename__ = "accuracies"

    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), primary_key=True)
    candidate_key: Mapped[str] = mapped_column(ForeignKey("candidates.key"), primary_key=True)
    form: Mapped[str] = mapped_column(String(64), primary_key=True)
    metrics: Mapped[dict[str, Any]]
    n: Mapped[int]


class FrontRow(Base):
    """A candidate on the Pareto front of a study."""

    __tablename__ = "study_fronts"

    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), primary_key=True)
    candidate_key: Mapped[str] = mapped_column(ForeignKey("candidates.key"), primary_key=True)
    position: Mapped[int]


class StudyResultRow(Base):
    """The outcome of a finished step of a study, as JSON."""

    __tablename__ = "study_results"

    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), primary_key=True)
    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    json_text: Mapped[str] = mapped_column(Text)


class BundleRow(Base):
    """A bundle written by a study."""

    __tablename__ = "bundles"
    __table_args__ = (UniqueConstraint("study_id", "path"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"))
    path: Mapped[str] = mapped_column(Text)
    manifest_sha256: Mapped[str] = mapped_column(String(SHA256_LENGTH))
    created_at: Mapped[datetime]


class AuditRow(Base):
    """Who did what; each row holds the hash of the one before. Triggers forbid to change any."""

    __tablename__ = "audit_log"

    number: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    actor: Mapped[str] = mapped_column(Text)
    action: Mapped[str] = mapped_column(String(32))
    subject: Mapped[str] = mapped_column(Text)
    details_json: Mapped[str] = mapped_column(Text)
    previous_sha256: Mapped[str] = mapped_column(String(SHA256_LENGTH), unique=True)
    sha256: Mapped[str] = mapped_column(String(SHA256_LENGTH), unique=True)
