"""Where tables, JSON and notes go."""

import json
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

UNKNOWN = "–"
_WIDTH_OF_FILES = 140
_UNITS = (("d", 86_400.0), ("h", 3600.0), ("min", 60.0))


def table_console() -> "Console":
    """Standard output: as wide as the terminal, and wide enough for every table in a file."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=_WIDTH_OF_FILES)


def print_json(value: Any) -> None:
    """One JSON document on standard output, for people to read too."""
    print(json.dumps(value, ensure_ascii=False, indent=2))


def print_json_line(value: Any) -> None:
    """One line of JSON on standard output, at once."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def plain_table() -> "Table":
    """A table without lines around it."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))


def iso(moment: datetime | None) -> str | None:
    """The moment for programs."""
    return None if moment is None else moment.isoformat()


def local(moment: datetime | None) -> str:
    """The moment as a clock on the wall here shows it."""
    return UNKNOWN if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def lasted(since: datetime, now: datetime) -> str:
    """The time between the two in its largest unit, such as "12 s"; never below 0."""
    seconds = max(0.0, (now - since).total_seconds())
    for unit, size in _UNITS:
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"


def note(sentence: str) -> None:
    """A remark on standard error."""
    print(f"genba: {sentence}", file=sys.stderr, flush=True)
