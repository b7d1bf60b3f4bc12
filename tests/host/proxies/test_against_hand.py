"""Proxies of gradients against closed forms and brute force, both implementations of each."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn
from torch.nn import functional

from host.network.graph import Conv, GlobalPool, Linear, NetworkBuilder
from host.network.torch_module import build_module
from tests.host.proxies.implementations import Scored

Array = npt.NDArray[np.float64]

IMAGES, FEATURES, CLASSES = 6, 8, 3


# --- Proxies of the loss, on softmax regression: every derivative is known ---


@dataclass(frozen=True)
class Regression:
    """logits = images @ weight.T, and what follows from it in numpy."""

    module: nn.Module
    images: torch.Tensor
    labels: torch.Tensor
    weight: Array
    rows: Array
    """(N, features)"""
    probabilities: Array
    """(N, classes)"""
    residuals: Array
    """(N, classes): probabilities less the true class, the derivative of one image's loss."""

    def gradient(self, members: slice = slice(None)) -> Array:
        """Of the mean loss of these images."""
        residuals, rows = self.residuals[members], self.rows[members]
        return residuals.T @ rows / len(rows)


@pytest.fixture
def regression() -> Regression:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(IMAGES, 2, 2, 2, generator=generator)
    labels = torch.tensor([0, 1, 2, 2, 1, 0])
    linear = nn.Linear(FEATURES, CLASSES, bias=False)
    nn.init.normal_(linear.weight, generator=generator)
    weight = linear.weight.detach().double().numpy()
    rows = images.flatten(1).double().numpy()
    exponentials = np.exp(rows @ weight.T)
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    residuals = probabilities - np.eye(CLASSES)[labels.numpy()]
    module = nn.Sequential(nn.Flatten(), linear)
    return Regression(module, images, labels, weight, rows, probabilities, residuals)


def value_of(scored: Scored, name: str, regression: Regression) -> float:
    return scored(name, regression.module, regression.images, regression.labels)


def test_norms_of_softmax_regression(scored: Scored, regression: Regression) -> None:
    gradient = regression.gradient()

    assert value_of(scored, "l2_norm", regression) == pytest.approx(
        np.linalg.norm(regression.weight), rel=1e-5
    )
    assert value_of(scored, "grad_norm", regression) == pytest.approx(
        np.linalg.norm(gradient), rel=1e-5
    )


def test_saliencies_of_softmax_regression(scored: Scored, regression: Regression) -> None:
    product = regression.weight * regression.gradient()

    assert value_of(scored, "plain", regression) == pytest.approx(product.sum(), rel=1e-5)
    assert value_of(scored, "snip", regression) == pytest.approx(np.abs(product).sum(), rel=1e-5)


def test_grasp_of_softmax_regression(scored: Scored, regression: Regression) -> None:
    gradient = regression.gradient()
    curved = np.zeros_like(gradient)
    for row, p in zip(regression.rows, regression.probabilities, strict=True):
        curved += np.outer((np.diag(p) - np.outer(p, p)) @ gradient @ row, row) / IMAGES

    value = value_of(scored, "grasp", regression)

    assert value == pytest.approx(-(regression.weight * curved).sum(), rel=1e-5)


def test_fisher_of_softmax_regression(scored: Scored, regression: Regression) -> None:
    outputs = regression.rows @ regression.weight.T
    derivatives = regression.residuals / IMAGES

    value = value_of(scored, "fisher", regression)

    expected = 0.5 * np.square(outputs * derivatives).mean(axis=0).sum()
    assert value == pytest.approx(expected, rel=1e-5)


def test_gradsign_of_softmax_regression(scored: Scored, regression: Regression) -> None:
    signs = np.sign(regression.residuals)[:, :, None] * np.sign(regression.rows)[:, None, :]

    value = value_of(scored, "gradsign", regression)

    assert value == np.abs(signs.sum(axis=0)).sum()


