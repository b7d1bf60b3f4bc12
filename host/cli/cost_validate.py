"""`genba cost validate`: whether predictions hold on networks that no model was fitted on."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from host.api.model_files import (
    check_model_file,
    read_model_file,
    runtime_of,
)
from host.api.predicting import read_graph
from host.cli.calibrating import (
    EnergyOption,
    NameArgument,
    PresetOption,
    Waiter,
    manner_of,
)
from host.cli.console import note, print_json, table_console
from host.cli.measure import (
    AgainOption,
    OnBusyOption,
    TemperatureOption,
    ThreadsOption,
    TimeoutOption,
    WaitQuietOption,
    readiness,
)
from host.cli.pictures import LanguageOption, PictureOption, check_picture, write_picture
from host.cli.workspace import JsonOption, WorkspaceOption, opened
from host.device import CalibratedRuntime, RuntimeName
from host.errors import GenbaError, UsageError

if TYPE_CHECKING:
    from cost_models.kernels import KernelGraph
    from host.calibration.measuring import Measurer
    from host.calibration.prediction import Predictor
    from host.calibration.specimens import Form, Specimen, SpecimenKind
    from host.report.cost_validation import Validation
    from host.report.measurement_texts import Language
    from host.store import Store


class IntervalsDoNotHoldError(GenbaError):
    """Fewer measurements lie inside their intervals than the level promises."""


class NotFreshError(UsageError):
    """There is nothing to validate with that no model was fitted on."""


@dataclass(frozen=True, eq=False)
class FileSpecimen:
    """A model's file that the user named."""

    path: Path
    form: CalibratedRuntime

    @property
    def name(self) -> str:
        """The name of the file."""
        return self.path.name

    @property
    def kind(self) -> "SpecimenKind":
        """As opposed to what was made here."""
        return "file"

    @cached_property
    def kernels(self) -> "KernelGraph":
        """What a device will execute. Raises ModelFileError."""
        return read_graph(self.path, self.form)

    def model_bytes(self) -> bytes:
        """What the file holds."""
        return read_model_file(self.path)


def validate(  # noqa: PLR0913 - the options of a command
    name: NameArgument,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE", help="Models of your own to validate with.", show_default=False
        ),
    ] = None,
    *,
    count: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=1000,
            help="How many networks to draw besides the files.",
            show_default="12, and none where files are named",
        ),
    ] = None,
    runtime: Annotated[
        CalibratedRuntime | None,
        typer.Option(
            help="Which of the device's runtimes.",
            show_default="as the files' suffix says, and onnx without files",
        ),
    ] = None,
    threads: ThreadsOption = 1,
    preset: PresetOption = "quick",
    seed: Annotated[
        int, typer.Option(min=0, max=2**31, help="Another one draws other networks.")
    ] = 1,
    energy: EnergyOption = False,
    on_busy: OnBusyOption = "refuse",
    wait_quiet: WaitQuietOption = 30.0,
    max_start_temperature: TemperatureOption = None,
    timeout: TimeoutOption = None,
    again: AgainOption = False,
    as_json: JsonOption = False,
    output: PictureOption = None,
    language: LanguageOption = "en",
    workspace: WorkspaceOption = None,
) -> None:
    """Predict networks that no model of the device was fitted on, then measure them there.

    Ends with 1 where fewer measurements lie inside their intervals than these promise.
    """
    from host.calibration.drift import Watch
    from host.calibration.measuring import Measurer

    check_picture(output)
    own = _files(list(dict.fromkeys(files or ())), runtime)
    form = own[0].form if own else runtime or "onnx"
    wanted = (0 if own else 12) if count is None else count
    if not own and not wanted:
        raise NotFreshError("there is nothing to validate with: name files, or a --count above 0")
    with opened(workspace) as (found, store):
        predictor = _predictor(store, name, form, threads, energy=energy)
        specimens = [*_fresh_files(predictor, own), *_drawn(predictor, wanted, seed, form)]
        ready = readiness(on_busy, wait_quiet, max_start_temperature)
        device = predictor.device
        manner = manner_of(store, device, preset, ready, "validate", energy=energy, again=again)
        with ExitStack() as stack:
            waiter = Waiter(found, store, device, stack, timeout, findable=not again)
            measurer = Measurer(store, device, predictor.setting, manner, waiter)
            if not measurer.knows(specimens):
                Watch(store, waiter, note, ready).look(device, predictor.setting)
                # What the sentinels say of the device is part of the prediction.
                predictor = _predictor(store, name, form, threads, energy=energy)
            validation = _validated(predictor, specimens, measurer)
    waiter.tell_known()
    if as_json:
        from host.report.cost_validation import validation_record

        print_json(validation_record(validation))
    else:
        from host.report.cost_validation import validation_block

        table_console().print(validation_block(validation))
    if output is not None:
        _draw(validation, output, language)
    if validation.holds is False:
        raise IntervalsDoNotHoldError(validation.verdict())


