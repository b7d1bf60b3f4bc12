"""A contact sheet: samples of each class in a row, to see at a glance what was labelled how."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from host.data.check import division
from host.data.dealing import draw
from host.data.images import ImageFolder, ImageItem, image_content
from host.data.signal_loader import preprocessing_of_windows
from host.data.signals import SignalFolder, SignalItem, recordings_of
from host.data.split import Subset
from host.preprocessing import Floats, decode
from host.report.data_sheet_frame import COLUMNS, Cell, Row, drawable, is_drawable, sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_CLASSES = 20
_THUMBNAIL = (320, 320)  # pixels at most
_POINTS = 1000  # of a drawn window: more cannot be told apart
_APART = 6.0  # deviations between two channels
_PART_COLOURS: Mapping[Subset, str] = {
    "train": "#5f6368",
    "validation": "#9a6700",
    "test": "#0b6e4f",
}
_LINES = ("#1a5fb4", "#a4262c", "#0b6e4f", "#9a6700", "#613583", "#5f6368")


def contact_sheet(data: ImageFolder | SignalFolder, *, seed: int) -> Figure:
    """A row for each class with samples drawn by the seed, each with its file and its part.

    Of more than 20 classes the first are shown. A class whose name no font here can draw is
    numbered, and a line at the foot says so. Raises GenbaError for a file that has changed since
    it was read.
    """
    if isinstance(data, ImageFolder):
        cells, aspect, noun = _image_cells(data, seed), _aspect(data), "images"
    else:
        cells, aspect, noun = _window_cells(data, seed), 0.7, "windows"
    counts = data.class_counts()
    rows = [
        Row(f"{_class_name(name, number)}   {counts[name]} {noun}", cells[number])
        for number, name in enumerate(data.classes[:MOST_CLASSES])
    ]
    return sheet(_title(data, seed), rows, aspect=aspect, foot=_foot(data.classes))


def _title(data: ImageFolder | SignalFolder, seed: int) -> str:
    where = (data.root if data.table is None else data.table).resolve()
    classes = f"{len(data.classes)} classes"
    if len(data.classes) > MOST_CLASSES:
        classes += f", of which the first {MOST_CLASSES} are shown"
    title = f"{drawable(where.name)}: {classes}; drawn by seed {seed}"
    if isinstance(data, SignalFolder):
        title += f"; channels from top: {drawable(', '.join(data.channel_names))}"
    return title


def _class_name(name: str, number: int) -> str:
    return name if is_drawable(name) else f"class {number + 1}"


def _foot(classes: Sequence[str]) -> str:
    numbered = [n for n, name in enumerate(classes, start=1) if not is_drawable(name)]
    if not numbered:
        return ""
    return (
        f"no font here can write the names of {len(numbered)} classes, so they are numbered in "
        "alphabetical order: install one, such as fonts-noto-cjk for Japanese"
    )


def _parts_by_path(data: ImageFolder | SignalFolder, seed: int) -> dict[str, Subset]:
    parts = division(data, seed=seed)
    return {item.path: subset for subset, items in parts.items() for item in items}


def _image_cells(data: ImageFolder, seed: int) -> list[list[Cell]]:
    """The cells of each class."""
    part_of = _parts_by_path(data, seed)
    cells: list[list[Cell]] = []
    for label in range(min(len(data.classes), MOST_CLASSES)):
        items = [item for item in data.items if item.label == label]
        drawn = sorted(items, key=lambda item: _ticket(item, seed))[:COLUMNS]
        cells.append(
            [
                _cell(item, part_of[item.path], f"{item.width}x{item.height}", _picture(data, item))
                for item in drawn
            ]
        )
    return cells


def _aspect(data: ImageFolder) -> float:
    """The height of most pictures in their width, within what a page can show."""
    ratios = [item.height / item.width for item in data.items]
    return float(np.clip(np.median(ratios), 0.4, 1.5)) if ratios else 1.0


def _ticket(item: ImageItem | SignalItem, seed: int) -> str:
    """A draw of its own: that of the division would show the test part only."""
    return draw(f"sheet {item.sha256}", seed)


def _window_number(item: SignalItem, seed: int) -> int:
    return int(_ticket(item, seed)[:8], 16) % item.weight


def _cell(
    item: ImageItem | SignalItem, part: Subset, note: str, paint: Callable[[Axes], None]
) -> Cell:
    return Cell(paint, item.path.rpartition("/")[2], f"{part}  {note}", _PART_COLOURS[part])


def _picture(data: ImageFolder, item: ImageItem) -> Callable[[Axes], None]:
    image = decode(image_content(data.root, item))
    image = image.convert("L" if item.grey else "RGB")
    image.thumbnail(_THUMBNAIL)
    pixels = np.asarray(image)

    def paint(axes: Axes) -> None:
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=255)
        axes.set_frame_on(False)

    return paint


def _window_cells(data: SignalFolder, seed: int) -> list[list[Cell]]:
    """The cells of each class: one window of each drawn recording, all to one scale."""
    part_of = _parts_by_path(data, seed)
    drawn: list[SignalItem] = []
    for label in range(min(len(data.classes), MOST_CLASSES)):
        items = [item for item in data.items if item.label == label]
        drawn += sorted(items, key=lambda item: _ticket(item, seed))[:COLUMNS]
    starts = {item.path: _window_number(item, seed) * data.windows.step for item in drawn}
    read: dict[str, Floats] = {}
    # In the order of their paths: a file with many recordings is then read once.
    for item, values in recordings_of(data, sorted(drawn, key=lambda item: item.path)):
        read[item.path] = data.windows.cut(values)[_window_number(item, seed)].copy()
    cells: list[list[Cell]] = [[] for _ in range(min(len(data.classes), MOST_CLASSES))]
    if not drawn:
        return cells
    stacked = np.stack([read[item.path] for item in drawn])
    scaled = preprocessing_of_windows(stacked).normalise(stacked)
    for item, window in zip(drawn, scaled, strict=True):
        note = f"from sample {starts[item.path] + 1}"
        cells[item.label].append(_cell(item, part_of[item.path], note, _lines(window)))
    return cells


def _lines(window: Floats) -> Callable[[Axes], None]:
    """A window (C, L) as lines, the first channel on top."""
    channels, length = window.shape
    kept = np.unique(np.linspace(0, length - 1, min(length, _POINTS)).astype(int))

    def paint(axes: Axes) -> None:
        for channel in range(channels):
            axes.plot(
                kept,
                window[channel, kept] - channel * _APART,
                color=_LINES[channel % len(_LINES)],
                lw=0.6,
            )
        axes.set_xlim(0, max(1, length - 1))
        axes.set_ylim(-_APART * (channels - 0.5), _APART / 2)

    return paint
