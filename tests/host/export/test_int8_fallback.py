"""Layers that hurt in int8 stay in float, as few as it takes; with real quantisers and runtimes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.export.check import logits_of_onnx
from host.export.errors import NoGainError
from host.export.fallback import Judge, agreement_with, int8_within
from host.export.quantize import OnnxQuantizer
from host.export.tflite import TfliteQuantizer, logits_of_tflite
from host.network.graph import Conv, GlobalPool, Linear, Network, NetworkBuilder
from host.network.onnx_model import onnx_bytes
from host.network.tflite_model import tflite_bytes
from host.network.weights import LayerWeights, random_weights

OUTLIER = 3000.0


def six_layers() -> Network:
    b = NetworkBuilder((1, 8, 8))
    index = b.conv(0, Conv(8, 3), "relu")
    for _ in range(6):
        index = b.conv(index, Conv(8, 3), "relu")
    return b.build(b.add(Linear(3), b.add(GlobalPool(), index)))


def with_outlier(network: Network, at: int | None):
    """Weights with which one channel after a convolution is so large that eight bits leave nothing
    of the others, and the next convolution hardly reads it: the float network does not mind.
    """
    weights = random_weights(network, seed=3)
    if at is None:
        return weights
    place = [i for i, node in enumerate(network.nodes) if isinstance(node.layer, Conv)]
    first, second = weights[place[at]], weights[place[at + 1]]
    larger, smaller = first.weight.copy(), second.weight.copy()
    larger[0] *= OUTLIER
    smaller[:, 0] /= OUTLIER
    bias = first.bias.copy()
    return weights | {
        place[at]: LayerWeights(larger, bias),
        place[at + 1]: LayerWeights(smaller, second.bias),
    }


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 1, 8, 8)).astype(np.float32)


WAYS = {
    "onnx": (onnx_bytes, OnnxQuantizer, logits_of_onnx),
    "tflite": (tflite_bytes, TfliteQuantizer, logits_of_tflite),
}


def prepared(way: str, at: int | None):
    render, quantizer, answer = WAYS[way]
    network = six_layers()
    fp32 = render(network, with_outlier(network, at))
    inputs = images(48)
    logits = answer(fp32, inputs)
    centred = np.median(logits, axis=0)

    def balanced(model, of):
        # Untrained logits always have one largest class; around their median they do not.
        return answer(model, of) - centred

    judge = Judge(inputs, logits - centred, balanced, agreement_with(logits - centred))
    return quantizer(fp32, [inputs]), judge


@pytest.mark.parametrize("way", WAYS)
def test_a_network_that_int8_does_not_hurt_has_no_layer_in_float(way):
    quantizer, judge = prepared(way, None)

    found = int8_within(quantizer, judge, max_drop=0.2)

    assert found.float_layers == ()
    assert found.model == quantizer.int8()
    assert found.drop == judge.drop(found.model) <= 0.2


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("at", [1, 4])
def test_the_layers_around_what_eight_bits_cannot_hold_stay_in_float(way, at):
    quantizer, judge = prepared(way, at)
    assert judge.drop(quantizer.int8()) > 0.3

    found = int8_within(quantizer, judge, max_drop=0.2)

    assert found.float_layers == quantizer.layers[at : at + 2]
    assert found.drop <= 0.2
    assert len(found.model) > len(quantizer.int8())
    assert judge.error(found.model) < 0.5 * judge.error(quantizer.int8())


@pytest.mark.parametrize("way", WAYS)
def test_the_names_of_layers_are_those_of_their_nodes(way):
    network = six_layers()
    quantizer, _ = prepared(way, None)

    convolutions = [f"n{i}" for i, n in enumerate(network.nodes) if isinstance(n.layer, Conv)]
    assert quantizer.layers == (*convolutions, "logits")


@pytest.mark.parametrize("way", WAYS)
def test_int8_is_refused_where_it_would_take_too_many_layers_in_float(way):
    quantizer, judge = prepared(way, 4)

    with pytest.raises(NoGainError, match=r"loses .* more than the 0.2 allowed, even with 0 of 8"):
        int8_within(quantizer, judge, max_drop=0.2, max_float_share=0.1)


class Invented:
    """A quantiser whose models are their float layers; `harm` says what each costs in int8."""

    def __init__(self, harm):
        self.harm = harm
        self.layers = tuple(f"l{i}" for i in range(len(harm)))
        self.made = 0

    def int8(self, float_layers=()):
        self.made += 1
        return ",".join(float_layers).encode()

    def drop_of(self, model: bytes) -> float:
        kept = set(model.decode().split(","))
        harm = zip(self.layers, self.harm, strict=True)
        return float(sum(h for layer, h in harm if layer not in kept))

    def judge(self):
        def answer(model, inputs):
            return np.full((len(inputs), 1), self.drop_of(model), np.float32)

        return Judge(np.zeros((4, 1), np.float32), np.zeros((4, 1), np.float32), answer, quality)


def quality(logits):
    return 1.0 - float(logits[0, 0])


@given(st.integers(4, 60), st.data())
def test_no_layer_is_in_float_in_vain(count, data):
    bad = data.draw(st.sets(st.integers(0, count - 1), max_size=2))
    quantizer = Invented([0.25 if i in bad else 0.0 for i in range(count)])

    try:
        found = int8_within(quantizer, quantizer.judge(), max_drop=0.1, max_float_share=0.5)
    except NoGainError:
        # Stretches of neighbours for both would be more than half of the layers.
        assert len(bad) == 2
        assert count < 8
        return

    assert found.drop <= 0.1
    assert set(found.float_layers) == {f"l{i}" for i in bad}
    assert quantizer.made <= 24 + 40


def test_layers_that_are_better_in_int8_stay_in_it():
    quantizer = Invented([-0.1, -0.2, 0.05, 0.0])

    found = int8_within(quantizer, quantizer.judge(), max_drop=0.0)

    assert (found.float_layers, quantizer.made) == ((), 1)
