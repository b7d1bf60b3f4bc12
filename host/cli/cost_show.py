"""`genba cost show`: the cost models that a device has."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from host.cli.calibrating import NameArgument
from host.cli.console import note, print_json, table_console
from host.cli.pictures import LanguageOption, PictureOption, check_picture, write_picture
from host.cli.workspace import JsonOption, WorkspaceOption, opened
from host.device import RuntimeName

if TYPE_CHECKING:
    from host.calibration.prediction import Predictor
    from host.calibration.setting import Setting
    from host.device import Device
    from host.report.measurement_texts import Language
    from host.store import Store


def show(
    name: NameArgument,
    *,
    runtime: Annotated[
        RuntimeName | None,
        typer.Option(help="Which of the device's runtimes.", show_default="all"),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, max=1024, help="Threads of the runtime.", show_default="all"),
    ] = None,
    as_json: JsonOption = False,
    output: PictureOption = None,
    language: LanguageOption = "en",
    workspace: WorkspaceOption = None,
) -> None:
    """Show what the cost models of a device know and how sure they are.

    Lists all settings; of one setting, alone or chosen by --runtime and --threads, also the rates.
    --output draws what was predicted against what was measured.
    """
    check_picture(output)
    with opened(workspace) as (_, store):
        device = store.devices.by_name(name)
        predictors = _predictors(store, device, runtime, threads)
    if as_json:
        from host.report.cost_show import models_record

        print_json([models_record(predictor) for predictor in predictors])
    elif not predictors:
        print(_nothing(name, runtime, threads))
    else:
        _print(predictors, language)
    if output is not None:
        _draw(predictors, output, language)


def _nothing(name: str, runtime: "RuntimeName | None", threads: int | None) -> str:
    """That there are no models in that setting, and the command that makes them."""
    options = "" if runtime is None else f" --runtime {runtime}"
    options += "" if threads is None else f" --threads {threads}"
    wanted = " in that setting" if options else ""
    return f"{name} is not calibrated yet{wanted}: genba device calibrate {name}{options}"


def _predictors(
    store: "Store", device: "Device", runtime: "RuntimeName | None", threads: int | None
) -> "list[Predictor]":
    """One for each setting that can be read."""
    from host.calibration.catalogue import settings_of
    from host.calibration.prediction import NotCalibratedError, Predictor

    def is_wanted(setting: "Setting") -> bool:
        return runtime in (None, setting.runtime) and threads in (None, setting.threads)

    found = []
    for setting in filter(is_wanted, settings_of(store, device)):
        try:
            found.append(Predictor.of(store, device, setting))
        except NotCalibratedError as error:
            note(str(error))
    return found


def _print(predictors: "list[Predictor]", language: "Language") -> None:
    from host.report.cost_show import models_block, settings_table

    console = table_console()
    if len(predictors) > 1:
        console.print(settings_table(predictors, language))
    else:
        console.print(models_block(predictors[0], language))


def _draw(predictors: "list[Predictor]", output: Path, language: "Language") -> None:
    from host.report.cost_plots import held_out_figure

    if len(predictors) != 1:
        many = "several settings: choose one by --runtime and --threads"
        note(f"{output} was not written: there are {many if predictors else 'no models'}")
        return
    write_picture(output, held_out_figure(predictors[0], language))
