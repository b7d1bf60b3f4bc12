"""Networks that answer like trained ones, without a training."""

import torch

from host.network.graph import Network
from host.network.torch_module import NetworkModule, build_module


def trained_like(network: Network) -> NetworkModule:
    """The network with statistics in its normalisations and with logits far apart, the same every
    time; in training mode.
    """
    module = build_module(network, seed=0)
    generator = torch.Generator().manual_seed(0)
    # A few batches, averaged, give the normalisations their statistics.
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None
    with torch.no_grad():
        for _ in range(6):
            module(torch.randn(16, *network.input_shape, generator=generator))
        for layer in module.modules():
            if isinstance(layer, torch.nn.Linear):
                torch.nn.init.normal_(layer.weight, std=0.3, generator=generator)
    return module
