"""Where tables, JSON and notes go."""

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_WIDTH_OF_FILES = 140


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


def note(sentence: str) -> None:
    """A remark on standard error."""
    print(f"genba: {sentence}", file=sys.stderr, flush=True)
