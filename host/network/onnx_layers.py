"""Layers in place of some that `onnx2torch` makes, so that proxies and new versions of torch can
read a converted module.
"""

from collections.abc import Callable, Mapping

import torch
from torch import fx, nn

Constants = Mapping[str, torch.Tensor]


class SliceAxes(nn.Module):
    """The operator Slice of ONNX from opset 10 on; onnx2torch's indexes as torch will not allow."""

    def forward(
        self,
        features: torch.Tensor,
        starts: torch.Tensor,
        ends: torch.Tensor,
        axes: torch.Tensor | None = None,
        steps: torch.Tensor | None = None,
    ) -> torch.Tensor:
        along = range(len(starts)) if axes is None else axes.tolist()
        by = [1] * len(starts) if steps is None else steps.tolist()
        for axis, start, end, step in zip(along, starts.tolist(), ends.tolist(), by, strict=True):
            kept = range(features.shape[axis])[start:end:step]
            if step == 1:
                features = features.narrow(axis, kept.start, len(kept))
            else:
                features = features.index_select(axis, torch.tensor(kept, dtype=torch.int64))
        return features


def with_own_layers(module: fx.GraphModule) -> fx.GraphModule:
    """The module, changed in place: weights of products are parameters, slices are ours."""
    constants = dict(module.named_buffers())
    for node in module.graph.nodes:
        if node.op != "call_module":
            continue
        replace = _OWN.get(type(module.get_submodule(node.target)).__name__)
        layer = None if replace is None else replace(node, constants)
        if layer is not None:
            module.add_submodule(node.target, layer)
    module.graph.lint()
    module.recompile()
    return module


def _linear(node: fx.Node, constants: Constants) -> nn.Module | None:
    """A product with a matrix of the file as a layer that reads the features alone."""
    weight = constants.get(str(getattr(node.args[1], "target", "")))
    if weight is None or weight.ndim != 2 or not weight.is_floating_point():
        return None
    layer = nn.Linear(weight.shape[0], weight.shape[1], bias=False)
    layer.weight = nn.Parameter(weight.T.contiguous())
    node.args = node.args[:1]
    return layer


_OWN: Mapping[str, Callable[[fx.Node, Constants], nn.Module | None]] = {
    "OnnxMatMul": _linear,
    "OnnxSlice": lambda _node, _constants: SliceAxes(),
}
