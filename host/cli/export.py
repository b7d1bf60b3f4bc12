"""`genba export`: a model in the form that an old runtime loads, or the operator that it lacks."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from host.api.model_files import ModelFileError, check_model_file, read_model_file, runtime_of
from host.cli.console import note, print_json
from host.cli.workspace import JsonOption, WorkspaceOption, opened
from host.device import RuntimeName
from host.errors import UsageError

if TYPE_CHECKING:
    from host.export.floor import Fitted
    from host.export.target import Target
    from host.spaces.base import SearchSpace, Task


@dataclass(frozen=True)
class _Made:
    target: "Target"
    fitted: "Fitted"
    source: str


def export(  # noqa: PLR0913 - the options of a command
    model: Annotated[
        Path | None,
        typer.Argument(metavar="MODEL", help="A model of your own.", show_default=False),
    ] = None,
    *,
    wanted: Annotated[
        str,
        typer.Option(
            "--for",
            metavar="TARGET",
            help="A registered device; or a library such as onnxruntime==1.15.1; or a machine"
            " such as armv7l/3.11 (architecture/Python).",
        ),
    ],
    runtime: Annotated[
        RuntimeName | None,
        typer.Option(help="Which of the target's runtimes.", show_default="the first that fits"),
    ] = None,
    space: Annotated[
        str | None, typer.Option(metavar="NAME", help="Export a candidate of this search space.")
    ] = None,
    candidate: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The candidate, as reports write it.")
    ] = None,
    channels: Annotated[
        int, typer.Option(min=1, max=4096, help="Of a candidate's images, or its sensors.")
    ] = 3,
    classes: Annotated[int, typer.Option(min=1, max=100_000, help="Of a candidate.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Of a candidate's untrained weights.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to write it.", show_default="beside the model"),
    ] = None,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Write a model as a target loads it, or name the operators that the target lacks.

    Opset and IR of an ONNX file are lowered where that changes no answer. A candidate of a space is
    written with untrained weights, to be measured; where the target lacks an operator, the nearest
    candidate without it is offered.
    """
    from host.export.files import write_whole

    targets = _targets(wanted, workspace)
    if model is not None and space is None and candidate is None:
        made = _of_file(model, _chosen(targets, runtime, model))
        path = output or _beside(model, made.target)
    elif model is None and space is not None and candidate is not None:
        target = _chosen(targets, runtime, None)
        made = _of_candidate(space, candidate, (channels, classes, seed), target)
        path = output or Path(f"candidate.{target.runtime}")
    else:
        raise UsageError("name a model, or both --space and --candidate")
    if model is not None and path.exists() and path.samefile(model):
        raise UsageError(f"--output {path} would replace the model itself: name another file")
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(f"--output {path}: name a file in a folder that is there")
    write_whole(path, made.fitted.model)
    if as_json:
        print_json(_record(made, path))
        return
    for change in made.fitted.changes:
        note(change)
    note(f"{made.target.name} loads {path}")


def _targets(text: str, workspace: Path | None) -> "list[Target]":
    """What the text names. Raises UsageError where it names nothing."""
    from host.export.target import targets_of_device, targets_of_library, targets_of_machine

    found = targets_of_library(text) or targets_of_machine(text)
    if found:
        return found
    with opened(workspace) as (_, store):
        return targets_of_device(store.devices.by_name(text))


def _chosen(targets: "list[Target]", runtime: RuntimeName | None, model: Path | None) -> "Target":
    """The target of that runtime, or the first that a file can become. Raises UsageError."""
    by_runtime = {target.runtime: target for target in targets}
    if runtime is not None:
        if runtime not in by_runtime:
            names = ", ".join(by_runtime)
            raise UsageError(f"--runtime {runtime}: the target has {names} only")
        return by_runtime[runtime]
    if model is None:
        return targets[0]
    own = runtime_of(model)
    fitting = [own, "ncnn"] if own == "onnx" else [own]
    for name in fitting:
        if name in by_runtime:
            return by_runtime[name]
    raise UsageError(
        f"{targets[0].name} runs no .{own} files, and {model} cannot be made into a"
        f" .{targets[0].runtime} file here: export a candidate of a search space, which has every"
        " form"
    )


def _of_file(path: Path, target: "Target") -> _Made:
    """Raises UsageError, which names the operators that the target lacks."""
    from host.export.errors import ExportError
    from host.export.floor import FloorError, fitted_to

    own = runtime_of(path)
    content = read_model_file(path)
    if own == "onnx" and target.runtime == "ncnn":
        from host.export.onnx_to_ncnn import ncnn_of_onnx

        check_model_file(path, own)
        content = ncnn_of_onnx(content)
    elif own != target.runtime:
        raise UsageError(
            f"{path} cannot be made into a .{target.runtime} file here: export a candidate of a"
            " search space, which has every form"
        )
    try:
        return _Made(target, fitted_to(content, target), str(path))
    except FloorError as error:
        raise FloorError(f"{path}: {error}: export it without", error.operators) from error
    except ExportError as error:
        raise ModelFileError(f"{path}: {error}") from error


def _of_candidate(name: str, text: str, sizes: tuple[int, int, int], target: "Target") -> _Made:
    """Raises FloorError, which offers the nearest candidate that the target runs."""
    from host.export.floor import FloorError, fitted_to, missing_operators
    from host.export.rendering import untrained
    from host.spaces.base import Task
    from host.spaces.catalogue import space_by_name

    channels, classes, seed = sizes
    space, task = space_by_name(name), Task(channels, classes)
    network = space.build(space.parse(text), task)
    missing = missing_operators(network, target)
    if missing:
        raise FloorError(
            f"{target.name} lacks {', '.join(missing)}, which {text!r} needs"
            f"{_offer(space, text, task, target)}",
            missing,
        )
    model = untrained(network, target.runtime, seed=seed)
    return _Made(target, fitted_to(model, target), f"{name}: {text}")


def _offer(space: "SearchSpace", text: str, task: "Task", target: "Target") -> str:
    from host.export.variant import nearest_variant

    found = nearest_variant(space, space.parse(text), task, target)
    if found is None:
        return f", and no candidate of {space.name} near it does without"
    return f": the nearest without is --candidate '{space.text(found)}'"


def _beside(model: Path, target: "Target") -> Path:
    library = f"{target.library}-{target.version}" if target.version else target.library
    return model.with_name(f"{model.stem}.{library}.{target.runtime}")


def _record(made: _Made, path: Path) -> dict[str, Any]:
    return {
        "source": made.source,
        "file": str(path),
        "size_bytes": len(made.fitted.model),
        "runtime": made.target.runtime,
        "library": made.target.library,
        "version": made.target.version,
        "changes": list(made.fitted.changes),
    }
