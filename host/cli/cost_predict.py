"""`genba cost predict`: what a model will take on a device, before it was ever there."""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from host.api.model_files import runtime_of
from host.api.predicting import predicted, read_graph
from host.cli.console import print_json, table_console
from host.cli.measure import RuntimeOption, ShapesOption, ThreadsOption
from host.cli.models import parse_shapes
from host.cli.workspace import JsonOption, WorkspaceOption, opened
from host.errors import UsageError

if TYPE_CHECKING:
    from host.calibration.explanation import Explanation
    from host.report.cost import PredictedModel

DevicesOption = Annotated[
    list[str], typer.Option(metavar="NAME", help="For which device; may stand several times.")
]


def predict(  # noqa: PLR0913 - the options of a command
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="ONNX or TFLite files.")],
    *,
    device: DevicesOption,
    threads: ThreadsOption = 1,
    input_shape: ShapesOption = None,
    runtime: RuntimeOption = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say what each kernel adds to the latency.")
    ] = False,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV for spreadsheets.")] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Predict latency, peak memory, energy and power of models, each with an interval.

    Nothing is sent to the device: its cost models, fitted by `genba device calibrate`, read what
    the file will execute.
    """
    if as_json and as_csv:
        raise UsageError("--json and --csv exclude each other: leave one of them out")
    if explain and as_csv:
        raise UsageError("--csv has no columns for --explain: use --json with it")
    shapes = parse_shapes(input_shape or ())
    names = list(dict.fromkeys(files))
    graphs = {file: read_graph(file, runtime_of(file, runtime), shapes) for file in names}
    with opened(workspace) as (_, store):
        devices = [store.devices.by_name(name) for name in dict.fromkeys(device)]
        groups = [
            group
            for one in devices
            for group in predicted(store, one, graphs, runtime=runtime, threads=threads)
        ]
    if as_json:
        from host.report.cost_records import prediction_record

        rows = [row for group in groups for row in group]
        print_json([prediction_record(row, _explained(row) if explain else None) for row in rows])
    elif as_csv:
        _print_csv([row for group in groups for row in group])
    else:
        _print_text(groups, explain=explain)


def _explained(row: "PredictedModel") -> "Explanation | None":
    """Where the latency comes from; None where the device has no model of it."""
    from host.calibration.explanation import explain

    found = row.predictor.models.get("latency_seconds")
    return None if found is None else explain(found.model, row.graph, row.latency_seconds)


def _print_csv(rows: "Sequence[PredictedModel]") -> None:
    from host.report.cost_records import CSV_COLUMNS, csv_fields, prediction_record

    writer = csv.writer(sys.stdout)  # RFC 4180: quoted where needed, CRLF
    writer.writerow(CSV_COLUMNS)
    for row in rows:
        writer.writerow(csv_fields(prediction_record(row)))


def _print_text(groups: "Sequence[Sequence[PredictedModel]]", *, explain: bool) -> None:
    from host.report.cost import explanation_block, predictions_block

    console = table_console()
    for group in groups:
        console.print(predictions_block(group))
        for row in group if explain else ():
            explanation = _explained(row)
            if explanation is not None:
                console.print(explanation_block(row, explanation))
