"""Measurements: what to measure, what a device reported, and what follows from it."""

from host.measurement.compare import Comparison, compare
from host.measurement.energy import Energy, energies_of
from host.measurement.estimate import UtilisationModel, records_of
from host.measurement.judge import Baseline, judge
from host.measurement.measurement import Measurement
from host.measurement.outcome import (
    FailureKind,
    Measured,
    MeasurementFailure,
    OperatorTime,
    Outcome,
    ProbeResult,
    Profile,
    VerifiedOutputs,
    is_disturbed,
)
from host.measurement.samples import (
    Block,
    EnergyRun,
    Memory,
    Phase,
    PowerSeries,
    Preflight,
    ProcessRun,
    ReferenceRun,
    Thermal,
)
from host.measurement.spec import (
    PRESETS,
    PROTOCOL,
    InputShape,
    MeasureSpec,
    ModelRun,
    Plan,
    PresetName,
    ProbeSpec,
    ProfileSpec,
    Readiness,
    Spec,
    VerifySpec,
    blobs_of,
)
from host.measurement.statistics import Latency, NoSamplesError, Quantile
from host.measurement.verdict import Reason, Verdict
from host.measurement.verification import Verification, compare_outputs

__all__ = [
    "PRESETS",
    "PROTOCOL",
    "Baseline",
    "Block",
    "Comparison",
    "Energy",
    "EnergyRun",
    "FailureKind",
    "InputShape",
    "Latency",
    "MeasureSpec",
    "Measured",
    "Measurement",
    "MeasurementFailure",
    "Memory",
    "ModelRun",
    "NoSamplesError",
    "OperatorTime",
    "Outcome",
    "Phase",
    "Plan",
    "PowerSeries",
    "Preflight",
    "PresetName",
    "ProbeResult",
    "ProbeSpec",
    "ProcessRun",
    "Profile",
    "ProfileSpec",
    "Quantile",
    "Readiness",
    "Reason",
    "ReferenceRun",
    "Spec",
    "Thermal",
    "UtilisationModel",
    "Verdict",
    "Verification",
    "VerifiedOutputs",
    "VerifySpec",
    "blobs_of",
    "compare",
    "compare_outputs",
    "energies_of",
    "is_disturbed",
    "judge",
    "records_of",
]
