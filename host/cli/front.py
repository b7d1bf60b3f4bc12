"""`genba front`: what a study found."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from host.cli.workspace import JsonOption, WorkspaceOption, opened

if TYPE_CHECKING:
    from host.study.stored import StudyResult

front_app = typer.Typer(no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="STUDY", help="The study's name.")]


@front_app.command("show")
def show(
    name: NameArgument, *, as_json: JsonOption = False, workspace: WorkspaceOption = None
) -> None:
    """Show the front: score, predicted and measured cost on every device."""
    result, _ = _stored(name, workspace)
    if as_json:
        print(json.dumps(result.front.model_dump(mode="json"), ensure_ascii=False, indent=2))
        return
    from host.cli.console import table_console
    from host.report.tables import finalists_table, front_table

    console = table_console()
    console.print(front_table(result.front))
    if result.finalists:
        console.print(finalists_table(result.finalists))


@front_app.command("plot")
def plot(
    name: NameArgument,
    *,
    output_dir: Annotated[
        Path | None,
        typer.Option(
            "--output-dir",
            "-o",
            metavar="DIR",
            help="Where to write front.png and front.html.",
            show_default="the study's folder",
        ),
    ] = None,
    language: Annotated[
        Literal["en", "ja"], typer.Option("--lang", help="Language of the page.")
    ] = "en",
    workspace: WorkspaceOption = None,
) -> None:
    """Draw the front as a picture (PNG) and as a page (HTML)."""
    from host.report.page import write_front

    result, folder = _stored(name, workspace)
    for path in write_front(result.front, result.finalists, output_dir or folder, language):
        print(path)


def _stored(name: str, workspace: Path | None) -> "tuple[StudyResult, Path]":
    """The stored front and finalists of a study, and its folder.

    Raises NoFrontError and OtherVersionError.
    """
    from host.study.stored import require_result

    with opened(workspace) as (found, store):
        result = require_result(store, store.studies.by_name(name))
    return result, found.root / "studies" / name
