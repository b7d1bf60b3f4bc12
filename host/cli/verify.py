"""`genba verify`: whether a model answers on a device as it does here."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from host.api.model_files import (
    check_model_file,
    require_runtime,
    runtime_of,
)
from host.cli.console import note, print_json, table_console
from host.cli.measure import (
    AgainOption,
    OptionsOption,
    RuntimeOption,
    ShapesOption,
    ThreadsOption,
    TimeoutOption,
)
from host.cli.models import parse_options, parse_shapes
from host.cli.workspace import JsonOption, WorkspaceOption, opened
from host.device import RuntimeName
from host.errors import GenbaError

if TYPE_CHECKING:
    from host.api.asking import Asked
    from host.cli.expected import Expected
    from host.measurement import InputShape, Outcome, VerifiedOutputs, VerifySpec
    from host.store import Store

_SECONDS = 60.0  # shown as the time that a verification takes at most; it has no budget
_SPARE_OUTPUT_BYTES = 1_000_000


class NotVerifiedError(GenbaError):
    """The device answers otherwise, or not at all."""


@dataclass(frozen=True)
class _Setup:
    """How the device's runtime is set up."""

    runtime: RuntimeName
    threads: int
    shapes: "tuple[InputShape, ...]"
    options: tuple[str, ...]


def verify(  # noqa: PLR0913 - the options of a command
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX, TFLite or ncnn file.")],
    *,
    device: Annotated[str, typer.Option(metavar="NAME", help="Where to run it.")],
    inputs: Annotated[
        Path,
        typer.Option(
            metavar="FILE.npz", help="An array for each input, by name, examples along axis 0."
        ),
    ],
    expected: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npz",
            help="An array for each output.",
            show_default="computed on this machine",
        ),
    ] = None,
    rtol: Annotated[
        float, typer.Option(min=0.0, help="Tolerance relative to the expected value.")
    ] = 1e-3,
    atol: Annotated[float, typer.Option(min=0.0, help="Tolerance besides.")] = 1e-4,
    threads: ThreadsOption = 1,
    input_shape: ShapesOption = None,
    option: OptionsOption = None,
    runtime: RuntimeOption = None,
    timeout: TimeoutOption = None,
    again: AgainOption = False,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Run a model on a device with real inputs and compare its outputs with the expected ones.

    Ends with 1 where an output is not within the tolerance.
    """
    from host.api.asking import Asked, purpose_of
    from host.cli.jobs import await_outcomes
    from host.measurement.outputs import read_outputs
    from host.measurement.verification import compare_outputs
    from host.report.verification import NamedOutputs, verification_block, verification_record

    chosen = runtime_of(model, runtime)
    check_model_file(model, chosen)
    shapes, options = parse_shapes(input_shape or ()), parse_options(option or ())
    answers: list[VerifiedOutputs] = []
    with opened(workspace) as (found, store):
        target = store.devices.by_name(device)
        require_runtime(target, chosen)
        wanted = _expected(model, chosen, inputs, expected)
        setup = _Setup(chosen, threads, shapes, options)
        spec = _spec(store, model, inputs, wanted, setup)
        purpose = purpose_of("verify", again=again)
        job = store.jobs.submit(target.id, spec, purpose=purpose, priority=1, label=model.name)
        one = Asked(job, target, model.name, f"verifying {model.name}", _SECONDS)

        def keep(one: Asked, outcome: "Outcome") -> None:
            answers.append(_verified(one, outcome))

        known = await_outcomes(found, store, [one], keep, timeout=timeout, findable=not again)
        got = read_outputs(
            store.blobs.path(answers[0].outputs_sha256), max_bytes=10 * spec.max_output_bytes
        )
    if known:
        note("run before; --again runs it anew")
    compared = compare_outputs(
        wanted.outputs, got, relative_tolerance=rtol, absolute_tolerance=atol
    )
    named = NamedOutputs(answers[0], model.name, target.name, wanted.source)
    if as_json:
        print_json(verification_record(compared, named))
    else:
        table_console().print(verification_block(compared, named))
    if not compared.passed:
        raise NotVerifiedError(f"{model.name} does not answer on {target.name} as expected")


def _expected(model: Path, runtime: RuntimeName, inputs: Path, expected: Path | None) -> "Expected":
    from host.cli.expected import Expected, expected_outputs, read_arrays

    arrays = read_arrays(inputs)
    if expected is None:
        return expected_outputs(model, runtime, arrays)
    return Expected(read_arrays(expected), str(expected))


def _spec(
    store: "Store", model: Path, inputs: Path, wanted: "Expected", setup: _Setup
) -> "VerifySpec":
    from host.measurement import ModelRun, VerifySpec

    blob, sent = store.blobs.put_file(model), store.blobs.put_file(inputs)
    run = ModelRun(
        blob.sha256,
        blob.size_bytes,
        setup.runtime,
        setup.threads,
        setup.shapes,
        setup.options,
    )
    # Twice what is expected: a device may answer in another number type.
    most = 2 * sum(array.nbytes for array in wanted.outputs.values()) + _SPARE_OUTPUT_BYTES
    return VerifySpec(run, sent.sha256, sent.size_bytes, max_output_bytes=most)


def _verified(one: "Asked", outcome: "Outcome") -> "VerifiedOutputs":
    from host.cli.results import failure_sentence
    from host.measurement import MeasurementFailure, VerifiedOutputs

    if isinstance(outcome, VerifiedOutputs):
        return outcome
    if isinstance(outcome, MeasurementFailure):
        raise NotVerifiedError(failure_sentence(one, outcome))
    raise NotVerifiedError(f"job {one.job.id} has a result of another kind")
