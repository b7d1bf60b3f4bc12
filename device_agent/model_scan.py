"""What an ONNX file holds, read from its bytes before any runtime sees it.

onnxruntime before 1.24 reads files outside the model's folder when a tensor names them, and no
newer version exists for Python 3.10 and older; so the agent looks by itself, at every place where
a tensor may stand. What a model will do cannot be known before it runs: the limits of its process
and the clock hold what passes here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from device_agent.errors import ModelRejectedError
from device_agent.longest_path import CircleError, longest_path
from device_agent.mapped_file import mapped
from device_agent.onnx_constants import (
    ATTRIBUTES,
    MOST_VALUES,
    Constant,
    Numbers,
    constant,
    raw_size_bytes,
    stated_elements,
    unpack,
)
from device_agent.onnx_wire import MESSAGES, Buffer, Wire
from device_agent.scan_limits import ScanLimits, beyond_limit

# Generous for networks: what bounds the time and memory of a scan beside the number of nodes.
_FIELDS_PER_NODE = 100
_OPERANDS_PER_NODE = 20
_TENSORS_PER_NODE = 10
# Parsers of protobuf give up at 100 messages inside each other, and each graph is three of them.
_DEEPEST_GRAPH = 30
_DEEPEST_TYPE = 16

_OWN_OPERATORS = ("", "ai.onnx")
"""The two names of the domain of ONNX's own operators."""
_CONTROL_FLOW = ("If", "Loop", "Scan")
_CONSTANT = "Constant"
_FLOAT_TYPE, _INT32_TYPE, _INT64_TYPE, _DOUBLE_TYPE = 1, 6, 7, 11
_UNKNOWN_SIZE = -1
_WIDE_HASHES = sys.hash_info.width >= 64

_Span = tuple[int, int]


def _digest(name: bytes) -> int:
    """What stands for a name; names themselves could fill the memory. A hash of 32 bits, as small
    machines have it, would too often take two names for one.
    """
    return hash(name) if _WIDE_HASHES else hash(name) << 32 | hash(b"\0" + name) & 0xFFFFFFFF


_NO_NAME = _digest(b"")


@dataclass(frozen=True)
class ModelScan:
    """Counts over the whole file, functions and sub-graphs included; `chain` is the longest path
    of nodes and `domains` those of its operators, where functions are called as they are.
    """

    nodes: int
    tensors: int
    graph_depth: int
    chain: int
    domains: tuple[str, ...]
    control_flow: tuple[str, ...]


@dataclass
class _Scope:
    """One graph or function as far as it has been read. Names stand for themselves by their hash,
    which is salted anew in every process: so a file's names take little memory.
    """

    parent: _Scope | None = None
    nodes: list[_Span] = field(default_factory=list)
    constants: dict[int, Constant] = field(default_factory=dict)
    # Elements of the values whose shape the file states.
    elements: dict[int, int] = field(default_factory=dict)
    inputs: set[int] = field(default_factory=set)

    def known(self, name: int) -> Constant | None:
        """What is known of a value in this graph or one around it."""
        scope: _Scope | None = self
        while scope is not None and name != _NO_NAME:
            if name in scope.constants:
                return scope.constants[name]
            if name in scope.elements:
                return Constant(scope.elements[name])
            scope = scope.parent
        return None


@dataclass
class _Node:
    operator: str = ""
    domain: str = ""
    reads: list[int] = field(default_factory=list)
    writes: list[int] = field(default_factory=list)
    attributes: dict[str, Constant] = field(default_factory=dict)
    constant: Constant | None = None
    graphs: list[_Span] = field(default_factory=list)


@dataclass(frozen=True)
class _Body:
    """What a graph comes to with its functions put in place. `reads` are values from outside."""

    nodes: int
    chain: int
    depth: int
    reads: frozenset[int]


@dataclass
class _Function:
    name: str = ""
    domain: str = ""
    scope: _Scope = field(default_factory=_Scope)
    body: _Body | None = None
    is_open: bool = False


