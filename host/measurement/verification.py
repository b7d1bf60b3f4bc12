"""Whether a model answers on a device as it should: its outputs against the expected ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from host.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[Any]
    FloatArray = NDArray[np.float64]
    BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class OutputDifference:
    """One output: errors relative to the expected value where that is not zero.

    `within_tolerance` is the share of values for which |got − expected| ≤ absolute + relative ×
    |expected|. `top1_agreement` is the share of examples with the same largest class, None where
    the output is not examples × classes. `worst_example` is the index along axis 0 of the value
    furthest beyond its tolerance. A value that is NaN or infinite on one side only has an infinite
    error; cosine is None where a side is zero throughout or not finite.
    """

    name: str
    max_absolute_error: float
    max_relative_error: float
    within_tolerance: float
    cosine: float | None
    top1_agreement: float | None
    worst_example: int


@dataclass(frozen=True)
class Verification:
    """Passed where every value of every output is within tolerance."""

    passed: bool
    outputs: tuple[OutputDifference, ...]
    relative_tolerance: float
    absolute_tolerance: float
    sentence: str

    @property
    def top1_agreement(self) -> float | None:
        """The lowest of the outputs that have classes."""
        shares = [o.top1_agreement for o in self.outputs if o.top1_agreement is not None]
        return min(shares, default=None)


def compare_outputs(
    expected: Mapping[str, "Array"],
    got: Mapping[str, "Array"],
    *,
    relative_tolerance: float,
    absolute_tolerance: float,
) -> Verification:
    """Compare outputs by name. Outputs that are missing, too many or of another shape are a failed
    verification; raises UsageError for tolerances below zero and for outputs that are not numbers.
    """
    if not (relative_tolerance >= 0 and absolute_tolerance >= 0):
        raise UsageError("a tolerance is zero or a positive number")
    mismatch = _mismatch(expected, got)
    if mismatch:
        return Verification(False, (), relative_tolerance, absolute_tolerance, mismatch)
    outputs = tuple(
        _difference(name, expected[name], got[name], relative_tolerance, absolute_tolerance)
        for name in expected
    )
    passed = all(output.within_tolerance == 1 for output in outputs)
    tolerance = f"{absolute_tolerance:g} + {relative_tolerance:g} × |expected|"
    sentence = _sentence(outputs, tolerance, passed=passed)
    return Verification(passed, outputs, relative_tolerance, absolute_tolerance, sentence)


def _mismatch(expected: Mapping[str, "Array"], got: Mapping[str, "Array"]) -> str:
    if not expected:
        return "There are no expected outputs: nothing was verified."
    missing, extra = sorted(expected.keys() - got.keys()), sorted(got.keys() - expected.keys())
    if missing or extra:
        return (
            f"The device returned other outputs (missing: {', '.join(missing) or 'none'}; not "
            f"expected: {', '.join(extra) or 'none'}): it ran another model."
        )
    for name, values in expected.items():
        if values.shape != got[name].shape:
            return (
                f"Output {name} has the shape {got[name].shape} on the device and {values.shape} "
                "is expected."
            )
    return ""


def _difference(
    name: str, expected: "Array", got: "Array", relative: float, absolute: float
) -> OutputDifference:
    import numpy as np

    want, have = _numbers(name, expected), _numbers(name, got)
    same = (want == have) | (np.isnan(want) & np.isnan(have))
    comparable = np.isfinite(want) & np.isfinite(have)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        error = np.where(same, 0.0, np.where(comparable, np.abs(have - want), np.inf))
        tolerance = absolute + relative * np.abs(np.where(comparable, want, 0.0))
        of_expected = np.where(same, 0.0, error / np.abs(want))
    relevant = of_expected[(want != 0) & comparable]
    bad = ~(comparable | same)
    return OutputDifference(
        name=name,
        max_absolute_error=float(error.max(initial=0.0)),
        max_relative_error=float("inf") if bad.any() else float(relevant.max(initial=0.0)),
        within_tolerance=float((error <= tolerance).mean()) if error.size else 1.0,
        cosine=_cosine(want, have),
        top1_agreement=_top1_agreement(want, have),
        worst_example=_worst_example(error - tolerance),
    )


def _numbers(name: str, values: "Array") -> "FloatArray":
    if values.dtype.kind not in "biuf":
        raise UsageError(
            f"output {name} is of type {values.dtype}, and only numbers can be compared; leave it "
            "out of the expected outputs"
        )
    return values.astype(float)


def _cosine(want: "FloatArray", have: "FloatArray") -> float | None:
    import numpy as np

    if not (np.isfinite(want).all() and np.isfinite(have).all()):
        return None
    # Scaled by the largest value, so that squares neither overflow nor vanish.
    largest, other = np.abs(want).max(initial=0.0), np.abs(have).max(initial=0.0)
    if not largest or not other:
        return None
    a, b = (want / largest).ravel(), (have / other).ravel()
    return float(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1.0, 1.0))


def _top1_agreement(want: "FloatArray", have: "FloatArray") -> float | None:
    if want.ndim != 2 or want.shape[0] < 1 or want.shape[1] < 2:
        return None
    return float((want.argmax(axis=1) == have.argmax(axis=1)).mean())


def _worst_example(excess: "FloatArray") -> int:
    if not excess.size or not excess.ndim:
        return 0
    return int(excess.reshape(excess.shape[0], -1).max(axis=1).argmax())


def _sentence(outputs: tuple[OutputDifference, ...], tolerance: str, *, passed: bool) -> str:
    worst = min(outputs, key=lambda o: (o.within_tolerance, -o.max_absolute_error))
    top1 = "" if worst.top1_agreement is None else f", top-1 agreement {worst.top1_agreement:.1%}"
    if passed:
        return (
            f"All outputs agree within {tolerance}; the largest error is "
            f"{worst.max_absolute_error:.3g} (output {worst.name}{top1})."
        )
    return (
        f"Output {worst.name} differs: {worst.within_tolerance:.2%} of its values are within "
        f"{tolerance}, the largest error is {worst.max_absolute_error:.3g}, the worst example is "
        f"number {worst.worst_example}{top1}."
    )
