"""A CSV file with an `arch_str` column: cells and what was measured of them."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.cost_models.cells import Cell, CellError
from cost_models.nnls import FloatArray

CELLS = "arch_str"
INDEX = "index"
_ABSENT = frozenset({"", "nan", "na", "none", "null"})


class TableError(ValueError):
    """A file is not the table that was asked for; the message says what to do."""


@dataclass(frozen=True)
class Table:
    """Cells in the order of the file, or of its `index` column where there is one.

    `values` holds a number per cell for each column, NaN where nothing was measured. Numbers that
    are not positive mean that the device cannot run the cell.
    """

    path: Path
    cells: tuple[Cell, ...]
    values: dict[str, FloatArray]

    def usable(self, column: str) -> np.typing.NDArray[np.int64]:
        """Positions of connected cells that were measured and that the device can run."""
        found = np.flatnonzero(self.values[column] > 0)
        return found[[self.cells[index].is_connected for index in found]]

    def left_out(self, column: str) -> dict[str, int]:
        """How many cells have no path, are infeasible, or were not measured; each counted once."""
        values = self.values[column]
        connected = np.array([cell.is_connected for cell in self.cells], dtype=bool)
        return {
            "disconnected": int((~connected).sum()),
            "infeasible": int((connected & (values <= 0)).sum()),
            "not_measured": int((connected & np.isnan(values)).sum()),
        }


def read_table(path: Path, columns: Sequence[str]) -> Table:
    """Raises TableError for a file that cannot be read or that lacks or garbles a column."""
    rows = _rows(path, [CELLS, *columns])
    if not rows:
        raise TableError(f"{path} holds no cells, only a header; give a file with measurements")
    if INDEX in rows[0][1]:
        rows.sort(key=lambda row: _index(path, *row))
    try:
        cells = tuple(Cell.parsed(_text(path, row, line, CELLS)) for line, row in rows)
    except CellError as error:
        raise TableError(f"{path}: {error}") from error
    values = {
        column: np.array([_value(path, row, line, column) for line, row in rows])
        for column in columns
    }
    return Table(path, cells, values)


def number_columns(path: Path) -> list[str]:
    """Names of the columns that hold numbers and at most gaps beside them, the index left out.

    Raises TableError as `read_table` does.
    """
    rows = [row for _, row in _rows(path, [CELLS])]
    if not rows:
        raise TableError(f"{path} holds no cells, only a header; give a file with measurements")
    found = []
    for name in rows[0]:
        texts = {(row[name] or "").strip() for row in rows}
        present = [text for text in texts if text.lower() not in _ABSENT]
        if name != INDEX and present and all(_is_number(text) for text in present):
            found.append(name)
    return found


def _rows(path: Path, needed: Sequence[str]) -> list[tuple[int, dict[str, str | None]]]:
    """Line number and row; surplus fields of a row are dropped."""
    try:
        # A mark at the start, as spreadsheets write it, is no part of the first name.
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            names = reader.fieldnames or ()
            for name in needed:
                if name not in names:
                    raise TableError(
                        f"{path} has no column {name!r}; it has "
                        f"{', '.join(map(repr, names)) or 'no columns at all'}"
                    )
            return [(reader.line_num, {name: row[name] for name in names}) for row in reader]
    except OSError as error:
        raise TableError(f"cannot read {path}: {error.strerror}; name a CSV file") from error
    except UnicodeDecodeError as error:
        raise TableError(f"{path} is no text in UTF-8; save it as a CSV file in UTF-8") from error
    except csv.Error as error:
        raise TableError(f"{path} is no CSV file: {error}; save it as one") from error


def _text(path: Path, row: dict[str, str | None], line: int, column: str) -> str:
    text = row[column]
    if text is None:
        raise TableError(f"{path}, line {line}: the row ends before {column!r}; complete it")
    return text.strip()


def _value(path: Path, row: dict[str, str | None], line: int, column: str) -> float:
    text = _text(path, row, line, column)
    if text.lower() in _ABSENT:
        return math.nan
    if not _is_number(text) or math.isinf(float(text)):
        raise TableError(
            f"{path}, line {line}: {text!r} in column {column!r} is no number; correct it, or "
            "leave it empty where nothing was measured"
        )
    return float(text)


def _index(path: Path, line: int, row: dict[str, str | None]) -> int:
    text = _text(path, row, line, INDEX)
    try:
        return int(text)
    except ValueError as error:
        raise TableError(
            f"{path}, line {line}: {text!r} in column {INDEX!r} is no whole number; correct it"
        ) from error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
