"""Leaving out of the space `mobile` what is dear on a plant's devices."""

import numpy as np
import pytest

from cost_models.base import NotFittedError
from cost_models.latency import LatencyModel
from host.network.kernels import kernels_of
from host.spaces.base import Task, sample
from host.spaces.mobile import Mobile
from host.spaces.refine import refine
from host.spaces.resnet_lite import ResNetLite

TASK = Task(channels=3, classes=4)
SMALL = Mobile({"resolution": (32, 64, 96), "width": (0.25, 0.5, 1.0)})


def seconds(graph, *, simple=1e-11, step=1e-6):
    """What a made-up device takes: so much a kernel, a MAC, and a byte of simple operations."""
    rates = {"elementwise": simple, "reduce": simple}
    return 2e-5 + sum(
        step
        + 5e-11 * kernel.macs
        + rates.get(kernel.kind, 1e-11) * (kernel.input_bytes + kernel.output_bytes)
        for kernel in graph.kernels
    )


def model_of(space=SMALL, **rates):
    rng = np.random.default_rng(4)
    graphs = [kernels_of(space.build(sample(space, rng), TASK)) for _ in range(40)]
    return LatencyModel().fit(graphs, np.array([seconds(graph, **rates) for graph in graphs]))


@pytest.fixture(scope="module")
def quick():
    """A device where simple operations cost next to nothing."""
    return model_of(simple=1e-13, step=1e-8)


@pytest.fixture(scope="module")
def slow():
    """A device where elementwise steps are very slow, so hard-swish and every gate are dear."""
    return model_of(simple=1e-8)


def choices(space, name):
    return next(d.choices for d in space.decisions if d.name.startswith(name))


def test_what_is_cheap_stays_with_its_price(quick):
    refined = refine(SMALL, {"panel": quick}, TASK)

    assert choices(refined.space, "squeeze") == (False, True)
    assert choices(refined.space, "activation") == ("relu", "relu6", "hard_swish")
    assert all("stays: it costs" in reason and "on panel" in reason for reason in refined.reasons)


def test_what_is_dear_is_left_out_with_a_sentence_that_says_why(slow):
    refined = refine(SMALL, {"kiosk": slow}, TASK)

    assert choices(refined.space, "squeeze") == (False,)
    assert choices(refined.space, "activation") == ("relu", "relu6")
    for words, worth, reason in zip(
        ("squeeze-and-excite", "hard-swish"), ("22 %", "10 %"), refined.reasons, strict=True
    ):
        assert reason.startswith(f"{words} is left out: it costs ")
        assert reason.endswith(f"of latency on kiosk and is worth {worth}")


def test_what_else_was_restricted_stays_restricted(slow):
    refined = refine(SMALL, {"kiosk": slow}, TASK)

    assert choices(refined.space, "resolution") == (32, 64, 96)
    assert choices(refined.space, "kernel") == (3, 5, 7)


@pytest.mark.parametrize("order", [("panel", "kiosk"), ("kiosk", "panel")])
def test_of_several_devices_the_dearest_decides(quick, slow, order):
    models = {"panel": quick, "kiosk": slow}

    refined = refine(SMALL, {name: models[name] for name in order}, TASK)

    assert choices(refined.space, "squeeze") == (False,)
    assert all("on kiosk" in reason for reason in refined.reasons)


def test_the_price_is_that_of_the_clock(slow):
    space = Mobile(dict(SMALL.restrict) | {"squeeze": (False,)})
    rng = np.random.default_rng(0)
    ratios = []
    for candidate in [sample(space, rng) for _ in range(16)]:
        dear, plain = (
            seconds(
                kernels_of(space.build(space.taking(candidate, "activation", kind), TASK)),
                simple=1e-8,
            )
            for kind in ("hard_swish", "relu")
        )
        ratios.append(np.log(dear / plain))

    (reason,) = refine(space, {"kiosk": slow}, TASK).reasons

    percent = float(reason.split("costs ")[1].split(" %")[0])
    assert percent == pytest.approx(100 * (np.exp(np.mean(ratios)) - 1), rel=0.1)


def test_the_only_choice_left_is_not_taken_away(slow):
    space = Mobile(dict(SMALL.restrict) | {"squeeze": (True,), "activation": ("hard_swish",)})

    refined = refine(space, {"kiosk": slow}, TASK)

    assert refined.space == space
    assert refined.reasons == ()


def test_relu6_stands_in_where_relu_is_ruled_out(slow):
    space = Mobile(dict(SMALL.restrict) | {"activation": ("relu6", "hard_swish")})

    refined = refine(space, {"kiosk": slow}, TASK)

    assert choices(refined.space, "activation") == ("relu6",)


def test_a_device_that_never_measured_anything_like_it_decides_nothing():
    model = model_of(ResNetLite({"resolution": (32, 48), "block": ("plain",)}))

    refined = refine(SMALL, {"panel": model}, TASK)

    assert refined.space == SMALL
    assert [reason.split(" stays: ")[1] for reason in refined.reasons] == [
        "no device has measured anything that tells what it costs there"
    ] * 2


def test_a_device_that_cannot_tell_leaves_the_decision_to_the_others(slow):
    blind = model_of(ResNetLite({"resolution": (32, 48), "block": ("plain",)}))

    assert refine(SMALL, {"panel": blind, "kiosk": slow}, TASK) == refine(
        SMALL, {"kiosk": slow}, TASK
    )


def test_the_same_question_has_the_same_answer(slow):
    assert refine(SMALL, {"kiosk": slow}, TASK) == refine(SMALL, {"kiosk": slow}, TASK)


def test_a_model_that_was_never_fitted_is_refused():
    with pytest.raises(NotFittedError):
        refine(SMALL, {"panel": LatencyModel()}, TASK)


def test_no_device_is_refused():
    with pytest.raises(ValueError, match="one device or more"):
        refine(SMALL, {}, TASK)
