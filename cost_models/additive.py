"""How the rates of an additive model are found, with or without the models of other devices."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cost_models.intervals import held_out
from cost_models.nnls import FloatArray, fit_nonnegative

_CLEARLY = 0.05

_RIDGES = (1e-4, 1e-2, 1e-1)
_RIDGES_OF_A_MIX = (1e-2, 1e-1)
_MIX_RIDGE = 0.3
_NEAREST = (1, 3)
_CHOICE_FOLDS = 10
_CHOICE_FROM = 8


@dataclass(frozen=True)
class Recipe:
    """One way to fit non-negative rates.

    `ridge`, one strength or one for each column, draws the share of each towards 0. `sources` holds
    rates of other devices, a row for each: what they predict enters as a column for each, whose
    shares are drawn towards equal ones. As they are additive too, the mix is one set of rates.
    """

    ridge: float | tuple[float, ...]
    sources: tuple[tuple[float, ...], ...] = ()

    def rates(self, rows: FloatArray, targets: FloatArray) -> FloatArray:
        """The fitted rates; see `fit_nonnegative`, also for what is raised."""
        if not self.sources:
            return fit_nonnegative(rows, targets, np.array(self.ridge))
        sources = np.array(self.sources)
        own, count = rows.shape[1], len(sources)
        found = fit_nonnegative(
            np.hstack([rows, rows @ sources.T]),
            targets,
            ridge=np.append(np.broadcast_to(self.ridge, own), np.full(count, _MIX_RIDGE)),
            shares=np.repeat([0.0, 1 / count], [own, count]),
        )
        mixed: FloatArray = found[:own] + found[own:] @ sources
        return mixed


def recipes(rows: FloatArray, targets: FloatArray, sources: Sequence[FloatArray]) -> list[Recipe]:
    """What to choose from, the plainest first; `sources` are the rates of other devices.

    The nearest of these, by the spread of the log ratio of measured to predicted, are mixed in.
    """
    found = [Recipe(ridge) for ridge in _RIDGES]
    spreads: list[tuple[float, int]] = []
    for index, rates in enumerate(sources):
        predicted = rows @ rates
        if (predicted > 0).all():
            spreads.append((float(np.std(np.log(targets / predicted))), index))
    nearest = [tuple(sources[index].tolist()) for _, index in sorted(spreads)]
    for count in _NEAREST:
        if len(nearest) >= count:
            found += [Recipe(ridge, tuple(nearest[:count])) for ridge in _RIDGES_OF_A_MIX]
    return found


def chosen(
    rows: FloatArray,
    targets: FloatArray,
    among: Sequence[Recipe],
    predictor: Callable[[Recipe, FloatArray, FloatArray], Callable[[FloatArray], FloatArray]],
    weights: FloatArray,
) -> Recipe:
    """The recipe of the smallest held-out error if it is clearly better than the first.

    `weights` says how much the error of each row counts: a design puts the rows to measure at the
    edge, where the plainest fit errs more than it will on what is asked of it.
    `predictor(recipe, rows, targets)` fits and returns the function that predicts.
    """
    if len(targets) < _CHOICE_FROM:
        return among[0]
    errors = []
    for recipe in among:

        def fit(
            some: FloatArray, measured: FloatArray, recipe: Recipe = recipe
        ) -> Callable[[FloatArray], FloatArray]:
            return predictor(recipe, some, measured)

        found = held_out(rows, targets, fit, _CHOICE_FOLDS)
        errors.append(weights * np.abs(np.log(targets / found)))
    best = int(np.argmin([error.mean() for error in errors]))
    return among[best if clearly_lower(errors[best], errors[0], deviations=2) else 0]


def clearly_lower(errors: FloatArray, than: FloatArray, deviations: float) -> bool:
    """Whether errors of the same rows are lower in the mean: by five per cent of the mean, and by
    so many standard errors of the difference.
    """
    gain = than - errors
    noise = float(gain.std() / np.sqrt(len(gain)))
    return float(gain.mean()) > max(_CLEARLY * float(than.mean()), deviations * noise)
