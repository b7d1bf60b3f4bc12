"""How much of the space of objectives a front dominates, and whether it still grows."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pymoo.indicators.hv import HV

from host.search.evolution import non_dominated

Matrix = npt.NDArray[np.float64]


def hypervolume(objectives: Matrix) -> float:
    """The share of the unit box that rows (candidates, objectives) dominate; all are minimised.

    1 is the worst of each objective and 0 the best; rows outside count where they reach into it
    (Zitzler and Thiele 1999, doi:10.1109/4235.797969).
    """
    if len(objectives) == 0:
        return 0.0
    inside = np.clip(objectives, 0.0, None)
    inside = inside[(inside < 1.0).all(axis=1)]
    if len(inside) == 0:
        return 0.0
    return float(HV(ref_point=np.ones(inside.shape[1]))(inside[non_dominated(inside)]))


def course(objectives: Matrix, counts: Sequence[int]) -> list[float]:
    """The hypervolume of the first so many rows, for each count."""
    return [hypervolume(objectives[:count]) for count in counts]


def is_converged(volumes: Sequence[float], *, patience: int, min_gain: float) -> bool:
    """Whether the last `patience` volumes gained less than `min_gain`, relative to the last one.

    A front that is still empty has not converged.
    """
    if len(volumes) <= patience or volumes[-1] <= 0:
        return False
    return volumes[-1] - volumes[-1 - patience] < min_gain * volumes[-1]
