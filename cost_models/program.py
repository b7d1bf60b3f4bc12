"""A model file as plain data: operators and the tensors between them, whatever read them."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

AttributeValue = int | float | str | tuple[int, ...] | tuple[float, ...]


class GraphError(ValueError):
    """A model file that cannot be turned into kernels; the text says why in one sentence."""


class UnreadableModelError(GraphError):
    """The bytes are no model of the kind expected, or a damaged one."""


class UnknownShapeError(GraphError):
    """A size of an input is not fixed in the file and was not given."""


def check_given_shapes(
    given: Mapping[str, tuple[int, ...]], ranks: Mapping[str, int | None]
) -> None:
    """Refuse shapes given for inputs that are not there, or that do not fit their ranks.

    `ranks` has the number of dimensions by input, None where the file leaves it open. Raises
    GraphError.
    """
    for name, shape in given.items():
        if name not in ranks:
            names = ", ".join(repr(known) for known in ranks) or "none"
            raise GraphError(f"the model has no input {name!r}; its inputs are {names}")
        if ranks[name] not in (None, len(shape)):
            raise GraphError(
                f"input {name!r} has {ranks[name]} dimensions, the given shape {tuple(shape)} has "
                f"{len(shape)}"
            )
        if any(size < 1 for size in shape):
            raise GraphError(
                f"the shape {tuple(shape)} given for input {name!r} has a size below 1"
            )


@dataclass(frozen=True, slots=True)
class Tensor:
    """Shape, kind and size of an element, and whether it is known before the first inference.

    `shape` is None where it is not known before the network runs. `element_bytes` is below 1 where
    a byte holds several elements. `scalar` is the value of a constant of one element where it was
    read. `parameter` is off for constants that only steer an operator: 64-bit integers (axes,
    target shapes) and scalars (bounds, pad values). `fixed` is off where the shape depends on a
    size that the file leaves open, `named` where such a size has not even a name: onnxruntime
    cannot tell then whether two are equal. `content` is equal for equal constants of few elements,
    and empty for all other tensors.
    """

    shape: tuple[int, ...] | None
    element_type: str
    element_bytes: float
    constant: bool = False
    parameter: bool = False
    scalar: float | None = None
    fixed: bool = True
    named: bool = True
    content: bytes = b""


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

    def integers(self, name: str) -> tuple[int, ...] | None:
        """The attribute of that name if it is a list of integers."""
        value = self.attributes.get(name)
        if not isinstance(value, tuple):
            return None
        return tuple(part for part in value if isinstance(part, int))

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

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of a tensor, None where it is not known before the network runs."""
        tensor = self.tensors.get(name)
        return None if tensor is None else tensor.shape

    def size_bytes(self, name: str) -> int | None:
        """The size of a tensor in bytes, None where it is not known before the network runs."""
        shape = self.shape(name)
        if shape is None:
            return None
        return math.ceil(math.prod(shape) * self.tensors[name].element_bytes)

    def is_fixed(self, name: str) -> bool:
        """Whether the file alone tells the shape of a tensor."""
        return name in self.tensors and self.tensors[name].fixed

    def rank(self, name: str) -> int | None:
        """The number of dimensions of a tensor, None where its shape is not known."""
        shape = self.shape(name)
        return None if shape is None else len(shape)

    def scalar(self, name: str) -> float | None:
        """The value of a constant of one element, None for everything else."""
        return (
            self.tensors[name].scalar if name in self.tensors and self.is_constant(name) else None
        )

    def is_constant(self, name: str) -> bool:
        """Whether the value is known before the first inference; an omitted input's is."""
        return not name or (name in self.tensors and self.tensors[name].constant)

    def uses(self) -> Counter[str]:
        """How often each tensor is read, the reader of a network output included."""
        counts = Counter(name for operator in self.operators for name in operator.inputs)
        counts.update(self.outputs)
        return counts
