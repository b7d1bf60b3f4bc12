"""Proxies of codes, feature maps and the graph against closed forms, both implementations."""

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import nn

from host.network.graph import Activation, Add, Conv, GlobalPool, Linear, Network, NetworkBuilder
from host.network.torch_module import build_module
from tests.host.proxies.implementations import Scored, labels_for, module_as_scored, naive

Array = npt.NDArray[np.float64]

NO_LABELS = torch.zeros(2, dtype=torch.int64)


# --- On/off codes: the images themselves are what the activations read ---


def codes_as_images(codes: npt.NDArray[np.bool_]) -> torch.Tensor:
    """(N, units) codes as images of one row of pixels, on where the pixel is above zero."""
    return torch.from_numpy(np.where(codes, 1.5, -0.5)).float()[:, None, None, :]


def reads_codes(units: int, activation: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Flatten(), activation, nn.Linear(units, 2))


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Hardswish(), nn.GELU()], ids=str)
def test_codes_of_a_hand_made_matrix(scored: Scored, activation: nn.Module) -> None:
    codes = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 1, 1]], dtype=bool)
    images = codes_as_images(codes)
    module = reads_codes(4, activation)

    # Images agree in [[4, 2, 2], [2, 4, 2], [2, 2, 4]] units: its determinant is 32.
    assert scored("naswot", module, images, labels_for(images)) == pytest.approx(math.log(32))
    assert scored("linear_regions", module, images, labels_for(images)) == 2.0
    assert scored("swap", module, images, labels_for(images)) == 4.0


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    codes=st.tuples(st.integers(2, 9), st.integers(1, 40)).flatmap(
        lambda shape: arrays.arrays(bool, shape)
    )
)
def test_codes_agree_with_counting_one_by_one(scored: Scored, codes: npt.NDArray[np.bool_]) -> None:
    images = codes_as_images(codes)
    module = reads_codes(codes.shape[1], nn.ReLU())

    regions = scored("linear_regions", module, images, labels_for(images))
    patterns = scored("swap", module, images, labels_for(images))

    pairs = list(itertools.combinations(codes, 2))
    differing = sum(int(a != b) for left, right in pairs for a, b in zip(left, right, strict=True))
    assert regions == pytest.approx(differing / len(pairs), rel=1e-9)
    assert patterns == len({tuple(column) for column in codes.T})


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(codes=arrays.arrays(bool, (4, 12)))
def test_naswot_agrees_with_the_determinant_of_counts(
    scored: Scored, codes: npt.NDArray[np.bool_]
) -> None:
    images = codes_as_images(codes)

    value = scored("naswot", reads_codes(12, nn.ReLU()), images, labels_for(images))

    counts = np.array([[int((a == b).sum()) for b in codes] for a in codes])
    determinant = round(np.linalg.det(counts))  # a whole number
    if determinant:
        assert value == pytest.approx(math.log(determinant), rel=1e-9)
    else:
        assert not math.isfinite(value) or value < 0.0


def test_swap_reads_no_more_than_63_images(scored: Scored) -> None:
    codes = np.zeros((70, 3), dtype=bool)
    codes[62, 2] = True
    codes[63:, 1] = True
    images = codes_as_images(codes)

    value = scored("swap", reads_codes(3, nn.ReLU()), images, labels_for(images))

    assert value == 2.0


def test_gates_have_no_code(scored: Scored) -> None:
    codes = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 1, 1]], dtype=bool)
    images = codes_as_images(codes)
    module = nn.Sequential(
        nn.Flatten(), nn.ReLU(), nn.Linear(4, 5), nn.Sigmoid(), nn.Linear(5, 2), nn.Hardsigmoid()
    )

    assert scored("linear_regions", module, images, labels_for(images)) == 2.0


# --- Feature maps ---


def identity_convolution(channels: int) -> nn.Conv2d:
    layer = nn.Conv2d(channels, channels, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(channels)[:, :, None, None])
    return layer


def head(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 2)]


def maps_of_correlation(correlation: float) -> torch.Tensor:
    """Two images of two channels and four positions; the first image's channels correlate so."""
    first = torch.tensor([1.0, 1.0, -1.0, -1.0])
    other = torch.tensor([1.0, -1.0, 1.0, -1.0])
    second = 5.0 + 3.0 * (correlation * first + math.sqrt(1.0 - correlation**2) * other)
    image = torch.stack([first, second]).reshape(2, 2, 2)
    return torch.stack([image, torch.randn(2, 2, 2, generator=torch.Generator().manual_seed(0))])


