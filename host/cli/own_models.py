"""Models of the user's own, measured and predicted wherever `genba evaluate` compares them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from host.api.asking import Asked, Wish, ask
from host.api.model_files import ModelFileError, require_runtime, runtime_of
from host.cli.console import note
from host.device import RuntimeName
from host.errors import GenbaError, UsageError

if TYPE_CHECKING:
    from cost_models.kernels import KernelGraph
    from host.calibration.catalogue import Quantity
    from host.calibration.prediction import Forecast
    from host.device import Device
    from host.evaluation.entries import Place
    from host.evaluation.judging import Judged
    from host.evaluation.own import OwnModel
    from host.measurement import Measured, Outcome
    from host.store import Store
    from host.workspace import Workspace

    Outcomes = dict[tuple[Path, str], Measured]
    Forecasts = dict[tuple[Path, str], Mapping[Quantity, Forecast]]


class OtherResultError(GenbaError):
    """A job that asked for a measurement has a result of another kind."""


@dataclass(frozen=True)
class Manner:
    """How every file is measured and predicted; the threads are those of the place.

    Jobs that nobody waits for any longer stay queued (`findable`), or are withdrawn.
    """

    wish: Wish
    timeout_seconds: float | None
    findable: bool


def own_models(
    workspace: "Workspace",
    store: "Store",
    judged: "Mapping[Path, Judged | str]",
    places: "Sequence[Place]",
    manner: Manner,
) -> "tuple[list[OwnModel], list[str]]":
    """The files at every place whose runtime runs them, and why cost models are silent on some.

    `judged` says of each file how good it is, or why that is not known. Raises UsageError where no
    place runs any of the files, NoRuntimeError, UnknownDeviceError and what waiting raises.
    """
    from host.evaluation.own import OwnModel, labels_of

    pairs = _pairs(list(judged), places, manner.wish)
    devices = {place.name: store.devices.by_name(place.device) for place in places}
    forecasts, notes = _predicted(store, pairs, devices, manner.wish)
    outcomes = _measured(workspace, store, pairs, devices, manner)
    labels = labels_of(list(judged))
    models = [
        OwnModel(
            path=path,
            label=labels[path],
            size_bytes=path.stat().st_size,
            outcomes={name: out for (of, name), out in outcomes.items() if of == path},
            forecasts={name: told for (of, name), told in forecasts.items() if of == path},
            absent={
                place.name: f"it runs {place.runtime} files"
                for place in places
                if not _fits(path, place, manner.wish)
            },
            judged=None if isinstance(found, str) else found,
            not_judged_because=found if isinstance(found, str) else "",
        )
        for path, found in judged.items()
    ]
    return models, notes


def require_places(
    store: "Store", paths: "Sequence[Path]", places: "Sequence[Place]", wish: Wish
) -> None:
    """See that there are such devices, and that each has the runtimes of the files that it gets.

    Raises UsageError where no place runs any of the files, NoRuntimeError and UnknownDeviceError.
    """
    devices = {place.device: store.devices.by_name(place.device) for place in places}
    for path, place in _pairs(paths, places, wish):
        require_runtime(devices[place.device], runtime_of(path, wish.runtime))


def _pairs(
    paths: "Sequence[Path]", places: "Sequence[Place]", wish: Wish
) -> "list[tuple[Path, Place]]":
    """Each file with every place whose runtime runs it. Raises UsageError where there is none."""
    pairs = [(path, place) for path in paths for place in places if _fits(path, place, wish)]
    if not pairs:
        raise UsageError(
            f"no file runs on any of these devices: they run"
            f" {', '.join(sorted({str(place.runtime) for place in places}))} files"
        )
    return pairs


def _fits(path: Path, place: "Place", wish: Wish) -> bool:
    return place.runtime in (None, runtime_of(path, wish.runtime))


def _measured(
    workspace: "Workspace",
    store: "Store",
    pairs: "Sequence[tuple[Path, Place]]",
    devices: "Mapping[str, Device]",
    manner: Manner,
) -> "Outcomes":
    from host.cli.jobs import await_outcomes
    from host.measurement import Measured

    asked: list[tuple[Asked, Path, str]] = []
    for path, place in pairs:
        wish = replace(manner.wish, threads=place.threads)
        jobs = ask(store, [path], [devices[place.name]], wish, note)
        asked += [(one, path, place.name) for one in jobs]
    by_job: dict[str, Measured] = {}

    def keep(one: Asked, outcome: "Outcome") -> None:
        if not isinstance(outcome, Measured):
            raise OtherResultError(f"job {one.job.id} has a result of another kind")
        by_job[one.job.id] = outcome

    known = await_outcomes(
        workspace,
        store,
        [one for one, _, _ in asked],
        keep,
        timeout=manner.timeout_seconds,
        findable=manner.findable,
    )
    if known:
        note(f"{known} of {len(asked)} were measured before; --again measures anew")
    return {(path, name): by_job[one.job.id] for one, path, name in asked}


def _predicted(
    store: "Store",
    pairs: "Sequence[tuple[Path, Place]]",
    devices: "Mapping[str, Device]",
    wish: Wish,
) -> "tuple[Forecasts, list[str]]":
    """What cost models say, and where there is none, why."""
    from host.api.predicting import predicted
    from host.calibration.prediction import NotCalibratedError

    graphs, notes = _graphs({path for path, _ in pairs}, wish)
    found: Forecasts = {}
    for place, runtime, paths in _settings(pairs, graphs, wish):
        some = {path: graphs[path] for path in paths}
        device = devices[place.name]
        try:
            groups = list(predicted(store, device, some, runtime=runtime, threads=place.threads))
        except NotCalibratedError as error:
            notes.append(f"no prediction for {place.name}: {error}")
            continue
        told = [one for group in groups for one in group]
        found |= {(path, place.name): one.forecasts for path, one in zip(paths, told, strict=True)}
    return found, notes


def _graphs(paths: "set[Path]", wish: Wish) -> "tuple[dict[Path, KernelGraph], list[str]]":
    """What runtimes execute of the files; one that cannot be read so may still be measured."""
    from host.api.predicting import read_graph

    graphs: dict[Path, KernelGraph] = {}
    notes = []
    for path in sorted(paths):
        try:
            graphs[path] = read_graph(path, runtime_of(path, wish.runtime), wish.shapes)
        except ModelFileError as error:
            notes.append(f"no prediction: {error}")
    return graphs, notes


def _settings(
    pairs: "Sequence[tuple[Path, Place]]", graphs: "Mapping[Path, KernelGraph]", wish: Wish
) -> "Iterator[tuple[Place, RuntimeName, list[Path]]]":
    """The files that one set of cost models is for."""
    grouped: dict[tuple[Place, RuntimeName], list[Path]] = {}
    for path, place in pairs:
        if path in graphs:
            grouped.setdefault((place, runtime_of(path, wish.runtime)), []).append(path)
    for (place, runtime), paths in grouped.items():
        yield place, runtime, paths