@dataclass
class _Tensor:
    """A tensor as far as it has been read; `data` are the spans of what it holds, by field."""

    name: int = _NO_NAME
    dims: list[int] = field(default_factory=list)
    data_type: int = 0
    data: list[tuple[int, _Span]] = field(default_factory=list)


def scan_file(path: Path, limits: ScanLimits) -> ModelScan:
    """Scan the file at `path` without holding it in memory.

    Raises ModelRejectedError as `scan_bytes` does.
    """
    with mapped(path, "export it again") as data:
        return scan_bytes(data, limits)


def scan_bytes(data: Buffer, limits: ScanLimits) -> ModelScan:
    """Walk every message of an ONNX ModelProto.

    Raises ModelRejectedError for a truncated or malformed file, a tensor that refers to another
    file, more of anything than `limits` allow (with functions put in place of their calls),
    operators of a domain that neither `limits` nor the file's own functions know, functions that
    call themselves, and control flow unless it is allowed.
    """
    if len(data) > limits.max_bytes:
        raise beyond_limit(
            f"the model file has {len(data)} bytes, and this device takes {limits.max_bytes}",
            "use a smaller model",
            "max_bytes",
        )
    return _Scan(data, limits).model(len(data))


class _Scan:
    """One look at one file."""

    def __init__(self, data: Buffer, limits: ScanLimits) -> None:
        self._wire = Wire(data, _FIELDS_PER_NODE * limits.max_nodes)
        self._limits = limits
        self._max_depth = min(limits.max_graph_depth, _DEEPEST_GRAPH)
        self._nodes = 0
        self._operands = 0
        self._tensors = 0
        self._domains: set[str] = set()
        self._control_flow: set[str] = set()
        self._functions: dict[tuple[str, str], _Function] = {}

    def model(self, size: int) -> ModelScan:
        """Look at the whole file."""
        graphs: list[_Span] = []
        has_operator_set = False
        trainings: list[_Span] = []
        for number, first, last in self._wire.fields("model", 0, size):
            if number == 7:
                graphs.append((first, last))
            elif number == 20:
                self._within_nodes(len(trainings) + 1, "training graphs")
                trainings.append((first, last))
            elif number == 25:
                self._add_function(first, last)
            else:
                has_operator_set |= number == 8
                self._skim_child("model", number, first, last)
        if not graphs:
            raise ModelRejectedError("the file holds no graph: it is not an ONNX model")
        if not has_operator_set:
            raise ModelRejectedError(
                "the model does not say which operator set it uses: it is damaged or very old;"
                " export it again"
            )
        for function in self._functions.values():
            self._body_of(function, level=2)
        for training in trainings:
            for _, first, last in self._graphs_of_training(*training):
                self._graph(first, last, None, level=1)
        body = self._graph(*graphs[0], None, level=1)
        return ModelScan(
            self._nodes,
            self._tensors,
            body.depth,
            body.chain,
            tuple(sorted(self._domains)),
            tuple(sorted(self._control_flow)),
        )

    def _graphs_of_training(self, first: int, last: int) -> list[tuple[int, int, int]]:
        graphs = []
        for found in self._wire.fields("training", first, last):
            if found[0] in (1, 2):
                graphs.append(found)
            else:
                self._skim_child("training", *found)
        return graphs

    # ---- graphs and functions -----------------------------------------------------------------

    def _graph(self, first: int, last: int, parent: _Scope | None, level: int) -> _Body:
        self._check_depth(level)
        scope = _Scope(parent)
        for number, start, end in self._wire.fields("graph", first, last):
            if number == 1:
                self._add_node(scope, start, end)
            elif number == 5:
                name, constant = self._tensor(start, end)
                scope.constants[name] = constant
            elif number == 15:
                self._sparse_tensor(start, end)
            elif number in (11, 12, 13):
                name = self._value(scope, start, end)
                if number == 11:
                    scope.inputs.add(name)
            else:
                self._skim_child("graph", number, start, end)
        return self._evaluate(scope, level)

    def _add_function(self, first: int, last: int) -> None:
        self._within_nodes(len(self._functions) + 1, "functions")
        function = _Function()
        for number, start, end in self._wire.fields("function", first, last):
            if number == 1:
                function.name = self._wire.text(start, end)
            elif number == 10:
                function.domain = self._wire.text(start, end)
            elif number == 7:
                self._add_node(function.scope, start, end)
            elif number == 11:
                self._default_attribute(start, end)
            elif number == 12:
                self._value(function.scope, start, end)
            else:
                self._skim_child("function", number, start, end)
        key = (function.domain, function.name)
        if function.domain in _OWN_OPERATORS:
            raise ModelRejectedError(
                f"the model puts a function of its own in the place of ONNX's operator"
                f" {_shown(function.name)}: give the function a domain of its own"
            )
        if key in self._functions:
            raise ModelRejectedError(
                f"the model has two functions {_shown(function.name)} of the domain"
                f" {_shown(function.domain)}: put them in place of their calls (onnx.inliner)"
            )
        self._functions[key] = function

    def _default_attribute(self, first: int, last: int) -> None:
        """The default value of an attribute."""
        holder = _Node()
        self._attribute(holder, first, last)
        _refuse_graphs(holder, "has a graph as the default value of an attribute")

    def _body_of(self, function: _Function, level: int) -> _Body:
        if function.is_open:
            raise ModelRejectedError(
                f"the function {_shown(function.name)} of the model calls itself, so it has no end"
            )
        if function.body is None:
            self._check_depth(level)
            function.is_open = True
            function.body = self._evaluate(function.scope, level)
            function.is_open = False
        self._check_depth(level + function.body.depth - 1)
        return function.body

    def _evaluate(self, scope: _Scope, level: int) -> _Body:
        """Look at the nodes of a graph, which has been read, and count what they come to."""
        nodes = [self._node(*span) for span in scope.nodes]
        writers: dict[int, int] = {}
        for index, node in enumerate(nodes):
            self._check_operator(node)
            if node.constant is not None and node.writes:
                scope.constants[node.writes[0]] = node.constant
            for name in node.writes:
                if writers.setdefault(name, index) != index:
                    raise ModelRejectedError(
                        f"two nodes of the model ({_shown(node.operator)} is one of them) make the"
                        " same value: give every value a name of its own"
                    )
        bodies = [self._body_of_node(node, scope, level) for node in nodes]
        count = sum(body.nodes for body in bodies)
        if count > self._limits.max_nodes:
            raise self._too_many_nodes("with its functions in place of their calls, ")
        chain = self._chain(nodes, bodies, writers)
        known = writers.keys() | scope.inputs | scope.constants.keys()
        outside = {name for body in bodies for name in body.reads if name not in known}
        depth = 1 + max((body.depth for body in bodies), default=0)
        return _Body(count, chain, depth, frozenset(outside))

    def _body_of_node(self, node: _Node, scope: _Scope, level: int) -> _Body:
        """What one node comes to, with the graphs that it holds or the function that it calls."""
        self._check_size(node, scope)
        inner = [self._graph(*span, scope, level=level + 1) for span in node.graphs]
        called = self._functions.get((node.domain, node.operator))
        if called is not None:
            inner.append(self._body_of(called, level + 1))
        reads = frozenset(node.reads).union(
            *(body.reads for body in inner[: len(node.graphs)]),
        )
        return _Body(
            nodes=max(1, sum(body.nodes for body in inner)),
            chain=max((1, *(body.chain for body in inner))),
            depth=max((body.depth for body in inner), default=0),
            reads=reads,
        )

    def _chain(
        self, nodes: Sequence[_Node], bodies: Sequence[_Body], writers: dict[int, int]
    ) -> int:
        before = [{writers[name] for name in body.reads if name in writers} for body in bodies]
        try:
            chain = longest_path([body.chain for body in bodies], before)
        except CircleError as error:
            raise ModelRejectedError(
                f"nodes of the model need each other's results"
                f" ({_shown(nodes[error.index].operator)} is one of them), so none can run first"
            ) from error
        if chain > self._limits.max_chain:
            raise beyond_limit(
                f"the longest path through the model has {chain} nodes, and this device takes"
                f" {self._limits.max_chain}",
                "use a shallower model",
                "max_chain",
            )
        return chain

    # ---- nodes --------------------------------------------------------------------------------

    def _add_node(self, scope: _Scope, first: int, last: int) -> None:
        self._nodes += 1
        if self._nodes > self._limits.max_nodes:
            raise self._too_many_nodes("")
        scope.nodes.append((first, last))

    def _node(self, first: int, last: int) -> _Node:
        node = _Node()
        for number, start, end in self._wire.fields("node", first, last):
            if number == 1:
                # An empty name is an operand that is left out; it must keep its place.
                node.reads.append(self._operand(start, end))
            elif number == 2:
                if end > start:
                    node.writes.append(self._operand(start, end))
            elif number == 4:
                node.operator = self._wire.text(start, end)
            elif number == 7:
                node.domain = self._wire.text(start, end)
            elif number == 5:
                self._attribute(node, start, end)
            else:
                self._skim_child("node", number, start, end)
        return node

    def _operand(self, first: int, last: int) -> int:
        self._operands += 1
        if self._operands > _OPERANDS_PER_NODE * self._limits.max_nodes:
            raise beyond_limit(
                f"the nodes of the model have more than {self._operands - 1} inputs and outputs",
                "use a smaller model",
                "max_nodes",
            )
        return self._name(first, last)

    def _name(self, first: int, last: int) -> int:
        return _digest(self._wire.bytes_at(first, last))

    def _attribute(self, node: _Node, first: int, last: int) -> None:
        name = ""
        numbers: list[int | float] = []
        held = None
        for number, start, end in self._wire.fields("attribute", first, last):
            if number == 1:
                name = self._wire.text(start, end)
            elif number in (3, 8):
                self._take(numbers, self._wire.integers(start, end, MOST_VALUES))
            elif number in (2, 7):
                self._take(numbers, self._floats(_FLOAT_TYPE, start, end))
            elif number in (5, 10):
                _, held = self._tensor(start, end)
            elif number in (6, 11):
                self._within_nodes(len(node.graphs) + 1, "sub-graphs")
                node.graphs.append((start, end))
            else:
                self._child_of_attribute(number, start, end)
        if numbers and len(numbers) <= MOST_VALUES:
            held = constant(len(numbers), numbers)
        if held is not None and name in ATTRIBUTES:
            node.attributes[name] = held
        elif name.startswith("value"):
            node.constant = held

    def _child_of_attribute(self, number: int, first: int, last: int) -> None:
        if number in (14, 15):
            self._type(first, last, level=1)
        elif number in (22, 23):
            self._sparse_tensor(first, last)

    def _take(self, numbers: list[int | float], more: Numbers | None) -> None:
        """Add numbers, unless there are so many that nobody will look at them."""
        if more is None:
            more = (0,) * (MOST_VALUES + 1)
        if len(numbers) <= MOST_VALUES:
            numbers.extend(more)

    def _floats(self, data_type: int, first: int, last: int) -> Numbers | None:
        if last - first > 8 * MOST_VALUES:
            return None
        return unpack(data_type, self._wire.bytes_at(first, last))

    def _check_operator(self, node: _Node) -> None:
        if (node.domain, node.operator) in self._functions:
            _refuse_graphs(node, "is given a graph")
            return
        if node.domain not in self._limits.domains:
            raise beyond_limit(
                f"the model uses the operator {_shown(node.operator)} of the unknown domain"
                f" {_shown(node.domain)}",
                "export it with ONNX's own operators",
                "domains",
            )
        if node.graphs or (node.operator in _CONTROL_FLOW and node.domain in _OWN_OPERATORS):
            self._refuse_control_flow(node.operator)
        if node.operator != _CONSTANT:
            node.constant = None
        self._domains.add(node.domain)

    def _refuse_control_flow(self, operator: str) -> None:
        if not self._limits.control_flow:
            raise beyond_limit(
                f"the model has control flow ({_shown(operator)}), which may never end",
                "export it without loops and branches",
                "control_flow",
            )
        self._control_flow.add(operator)

    def _check_size(self, node: _Node, scope: _Scope) -> None:
        known = [scope.known(name) for name in node.reads]
        self._check_elements(
            stated_elements(node.operator, known, node.attributes),
            f"an operator {_shown(node.operator)} of the model",
        )

    # ---- tensors and shapes -------------------------------------------------------------------

    def _tensor(self, first: int, last: int) -> tuple[int, Constant]:
        """The name of a tensor, and what is known of it."""
        self._tensors += 1
        if self._tensors > _TENSORS_PER_NODE * self._limits.max_nodes:
            raise beyond_limit(
                f"the model has more than {self._tensors - 1} tensors",
                "use a smaller model",
                "max_nodes",
            )
        tensor = _Tensor()
        for number, start, end in self._wire.fields("tensor", first, last):
            if number == 13 or (number == 14 and self._wire.integer(start, end) != 0):
                raise ModelRejectedError(
                    "the model keeps weights in another file (external data): save it as one file"
                )
            if number == 1:
                self._add_dims(tensor.dims, start, end)
            elif number == 2:
                tensor.data_type = self._wire.integer(start, end)
            elif number in (4, 5, 6, 7, 9, 10, 11):
                if len(tensor.data) <= MOST_VALUES:
                    tensor.data.append((number, (start, end)))
            elif number == 8:
                tensor.name = self._name(start, end)
            else:
                self._skim_child("tensor", number, start, end)
        elements = self._elements(tensor.dims, "a tensor of the model")
        _check_data(tensor, elements)
        return tensor.name, constant(elements, self._values(tensor, elements))

    def _values(self, tensor: _Tensor, elements: int) -> Numbers | None:
        """The numbers of a small tensor."""
        if elements > MOST_VALUES or len(tensor.data) > MOST_VALUES:
            return None
        values: list[int | float] = []
        for number, (first, last) in tensor.data:
            if number in (5, 7) and tensor.data_type in (_INT32_TYPE, _INT64_TYPE):
                some: Numbers | None = self._wire.integers(first, last, MOST_VALUES)
            elif number in (4, 9, 10):
                some = self._floats(tensor.data_type, first, last)
            else:
                return None
            if some is None:
                return None
            values.extend(some)
        return values

    def _sparse_tensor(self, first: int, last: int) -> None:
        dims: list[int] = []
        for number, start, end in self._wire.fields("sparse tensor", first, last):
            if number == 3:
                self._add_dims(dims, start, end)
            else:
                self._tensor(start, end)
        self._elements(dims, "a sparse tensor of the model")

    def _add_dims(self, dims: list[int], first: int, last: int) -> None:
        sizes = self._wire.integers(first, last, MOST_VALUES)
        if sizes is None or len(dims) + len(sizes) > MOST_VALUES:
            raise ModelRejectedError(f"a tensor of the model has more than {MOST_VALUES} axes")
        dims.extend(sizes)

    def _value(self, scope: _Scope, first: int, last: int) -> int:
        """The name of a value that the graph describes."""
        name, elements = _NO_NAME, _UNKNOWN_SIZE
        for number, start, end in self._wire.fields("value", first, last):
            if number == 1:
                name = self._name(start, end)
            elif number == 2:
                elements = self._type(start, end, level=1)
            else:
                self._skim_child("value", number, start, end)
        if elements != _UNKNOWN_SIZE:
            scope.elements[name] = elements
        return name

    def _type(self, first: int, last: int, level: int) -> int:
        """How many elements a tensor of this type has at least."""
        if level > _DEEPEST_TYPE:
            raise ModelRejectedError(f"a type in the model is nested deeper than {_DEEPEST_TYPE}")
        elements = _UNKNOWN_SIZE
        for number, start, end in self._wire.fields("type", first, last):
            kind = MESSAGES["type"][number].message
            if kind == "tensor type":
                elements = max(elements, self._tensor_type(start, end))
            elif kind in ("list type", "map type"):
                for inner, left, right in self._wire.fields(kind, start, end):
                    if MESSAGES[kind][inner].message:
                        self._type(left, right, level + 1)
            else:
                self._skim_child("type", number, start, end)
        return elements

    def _tensor_type(self, first: int, last: int) -> int:
        elements = _UNKNOWN_SIZE
        for number, start, end in self._wire.fields("tensor type", first, last):
            if number == 2:
                elements = self._shape(start, end)
        return elements

    def _shape(self, first: int, last: int) -> int:
        sizes: list[int] = []
        for _, start, end in self._wire.fields("shape", first, last):
            for number, left, right in self._wire.fields("dimension", start, end):
                if number == 1:
                    size = self._wire.integer(left, right)
                    # Some exporters write -1 where an axis is open.
                    sizes.append(1 if size == -1 else size)
        return self._elements(sizes, "a value of the model")

    def _elements(self, sizes: Sequence[int], what: str) -> int:
        """The product of sizes. Raises ModelRejectedError where one is negative or too large."""
        elements = 1
        largest = 0
        for size in sizes:
            if size < 0:
                raise ModelRejectedError(
                    f"{what} has the impossible shape {list(sizes)[:10]}: export it again"
                )
            elements = min(elements * size, 1 << 64)
            largest = max(largest, size)
        self._check_elements(max(elements, largest), what)
        return elements

    def _check_elements(self, elements: float, what: str) -> None:
        if elements > self._limits.max_elements:
            raise beyond_limit(
                f"{what} has a size of {_count(elements)} elements, and this device takes"
                f" {self._limits.max_elements}",
                "use a smaller model or a smaller input",
                "max_elements",
            )

    # ---- limits -------------------------------------------------------------------------------

    def _skim_child(self, kind: str, number: int, first: int, last: int) -> None:
        child = MESSAGES[kind][number].message
        if child:
            self._wire.skim(child, first, last)

    def _check_depth(self, level: int) -> None:
        if level > self._max_depth:
            raise beyond_limit(
                f"the model nests graphs and functions deeper than {self._max_depth}",
                "use a simpler model",
                "max_graph_depth",
            )

    def _within_nodes(self, count: int, what: str) -> None:
        if count > self._limits.max_nodes:
            raise beyond_limit(
                f"the model has more than {self._limits.max_nodes} {what}",
                "use a smaller model",
                "max_nodes",
            )

    def _too_many_nodes(self, how: str) -> ModelRejectedError:
        return beyond_limit(
            f"{how}the model has more than {self._limits.max_nodes} nodes",
            "use a smaller model",
            "max_nodes",
        )


def _refuse_graphs(node: _Node, how: str) -> None:
    """A function could put the same graph to as many places as it likes."""
    if node.graphs:
        raise ModelRejectedError(
            f"a function of the model {how}: put functions in place of their calls (onnx.inliner)"
        )


def _check_data(tensor: _Tensor, elements: int) -> None:
    """A tensor has the data that its shape says: a runtime would make room for it first."""
    if elements and not tensor.data:
        raise ModelRejectedError(
            f"a tensor of the model has the shape {tensor.dims[:10]} and no data: export it again"
        )
    needed = raw_size_bytes(tensor.data_type, elements)
    for number, (first, last) in tensor.data:
        if number == 9 and needed is not None and last - first != needed:
            raise ModelRejectedError(
                f"a tensor of the model of shape {tensor.dims[:10]} has {last - first} bytes"
                f" instead of {needed}: export it again"
            )


def _count(elements: float) -> str:
    return f"{elements:.0f}" if elements < 1e15 else f"{elements:.1e}"


def _shown(name: str) -> str:
    """A name from a file, fit to be shown in a sentence."""
    return ascii(name[:80])
