"""`genba evaluate`: models of the user's own, beside what a study found."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from host.api.asking import Wish, plan_of, purpose_of
from host.api.model_files import check_model_file, runtime_of
from host.cli.console import print_json, table_console
from host.cli.measure import (
    AgainOption,
    OnBusyOption,
    Preset,
    RuntimeOption,
    ShapesOption,
    ThreadsOption,
    TimeoutOption,
    WaitQuietOption,
    readiness,
)
from host.cli.models import parse_shapes
from host.cli.own_models import Manner, own_models, require_places
from host.cli.pictures import LanguageOption, PictureOption, check_picture, write_picture
from host.cli.rank import names_of
from host.cli.workspace import JsonOption, WorkspaceOption, opened
from host.device import RuntimeName
from host.errors import GenbaError, UsageError

if TYPE_CHECKING:
    from host.evaluation.entries import Place
    from host.evaluation.judging import Images, Judged, Told
    from host.evaluation.own import OwnModel
    from host.evaluation.studied import Studied

DataOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Images in a folder for each class, to judge ONNX classifiers on the test part.",
        show_default="those of the study, if there is one",
    ),
]
LabelsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Names of the classes in the order of the model's outputs, one a line.",
        show_default="as the file says, else in the order of the folders",
    ),
]
MeanOption = Annotated[
    str | None,
    typer.Option(
        metavar="R,G,B",
        help="Mean of each channel of what the model was trained on, of values from 0 to 1.",
        show_default="as the file says, else of the training images",
    ),
]
StdOption = Annotated[
    str | None,
    typer.Option(metavar="R,G,B", help="Its standard deviation.", show_default="as with --mean"),
]
SeedOption = Annotated[
    int,
    typer.Option(min=0, max=2**31 - 1, help="Draws the parts that the folder does not separate."),
]


class NotEvaluatedError(GenbaError):
    """A device could not measure a model."""


def evaluate(  # noqa: PLR0913 - the options of a command
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="ONNX or TFLite files.")],
    *,
    devices: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Where to measure: devices, or with --study its device profiles.",
            show_default="all profiles of the study",
        ),
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Show its front and finalists in the same table.",
            show_default=False,
        ),
    ] = None,
    data: DataOption = None,
    labels: LabelsOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    seed: SeedOption = 0,
    preset: Annotated[Preset, typer.Option(help="How carefully to measure.")] = "standard",
    threads: ThreadsOption = 1,
    runtime: RuntimeOption = None,
    input_shape: ShapesOption = None,
    energy: Annotated[
        bool, typer.Option("--energy", help="Measure energy too: minutes more.")
    ] = False,
    on_busy: OnBusyOption = "refuse",
    wait_quiet: WaitQuietOption = 30.0,
    timeout: TimeoutOption = None,
    again: AgainOption = False,
    as_json: JsonOption = False,
    output: PictureOption = None,
    language: LanguageOption = "en",
    workspace: WorkspaceOption = None,
) -> None:
    """Measure your own models, judge them on images, and compare them with what a study found.

    A candidate has a score, which is no accuracy; a finalist and a judged model have an accuracy.
    These are never mixed: only what is judged on the same images dominates another.
    """
    from host.evaluation.entries import compared
    from host.evaluation.own import judging_notes
    from host.evaluation.studied import studied

    check_picture(output)
    told = told_of(labels, mean, std)
    wish = Wish(
        plan=plan_of(preset, None, energy=energy),
        readiness=readiness(on_busy, wait_quiet, None),
        runtime=runtime,
        threads=threads,
        shapes=parse_shapes(input_shape or ()),
        purpose=purpose_of("measure", again=again),
    )
    manner = Manner(wish, timeout_seconds=timeout, findable=not again)
    paths = list(dict.fromkeys(files))
    for path in paths:
        check_model_file(path, runtime_of(path, runtime))
    with opened(workspace) as (found, store):
        beside = None if study is None else studied(store, study)
        places = _places(devices, threads, beside)
        require_places(store, paths, places, wish)
        images = _images(data, seed, beside)
        judged = {path: _judged(path, runtime, images, told) for path in paths}
        models, predicting = own_models(found, store, judged, places, manner)
    rate_hertz = None if beside is None else beside.config.line.rate_hertz
    entries = [model.entry(rate_hertz=rate_hertz) for model in models]
    if beside is not None:
        entries += beside.entries(places)
    comparison = compared(
        places,
        entries,
        front=None if beside is None else beside.result.front,
        notes=[*judging_notes(models, None if isinstance(images, str) else images), *predicting],
    )
    if as_json:
        from host.evaluation.records import comparison_record

        print_json(comparison_record(comparison))
    else:
        from host.evaluation.table import comparison_block

        table_console().print(comparison_block(comparison, language))
    if output is not None:
        from host.evaluation.picture import comparison_figure

        write_picture(output, comparison_figure(comparison, language))
    _end(models)


def told_of(labels: Path | None, mean: str | None, std: str | None) -> "Told":
    """What the options say of a classifier. Raises UsageError."""
    from host.evaluation.classifier import Normalisation
    from host.evaluation.judging import Told, read_labels

    if (mean is None) != (std is None):
        raise UsageError("--mean and --std belong together: say both")
    normalisation = None
    if mean is not None and std is not None:
        normalisation = Normalisation(_numbers("--mean", mean), _numbers("--std", std))
    return Told(normalisation, None if labels is None else read_labels(labels))


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(
            f"{option} {text}: write a number for each channel, such as 0.485,0.456,0.406"
        ) from error


def _places(devices: str | None, threads: int, beside: "Studied | None") -> "list[Place]":
    """Where to measure. Raises UsageError."""
    from host.evaluation.entries import Place

    names = None if devices is None else names_of("--devices", devices)
    if beside is not None:
        return beside.places(names)
    if names is None:
        raise UsageError("say where to measure: --devices A,B, or --study NAME for its profiles")
    return [Place(name, name, threads) for name in dict.fromkeys(names)]


def _images(data: Path | None, seed: int, beside: "Studied | None") -> "Images | str":
    """The images to judge on, or why there are none."""
    from host.evaluation.judging import images_in

    if data is not None:
        return images_in(data, seed=seed if beside is None else beside.config.seed)
    if beside is None:
        return "no images were named"
    try:
        return beside.images()
    except UsageError as error:
        return f"{error}; name other images with --data DIR"


def _judged(
    path: Path, runtime: RuntimeName | None, images: "Images | str", told: "Told"
) -> "Judged | str":
    """How good it is on the test images, or why that is not known. Raises ClassifierError."""
    from host.evaluation.classifier import read_classifier
    from host.evaluation.judging import judge

    if isinstance(images, str):
        return images
    if runtime_of(path, runtime) != "onnx":
        return "only ONNX files are judged here"
    return judge(read_classifier(path, path.read_bytes()), images, told, "test")


def _end(models: "Sequence[OwnModel]") -> None:
    """Raises NotEvaluatedError where a device could not measure a model."""
    from host.measurement import MeasurementFailure

    failed = [
        (model.label, place)
        for model in models
        for place, outcome in model.outcomes.items()
        if isinstance(outcome, MeasurementFailure)
    ]
    if failed:
        label, place = failed[0]
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise NotEvaluatedError(f"{place} could not measure {label}{more}, as said above")
