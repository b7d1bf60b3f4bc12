"""Options for pictures, and for the language of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from host.cli.console import note
from host.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LanguageOption = Annotated[
    Literal["en", "ja"], typer.Option("--lang", help="Language of the text and of pictures.")
]
PictureOption = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="FILE.png", help="Where to draw a picture.", show_default=False
    ),
]


class PictureError(UsageError):
    """No picture can be written there."""


def check_picture(path: Path | None) -> None:
    """See that a PNG can be written there, before anything is done. Raises PictureError."""
    if path is None:
        return
    if path.suffix.lower() != ".png":
        raise PictureError(f"{path} must end with .png: pictures are written as PNG")
    if not path.parent.is_dir():
        raise PictureError(f"there is no folder {path.parent} for {path.name}: make it first")
    if path.is_dir():
        raise PictureError(f"{path} is a folder: name a file")


def write_picture(path: Path, figure: "Figure") -> None:
    """Write the picture and say so."""
    from host.report.plots import png

    path.write_bytes(png(figure))
    note(f"wrote {path}")
