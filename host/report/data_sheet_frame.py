"""The page of a contact sheet: rows with headings, cells with captions, and names it can draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from host.report.plots import fonts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 8
_WIDTH = 13.0  # here and below: inches
_MARGIN = 0.25
_TITLE = 0.5
_HEADING = 0.34
_CAPTION = 0.42
_FOOT = 0.3
_GAP = 0.06
_CELL = (_WIDTH - 2 * _MARGIN) / COLUMNS
_CAPTION_CHARACTERS = 26


@dataclass(frozen=True)
class Cell:
    """What is painted, what stands below it in two lines, and the colour of the second."""

    paint: Callable[[Axes], None]
    name: str
    note: str
    colour: str


@dataclass(frozen=True)
class Row:
    """A class."""

    heading: str
    cells: Sequence[Cell]


def sheet(title: str, rows: Sequence[Row], *, aspect: float, foot: str = "") -> Figure:
    """The rows one below the other; `aspect` is the height of a cell in its width."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    each = _HEADING + _CELL * aspect + _CAPTION
    height = _TITLE + len(rows) * each + _FOOT
    with fonts():
        figure = Figure(figsize=(_WIDTH, height))
        FigureCanvasAgg(figure)

        def write(left: float, bottom: float, text: str, size: float, colour: str) -> None:
            place = (left / _WIDTH, bottom / height)
            figure.text(*place, text, size=size, color=colour, parse_math=False)

        write(_MARGIN, height - 0.34, title, 13, "black")
        for number, row in enumerate(rows):
            top = height - _TITLE - number * each
            write(_MARGIN, top - _HEADING + 0.1, row.heading, 11, "black")
            bottom = top - _HEADING - _CELL * aspect
            for column, cell in enumerate(row.cells):
                left = _MARGIN + column * _CELL
                size = (_CELL - _GAP) / _WIDTH, (_CELL * aspect - _GAP) / height
                axes = figure.add_axes((left / _WIDTH, bottom / height, *size))
                cell.paint(axes)
                axes.set_xticks([])
                axes.set_yticks([])
                write(left, bottom - 0.14, _shortened(cell.name), 6.5, "black")
                write(left, bottom - 0.27, cell.note, 6.5, cell.colour)
        write(_MARGIN, 0.1, foot, 8, "black")
    return figure


def drawable(text: str) -> str:
    """The text with a mark for each character that no font here has."""
    return "".join(sign if _has_glyph(sign) else "·" for sign in text)


def is_drawable(text: str) -> bool:
    """Whether fonts here have every character."""
    return all(map(_has_glyph, text))


@cache
def _has_glyph(sign: str) -> bool:
    import matplotlib as mpl
    from matplotlib.font_manager import findfont, get_font

    with fonts():
        families = list(mpl.rcParams["font.family"])
        return any(get_font(findfont(family)).get_char_index(ord(sign)) for family in families)


def _shortened(text: str) -> str:
    """The text with its middle left out, where it is too long for a cell."""
    shown = drawable(text)
    if len(shown) <= _CAPTION_CHARACTERS:
        return shown
    half = (_CAPTION_CHARACTERS - 1) // 2
    return f"{shown[:half]}…{shown[-half:]}"
