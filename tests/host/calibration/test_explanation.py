"""A predicted latency taken apart into what its kernels add."""

import pytest

from cost_models.base import Prediction
from cost_models.kernels import NETWORK_INPUT, Kernel, KernelGraph
from host.calibration.explanation import explain
from host.calibration.prediction import Predictor
from host.calibration.setting import Setting
from host.calibration.specimens import mobile_candidates

ONE = Setting("onnx", "onnxruntime", "1.23.2", 1)


def explained(store, device, graph, setting=ONE):
    predictor = Predictor.of(store, device, setting)
    (found,) = predictor.predict([graph])
    latency = found["latency_seconds"]
    assert isinstance(latency, Prediction)
    return latency, explain(predictor.models["latency_seconds"].model, graph, latency.value)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_parts_make_up_the_prediction(store, fleet, fit_models, threads):
    device, setting = fleet.device(), Setting("onnx", "onnxruntime", "1.23.2", threads)
    fit_models(store, device.id, setting)
    for candidate in mobile_candidates(5, seed=21):
        latency, found = explained(store, device, candidate.kernels, setting)

        parts = sum(kernel.seconds for kernel in found.kernels)
        assert parts + found.constant_seconds + found.whole_seconds == found.sum_seconds
        assert found.sum_seconds * found.factor == pytest.approx(latency.value)
        assert len(found.kernels) == len(candidate.kernels.kernels)
        assert min(kernel.seconds for kernel in found.kernels) >= 0


def test_on_one_thread_nothing_belongs_to_the_network_as_a_whole(store, fleet, fit_models):
    device = fleet.device()
    fit_models(store, device.id, ONE)
    (candidate,) = mobile_candidates(1, seed=22)

    _, found = explained(store, device, candidate.kernels)

    assert found.whole_seconds == 0
    assert found.constant_seconds > 0


def test_kernels_keep_their_order_and_their_work(store, fleet, fit_models):
    device = fleet.device()
    fit_models(store, device.id, ONE)
    small = Kernel("conv", ("Conv", "Relu"), 10**6, 100, 200, 300, (NETWORK_INPUT,), (50,))
    large = Kernel("conv", ("Conv",), 10**8, 200, 400, 600, (0,), (100,))

    _, found = explained(store, device, KernelGraph((small, large), 100))

    first, second = found.kernels
    assert (first.index, first.operators, first.moved_bytes) == (0, ("Conv", "Relu"), 600)
    assert (second.index, second.macs) == (1, 10**8)
    assert second.seconds > 10 * first.seconds
