"""A table of labels: a CSV file with a row for each image or recording."""

import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from host.data.listing import (
    ExcludedFile,
    ListedFile,
    Listing,
    by_path,
    require_possible,
    subset_named,
)
from host.data.split import Subset
from host.errors import UsageError

_DELIMITERS = (",", ";", "\t")


@dataclass(frozen=True)
class Columns:
    """Which columns of the user's CSV files are read.

    `path`, `label`, `group` and `split` head columns of the table; without a name the columns
    "group" and "split" are read where there are any. `channels` are columns of the recordings
    themselves, all where none is named.
    """

    path: str = "path"
    label: str = "label"
    group: str | None = None
    split: str | None = None
    channels: tuple[str, ...] = ()


ALL_COLUMNS = Columns()
"""Those of a table that is headed as genba calls them, and every channel."""


def list_table(table: Path, columns: Columns) -> Listing:
    """The files that a table names; their paths are relative to the table's folder.

    Separated by comma, semicolon or tab; UTF-8 with or without a byte order mark. A row without
    path or label, a file that is named twice and one that has two labels are left out and named.

    Raises UsageError where the table cannot be read, lacks a column or names an unknown part.
    """
    rows = list(_rows(table, columns))
    excluded = [row for row in rows if isinstance(row, ExcludedFile)]
    by_file: dict[str, list[ListedFile]] = {}
    for row in rows:
        if isinstance(row, ListedFile):
            by_file.setdefault(row.path, []).append(row)
    files = []
    for path, same in by_file.items():
        labels = sorted({row.label for row in same})
        if len(labels) > 1:
            names = " and ".join(f'"{label}"' for label in labels)
            excluded.append(ExcludedFile(path, f"the table says {names} of it", "two classes"))
        elif len(set(same)) > 1:
            excluded.append(
                ExcludedFile(path, "the table names it twice, with two groups or parts")
            )
        else:
            files.append(same[0])
    if not files:
        raise UsageError(f"{table} names no file that can be used: it needs a row for each")
    classes = tuple(sorted({file.label for file in files}))
    ordered = tuple(sorted(files, key=lambda file: file.path))
    return Listing(table.parent, classes, ordered, by_path(excluded), table)


def _rows(table: Path, columns: Columns) -> Iterator[ListedFile | ExcludedFile]:
    text = _text(table)
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter, header = _header(table, first, columns)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    group = _optional(table, header, columns.group, "group")
    split = _optional(table, header, columns.split, "split")
    try:
        begun = False
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not begun:
                begun = True
                continue
            row = dict(zip(header, (cell.strip() for cell in cells), strict=False))
            yield _listed(table, row, columns, (group, split), reader.line_num)
    except csv.Error as error:
        raise UsageError(f"{table} is no CSV file: line {reader.line_num}: {error}") from error


def _text(table: Path) -> str:
    require_possible(table)
    try:
        return table.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(
            f"the table {table} cannot be read ({error.strerror}): check the path"
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{table} is not UTF-8 but perhaps Shift-JIS, as Excel saves CSV in Japan: save it as "
            f'"CSV UTF-8", or convert it with iconv -f CP932 -t UTF-8'
        ) from error


def _header(table: Path, line: str, columns: Columns) -> tuple[str, list[str]]:
    """The delimiter and the names of the columns."""
    try:
        read = [
            (sign, [name.strip() for name in next(csv.reader([line], delimiter=sign), [])])
            for sign in _DELIMITERS
        ]
    except csv.Error as error:
        raise UsageError(f"{table} is no CSV file: its first line: {error}") from error
    for delimiter, names in read:
        if columns.path in names and columns.label in names:
            return delimiter, names
    _, names = max(read, key=lambda one: len(one[1]))
    missing = [name for name in (columns.path, columns.label) if name not in names]
    raise UsageError(
        f"{table} has no column {_listed_names(missing)}: it has {_listed_names(names)}; the first "
        "line names the columns, and others can be named as path and label"
    )


def _optional(table: Path, header: Sequence[str], name: str | None, default: str) -> str | None:
    """The column to read, or None. Raises UsageError where the one asked for is not there."""
    if name is None:
        return default if default in header else None
    if name not in header:
        raise UsageError(
            f"{table} has no column {name!r} for the {default}: it has {_listed_names(header)}"
        )
    return name


def _listed(
    table: Path,
    row: Mapping[str, str],
    columns: Columns,
    optional: tuple[str | None, str | None],
    line: int,
) -> ListedFile | ExcludedFile:
    group, split = optional
    path, label = row.get(columns.path, ""), row.get(columns.label, "")
    if not path:
        return ExcludedFile(f"line {line} of {table.name}", "the row has no path")
    if "\0" in path:
        return ExcludedFile(
            f"line {line} of {table.name}", "the path has a NUL character, which no path can have"
        )
    path = _normal(table.parent, path)
    if not label:
        return ExcludedFile(path, f"line {line} of {table.name} gives it no label")
    part = row.get(split, "") if split else ""
    subset: Subset | None = subset_named(part)
    if part and subset is None:
        raise UsageError(
            f"line {line} of {table} has the split {part!r}: write train, validation or test, or "
            "nothing"
        )
    return ListedFile(path, label, subset, (row.get(group) or None) if group else None)


def _normal(folder: Path, path: str) -> str:
    """The path with slashes and without detours; backslashes are those of Windows."""
    if "\\" in path and not _exists(folder / path):
        path = path.replace("\\", "/")
    return Path(os.path.normpath(path)).as_posix()


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # such as a name that is too long
        return False


def _listed_names(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names) or "none"