@pytest.mark.parametrize("correlation", [0.6, -0.8, 0.0])
def test_meco_of_two_channels_is_one_less_their_correlation(
    scored: Scored, correlation: float
) -> None:
    layers = [identity_convolution(2), nn.Sequential(identity_convolution(2), nn.BatchNorm2d(2))]
    module = nn.Sequential(*layers, *head(2))
    images = maps_of_correlation(correlation)

    value = scored("meco", module, images, NO_LABELS)

    # Scales and shifts of channels change no correlation; the head has a single position.
    assert value == pytest.approx(2 * (1.0 - abs(correlation)), abs=1e-5)


def test_meco_reads_after_the_normalisation_and_a_constant_channel_correlates_with_none(
    scored: Scored,
) -> None:
    norm = nn.BatchNorm2d(2)
    with torch.no_grad():
        norm.weight[1] = 0.0
    module = nn.Sequential(nn.Sequential(identity_convolution(2), norm), *head(2))

    value = scored("meco", module, maps_of_correlation(0.6), NO_LABELS)

    assert value == pytest.approx(0.0, abs=1e-9)


def linear_blocks(*strides: int, channels: int = 4, side: int = 4) -> Network:
    """Blocks of one 1x1 convolution each, two of stride 1 unless told, and a head."""
    builder = NetworkBuilder((channels, side, side))
    index = 0
    for step in strides or (1, 1):
        index = builder.add(Conv(channels, kernel=1, stride=step, norm=False), index)
        builder.block(index)
    return builder.build(builder.add(Linear(2), builder.add(GlobalPool(), index)))


def orthogonal_images(scales: tuple[float, ...]) -> torch.Tensor:
    """(2, 4, 4, 4): channels of mean zero, orthogonal over all positions, of these deviations."""
    signs = np.array([[1.0]])
    for _ in range(5):
        signs = np.block([[signs, signs], [signs, -signs]])  # Hadamard's, of 32 positions
    rows = torch.from_numpy(signs[1:5] * np.array(scales)[:, None]).float()
    return rows.reshape(4, 2, 4, 4).transpose(0, 1).contiguous()


def spectral_entropy(factor: Array) -> float:
    """Of the covariance factor @ factor.T."""
    spectrum = np.linalg.svd(factor, compute_uv=False) ** 2
    shares = spectrum / spectrum.sum()
    return float(-(shares * np.log(shares)).sum())


def block_weights(network: Network) -> list[Array]:
    """Of the 1x1 convolutions as matrices, as the engine draws them."""
    return [
        layer.weight.detach().double().numpy()[:, :, 0, 0]
        for layer in module_as_scored(network).modules()
        if isinstance(layer, nn.Conv2d)
    ]


def test_az_entropies_of_a_known_covariance(scored: Scored) -> None:
    scales = (2.0, 1.0, 0.5, 3.0)
    network, images = linear_blocks(), orthogonal_images(scales)
    first, second = block_weights(network)

    expressivity = scored("az_expressivity", network, images, NO_LABELS)
    progressivity = scored("az_progressivity", network, images, NO_LABELS)

    before = spectral_entropy(first * np.array(scales))
    after = spectral_entropy(second @ first * np.array(scales))
    assert expressivity == pytest.approx(before + after, rel=1e-4)
    assert progressivity == pytest.approx(after - before, rel=1e-4)


def test_az_expressivity_of_equal_spreads_is_the_log_of_their_number() -> None:
    network = linear_blocks()
    module = build_module(network, seed=0).train()
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.data.copy_(torch.eye(4)[:, :, None, None])

    value = naive("az_expressivity", module, orthogonal_images((1.0,) * 4), NO_LABELS)

    assert value == pytest.approx(2 * math.log(4.0), rel=1e-6)


def test_response_variance_is_that_of_the_last_block(scored: Scored) -> None:
    scales = (2.0, 1.0, 0.5, 3.0)
    network = linear_blocks()
    first, second = block_weights(network)

    value = scored("response_variance", network, orthogonal_images(scales), NO_LABELS)

    # Every channel has mean zero, so the variance of all elements is the mean of the channels'.
    spread = np.square(second @ first * np.array(scales)).sum(axis=1)
    assert value == pytest.approx(math.log(spread.mean()), rel=1e-5)


def test_gradient_balance_of_a_linear_block_is_what_its_matrix_does_to_the_gradient(
    scored: Scored,
) -> None:
    network = linear_blocks()
    _, weight = block_weights(network)
    head = module_as_scored(network).get_parameter(f"layers.{len(network.nodes) - 1}.1.weight")
    arriving = head.detach().double().numpy().sum(axis=0)

    value = scored("gradient_balance", network, orthogonal_images((1.0,) * 4), NO_LABELS)

    ratio = np.square(arriving @ weight).sum() / np.square(arriving).sum()
    assert value == pytest.approx(-abs(math.log(ratio)), rel=1e-4)


