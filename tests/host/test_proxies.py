"""Each proxy against an independent computation on a case small enough to do by other means."""

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from host.errors import UsageError
from host.network.graph import Activation, Conv, GlobalPool, Linear, Network, NetworkBuilder
from host.network.torch_module import build_module
from host.proxies.catalogue import PROXIES, proxies_by_name
from host.proxies.engine import collect_evidence, score
from host.proxies.evidence import Evidence
from host.proxies.flops import FLOPS
from host.proxies.flow import flow
from host.proxies.jacob_cov import JACOB_COV
from host.proxies.naswot import NASWOT
from host.proxies.parameters import PARAMETERS
from host.proxies.rank import directions, log_rank
from host.proxies.synflow import SYNFLOW

ALL = tuple(PROXIES.values())


def small_network(
    *, activation: str = "relu", width: int = 6, depth: int = 2, channels: int = 3
) -> Network:
    builder = NetworkBuilder((channels, 8, 8))
    last = 0
    for _ in range(depth):
        last = builder.conv(last, Conv(width, 3), activation)  # type: ignore[arg-type]
        builder.block(last)
    last = builder.add(GlobalPool(), last)
    return builder.build(builder.add(Linear(2), last))


def batch_of(images: int = 5, channels: int = 3, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(images, channels, 8, 8, generator=generator)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def synflow_of(module: nn.Module, *input_shape: int) -> float:
    return SYNFLOW.compute(Evidence(flow=flow(module, input_shape)))


def test_parameters_and_flops_are_those_of_the_graph() -> None:
    network = small_network(width=4, depth=1)

    scores = score(network, (PARAMETERS, FLOPS), batch=batch_of(), seed=0)

    assert scores == {
        "parameters": 4 * 3 * 9 + 2 * 4 + (4 * 2 + 2),
        "flops": 4 * 3 * 9 * 64 + 4 * 2,
    }


def test_synflow_of_a_linear_net_without_biases_has_its_closed_form() -> None:
    generator = torch.Generator().manual_seed(3)
    sizes = (6, 5, 4, 3)
    layers = [nn.Linear(a, b, bias=False) for a, b in itertools.pairwise(sizes)]
    for layer in layers:
        nn.init.normal_(layer.weight, generator=generator)
    module = nn.Sequential(nn.Flatten(), *layers)

    value = synflow_of(module, 6, 1, 1)

    # Every path from input to output counts once in each of the three layers.
    product = np.ones(6)
    for layer in layers:
        product = np.abs(layer.weight.detach().double().numpy()) @ product
    assert value == pytest.approx(math.log(len(layers) * product.sum()), rel=1e-12)


def test_synflow_stays_finite_where_float32_would_overflow() -> None:
    layers = [nn.Linear(8, 8, bias=False) for _ in range(60)]
    for layer in layers:
        nn.init.constant_(layer.weight, -10.0)
    module = nn.Sequential(nn.Flatten(), *layers)

    value = synflow_of(module, 8, 1, 1)

    assert value == pytest.approx(math.log(60 * 8) + 60 * math.log(80.0))


def test_synflow_leaves_normalisations_out_and_the_module_alone() -> None:
    network = small_network()
    module = build_module(network, seed=1)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.constant_(layer.weight, 7.0)
            nn.init.constant_(layer.bias, -3.0)
    before = {name: value.clone() for name, value in module.state_dict().items()}

    value = synflow_of(module, *network.input_shape)

    plain = build_module(network, seed=1)
    assert value == pytest.approx(synflow_of(plain, *network.input_shape), rel=1e-12)
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
    assert module.training


def test_synflow_is_the_same_whatever_the_activation() -> None:
    values = []
    for activation in ("relu", "relu6", "hard_swish"):
        network = small_network(activation=activation)
        values.append(synflow_of(build_module(network, seed=1), *network.input_shape))

    assert values[0] == values[1] == values[2]


def test_synflow_of_a_relu_net_needs_no_special_rule() -> None:
    network = small_network(activation="relu")
    module = build_module(network, seed=1)
    with_relu = synflow_of(module, *network.input_shape)
    for name, layer in module.layers.items():
        if isinstance(layer, nn.ReLU):
            module.layers[name] = nn.Identity()

    assert synflow_of(module, *network.input_shape) == with_relu


def test_synflow_agrees_with_finite_differences_on_a_convolutional_net() -> None:
    network = small_network(width=2, depth=1, channels=1)
    module = build_module(network, seed=2)

    value = synflow_of(module, *network.input_shape)

    kernel = module.get_parameter("layers.1.0.weight").detach().double().abs()
    head = module.get_parameter("layers.4.1.weight").detach().double().abs()

    def flow(scale: float) -> float:
        features = nn.functional.conv2d(torch.ones(1, 1, 8, 8).double(), kernel * scale, padding=1)
        return float((features.mean(dim=(2, 3)) @ (head * scale).T).sum())

    # sum theta * dR/dtheta is the derivative of R along theta.
    step = 1e-5
    derivative = (flow(1 + step) - flow(1 - step)) / (2 * step)
    assert math.exp(value) == pytest.approx(derivative, rel=1e-6)


def test_jacob_cov_agrees_with_one_gradient_a_batch_element_and_numpy() -> None:
    network = small_network()
    module = build_module(network, seed=4)
    batch = batch_of()

    value = JACOB_COV.compute(collect_evidence(network, module, batch, (JACOB_COV,)))

    rows = []
    for index in range(len(batch)):
        images = [image.clone().requires_grad_(i == index) for i, image in enumerate(batch)]
        logits = module.train()(torch.stack(images))
        (gradient,) = torch.autograd.grad(logits[::2].sum() - logits[1::2].sum(), images[index])
        rows.append(gradient.flatten().double().numpy())
    eigenvalues = np.linalg.eigvals(np.corrcoef(np.stack(rows))).real + 1e-5
    expected = -float(np.sum(np.log(eigenvalues) + 1.0 / eigenvalues))
    assert value == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("activation", ["relu", "hard_swish"])
def test_naswot_agrees_with_counting_agreeing_units_one_by_one(activation: str) -> None:
    network = small_network(activation=activation, width=3)
    module = build_module(network, seed=5)
    batch = batch_of(images=4)

    value = NASWOT.compute(collect_evidence(network, module, batch, (NASWOT,)))

    codes: list[list[bool]] = [[] for _ in batch]
    features = batch
    for index in ("1", "3"):
        features = module.train().layers[index](features)
        for image, code in enumerate(codes):
            code.extend(float(unit) > 0.0 for unit in features[image].detach().flatten())
        features = nn.functional.hardswish(features) if activation != "relu" else features.relu()
    agreement = np.array(
        [[sum(a == b for a, b in zip(x, y, strict=True)) for x in codes] for y in codes], float
    )
    assert value == pytest.approx(math.log(abs(np.linalg.det(agreement))), rel=1e-9)


def test_two_equal_images_have_no_naswot_score() -> None:
    batch = batch_of(images=3)
    batch[2] = batch[1]

    scores = score(small_network(), (NASWOT,), batch=batch, seed=0)

    assert math.isnan(scores["naswot"])


def test_a_net_without_activations_has_no_naswot_score() -> None:
    builder = NetworkBuilder((3, 8, 8))
    network = builder.build(builder.add(Linear(2), 0))

    scores = score(network, (NASWOT,), batch=batch_of(), seed=0)

    assert math.isnan(scores["naswot"])


def test_logits_that_no_image_reaches_have_no_score() -> None:
    class Deaf(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(2, 2)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            blank = torch.zeros(len(images), 2, dtype=images.dtype)
            return nn.functional.linear(blank, self.head.weight)

    network = small_network()
    evidence = collect_evidence(network, Deaf(), batch_of(), ALL)

    values = {proxy.name: proxy.compute(evidence) for proxy in ALL}

    assert math.isnan(values["jacob_cov"])
    assert math.isnan(values["naswot"])
    assert not math.isfinite(values["synflow"])


def test_a_score_is_the_same_twice_whatever_ran_before_and_whatever_the_global_state() -> None:
    network, other = small_network(), small_network(width=7)
    batch = batch_of()
    torch.manual_seed(1)
    first = score(network, ALL, batch=batch, seed=9)
    score(other, ALL, batch=batch, seed=9)
    torch.manual_seed(2)
    state = torch.get_rng_state()

    second = score(network, ALL, batch=batch, seed=9)

    assert first == second
    assert torch.equal(state, torch.get_rng_state())


def test_the_shared_pass_gives_what_each_proxy_alone_gives() -> None:
    network = small_network(activation="hard_swish")
    batch = batch_of()

    together = score(network, ALL, batch=batch, seed=9)

    for proxy in ALL:
        alone = score(network, (proxy,), batch=batch, seed=9)
        assert alone[proxy.name] == pytest.approx(together[proxy.name], rel=1e-4), proxy.name
    assert score(network, ALL[::-1], batch=batch, seed=9) == together


def test_scoring_works_where_gradients_are_off_and_leaves_the_batch_as_it_was() -> None:
    batch = batch_of()
    copy = batch.clone()

    with torch.no_grad():
        inside = score(small_network(), ALL, batch=batch, seed=0)

    assert inside == score(small_network(), ALL, batch=batch, seed=0)
    assert torch.equal(batch, copy)
    assert not batch.requires_grad


def test_the_shared_pass_leaves_the_module_as_it_was() -> None:
    network = small_network()
    module = build_module(network, seed=0).eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}

    collect_evidence(network, module, batch_of(), ALL)

    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert not any(layer.training for layer in module.modules())
    assert not any(layer._forward_pre_hooks for layer in module.modules())


def test_the_seed_changes_the_weights_and_so_the_score() -> None:
    batch = batch_of()

    values = {score(small_network(), (SYNFLOW,), batch=batch, seed=s)["synflow"] for s in range(3)}

    assert len(values) == 3


def test_an_unknown_proxy_is_named_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match='no proxy "zenn"; choose from parameters, flops'):
        proxies_by_name(["flops", "zenn"])


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (4, 1, 8, 8), (3, 8, 8)])
def test_a_batch_that_does_not_suit_the_network_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="two images or more with 3 channels"):
        score(small_network(), (NASWOT,), batch=torch.zeros(shape), seed=0)


