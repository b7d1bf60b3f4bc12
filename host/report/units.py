"""Numbers as people read them; the only place where SI becomes milliseconds and megabytes."""

from host.study.finalist import Score
from host.study.front import OnDevice, Predicted

MS = 1e3
MB = 1e-6
MJ = 1e3


def milliseconds(seconds: float) -> str:
    """Three significant figures, without the unit: that stands in the header."""
    return significant(seconds * MS)


def megabytes(size_bytes: float) -> str:
    """Three significant figures, of 1,000,000 bytes each."""
    return significant(size_bytes * MB)


def significant(value: float) -> str:
    """Three significant figures, or all digits before the point; never an exponent."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def measured_latency(row: OnDevice) -> str:
    """Median in ms with the 95 % interval of the median and the number of samples; and what is
    not as it should be: a figure that was derived, a verdict that is not OK.
    """
    low, high = milliseconds(row.latency_low_seconds), milliseconds(row.latency_high_seconds)
    figure = f"{milliseconds(row.latency_seconds)} [{low}, {high}] n={row.samples}"
    doubts: list[str] = [row.latency_kind] if row.latency_kind != "measured" else []
    if row.verdict not in (None, "OK"):
        doubts.append(str(row.verdict))
    return " ".join([figure, *doubts])


def predicted_latency(prediction: Predicted | None, *, absent: str = "calibration") -> str:
    """Predicted ms with the interval; what was measured for calibration was not predicted."""
    if prediction is None:
        return absent
    high = "no bound" if prediction.high is None else milliseconds(prediction.high)
    return f"{milliseconds(prediction.value)} [{milliseconds(prediction.low)}, {high}]"


def power(row: OnDevice, *, absent: str = "none") -> str:
    """Watts with their source."""
    if row.power_watts is None:
        return absent
    return f"{row.power_watts:.2f} ({row.power_source})"


def share(score: Score | None, *, absent: str = "-") -> str:
    """A share with its 95 % interval."""
    if score is None:
        return absent
    return f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]"
