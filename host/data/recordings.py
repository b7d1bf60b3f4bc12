"""A recording of one or more sensors from the bytes of a CSV or NPZ file."""

import csv
import io
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from host.errors import GenbaError
from host.preprocessing import Floats

INPUTS, LABELS, GROUPS, CLASSES = "inputs", "labels", "groups", "classes"
"""Arrays of an NPZ file that holds many recordings."""

_DELIMITERS = (";", "\t", ",")
_ARCHIVE_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    SyntaxError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


class UnreadableRecordingError(GenbaError):
    """A file is no recording that can be used; the text is the reason, without the file's name."""


@dataclass(frozen=True, eq=False)
class Recording:
    """Samples of each channel as float32 (C, T), all finite, and the channels' names."""

    channels: tuple[str, ...]
    values: Floats


def read_recording(content: bytes, suffix: str, wanted: Sequence[str] = ()) -> Recording:
    """The recording in a file's bytes, with the wanted channels in that order, or with all.

    A CSV file has a column for each channel, named in the first line or numbered from 1; separated
    by commas, semicolons (then the decimal sign may be a comma), tabs or spaces. An NPZ file has
    one array (C, T), or (T,) for one channel; its channels are numbered.

    Raises UnreadableRecordingError.
    """
    names, values = _from_npz(content) if suffix == ".npz" else _from_csv(content)
    if wanted:
        absent = [name for name in wanted if name not in names]
        if absent:
            raise UnreadableRecordingError(
                f'it has no channel "{absent[0]}" but {", ".join(names)}'
            )
        values = values[[names.index(name) for name in wanted]]
        names = tuple(wanted)
    return Recording(names, finite(values, names))


def finite(values: npt.NDArray[Any], channels: Sequence[str]) -> Floats:
    """The samples (C, T) as float32. Raises UnreadableRecordingError for one that is none."""
    with np.errstate(over="ignore"):
        narrow: Floats = np.ascontiguousarray(values, dtype=np.float32)
    bad = np.argwhere(~np.isfinite(narrow))
    if len(bad):
        channel, sample = bad[bad[:, 1].argmin()]
        raise UnreadableRecordingError(
            f'sample {sample + 1} of channel "{channels[channel]}" is not a finite number'
        )
    return narrow


def arrays_of(content: bytes) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an NPZ file by name; nothing in it is run.

    Raises UnreadableRecordingError.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise UnreadableRecordingError("it is no NPZ file")
            return {name: archive[name] for name in archive.files}
    except _ARCHIVE_ERRORS as error:
        raise UnreadableRecordingError(
            "it is no NPZ file, is damaged, or holds Python objects"
        ) from error


def _from_npz(content: bytes) -> tuple[tuple[str, ...], npt.NDArray[Any]]:
    arrays = arrays_of(content)
    if INPUTS not in arrays and len(arrays) != 1:
        raise UnreadableRecordingError(
            f'it has {len(arrays)} arrays, none of them named "{INPUTS}": keep one'
        )
    values = arrays[INPUTS] if INPUTS in arrays else next(iter(arrays.values()))
    values = values[np.newaxis] if values.ndim == 1 else values
    _check_layout(values)
    return tuple(str(number + 1) for number in range(len(values))), values


def _check_layout(values: npt.NDArray[Any]) -> None:
    if values.dtype.kind not in "fiub":
        raise UnreadableRecordingError(f"its array holds {values.dtype}, which are no numbers")
    if values.ndim != 2:
        raise UnreadableRecordingError(
            f"its array has {values.ndim} dimensions: (channels, samples) are needed"
        )
    if values.shape[0] > values.shape[1]:
        raise UnreadableRecordingError(
            f"its array is {values.shape[0]} channels by {values.shape[1]} samples: turn it to "
            "(channels, samples)"
        )


def _from_csv(content: bytes) -> tuple[tuple[str, ...], npt.NDArray[np.float64]]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableRecordingError(
            "it is not UTF-8 but perhaps Shift-JIS: save it as UTF-8"
        ) from error
    numbered = [
        (number, line)
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip() and not line.startswith("#")
    ]
    if not numbered:
        raise UnreadableRecordingError("it is empty")
    first = numbered[0][1]
    delimiter = next((sign for sign in _DELIMITERS if sign in first), None)
    heading = _cells(first, delimiter)
    names = tuple(str(number + 1) for number in range(len(heading)))
    if not all(_is_number(cell, delimiter) for cell in heading):
        names, numbered = tuple(cell or str(n + 1) for n, cell in enumerate(heading)), numbered[1:]
    if not numbered:
        raise UnreadableRecordingError("it has a line of names and no samples")
    return names, _numbers(numbered, delimiter, len(names)).T


def _cells(line: str, delimiter: str | None) -> list[str]:
    """Raises UnreadableRecordingError for a cell that is longer than any number or name."""
    if delimiter is None:
        return line.split()
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))]
    except csv.Error as error:
        raise UnreadableRecordingError(f"it has a line that is no CSV: {error}") from error


def _is_number(cell: str, delimiter: str | None) -> bool:
    try:
        float(cell.replace(",", ".") if delimiter == ";" else cell)
    except ValueError:
        return False
    return True


def _numbers(
    numbered: Sequence[tuple[int, str]], delimiter: str | None, columns: int
) -> npt.NDArray[np.float64]:
    """The samples (T, C). Raises UnreadableRecordingError that names the line."""
    lines = [line for _, line in numbered]
    if delimiter == ";":
        lines = [line.replace(",", ".") for line in lines]
    try:
        table = np.loadtxt(lines, delimiter=delimiter, ndmin=2, comments=None, quotechar='"')
    except ValueError as error:
        raise UnreadableRecordingError(_complaint(numbered, delimiter, columns)) from error
    if table.shape[1] != columns:
        raise UnreadableRecordingError(
            f"its first line names {columns} columns, and its samples have {table.shape[1]}"
        )
    return table


def _complaint(numbered: Sequence[tuple[int, str]], delimiter: str | None, columns: int) -> str:
    """What is wrong with the first line that does not fit."""
    for number, line in numbered:
        cells = _cells(line, delimiter)
        if len(cells) != columns:
            return f"line {number} has {len(cells)} columns, and those before it {columns}"
        wrong = next((cell for cell in cells if not _is_number(cell, delimiter)), None)
        if wrong is not None:
            shown = f'"{wrong[:20]}"' if wrong else "an empty cell"
            return f"line {number} has {shown} where a number is needed"
    return "its columns cannot be read as numbers"
