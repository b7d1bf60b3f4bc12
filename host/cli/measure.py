"""`genba measure`: models on devices, each with a verdict."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from uuid import uuid4

import typer

from host.cli.console import note
from host.cli.models import (
    RuntimeName,
    check_model_file,
    parse_options,
    parse_shapes,
    require_runtime,
    runtime_of,
)
from host.cli.pictures import LanguageOption, PictureOption, require_picture
from host.cli.workspace import WorkspaceOption, opened
from host.errors import UsageError

if TYPE_CHECKING:
    from host.cli.jobs import Asked
    from host.device import Device, MeterBinding
    from host.measurement import (
        InputShape,
        ModelRun,
        Outcome,
        Plan,
        PresetName,
        Readiness,
        Spec,
    )
    from host.store import Store

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
_LEAST_TIMEOUT_SECONDS = 120.0
_PROFILE_SECONDS = 30.0
_WINDOW_READINGS = 30  # of a meter, in an energy window


@dataclass(frozen=True)
class _Wish:
    """What to do with every model on every device."""

    plan: "Plan"
    readiness: "Readiness"
    runtime: RuntimeName | None
    threads: int
    shapes: "tuple[InputShape, ...]"
    options: tuple[str, ...]
    timeout_seconds: float
    purpose: str
    profile: bool

    def spec(self, run: "ModelRun") -> "Spec":
        from host.measurement import MeasureSpec

        return MeasureSpec(run, self.plan, self.readiness, self.timeout_seconds)


def measure(  # noqa: PLR0913 - the options of a command
    models: Annotated[list[Path], typer.Argument(metavar="MODEL", help="ONNX or TFLite files.")],
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
    plan = _plan(preset, rate, energy=bool(energy))
    ready = readiness(on_busy, wait_quiet, max_start_temperature)
    wish = _Wish(
        plan=plan,
        readiness=ready,
        runtime=runtime,
        threads=threads,
        shapes=parse_shapes(input_shape or ()),
        options=parse_options(option or ()),
        timeout_seconds=worker_timeout or enough_seconds(plan, ready),
        purpose=f"measure {uuid4().hex}" if again else "measure",
        profile=profile,
    )
    files = list(dict.fromkeys(models))
    for file in files:
        check_model_file(file, runtime_of(file, runtime))
    results = Results("csv" if as_csv else "json" if as_json else "text", language)
    with opened(workspace) as (found, store):
        targets = [store.devices.by_name(name) for name in dict.fromkeys(device)]
        asked = _ask(store, files, targets, wish)

        def show(one: "Asked", outcome: "Outcome") -> None:
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
    if output is not None:
        require_picture(output)


def _require_one_form(*, as_json: bool, as_csv: bool, profile: bool) -> None:
    if as_json and as_csv:
        raise UsageError("--json and --csv exclude each other: leave one of them out")
    if profile and as_csv:
        raise UsageError("--csv has no columns for a profile: use --json with --profile")


def _plan(preset: "PresetName", rate: float | None, *, energy: bool) -> "Plan":
    from host.measurement import PRESETS

    plan = PRESETS[preset]
    return plan.with_energy(paced_hertz=rate) if energy or rate is not None else plan


def enough_seconds(plan: "Plan", ready: "Readiness") -> float:
    """Twice what the plan takes at most, and the time for which the device may wait."""
    from host.cli.jobs import planned_seconds

    planned = planned_seconds(plan, ready.observe_seconds)
    return max(_LEAST_TIMEOUT_SECONDS, math.ceil(2 * planned + ready.wait_seconds))


def metered(store: "Store", device: "Device", spec: "Spec", purpose: str) -> "tuple[Spec, str]":
    """The spec with windows long enough for the device's meter, and a purpose that tells an energy
    run with one meter from the same run with another, or none.
    """
    from host.measurement import MeasureSpec

    if not isinstance(spec, MeasureSpec) or spec.plan.energy_windows == 0:
        return spec, purpose
    binding = store.meters.of_device(device.id)
    if binding is None:
        return spec, purpose
    seconds = max(spec.plan.energy_window_seconds, _WINDOW_READINGS * _interval_seconds(binding))
    plan = replace(spec.plan, energy_window_seconds=seconds)
    enough = max(spec.timeout_seconds, enough_seconds(plan, spec.readiness))
    longer = replace(spec, plan=plan, timeout_seconds=enough)
    told = f"{binding.url} {sorted(binding.options.items())}"
    return longer, f"{purpose} by meter {hashlib.sha256(told.encode()).hexdigest()[:12]}"


def _interval_seconds(binding: "MeterBinding") -> float:
    """How often the meter is read; one that does not answer now may do so when it is needed."""
    from host.meters import MeterError, open_meter

    try:
        meter = open_meter(binding)
    except MeterError as error:
        note(f"the meter cannot be read now: {error}")
        return 0.0
    meter.close()
    return meter.interval_seconds


def _ask(
    store: "Store", files: Sequence[Path], devices: Sequence["Device"], wish: _Wish
) -> "list[Asked]":
    """Submit the jobs, first all models on the first device. Raises NoRuntimeError."""
    from host.cli.jobs import Asked, planned_seconds
    from host.measurement import MeasureSpec, ModelRun, ProfileSpec

    for device in devices:
        for file in files:
            require_runtime(device, runtime_of(file, wish.runtime))
    asked = []
    for file in files:
        blob = store.blobs.put_file(file)
        run = ModelRun(
            blob.sha256,
            blob.size_bytes,
            runtime_of(file, wish.runtime),
            wish.threads,
            wish.shapes,
            wish.options,
        )
        specs: list[tuple[Spec, str]] = [(wish.spec(run), f"measuring {file.name}")]
        if wish.profile:
            specs.append((ProfileSpec(run), f"profiling {file.name}"))
        for device in devices:
            for asked_spec, doing in specs:
                spec, purpose = metered(store, device, asked_spec, wish.purpose)
                at_most = _PROFILE_SECONDS
                if isinstance(spec, MeasureSpec):
                    at_most = planned_seconds(spec.plan, spec.readiness.observe_seconds)
                job = store.jobs.submit(
                    device.id, spec, purpose=purpose, priority=1, label=file.name
                )
                asked.append(Asked(job, device, file.name, doing, at_most))
    return asked
