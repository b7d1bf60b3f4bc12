"""Options for pictures, and for the language of them."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from host.errors import UsageError

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


def require_picture(path: Path) -> None:
    """See that a PNG can be written there, before anything is done. Raises PictureError."""
    if path.suffix.lower() != ".png":
        raise PictureError(f"{path} must end with .png: pictures are written as PNG")
    if not path.parent.is_dir():
        raise PictureError(f"there is no folder {path.parent} for {path.name}: make it first")
