"""Which submodules of a network end a block."""

from torch import nn

from host.network.torch_module import NetworkModule


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """Submodules whose outputs end a block, in order; none where nothing says so."""
    if not isinstance(module, NetworkModule):
        return []
    return [module.layers[str(index)] for index in module.network.blocks]
