"""The host's memory: devices, jobs, measurements, candidates, studies, and files by hash."""

from host.store.acts import (
    Act,
    Answer,
    Claim,
    Renewal,
    Report,
    SessionSupersededError,
    UnknownJobError,
)
from host.store.audit import AuditCheck, AuditEntry
from host.store.blobs import Blob, BlobMismatchError, IncomingBlob, UnknownBlobError
from host.store.bundles import StoredBundle
from host.store.candidates import StoredCandidate, StoredScore, UnknownCandidateError
from host.store.codec import StoredValueError
from host.store.cost_models import StoredCostModel
from host.store.database import ConflictError, StoreError, StoreUrlError
from host.store.devices import (
    DeviceNameError,
    EnrolmentRefusedError,
    ExpiredTokenError,
    KeyInUseError,
    RevokedDeviceError,
    TokenError,
    UnknownDeviceError,
    UnknownTokenError,
    UsedTokenError,
)
from host.store.jobs import Caller, Progress, RollCall
from host.store.measurements import StoredMeasurement, UnknownMeasurementError
from host.store.store import Store, utc_now
from host.store.studies import (
    AccuracyRow,
    PredictionRow,
    Study,
    StudyCandidate,
    StudyExistsError,
    UnknownStudyError,
)
from host.store.wait import JobCancelledError, Waiting, wait_for_outcomes

__all__ = [
    "AccuracyRow",
    "Act",
    "Answer",
    "AuditCheck",
    "AuditEntry",
    "Blob",
    "BlobMismatchError",
    "Caller",
    "Claim",
    "ConflictError",
    "DeviceNameError",
    "EnrolmentRefusedError",
    "ExpiredTokenError",
    "IncomingBlob",
    "JobCancelledError",
    "KeyInUseError",
    "PredictionRow",
    "Progress",
    "Renewal",
    "Report",
    "RevokedDeviceError",
    "RollCall",
    "SessionSupersededError",
    "Store",
    "StoreError",
    "StoreUrlError",
    "StoredBundle",
    "StoredCandidate",
    "StoredCostModel",
    "StoredMeasurement",
    "StoredScore",
    "StoredValueError",
    "Study",
    "StudyCandidate",
    "StudyExistsError",
    "TokenError",
    "UnknownBlobError",
    "UnknownCandidateError",
    "UnknownDeviceError",
    "UnknownJobError",
    "UnknownMeasurementError",
    "UnknownStudyError",
    "UnknownTokenError",
    "UsedTokenError",
    "Waiting",
    "utc_now",
    "wait_for_outcomes",
]