@pytest.mark.parametrize(("stride", "share"), [(1, 1.0), (2, 0.25)])
def test_az_trainability_of_a_linear_block_is_that_of_its_matrix(
    scored: Scored, stride: int, share: float
) -> None:
    network = linear_blocks(1, stride, side=64)
    images = torch.randn(16, 4, 64, 64, generator=torch.Generator().manual_seed(1))
    _, weight = block_weights(network)

    value = scored("az_trainability", network, images, labels_for(images))

    # A stride of two leaves three of four positions without a gradient: the mean is a quarter.
    norm = share * np.linalg.norm(weight, ord=2)
    assert value == pytest.approx(2.0 - norm - 1.0 / norm, abs=0.05)


# --- Gaussian weights ---

CHANNELS_IN, CHANNELS_OUT = 8, 512


def one_convolution(*, norm: bool, stride: int = 1) -> Network:
    builder = NetworkBuilder((CHANNELS_IN, 8, 8))
    index = builder.add(Conv(CHANNELS_OUT, kernel=1, stride=stride, norm=norm), 0)
    return builder.build(builder.add(Linear(2), builder.add(GlobalPool(), index)))


WIDE_IMAGES = torch.zeros(16, CHANNELS_IN, 8, 8)


@pytest.mark.parametrize("stride", [1, 8], ids=["8x8 features", "1x1 features"])
def test_zen_of_a_linear_map_is_the_mean_magnitude_of_a_gaussian(
    scored: Scored, stride: int
) -> None:
    network = one_convolution(norm=False, stride=stride)

    value = scored("zen", network, WIDE_IMAGES, labels_for(WIDE_IMAGES))

    # A channel moves by 0.01 |w| times a Gaussian, whose mean magnitude is sqrt(2 / pi), and |w|
    # follows the chi distribution of eight degrees.
    chi = math.sqrt(2.0) * math.gamma(4.5) / math.gamma(4.0)
    assert value == pytest.approx(math.log(0.01 * math.sqrt(2 / math.pi) * chi), abs=0.15)


def test_zen_adds_the_scale_that_a_normalisation_takes_out(scored: Scored) -> None:
    value = scored("zen", one_convolution(norm=True), WIDE_IMAGES, labels_for(WIDE_IMAGES))

    # What is left is a unit Gaussian; what was taken out has variance eight in the mean.
    expected = math.log(0.01 * math.sqrt(2 / math.pi)) + 0.5 * math.log(8.0)
    assert value == pytest.approx(expected, abs=0.05)


# --- Counts of the graph ---


def two_blocks() -> Network:
    """A stem of one convolution, and a block of three convolutions, two of them in a row."""
    builder = NetworkBuilder((3, 8, 8))
    stem = builder.block(builder.conv(0, Conv(4, 3), "relu"))
    left = builder.conv(stem, Conv(6, (3, 1), norm=False, bias=True), "relu")
    left = builder.add(Conv(4, 1), left)
    right = builder.add(Conv(4, 3, groups=2), stem)
    end = builder.block(builder.sum([stem, left, right]))
    return builder.build(builder.add(Linear(2), builder.add(GlobalPool(), end)))


def test_counts_of_a_network_of_two_blocks(scored: Scored) -> None:
    images = torch.zeros(2, 3, 8, 8)

    def count(name: str) -> float:
        return scored(name, two_blocks(), images, NO_LABELS)

    convolutions = (4 * 3 * 9, 6 * 4 * 3, 4 * 6, 4 * 2 * 9)
    assert count("parameters") == sum(convolutions) + 2 * 4 + 6 + 2 * 4 + 2 * 4 + (4 * 2 + 2)
    assert count("flops") == 64 * sum(convolutions) + 4 * 2
    assert count("layers") == 5
    assert count("depth") == 4
    # The stem has no links. The second block has two, depth 2, and widths 6, 4, 4.
    width = (6 + 4 + 4) / 3
    assert count("nn_mass") == pytest.approx(width * 2 * 2 / 3)
    assert count("nn_degree") == pytest.approx((4 + 0 / 1) + (width + 2 / 3))


def test_a_block_of_poolings_alone_has_no_width(scored: Scored) -> None:
    builder = NetworkBuilder((3, 8, 8))
    stem = builder.block(builder.add(Conv(4, 3), 0))
    end = builder.block(builder.sum([stem, builder.add(Activation("relu"), stem)]))
    network = builder.build(builder.add(Linear(2), builder.add(GlobalPool(), end)))
    images = torch.zeros(2, 3, 8, 8)

    assert sum(isinstance(node.layer, Add) for node in network.nodes) == 1
    assert scored("nn_mass", network, images, NO_LABELS) == 0.0
    assert scored("nn_degree", network, images, NO_LABELS) == 4.0 + 1.0