def test_zico_of_two_known_gradients(scored: Scored, regression: Regression) -> None:
    first = np.abs(regression.gradient(slice(3)))
    second = np.abs(regression.gradient(slice(3, None)))

    value = value_of(scored, "zico", regression)

    # Of two numbers a and b the mean over the deviation is (a + b) / |a - b|.
    expected = math.log(((first + second) / np.abs(first - second)).sum())
    assert value == pytest.approx(expected, rel=1e-4)


def test_zico_leaves_out_what_does_not_vary(scored: Scored, regression: Regression) -> None:
    images = regression.images.clone()
    images[:, 0, 0, 0] = 0.0  # its weights have gradient zero in both halves
    rows = images.flatten(1).double().numpy()
    logits = torch.from_numpy(rows @ regression.weight.T)
    residuals = logits.softmax(1) - functional.one_hot(regression.labels, CLASSES)
    first = np.abs(residuals[:3].numpy().T @ rows[:3, 1:] / 3)
    second = np.abs(residuals[3:].numpy().T @ rows[3:, 1:] / 3)

    value = scored("zico", regression.module, images, regression.labels)

    expected = math.log(((first + second) / np.abs(first - second)).sum())
    assert value == pytest.approx(expected, rel=1e-4)


def test_ntk_condition_of_a_linear_network_is_that_of_its_images(
    scored: Scored, regression: Regression
) -> None:
    singular = np.linalg.svd(regression.rows, compute_uv=False)

    value = value_of(scored, "ntk_condition", regression)

    assert value == pytest.approx((singular[0] / singular[-1]) ** 2, rel=1e-4)


def test_vkdnw_of_one_layer_has_nine_equal_deciles(scored: Scored, regression: Regression) -> None:
    assert value_of(scored, "vkdnw", regression) == pytest.approx(1.0 + math.log(9.0), rel=1e-9)


class SumOfLayers(nn.Module):
    """Softmax regression in parts: every layer reads its own feature of the image."""

    def __init__(self, layers: int, generator: torch.Generator) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(1, CLASSES, bias=False) for _ in range(layers))
        for part in self.parts:
            nn.init.normal_(part.get_parameter("weight"), generator=generator)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = images.flatten(1).split(1, dim=1)
        read = [part(feature) for part, feature in zip(self.parts, features, strict=True)]
        return torch.stack(read).sum(dim=0)


def test_vkdnw_of_softmax_regression_in_parts(scored: Scored) -> None:
    generator = torch.Generator().manual_seed(4)
    module = SumOfLayers(5, generator)
    images = torch.randn(IMAGES, 1, 1, 5, generator=generator)

    value = scored("vkdnw", module, images, torch.zeros(IMAGES, dtype=torch.int64))

    rows = images.flatten(1).double().numpy()
    weights = torch.stack([p.detach().flatten() for p in module.parameters()]).double().numpy()
    exponentials = np.exp(rows @ weights)
    p = exponentials[:, 0] / exponentials.sum(axis=1)
    # The first weight of each layer moves the logit of class 0 by the feature that it reads.
    spectrum = np.linalg.eigvalsh((rows.T * (p * (1 - p))) @ rows / IMAGES)
    deciles = np.quantile(spectrum, np.arange(1, 10) / 10)
    shares = deciles / deciles.sum()
    assert value == pytest.approx(5 - (shares * np.log(shares)).sum(), rel=1e-5)


# --- The same proxies on a small convolutional network, by brute force ---


