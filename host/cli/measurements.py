"""`genba measurements`: what was measured before, one by one, and two of them compared."""

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from host.cli.console import print_json, table_console
from host.cli.pictures import LanguageOption, PictureOption, check_picture, write_picture
from host.cli.workspace import JsonOption, WorkspaceOption, opened
from host.errors import UsageError

if TYPE_CHECKING:
    from host.report.measurement import Named
    from host.store import Store
    from host.store.measurements import StoredMeasurement

measurements_app = typer.Typer(no_args_is_help=True)

NumberArgument = Annotated[
    int, typer.Argument(metavar="NUMBER", min=1, help="As `genba measurements list` has it.")
]
SAMPLE_COLUMNS = (
    "process",
    "block",
    "at_seconds",
    "latency_seconds",
    "cpu_seconds",
    "run_delay_seconds",
    "state",
)


@measurements_app.command("list")
def list_measurements(
    *,
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only those of this device.", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="The newest so many.")] = 20,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV for spreadsheets.")] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """List measurements, newest first."""
    if as_json and as_csv:
        raise UsageError("--json and --csv exclude each other: leave one of them out")
    with opened(workspace) as (_, store):
        device_id = None if device is None else store.devices.by_name(device).id
        names = _device_names(store)
        rows = [_named(found, names) for found in store.measurements.list(device_id, limit=limit)]
    if as_json or as_csv:
        _print_records(rows, as_csv=as_csv)
    elif rows:
        from host.report.measurement import measurements_table

        table_console().print(measurements_table(rows))
    else:
        print("Nothing was measured yet: genba measure MODEL --device NAME")


@measurements_app.command()
def show(
    number: NumberArgument,
    *,
    as_json: JsonOption = False,
    samples: Annotated[
        bool, typer.Option("--samples", help="Print every sample as CSV, or with --json as JSON.")
    ] = False,
    output: PictureOption = None,
    language: LanguageOption = "en",
    workspace: WorkspaceOption = None,
) -> None:
    """Show a measurement; --output draws its samples over time."""
    check_picture(output)
    named = _one(number, workspace)
    if samples:
        _print_samples(named, as_json=as_json)
    elif as_json:
        from host.report.records import measurement_record

        print_json(measurement_record(named))
    else:
        from host.report.measurement import measurement_block

        table_console().print(measurement_block(named, language))
    if output is not None:
        from host.report.measurement_plots import samples_figure

        write_picture(output, samples_figure(named, language))


@measurements_app.command("compare")
def compare_two(
    first: Annotated[int, typer.Argument(metavar="A", min=1, help="Number of the one before.")],
    second: Annotated[int, typer.Argument(metavar="B", min=1, help="Number of the one after.")],
    *,
    as_json: JsonOption = False,
    output: PictureOption = None,
    language: LanguageOption = "en",
    workspace: WorkspaceOption = None,
) -> None:
    """Say whether B is really slower or faster than A, or what forbids to say so."""
    from host.measurement.compare import compare

    check_picture(output)
    a, b = _one(first, workspace), _one(second, workspace)
    found = compare(a.measurement, b.measurement)
    if as_json:
        from host.report.records import comparison_record

        print_json(comparison_record(a, b, found))
    else:
        from host.report.measurement import comparison_block

        table_console().print(comparison_block(a, b, found))
    if output is not None:
        from host.report.measurement_plots import compare_figure

        write_picture(output, compare_figure(a, b, found.sentence, language))


def _one(number: int, workspace: Path | None) -> "Named":
    """Raises UnknownMeasurementError."""
    with opened(workspace) as (_, store):
        return _named(store.measurements.get(number), _device_names(store))


def _device_names(store: "Store") -> dict[str, str]:
    return {device.id: device.name for device in store.devices.all()}


def _named(found: "StoredMeasurement", names: dict[str, str]) -> "Named":
    from host.report.measurement import Named

    device_id = found.measurement.device_id
    # A removed device has no name any more; its measurements stay.
    device = names.get(device_id, f"removed device {device_id[:8]}")
    return Named(found.measurement, found.label, device, found.number)


def _print_records(rows: "Sequence[Named]", *, as_csv: bool) -> None:
    from host.report.records import CSV_COLUMNS, csv_fields, measurement_record

    records = [measurement_record(named) for named in rows]
    if not as_csv:
        print_json(records)
        return
    writer = csv.writer(sys.stdout)
    writer.writerow(CSV_COLUMNS)
    writer.writerows(csv_fields(record) for record in records)


def _print_samples(named: "Named", *, as_json: bool) -> None:
    from dataclasses import asdict

    from host.report.measurement_plots import placed_samples

    rows = [asdict(sample) for sample in placed_samples(named.measurement)]
    if as_json:
        print(json.dumps(rows))
        return
    writer = csv.writer(sys.stdout)
    writer.writerow(SAMPLE_COLUMNS)
    for row in rows:
        values = [row[name] for name in SAMPLE_COLUMNS]
        writer.writerow("" if value is None else value for value in values)