def test_log_rank_of_a_hand_computed_case() -> None:
    scores = {"up": [1.0, 3.0, 2.0, math.nan], "down": [5.0, 5.0, 1.0, 9.0]}

    combined = log_rank(scores, {"up": True, "down": False})

    ranks = np.array([[2, 4, 3, 1], [2.5, 2.5, 4, 1]])
    assert combined == pytest.approx(np.log(ranks / 4).sum(axis=0))


@pytest.mark.parametrize(
    ("scores", "better"),
    [({}, {}), ({"a": [1.0], "b": [1.0, 2.0]}, {"a": True, "b": True}), ({"a": [1.0]}, {})],
)
def test_log_rank_refuses_what_it_cannot_rank(
    scores: dict[str, list[float]], better: dict[str, bool]
) -> None:
    with pytest.raises(ValueError, match="log_rank needs"):
        log_rank(scores, better)


def test_of_the_built_in_proxies_the_condition_number_alone_is_better_low() -> None:
    assert directions(ALL) == {name: name != "ntk_condition" for name in PROXIES}


# Values with ties and nan, and few enough digits that monotone maps keep them apart.
VALUES = st.one_of(st.integers(-50, 50).map(float), st.just(math.nan))
TABLES = st.integers(1, 12).flatmap(
    lambda n: st.lists(st.lists(VALUES, min_size=n, max_size=n), min_size=1, max_size=3)
)


