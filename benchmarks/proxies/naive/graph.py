"""Counts of the live graph: nothing is run.

nn_mass: Bhardwaj et al. 2021 (arXiv:1910.00780). nn_degree: Li et al. 2021 (FLASH,
arXiv:2108.00568), both per block of the network.
"""

import torch
from torch import nn

from benchmarks.proxies.naive.modules import graph_of
from host.network.graph import Add, Conv, Linear, Network, pair


def parameters(module: nn.Module, _images: torch.Tensor, _labels: torch.Tensor) -> float:
    """Trainable numbers of the module."""
    return float(sum(parameter.numel() for parameter in module.parameters()))


def flops(module: nn.Module, _images: torch.Tensor, _labels: torch.Tensor) -> float:
    """Multiply-accumulates of convolutions and matrix products on one image."""
    network = graph_of(module)
    total = 0
    for node in network.nodes:
        layer = node.layer
        if isinstance(layer, Conv):
            channels = network.input_shapes(node)[0][0] // layer.groups
            positions = node.shape[1] * node.shape[2]
            height, width = pair(layer.kernel)
            total += layer.out_channels * channels * height * width * positions
        elif isinstance(layer, Linear):
            features = 1
            for side in network.input_shapes(node)[0]:
                features *= side
            total += features * layer.out_features
    return float(total)


def layers(module: nn.Module, _images: torch.Tensor, _labels: torch.Tensor) -> float:
    """Number of convolutions and matrix products."""
    network = graph_of(module)
    return float(sum(isinstance(node.layer, Conv | Linear) for node in network.nodes))


def depth(module: nn.Module, _images: torch.Tensor, _labels: torch.Tensor) -> float:
    """Most convolutions and matrix products on a path from the input to the output."""
    network = graph_of(module)
    return float(_longest_path(network, list(range(len(network.nodes)))))


def nn_mass(module: nn.Module, _images: torch.Tensor, _labels: torch.Tensor) -> float:
    """Sum over blocks of width * depth * density.

    Density is the share of the possible links between the block's layers that are there.
    """
    network = graph_of(module)
    mass = 0.0
    for block in _blocks(network):
        length = _longest_path(network, block)
        density = _links(network, block) / max(1, length * (length + 1) // 2)
        mass += _width(network, block) * length * density
    return mass


def nn_degree(module: nn.Module, _images: torch.Tensor, _labels: torch.Tensor) -> float:
    """Sum over blocks of width plus links a weight layer."""
    network = graph_of(module)
    degree = 0.0
    for block in _blocks(network):
        count = len(_weighted_channels(network, block))
        degree += _width(network, block) + _links(network, block) / max(1, count)
    return degree


def _blocks(network: Network) -> list[list[int]]:
    """The nodes of each block: those after the end of the block before it, up to its own end."""
    blocks: list[list[int]] = []
    start = 1
    for end in network.blocks:
        blocks.append(list(range(start, end + 1)))
        start = end + 1
    return blocks


def _longest_path(network: Network, members: list[int]) -> int:
    """Most weight layers on a path that stays among the members, which are in running order."""
    longest: dict[int, int] = {}
    for index in members:
        node = network.nodes[index]
        before = max((longest.get(source, 0) for source in node.inputs), default=0)
        longest[index] = before + isinstance(node.layer, Conv | Linear)
    return max(longest.values(), default=0)


def _weighted_channels(network: Network, members: list[int]) -> list[int]:
    nodes = [network.nodes[index] for index in members]
    return [node.shape[0] for node in nodes if isinstance(node.layer, Conv | Linear)]


def _width(network: Network, members: list[int]) -> float:
    channels = _weighted_channels(network, members)
    return sum(channels) / max(1, len(channels))


def _links(network: Network, members: list[int]) -> int:
    return sum(isinstance(network.nodes[index].layer, Add) for index in members)
