"""The table of what was shown, for people and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

STEPS = ("install", "tests", "enrol", "onnx", "tflite", "ncnn", "crash", "marked")
_TITLES = {
    "tests": "own tests",
    "onnx": "ONNX",
    "tflite": "TFLite",
    "crash": "crash survived",
    "marked": "kept out of cost models",
}
_STYLES = {"green": "green", "none": "default", "red": "bold red", "not reached": "bold red"}
State = Literal["green", "none", "red", "not reached"]


@dataclass(frozen=True)
class Cell:
    """One step on one board; `note` is the reason where it is not green."""

    state: State
    seconds: float | None = None
    note: str = ""

    @classmethod
    def green(cls, seconds: float, note: str = "") -> Cell:
        return cls("green", seconds, note)

    @classmethod
    def absent(cls, because: str) -> Cell:
        """What cannot be there, by the table of machines."""
        return cls("none", None, because)

    @classmethod
    def failed(cls, because: str, seconds: float | None = None) -> Cell:
        return cls("red", seconds, because)

    @property
    def is_green(self) -> bool:
        return self.state == "green"

    @property
    def short(self) -> str:
        """In a few words."""
        if self.state == "none":
            return "none"
        if self.seconds is None or not self.is_green:
            return self.state if not self.note else f"{self.state}: {self.note}"
        return f"ok {self.seconds:.0f} s"


@dataclass
class Line:
    """One board."""

    board: str
    what: str
    architecture: str
    python: str
    cpu: str
    cells: dict[str, Cell] = field(default_factory=dict)

    def cell(self, step: str) -> Cell:
        return self.cells.get(step, Cell("not reached", None, "an earlier step failed"))

    @property
    def is_whole(self) -> bool:
        """Whether every step that can be is green."""
        return all(self.cell(step).state in ("green", "none") for step in STEPS)


def print_table(lines: Sequence[Line], seconds: float) -> None:
    """The table, and below it the reasons for what is not green."""
    console = Console(width=150)
    table = Table(
        title=f"emulated boards, {seconds:.0f} s in all; no figure of them is a machine's"
    )
    table.add_column("board")
    table.add_column("CPU, Python")
    for step in STEPS:
        table.add_column(_TITLES.get(step, step))
    for line in lines:
        cells = [_text(line.cell(step)) for step in STEPS]
        table.add_row(line.board, f"{line.architecture} {line.cpu}\nPython {line.python}", *cells)
    console.print(table)
    reasons: dict[str, list[str]] = {}
    for line in lines:
        for step in STEPS:
            cell = line.cell(step)
            if not cell.is_green:
                words = "none, because" if cell.state == "none" else f"{cell.state},"
                sentence = f"{_TITLES.get(step, step)}: {words} {cell.note}"
                reasons.setdefault(sentence, []).append(line.board)
    for sentence, boards in reasons.items():
        console.print(Text(f"{', '.join(boards)}: {sentence}"))


def record(lines: Sequence[Line], seconds: float, memory: dict[str, Any] | None) -> dict[str, Any]:
    """The same for programs."""
    boards = [
        {**asdict(line), "cells": {step: asdict(line.cell(step)) for step in STEPS}}
        for line in lines
    ]
    return {"seconds": seconds, "boards": boards, "memory": memory}


def _text(cell: Cell) -> Text:
    words = "red" if cell.state == "red" else cell.short if cell.is_green else cell.state
    return Text(words, style=_STYLES[cell.state])