@settings(max_examples=60, deadline=None)
@given(TABLES, st.data())
def test_log_rank_keeps_only_the_order_of_each_proxy(
    table: list[list[float]], data: st.DataObject
) -> None:
    scores = {str(i): values for i, values in enumerate(table)}
    better = {name: data.draw(st.booleans()) for name in scores}
    bent = {name: [math.exp(v / 10) * 3 - 7 for v in values] for name, values in scores.items()}
    mirrored = {name: [-v for v in values] for name, values in scores.items()}

    combined = log_rank(scores, better)

    assert log_rank(bent, better) == pytest.approx(combined)
    assert log_rank(mirrored, {n: not b for n, b in better.items()}) == pytest.approx(combined)


@settings(max_examples=60, deadline=None)
@given(TABLES, st.data())
def test_log_rank_follows_a_reordering_of_the_candidates(
    table: list[list[float]], data: st.DataObject
) -> None:
    scores = {str(i): values for i, values in enumerate(table)}
    better = dict.fromkeys(scores, True)
    order = data.draw(st.permutations(range(len(table[0]))))

    combined = log_rank(scores, better)

    reordered = {name: [values[i] for i in order] for name, values in scores.items()}
    assert log_rank(reordered, better) == pytest.approx(combined[list(order)])


def test_an_activation_node_alone_counts_as_units() -> None:
    builder = NetworkBuilder((3, 8, 8))
    active = builder.add(Activation("relu"), 0)
    network = builder.build(builder.add(Linear(2), active))

    scores = score(network, (NASWOT,), batch=batch_of(), seed=0)

    assert math.isfinite(scores["naswot"])
