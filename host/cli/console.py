"""Where tables go."""

from rich.console import Console

_WIDTH_OF_FILES = 140


def table_console() -> Console:
    """Standard output: as wide as the terminal, and wide enough for every table in a file."""
    console = Console()
    return console if console.is_terminal else Console(width=_WIDTH_OF_FILES)
