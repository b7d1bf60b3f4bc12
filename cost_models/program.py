"""A model file as plain data: operators and the tensors between them, whatever read them."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

AttributeValue = int | float | str | tuple[int, ...] | tuple[float, ...]


class GraphError(ValueError):
    """A model file that cannot be turned into kernels; the text says why in one sentence."""


class UnreadableModelError(GraphError):
    """The bytes are no ONNX model."""


class UnknownShapeError(GraphError):
    """A size is not fixed in the file and cannot be derived from what is."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """Shape, kind and size of an element, and whether it is known before the first inference.

    `shape` is None where the file does not tell it. `scalar` is the value of a constant of one
    element where it was read. `parameter` is off for constants that only steer an operator:
    64-bit integers (axes, target shapes) and scalars (bounds, pad values).
    """

    shape: tuple[int, ...] | None
    element_type: str
    element_bytes: int
    constant: bool = False
    parameter: bool = False
    scalar: float | None = None


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator of the file, or several fused into one.

    `fused` names what follows the leading operator `op` in the same step. `signature` is equal
    for operators with equal attributes. An omitted optional input is an empty name.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    signature: bytes = b""
    fused: tuple[str, ...] = ()

    def integer(self, name: str, default: int) -> int:
        """The integer attribute of that name."""
        value = self.attributes.get(name, default)
        return value if isinstance(value, int) else default

    def text(self, name: str, default: str) -> str:
        """The string attribute of that name."""
        value = self.attributes.get(name, default)
        return value if isinstance(value, str) else default


@dataclass(frozen=True, slots=True)
class Program:
    """Operators in an order in which they can run. Only names of tensors connect them."""

    operators: tuple[Operator, ...]
    tensors: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor.

        Raises UnknownShapeError where the file leaves it open.
        """
        tensor = self.tensors.get(name)
        if tensor is None or tensor.shape is None:
            maker = next((o.op for o in self.operators if name in o.outputs), "the file")
            raise UnknownShapeError(
                f"the shape of tensor {name!r}, written by {maker}, cannot be told from the model; "
                "export it with fixed sizes and shape information"
            )
        return tensor.shape

    def size_bytes(self, name: str) -> int:
        """The size of a tensor in bytes; raises UnknownShapeError as `shape` does."""
        return math.prod(self.shape(name)) * self.tensors[name].element_bytes

    def rank(self, name: str) -> int | None:
        """The number of dimensions of a tensor, None where the file leaves it open."""
        tensor = self.tensors.get(name)
        return None if tensor is None or tensor.shape is None else len(tensor.shape)

    def is_constant(self, name: str) -> bool:
        """Whether the value is known before the first inference; an omitted input's is."""
        return not name or (name in self.tensors and self.tensors[name].constant)

    def uses(self) -> Counter[str]:
        """How often each tensor is read, the reader of a network output included."""
        counts = Counter(name for operator in self.operators for name in operator.inputs)
        counts.update(self.outputs)
        return counts
