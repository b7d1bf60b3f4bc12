"""What the passes over an untrained network leave behind for the proxies to read."""

from dataclasses import dataclass

import torch
from torch import nn

from host.network.graph import Network


@dataclass(frozen=True)
class LayerGradient:
    """The weight of a convolution or matrix product, and the derivatives of the loss for it.

    The loss is the mean cross-entropy of the batch, or of its first and second half. `curvature`
    is the product of the Hessian and the gradient. All have the shape of the weight.
    """

    weight: torch.Tensor
    gradient: torch.Tensor
    halves: tuple[torch.Tensor, torch.Tensor] | None = None
    curvature: torch.Tensor | None = None


@dataclass(frozen=True)
class Flow:
    """The weights of the network of magnitudes, and d(sum of logits)/d(weight), both float64."""

    weights: tuple[torch.Tensor, ...]
    gradients: tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Perturbation:
    """How far features move when the images do, and the variances of normalisation inputs.

    `difference` is the mean of |features(x) - features(x')|; `variances` holds, for each
    normalisation layer, the mean over its channels of the (unbiased) variance in the batch.
    """

    difference: float
    variances: tuple[float, ...]


@dataclass(frozen=True)
class Evidence:
    """A network and what was seen of it, for a batch of N images.

    A part that no proxy asked for, or that the network does not have, is None. Parts come from
    training mode, where normalisations use the statistics of the batch, unless said otherwise.
    """

    network: Network | None = None
    """None for a module that is not of our spaces."""
    module: nn.Module | None = None
    images: torch.Tensor | None = None
    labels: torch.Tensor | None = None
    code_agreement: torch.Tensor | None = None
    """(N, N): in how many activation units the on/off codes of two images agree."""
    distinct_patterns: int | None = None
    """How many different patterns of on and off over the images the activation units show."""
    block_entropies: tuple[float, ...] | None = None
    """For each block the entropy of the spectrum of its output's channel covariance."""
    block_variances: tuple[float, ...] | None = None
    """For each block the variance of its output over images, channels and positions."""
    block_gradients: tuple[float, ...] | None = None
    """For each block the mean square of the gradient of the same sum for its output."""
    smallest_correlations: tuple[float, ...] | None = None
    """For each layer the smallest eigenvalue of the channel correlations of the first image."""
    input_gradients: torch.Tensor | None = None
    """(N, inputs): for each image the gradient of the summed logits of all images, these weighed
    +1 and -1 in turn."""
    block_jacobians: tuple[float, ...] | None = None
    """For each pair of consecutive blocks the estimated spectral norm of the channel Jacobian."""
    loss_gradients: tuple[LayerGradient, ...] | None = None
    saliency: float | None = None
    """Sum over output channels of layers of (sum of output * gradient)^2 / 2, mean over images."""
    kernel_matrix: torch.Tensor | None = None
    """(N, N): inner products of the images' gradients of the summed logits, for all weights; the
    statistics of normalisations are held constant."""
    sign_agreement: float | None = None
    """Sum over weights of |sum of the signs of the images' loss gradients|; statistics constant."""
    fisher_spectrum: torch.Tensor | None = None
    """(layers,): eigenvalues, ascending, of the Fisher matrix of one weight of each layer;
    statistics constant."""
    flow: Flow | None = None
    perturbation: Perturbation | None = None
