"""`genba data`: what is wrong with data, before a study spends hours on them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from host.cli.console import note, print_json, table_console
from host.cli.workspace import JsonOption
from host.errors import UsageError

if TYPE_CHECKING:
    from host.data.images import ImageFolder
    from host.data.signals import SignalFolder
    from host.data.table import Columns

PICTURE = "contact-sheet.png"
RECORD = "data-check.json"
_COLUMNS = ("path", "label", "group", "split")

data_app = typer.Typer(no_args_is_help=True)


@data_app.callback()
def data() -> None:
    """Check images or signals before anything is trained on them."""


@data_app.command()
def check(  # noqa: PLR0913 - the options of a command
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="A sub-folder for each class, or train, val and test with such sub-folders.",
        ),
    ],
    *,
    table: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV",
            help="Labels from a table with the columns path and label, and perhaps group and split;"
            " paths are relative to it.",
            show_default=False,
        ),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=HEADER",
            help="What a column of the table is called, such as label=Class; may stand several"
            " times.",
            show_default=False,
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="What in a path names the part that is shown, in brackets: 'part(\\d+)'. A part"
            " is never learnt from and tested on.",
            show_default=False,
        ),
    ] = None,
    signals: Annotated[
        bool, typer.Option("--signals", help="CSV or NPZ recordings, not images.")
    ] = False,
    length: Annotated[
        int | None,
        typer.Option(
            metavar="L", min=1, help="Samples in a window of a signal.", show_default=False
        ),
    ] = None,
    step: Annotated[
        int | None,
        typer.Option(
            metavar="S", min=1, help="Samples from window to window.", show_default="the length"
        ),
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(
            metavar="A,B", help="Which columns of recordings are read.", show_default="all"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="For all that is drawn.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help=f"Write {PICTURE}, samples of each class, and {RECORD} there.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Count, look for what is broken, twice there or leaking, and say what to do about it.

    Ends with 0 if training could start on what was found, else with 1.
    """
    from host.data.check import check_data
    from host.data.dataset import read_data
    from host.report.data import check_block
    from host.report.data_records import check_record

    if not signals and (length is not None or step is not None or channels is not None):
        raise UsageError("--length, --step and --channels are for signals: say --signals as well")
    columns = _columns(column or (), channels)
    if column and table is None:
        raise UsageError("--column names columns of a table: give the table with --table as well")
    found = read_data(
        folder,
        kind="signals" if signals else "images",
        table=table,
        columns=columns,
        group=group,
        length=length,
        step=step,
    )
    checked = check_data(found, folder, seed=seed)
    picture = None if out is None else _drawn(found, out, seed)
    record = check_record(checked, picture)
    if as_json:
        print_json(record)
    else:
        table_console().print(check_block(checked))
    if out is not None:
        _write_record(out / RECORD, record)
        note(f"wrote {picture} and {out / RECORD}")
    if checked.problems:
        raise typer.Exit(1)


def _columns(pairs: Sequence[str], channels: str | None) -> "Columns":
    """Raises UsageError for what names no column."""
    from host.data.table import Columns

    named: dict[str, str] = {}
    for pair in pairs:
        name, _, header = pair.partition("=")
        if name not in _COLUMNS or not header:
            raise UsageError(
                f"--column {pair}: write it as path=HEADER, label=HEADER, group=HEADER or "
                "split=HEADER"
            )
        named[name] = header
    wanted = () if channels is None else tuple(part.strip() for part in channels.split(","))
    if not all(wanted):
        raise UsageError(f"--channels {channels!r} names nothing somewhere: write it as a,b")
    return Columns(**named, channels=wanted)


def _drawn(found: "ImageFolder | SignalFolder", out: Path, seed: int) -> Path:
    """The picture, written. Raises UsageError where nothing can be written there."""
    from host.report.data_sheet import contact_sheet
    from host.report.plots import png

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {out} cannot be made: {error.strerror or error}") from error
    (out / PICTURE).write_bytes(png(contact_sheet(found, seed=seed)))
    return out / PICTURE


def _write_record(path: Path, record: object) -> None:
    path.write_text(json.dumps(record, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
