"""`genba measure`: models on devices, each with a verdict."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from host.api.asking import Asked, Wish, ask, plan_of, purpose_of
from host.api.model_files import check_model_file, runtime_of
from host.cli.console import note
from host.cli.models import parse_options, parse_shapes
from host.cli.pictures import LanguageOption, PictureOption, check_picture
from host.cli.workspace import WorkspaceOption, opened
from host.device import RuntimeName
from host.errors import UsageError

if TYPE_CHECKING:
    from host.measurement import Outcome, Readiness

Preset = Literal["quick", "standard", "thorough"]
OnBusy = Literal["refuse", "flag"]
DevicesOption = Annotated[
    list[str], typer.Option(metavar="NAME", help="Where to measure; may stand several times.")
]
RuntimeOption = Annotated[
    RuntimeName | None,
    typer.Option(help="What runs the models.", show_default="as the file's suffix says"),
]
ThreadsOption = Annotated[int, typer.Option(min=1, max=1024, help="Threads of the runtime.")]
ShapesOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=1,3,224,224",
        help="Shape of an input that the model leaves open; repeatable.",
        show_default=False,
    ),
]
OptionsOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="Option of the runtime, such as xnnpack=0; repeatable.",
        show_default=False,
    ),
]
OnBusyOption = Annotated[
    OnBusy,
    typer.Option(
        help="What a device does that other programs keep busy: wait and refuse, or measure and"
        " say so in the verdict."
    ),
]
WaitQuietOption = Annotated[
    float,
    typer.Option(
        metavar="SECONDS", min=0.0, max=3600.0, help="How long a device waits to become ready."
    ),
]
TemperatureOption = Annotated[
    float | None,
    typer.Option(
        metavar="CELSIUS", min=0.0, max=150.0, help="Start no hotter than this.", show_default=False
    ),
]
TimeoutOption = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", min=0.0, help="How long to wait.", show_default="no limit"),
]
WorkerTimeoutOption = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        min=1.0,
        max=86_400.0,
        help="How long a device may take for one model.",
        show_default="as the preset needs",
    ),
]
AgainOption = Annotated[
    bool, typer.Option("--again", help="Do it anew, even if there is a result already.")
]


def measure(  # noqa: PLR0913 - the options of a command
    models: Annotated[
        list[Path], typer.Argument(metavar="MODEL", help="ONNX, TFLite or ncnn files.")
    ],
    *,
    device: DevicesOption,
    preset: Annotated[
        Preset,
        typer.Option(help="quick for many, standard for a figure to quote, thorough also for p99."),
    ] = "standard",
    threads: ThreadsOption = 1,
    profile: Annotated[
        bool, typer.Option("--profile", help="Time every operator too, in a run of its own.")
    ] = False,
    energy: Annotated[
        bool | None,
        typer.Option(
            "--energy/--no-energy", help="Measure energy too: minutes more.", show_default=False
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            metavar="HZ",
            min=0.001,
            max=10_000.0,
            help="Energy also at the line's inferences a second; implies --energy.",
            show_default=False,
        ),
    ] = None,
    input_shape: ShapesOption = None,
    option: OptionsOption = None,
    runtime: RuntimeOption = None,
    on_busy: OnBusyOption = "refuse",
    wait_quiet: WaitQuietOption = 30.0,
    max_start_temperature: TemperatureOption = None,
    timeout: TimeoutOption = None,
    worker_timeout: WorkerTimeoutOption = None,
    again: AgainOption = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="End with 1 where a verdict is REJECT.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON for programs, one object a line.")
    ] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV for spreadsheets.")] = False,
    output: PictureOption = None,
    language: LanguageOption = "en",
    workspace: WorkspaceOption = None,
) -> None:
    """Measure models on devices: latency, memory and energy, each with a verdict.

    Prints each result as it arrives. Ends with 1 where a model could not be measured.
    """
    from host.cli.jobs import await_outcomes
    from host.cli.results import Results

    _require_sense(rate, energy=energy, profile=profile, output=output)
    _require_one_form(as_json=as_json, as_csv=as_csv, profile=profile)
    plan = plan_of(preset, rate, energy=bool(energy))
    ready = readiness(on_busy, wait_quiet, max_start_temperature)
    wish = Wish(
        plan=plan,
        readiness=ready,
        runtime=runtime,
        threads=threads,
        shapes=parse_shapes(input_shape or ()),
        options=parse_options(option or ()),
        timeout_seconds=worker_timeout,
        purpose=purpose_of("measure", again=again),
        profile=profile,
    )
    files = list(dict.fromkeys(models))
    for file in files:
        check_model_file(file, runtime_of(file, runtime))
    results = Results("csv" if as_csv else "json" if as_json else "text", language)
    with opened(workspace) as (found, store):
        targets = [store.devices.by_name(name) for name in dict.fromkeys(device)]
        asked = ask(store, files, targets, wish, note)

        def show(one: Asked, outcome: "Outcome") -> None:
            results.show(store, one, outcome)

        results.begin(len(asked))
        known = await_outcomes(found, store, asked, show, timeout=timeout, findable=not again)
    if known:
        note("measured before; --again measures anew")
    if output is not None:
        results.draw_profiles(output)
    results.end(strict=strict)


def readiness(on_busy: OnBusy, wait_seconds: float, max_start_celsius: float | None) -> "Readiness":
    """When a device is ready, as the options say."""
    from host.measurement import Readiness

    return Readiness(
        max_start_celsius=max_start_celsius,
        wait_seconds=wait_seconds,
        measure_when_busy=on_busy == "flag",
    )


def _require_sense(
    rate: float | None, *, energy: bool | None, profile: bool, output: Path | None
) -> None:
    if rate is not None and energy is False:
        raise UsageError(
            "--rate measures energy, and --no-energy forbids it: leave one of them out"
        )
    if output is not None and not profile:
        raise UsageError("--output is for the picture of a profile: use it with --profile")
    check_picture(output)


def _require_one_form(*, as_json: bool, as_csv: bool, profile: bool) -> None:
    if as_json and as_csv:
        raise UsageError("--json and --csv exclude each other: leave one of them out")
    if profile and as_csv:
        raise UsageError("--csv has no columns for a profile: use --json with --profile")