def _files(paths: Sequence[Path], runtime: RuntimeName | None) -> list[FileSpecimen]:
    """The files, all of one format. Raises ModelFileError, UsageError."""
    found = [FileSpecimen(path, _calibrated(path, runtime)) for path in paths]
    for one in found:
        check_model_file(one.path, one.form)
    if len({one.form for one in found}) > 1:
        raise UsageError("ONNX and TFLite files go to different runtimes: validate one at a time")
    return found


def _calibrated(path: Path, runtime: RuntimeName | None) -> CalibratedRuntime:
    found = runtime_of(path, runtime)
    if found == "ncnn":
        raise UsageError(
            f"{path}: cost models read ONNX and TFLite files: validate with the .onnx file of the"
            " same network"
        )
    return found


def _predictor(
    store: "Store", name: str, runtime: RuntimeName, threads: int, *, energy: bool
) -> "Predictor":
    """The models to put to the test. Raises NotCalibratedError, also for energy alone."""
    from host.calibration.prediction import NotCalibratedError, Predictor
    from host.calibration.setting import Setting

    device = store.devices.by_name(name)
    predictor = Predictor.of(store, device, Setting.of_device(device, runtime, threads))
    if energy and "energy_joules" in predictor.absent:
        reason = predictor.absent["energy_joules"].because
        raise NotCalibratedError(f"{name} predicts no energy to validate: {reason}")
    return predictor


def _validated(
    predictor: "Predictor", specimens: "Sequence[Specimen]", measurer: "Measurer"
) -> "Validation":
    """Predict all of them, and only then measure."""
    from host.calibration.calibration import LeftOut
    from host.calibration.validation import checks_of, foretell, summary_of
    from host.report.cost_validation import Validation

    foretold = foretell(predictor, specimens)
    outcomes = measurer(specimens)
    checks = {
        quantity: checks_of(predictor, quantity, foretold, outcomes)
        for quantity in predictor.models
    }
    return Validation(
        predictor,
        checks,
        {quantity: summary_of(found) for quantity, found in checks.items() if found},
        [outcome for outcome in outcomes.values() if isinstance(outcome, LeftOut)],
    )


def _fresh_files(predictor: "Predictor", files: Sequence[FileSpecimen]) -> list[FileSpecimen]:
    """The files, unless a model was fitted on one of them. Raises NotFreshError."""
    from host.calibration.validation import known_models

    known = known_models(predictor)
    seen = [one.name for one in files if sha256(one.model_bytes()).hexdigest() in known]
    if seen:
        raise NotFreshError(
            f"the models of {predictor.device.name} were fitted on {', '.join(seen)}: that they"
            " know it would prove nothing"
        )
    twice = next((f.name for f in files if sum(o.name == f.name for o in files) > 1), None)
    if twice is not None:
        raise UsageError(f"two files are called {twice}: rename one of them")
    return list(files)


def _drawn(predictor: "Predictor", count: int, seed: int, form: "Form") -> "list[Specimen]":
    from host.calibration.validation import (
        TooFewFreshError,
        fresh_specimens,
        is_quick_enough,
        known_models,
    )

    if not count:
        return []
    known = known_models(predictor)
    try:
        return fresh_specimens(count, seed, known, partial(is_quick_enough, predictor), form)
    except TooFewFreshError as error:
        raise NotFreshError(f"{error}: ask for fewer with --count") from error


def _draw(validation: "Validation", output: Path, language: "Language") -> None:
    from host.report.cost_plots import validation_figure

    if not any(validation.checks.values()):
        note(f"{output} was not written: nothing could be measured")
        return
    write_picture(output, validation_figure(validation, language))
