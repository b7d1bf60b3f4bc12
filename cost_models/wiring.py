"""Who writes and who reads each tensor of a program, kept up to date while it is rewritten."""

import dataclasses
from collections.abc import Iterable

from cost_models.program import Operator, Program, Tensor


class Wiring:
    """The operators of a program in slots, so that steps can be replaced in place.

    `slots` holds None where an operator was taken away. `tensors` is a copy that may be changed.
    """

    def __init__(self, program: Program) -> None:
        self.slots: list[Operator | None] = list(program.operators)
        self.tensors: dict[str, Tensor] = dict(program.tensors)
        self.outputs = frozenset(program.outputs)
        self._program = program
        self._makers: dict[str, int] = {}
        self._readers: dict[str, list[int]] = {}
        for place, operator in enumerate(program.operators):
            self._connect(place, operator)

    def program(self) -> Program:
        """The program as it stands."""
        operators = tuple(operator for operator in self.slots if operator is not None)
        return dataclasses.replace(self._program, operators=operators, tensors=self.tensors)

    def place(self, name: str) -> int | None:
        """The slot of the operator that writes a tensor."""
        return self._makers.get(name)

    def maker(self, name: str, *ops: str) -> Operator | None:
        """The operator that writes a tensor if it is one of `ops` (of any kind without them)."""
        place = self._makers.get(name)
        operator = None if place is None else self.slots[place]
        return operator if operator is not None and (not ops or operator.op in ops) else None

    def readers(self, name: str) -> list[Operator]:
        """The operators that read a tensor, one entry for each time."""
        found = (self.slots[place] for place in self._readers.get(name, ()))
        return [operator for operator in found if operator is not None]

    def only_reader(self, name: str, *ops: str) -> Operator | None:
        """The operator that alone reads a tensor, if it is one of `ops`.

        None for a network output, which is read outside too.
        """
        readers = self.readers(name)
        if len(readers) != 1 or name in self.outputs:
            return None
        return readers[0] if not ops or readers[0].op in ops else None

    def constant(self, name: str) -> bool:
        """Whether the value is known before the first inference; an omitted input's is."""
        return not name or (name in self.tensors and self.tensors[name].constant)

    def scalar(self, name: str) -> float | None:
        """The value of a constant of one element, None for everything else."""
        tensor = self.tensors.get(name)
        return tensor.scalar if tensor is not None and tensor.constant else None

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of a tensor, None where it is not known."""
        tensor = self.tensors.get(name)
        return None if tensor is None else tensor.shape

    def rank(self, name: str) -> int | None:
        """The number of dimensions of a tensor, None where it is not known."""
        shape = self.shape(name)
        return None if shape is None else len(shape)

    def remove(self, operator: Operator) -> None:
        """Take an operator away."""
        place = self._slot(operator)
        self.slots[place] = None
        for name in operator.inputs:
            if place in self._readers.get(name, ()):
                self._readers[name].remove(place)
        for name in operator.outputs:
            if self._makers.get(name) == place:
                del self._makers[name]

    def put(self, place: int, operator: Operator) -> None:
        """Let an operator stand in a slot, whatever stood there before."""
        before = self.slots[place]
        if before is not None:
            self.remove(before)
        self.slots[place] = operator
        self._connect(place, operator)

    def replace(self, old: Iterable[Operator], new: Operator, place: int) -> None:
        """Take several operators away and let one stand in a slot instead."""
        for operator in old:
            self.remove(operator)
        self.put(place, new)

    def unused(self, name: str) -> bool:
        """Whether nobody reads a tensor."""
        return name not in self.outputs and not self.readers(name)

    def _connect(self, place: int, operator: Operator) -> None:
        for name in filter(None, operator.inputs):
            self._readers.setdefault(name, []).append(place)
        for name in filter(None, operator.outputs):
            self._makers[name] = place

    def _slot(self, operator: Operator) -> int:
        for name in operator.outputs:
            place = self._makers.get(name)
            if place is not None and self.slots[place] is operator:
                return place
        return next(place for place, found in enumerate(self.slots) if found is operator)
