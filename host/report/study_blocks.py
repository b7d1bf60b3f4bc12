"""What the page of a study is built of: tables, pictures and paragraphs, before they are HTML."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Style = Literal["number", "text", "predicted", "good", "bad", "doubt"]


@dataclass(frozen=True)
class Cell:
    """`quoted` was written by a device or a part of genba, in English."""

    text: str
    style: Style = "number"
    quoted: str = ""


@dataclass(frozen=True)
class Table:
    """A table with its caption; columns are right-aligned but for those named in `text`."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    text: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Picture:
    """An SVG element; `caption` says what it shows."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Paragraph:
    """A sentence, and what it quotes in English."""

    text: str
    quoted: str = ""
    style: Style = "text"


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: Sequence[Paragraph]


@dataclass(frozen=True)
class Code:
    """What is to be typed or saved as it stands."""

    caption: str
    text: str


@dataclass(frozen=True)
class Pictures:
    """Pictures beside each other, and what their marks mean: (name of the mark, words)."""

    pictures: Sequence[Picture]
    legend: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Heading:
    """Of a part of a section."""

    text: str


Block = Table | Pictures | Paragraph | Bullets | Code | Heading


@dataclass(frozen=True)
class Section:
    """A chapter of the page."""

    title: str
    blocks: Sequence[Block]


def kind_of(block: Block) -> str:
    """The name of the macro that writes the block."""
    return type(block).__name__.lower()


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[Cell | str]]) -> Table:
    """A table; a plain string is a number, and a column has the alignment of its first cell."""
    cells = [[Cell(c) if isinstance(c, str) else c for c in row] for row in rows]
    first = cells[0] if cells else []
    text = frozenset(n for n, cell in enumerate(first) if cell.style not in ("number", "predicted"))
    return Table(caption, columns, cells, text)


def text(value: str, quoted: str = "") -> Cell:
    """A cell of words."""
    return Cell(value, "text", quoted)
