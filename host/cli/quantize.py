"""`genba quantize`: a model of the user's own as int8."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from host.cli.console import note, print_json, table_console
from host.cli.evaluate import (
    LabelsOption,
    MeanOption,
    SeedOption,
    StdOption,
    told_of,
)
from host.cli.workspace import JsonOption
from host.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from host.evaluation.quantizing import Quantised


def quantize(  # noqa: PLR0913 - the options of a command
    file: Annotated[Path, typer.Argument(metavar="FILE.onnx", help="A classifier of images.")],
    *,
    data: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Images in a folder for each class: the training part calibrates, the validation"
            " part judges.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Where to write it.", show_default="FILE.int8.onnx beside it"
        ),
    ] = None,
    max_drop: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Largest loss of AUROC (two classes) or accuracy: layers that hurt stay float.",
        ),
    ] = 0.02,
    labels: LabelsOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Make an int8 file of your own ONNX classifier, as accurate as you ask, and say what it costs.

    8-bit weights and activations as QDQ nodes, right on every CPU. Whether it is also faster only a
    device can tell: int8 is often slower on old ones.
    """
    from host.evaluation.judging import images_in
    from host.evaluation.quantizing import quantise
    from host.export.files import write_whole

    target = _target(file, out)
    told = told_of(labels, mean, std)
    images = images_in(data, seed=seed)
    for excluded in images.excluded:
        note(f"left out {excluded.path}: {excluded.reason}")
    made = quantise(file, images, told, max_drop=max_drop)
    write_whole(target, made.content)
    if as_json:
        print_json(_record(file, target, made))
    else:
        table_console().print(_block(file, target, made))
    note(f"measure whether it is faster: genba measure {file} {target} --device NAME")


def _target(file: Path, out: Path | None) -> Path:
    """Where to write, before hours are spent. Raises UsageError."""
    if file.suffix.lower() != ".onnx" or not file.is_file():
        raise UsageError(f"{file} is no ONNX file that is there: name a file that ends with .onnx")
    target = out or file.with_name(f"{file.stem}.int8.onnx")
    if target.is_dir() or not target.parent.is_dir():
        raise UsageError(f"--out {target}: name a file in a folder that is there")
    if target.exists() and target.samefile(file):
        raise UsageError(f"--out {target} would replace the model itself: name another file")
    return target


def _block(file: Path, target: Path, made: "Quantised") -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    from host.cli.console import plain_table
    from host.report.units import megabytes, share

    table = plain_table()
    table.add_column("file", overflow="fold")
    for name in ("MB", "accuracy\n[95 %]", "AUROC\n[95 %]"):
        table.add_column(name, justify="right")
    for path, size, judged in (
        (file, made.size_before_bytes, made.before),
        (target, made.size_bytes, made.after),
    ):
        row = (megabytes(size), share(judged.accuracy), share(judged.auroc, absent="–"))
        table.add_row(Text(str(path)), *row)
    return Group(table, *map(Text, _lines(made)))


def _lines(made: "Quantised") -> list[str]:
    before = made.before
    images, of_training = before.accuracy.n, made.calibration_images
    layers = ", ".join(made.float_layers) or "none"
    sources = f"mean and std from {before.preprocessing_from}, classes in the order of"
    larger = ["the int8 file is larger: this model has too few weights to gain by it"]
    return [
        *(larger if made.size_bytes > made.size_before_bytes else []),
        f"on {images} validation images, calibrated on {of_training} training images",
        f"{before.measure} lost: {made.drop:.4f}",
        f"layers that stayed float: {layers}",
        f"{sources} {before.labels_from}: both are written into the file",
    ]


def _record(file: Path, target: Path, made: "Quantised") -> dict[str, Any]:
    def judged(which: str) -> dict[str, Any]:
        found = made.before if which == "before" else made.after
        return {
            "accuracy": found.accuracy.model_dump(),
            "balanced_accuracy": found.balanced_accuracy,
            "auroc": None if found.auroc is None else found.auroc.model_dump(),
        }

    preprocessing = made.before.preprocessing
    return {
        "file": str(file),
        "int8_file": str(target),
        "size_bytes": made.size_before_bytes,
        "int8_size_bytes": made.size_bytes,
        "part": made.before.part,
        "before": judged("before"),
        "after": judged("after"),
        "measure": made.before.measure,
        "drop": made.drop,
        "float_layers": list(made.float_layers),
        "calibration_images": made.calibration_images,
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
        "preprocessing_from": made.before.preprocessing_from,
        "labels_from": made.before.labels_from,
        "speed": "not measured",
    }