@dataclass(frozen=True)
class Functional:
    """conv, normalisation, ReLU, strided conv, mean, linear: the layers written out by hand."""

    module: nn.Module
    images: torch.Tensor
    labels: torch.Tensor
    weights: tuple[torch.Tensor, ...]
    """In float64."""

    def logits(
        self,
        weights: tuple[torch.Tensor, ...],
        images: torch.Tensor,
        *,
        statistics: tuple[torch.Tensor, torch.Tensor] | None = None,
        gates: tuple[torch.Tensor, ...] | None = None,
    ) -> torch.Tensor:
        """Statistics (mean and variance) of the batch where none are given.

        A gate multiplies what a layer writes, for each image and channel.
        """
        first, second, last = gates or (torch.ones(()),) * 3
        features = first * functional.conv2d(images, weights[0], padding=1)
        mean, variance = statistics or self.statistics(features)
        scale = (variance + 1e-5).rsqrt()
        features = (features - mean[:, None, None]) * scale[:, None, None]
        features = second * functional.conv2d(features.relu(), weights[1], stride=2, padding=1)
        return last * (features.mean(dim=(2, 3)) @ weights[2].T)

    def statistics(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return features.mean(dim=(0, 2, 3)), features.var(dim=(0, 2, 3), correction=0)

    def fixed_statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.statistics(functional.conv2d(self.images.double(), self.weights[0], padding=1))

    def loss(self, weights: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return functional.cross_entropy(self.logits(weights, self.images.double()), self.labels)

    def per_image(
        self, of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    ) -> list[torch.Tensor]:
        """Gradients for all weights, one row an image, of a number of its logits and label."""
        statistics = self.fixed_statistics()
        rows = []
        for image, label in zip(self.images.double().split(1), self.labels.split(1), strict=True):

            def number(
                *weights: torch.Tensor,
                image: torch.Tensor = image,
                label: torch.Tensor = label,
            ) -> torch.Tensor:
                return of(self.logits(weights, image, statistics=statistics), label)

            gradients = torch.func.jacrev(number, argnums=(0, 1, 2))(*self.weights)
            rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
        return rows


@pytest.fixture
def convolutional() -> Functional:
    builder = NetworkBuilder((2, 6, 6))
    index = builder.conv(0, Conv(4, 3), "relu")
    index = builder.add(Conv(5, 3, stride=2, norm=False), index)
    network = builder.build(builder.add(Linear(CLASSES), builder.add(GlobalPool(), index)))
    module = build_module(network, seed=3).train()
    last = module.get_parameter("layers.5.1.weight")
    nn.init.normal_(last, generator=torch.Generator().manual_seed(5))
    weights = tuple(
        layer.weight.detach().double()
        for layer in module.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    )
    images = torch.randn(IMAGES, 2, 6, 6, generator=torch.Generator().manual_seed(6))
    return Functional(module, images, torch.tensor([0, 1, 2, 2, 1, 0]), weights)


def test_grasp_agrees_with_finite_differences(scored: Scored, convolutional: Functional) -> None:
    gradients = torch.func.grad(convolutional.loss)(convolutional.weights)
    step = 1e-6

    def along_the_gradient(sign: float) -> tuple[torch.Tensor, ...]:
        weights = zip(convolutional.weights, gradients, strict=True)
        moved = tuple(weight + sign * step * gradient for weight, gradient in weights)
        moved_gradients: tuple[torch.Tensor, ...] = torch.func.grad(convolutional.loss)(moved)
        return moved_gradients

    value = scored("grasp", convolutional.module, convolutional.images, convolutional.labels)

    expected = 0.0
    ahead, behind = along_the_gradient(1.0), along_the_gradient(-1.0)
    for weight, after, before in zip(convolutional.weights, ahead, behind, strict=True):
        expected -= float((weight * (after - before) / (2 * step)).sum())
    assert value == pytest.approx(expected, rel=1e-4)


def test_fisher_is_the_squared_derivative_for_a_gate_on_each_channel(
    scored: Scored, convolutional: Functional
) -> None:
    gates = tuple(
        torch.ones(shape, dtype=torch.float64, requires_grad=True)
        for shape in ((IMAGES, 4, 1, 1), (IMAGES, 5, 1, 1), (IMAGES, CLASSES))
    )
    logits = convolutional.logits(convolutional.weights, convolutional.images.double(), gates=gates)
    loss = functional.cross_entropy(logits, convolutional.labels)
    derivatives = torch.autograd.grad(loss, gates)

    value = scored("fisher", convolutional.module, convolutional.images, convolutional.labels)

    expected = sum(float(0.5 * d.square().sum() / IMAGES) for d in derivatives)
    assert value == pytest.approx(expected, rel=1e-4)


def test_gradsign_takes_each_image_alone_at_the_statistics_of_the_batch(
    scored: Scored, convolutional: Functional
) -> None:
    rows = convolutional.per_image(functional.cross_entropy)

    value = scored("gradsign", convolutional.module, convolutional.images, convolutional.labels)

    assert value == float(torch.stack(rows).sign().sum(dim=0).abs().sum())


def test_ntk_condition_takes_each_image_alone_at_the_statistics_of_the_batch(
    scored: Scored, convolutional: Functional
) -> None:
    rows = convolutional.per_image(lambda logits, _label: logits.sum())

    value = scored(
        "ntk_condition", convolutional.module, convolutional.images, convolutional.labels
    )

    singular = torch.linalg.svdvals(torch.stack(rows))
    assert value == pytest.approx(float((singular[0] / singular[-1]) ** 2), rel=1e-3)


def test_vkdnw_agrees_with_the_jacobian_of_the_first_weight_of_each_layer(
    scored: Scored, convolutional: Functional
) -> None:
    statistics = convolutional.fixed_statistics()

    def logits_of(firsts: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        weights = []
        for weight, first in zip(convolutional.weights, firsts, strict=True):
            weights.append(torch.cat([first[None], weight.flatten()[1:]]).reshape(weight.shape))
        return convolutional.logits(tuple(weights), image[None], statistics=statistics)[0]

    firsts = torch.stack([weight.flatten()[0] for weight in convolutional.weights])
    fisher = torch.zeros(3, 3, dtype=torch.float64)
    for image in convolutional.images.double():
        jacobian = torch.func.jacrev(logits_of)(firsts, image)
        p = logits_of(firsts, image).softmax(dim=0)
        fisher += jacobian.T @ (p.diag() - p.outer(p)) @ jacobian / IMAGES

    value = scored("vkdnw", convolutional.module, convolutional.images, convolutional.labels)

    deciles = np.quantile(np.linalg.eigvalsh(fisher.numpy()), np.arange(1, 10) / 10)
    shares = deciles / deciles.sum()
    assert value == pytest.approx(3 - (shares * np.log(shares)).sum(), rel=1e-4)


# --- Signal flow ---


@pytest.fixture
def deep_linear() -> tuple[nn.Module, list[Array]]:
    generator = torch.Generator().manual_seed(3)
    layers = [nn.Linear(a, b, bias=False) for a, b in itertools.pairwise((6, 5, 4, 3))]
    for layer in layers:
        nn.init.normal_(layer.weight, generator=generator)
    magnitudes = [np.abs(layer.weight.detach().double().numpy()) for layer in layers]
    return nn.Sequential(nn.Flatten(), *layers), magnitudes


ONES = torch.ones(2, 1, 2, 3)
NO_LABELS = torch.zeros(2, dtype=torch.int64)


def test_synflow_of_a_linear_network_counts_every_path_once_a_layer(
    scored: Scored, deep_linear: tuple[nn.Module, list[Array]]
) -> None:
    module, magnitudes = deep_linear

    value = scored("synflow", module, -3.0 * ONES, NO_LABELS)

    arriving = np.ones(6)
    for magnitude in magnitudes:
        arriving = magnitude @ arriving
    assert value == pytest.approx(math.log(3 * arriving.sum()), rel=1e-9)


def test_log_synflow_of_a_linear_network_is_the_product_of_what_arrives_and_what_leaves(
    scored: Scored, deep_linear: tuple[nn.Module, list[Array]]
) -> None:
    module, magnitudes = deep_linear

    value = scored("log_synflow", module, -3.0 * ONES, NO_LABELS)

    total = 0.0
    for place, magnitude in enumerate(magnitudes):
        arriving, leaving = np.ones(6), np.ones(3)
        for before in magnitudes[:place]:
            arriving = before @ arriving
        for after in magnitudes[:place:-1]:
            leaving = leaving @ after
        total += (magnitude * np.log1p(np.outer(leaving, arriving))).sum()
    assert value == pytest.approx(math.log(total), rel=1e-9)


@pytest.mark.parametrize("name", ["synflow", "log_synflow"])
@pytest.mark.parametrize("activation", ["relu", "relu6", "hard_swish"])
def test_signal_flows_past_normalisations_and_activations(
    scored: Scored, name: str, activation: str
) -> None:
    builder = NetworkBuilder((2, 4, 4))
    index = builder.conv(0, Conv(3, 3, norm=True), activation)  # type: ignore[arg-type]
    network = builder.build(builder.add(Linear(2), builder.add(GlobalPool(), index)))
    module = build_module(network, seed=1)
    norm = module.get_submodule("layers.1.1")
    for parameter in norm.parameters():
        nn.init.constant_(parameter, -7.0)

    value = scored(name, module, torch.randn(2, 2, 4, 4), NO_LABELS)

    kernel = module.get_parameter("layers.1.0.weight").detach().double().abs()
    head = module.get_parameter("layers.4.1.weight").detach().double().abs()
    kernel.requires_grad_()
    head.requires_grad_()
    features = functional.conv2d(torch.ones(1, 2, 4, 4).double(), kernel, padding=1)
    bias = module.get_parameter("layers.4.1.bias").detach().double().abs()
    flow = (features.mean(dim=(2, 3)) @ head.T + bias).sum()
    total = 0.0
    for weight, gradient in zip(
        (kernel, head), torch.autograd.grad(flow, (kernel, head)), strict=True
    ):
        shape = gradient.log1p() if name == "log_synflow" else gradient
        total += float((weight.detach() * shape).sum())
    assert value == pytest.approx(math.log(total), rel=1e-9)


# --- Input gradients ---


class Squares(nn.Module):
    """The square of every element: the gradient of an image's logits is known and its own."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features.square()


@pytest.fixture
def squares() -> tuple[nn.Module, torch.Tensor, Array]:
    """The module, images, and the known gradient of each image as a row."""
    generator = torch.Generator().manual_seed(7)
    linear = nn.Linear(FEATURES, CLASSES)
    nn.init.normal_(linear.weight, generator=generator)
    images = torch.randn(IMAGES, 2, 2, 2, generator=generator)
    summed = linear.weight.detach().double().numpy().sum(axis=0)
    rows = 2.0 * images.flatten(1).double().numpy() * summed
    return nn.Sequential(nn.Flatten(), Squares(), linear), images, rows


def test_jacob_cov_of_known_gradients(
    scored: Scored, squares: tuple[nn.Module, torch.Tensor, Array]
) -> None:
    module, images, rows = squares

    value = scored("jacob_cov", module, images, torch.zeros(IMAGES, dtype=torch.int64))

    values = np.linalg.eigvals(np.corrcoef(rows)).real + 1e-5
    assert value == pytest.approx(-(np.log(values) + 1.0 / values).sum(), rel=1e-4)


def test_jacob_cov_of_a_linear_network_is_that_of_equal_rows(
    scored: Scored, regression: Regression
) -> None:
    value = value_of(scored, "jacob_cov", regression)

    # All correlations are 1: one eigenvalue is the number of images, the others are zero.
    k = 1e-5
    expected = -(math.log(IMAGES + k) + 1 / (IMAGES + k) + (IMAGES - 1) * (math.log(k) + 1 / k))
    assert value == pytest.approx(expected, rel=1e-6)


def test_epe_nas_of_known_gradients_leaves_out_the_class_of_one_image(
    scored: Scored, squares: tuple[nn.Module, torch.Tensor, Array]
) -> None:
    module, images, rows = squares
    labels = torch.tensor([0, 2, 0, 0, 1, 2])

    value = scored("epe_nas", module, images, labels)

    expected = 0.0
    for members in ([0, 2, 3], [1, 5]):
        expected += abs(np.log(np.abs(np.corrcoef(rows[members])) + 1e-5).sum())
    assert value == pytest.approx(expected, rel=1e-4)
