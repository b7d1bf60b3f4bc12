"""int8 with as few layers in float as it takes to keep a model's quality.

Where int8 costs too much, every two neighbouring layers are put back into float in turn, and the
error of the logits that is left tells how much they hurt: one quantisation and a few inferences a
pair. Pairs, for what lies between two layers is float only where both are. Those that hurt most
stay in float, as few as suffice.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import numpy as np

from host.export.check import Floats
from host.export.errors import NoGainError

MOST_STRETCHES = 24
"""How many pairs are tried; in a longer network, they are pairs of stretches of layers."""
SCAN_INPUTS = 32
MAX_FLOAT_SHARE = 0.3
"""Of the layers that multiply: with more of them in float, int8 gains too little."""

Answer = Callable[[bytes, Floats], Floats]
"""The logits (N, classes) of a file for inputs (N, C, H, W) or (N, C, L)."""
Quality = Callable[[Floats], float]
"""How good logits for the inputs of a `Judge` are, more being better."""


class Quantizer(Protocol):
    """Makes int8 forms of one model."""

    @property
    def layers(self) -> tuple[str, ...]:
        """What can stay in float, in the order in which it runs."""
        ...

    def int8(self, float_layers: Collection[str] = ()) -> bytes:
        """The form in which these stay in float. Raises ExportError where there is none."""
        ...


@dataclass(frozen=True, eq=False)
class Judge:
    """Tells what int8 costs: by inputs, the logits of the float32 model for them, and what these
    and others are worth.
    """

    inputs: Floats
    logits: Floats
    answer: Answer
    quality: Quality

    def drop(self, model: bytes) -> float:
        """By how much a model is worse than the float32 one; below 0 where it is better."""
        return self.quality(self.logits) - self.quality(self.answer(model, self.inputs))

    def error(self, model: bytes) -> float:
        """The error of the logits on a few inputs: its root mean square, as a share of theirs."""
        step = max(1, len(self.inputs) // SCAN_INPUTS)
        few, expected = self.inputs[::step][:SCAN_INPUTS], self.logits[::step][:SCAN_INPUTS]
        squares = np.square(self.answer(model, few) - expected).mean()
        scale = np.square(expected).mean()
        return float(np.sqrt(squares / max(float(scale), float(np.finfo(np.float32).tiny))))


def agreement_with(logits: Floats) -> Quality:
    """The share of inputs that get the class that these logits give: where no truth is known."""
    answers = logits.argmax(axis=1)
    return lambda others: float((others.argmax(axis=1) == answers).mean())


@dataclass(frozen=True)
class Int8Model:
    """An int8 form, the layers of it that stayed in float, and by how much it is worse."""

    model: bytes = field(repr=False)
    float_layers: tuple[str, ...]
    drop: float


def int8_within(
    quantizer: Quantizer,
    judge: Judge,
    *,
    max_drop: float,
    max_float_share: float = MAX_FLOAT_SHARE,
) -> Int8Model:
    """The int8 form that loses at most `max_drop`, with the fewest layers in float.

    Raises NoGainError where it would take more than `max_float_share` of the layers, and what the
    quantizer raises.
    """
    whole = _made(quantizer, judge, ())
    if whole.drop <= max_drop:
        return whole
    ranked = _by_harm(quantizer, judge, most=int(max_float_share * len(quantizer.layers)))
    closest = _made(quantizer, judge, _union(ranked)) if ranked else whole
    if closest.drop > max_drop:
        raise NoGainError(
            f"int8 loses {closest.drop:.3g} in quality, more than the {max_drop:g} allowed, even "
            f"with {len(closest.float_layers)} of {len(quantizer.layers)} layers in float"
        )
    # With more of them in float the drop shrinks, so where it suffices lies by bisection.
    low, high = 1, len(ranked) - 1
    while low <= high:
        count = (low + high) // 2
        made = _made(quantizer, judge, _union(ranked[:count]))
        if made.drop <= max_drop:
            closest, high = made, count - 1
        else:
            low = count + 1
    return _pruned(quantizer, judge, closest, max_drop)


def _pruned(quantizer: Quantizer, judge: Judge, found: Int8Model, max_drop: float) -> Int8Model:
    """Without those layers in float that it can do without."""
    for layer in found.float_layers:
        fewer = [one for one in found.float_layers if one != layer]
        made = _made(quantizer, judge, fewer)
        if made.drop <= max_drop:
            found = made
    return found


def _made(quantizer: Quantizer, judge: Judge, float_layers: Collection[str]) -> Int8Model:
    ordered = tuple(layer for layer in quantizer.layers if layer in float_layers)
    model = quantizer.int8(ordered)
    return Int8Model(model, ordered, judge.drop(model))


def _by_harm(quantizer: Quantizer, judge: Judge, *, most: int) -> list[tuple[str, ...]]:
    """Neighbours, of `most` layers together, those first that hurt most."""
    errors = []
    for pair in _neighbours(quantizer.layers):
        try:
            errors.append((judge.error(quantizer.int8(pair)), pair))
        except NoGainError:
            continue  # all of the weights are in it: in float it would leave nothing
    ranked = [pair for _, pair in sorted(errors)]
    chosen: list[tuple[str, ...]] = []
    # Pairs that share the layer that hurts are alike: the second says nothing of other layers.
    for may_overlap in (False, True):
        for pair in ranked:
            together = _union([*chosen, pair])
            apart = len(together) == len(_union(chosen)) + len(pair)
            if len(together) <= most and (apart or may_overlap) and pair not in chosen:
                chosen.append(pair)
    return chosen


def _neighbours(layers: Sequence[str]) -> list[tuple[str, ...]]:
    """Every two stretches that follow each other; a stretch is a layer where there are few."""
    count = min(MOST_STRETCHES, len(layers))
    bounds = np.linspace(0, len(layers), count + 1).round().astype(int)
    stretches = [tuple(layers[low:high]) for low, high in pairwise(bounds)]
    return [one + other for one, other in pairwise(stretches)] or stretches


def _union(pairs: Sequence[tuple[str, ...]]) -> set[str]:
    return {layer for pair in pairs for layer in pair}
