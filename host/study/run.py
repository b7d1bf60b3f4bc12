"""One study from configuration to bundles: the only place that knows all parts.

A study is a function of its configuration, its seed and what devices measure. Scores,
measurements and finalists are kept in the store, so a study that was stopped, at any point and by
anything, is continued by running it again.
"""

import fcntl
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from host.calibration.setting import Setting
from host.calibration.stored import Example, keep_of_study
from host.config import StudyConfig
from host.data.images import ImageFolder, ImageLoader, scan_folder
from host.errors import GenbaError, UsageError
from host.preprocessing import Channels
from host.proxies.choice import judge
from host.spaces.base import SearchSpace, Task
from host.spaces.catalogue import space_by_name
from host.store.store import Store
from host.store.studies import PredictionRow, Study, StudyCandidate, UnknownStudyError
from host.study.finalist import FinalistResult
from host.study.finalists import Finishing, choose, finalist_memo
from host.study.front import FrontReport, FrontRow, OnDevice, Point
from host.study.images import view_of_images
from host.study.ledger import Ledger, Manner, study_devices
from host.study.limits import limits_of
from host.study.proposal import Proposal, Proposer
from host.study.report import Reporter
from host.study.scoring import Scorer
from host.study.search import Search
from host.study.surrogates import Surrogates

FRONT = "front"
"""Name of the stored result that holds the front."""

IMAGES = "images"
"""Name of the stored result that holds the fingerprint of the images."""


class StudyRunsError(GenbaError):
    """Another process works on the study."""


class OtherConfigurationError(UsageError):
    """A study of that name exists with another configuration."""


class OtherImagesError(UsageError):
    """The images are no longer those that the study began with."""


@dataclass(frozen=True)
class StudyResult:
    """What a finished study found."""

    front: FrontReport
    finalists: tuple[FinalistResult, ...]


def run_study(
    config: StudyConfig, *, store: Store, workspace: Path, reporter: Reporter
) -> StudyResult:
    """Run a study, or go on with it where it stopped. Needs a gateway that serves the workspace.

    Raises GenbaError for whatever ends it; the study can be resumed.
    """
    devices = study_devices(store, config.devices)
    reporter.stage("data")
    images = scan_folder(Path(config.data.folder))
    for file in images.excluded:
        reporter.say(f"left out {file.path}: {file.reason}")
    loader = ImageLoader(images, seed=config.seed)
    # What is wrong with the configuration shows before the study takes its name.
    space_of(config)
    study = open_study(store, config)
    _same_images(store, study, images)
    folder = workspace / "studies" / study.name
    with _only_one(folder, study.name):
        try:
            manner = Manner.of_search(config.measuring)
            ledger = Ledger(store, study.id, devices, reporter, manner)
            search = make_search(config, store, study, loader, ledger)
            front = _search(store, study, search)
            report = front_report(config, search, front)
            _keep(store, study, search, front, report)
            finalists = _finish(config, study, store, folder, search, front, loader)
        except GenbaError as error:
            store.studies.fail(study.id, str(error))
            raise
        store.studies.finish(study.id)
        return StudyResult(report, finalists)


def stored_result(store: Store, study: Study) -> StudyResult | None:
    """The front and the finalists that the store holds of a study; None before there is a front."""
    front = store.studies.result(study.id, FRONT)
    if front is None:
        return None
    report = FrontReport.model_validate_json(front)
    finalists = [store.studies.result(study.id, finalist_memo(row.key)) for row in report.rows]
    return StudyResult(
        report,
        tuple(FinalistResult.model_validate_json(text) for text in finalists if text is not None),
    )


def open_study(store: Store, config: StudyConfig) -> Study:
    """The study of that name, made where there is none.

    Raises OtherConfigurationError where the stored one differs.
    """
    try:
        study = store.studies.by_name(config.name)
    except UnknownStudyError:
        return store.studies.create(config.name, config.effective_json(), config.seed)
    before, now = json.loads(study.config_json), config.model_dump(mode="json")
    difference = next(_differences(before, now, ""), None)
    if difference is not None:
        raise OtherConfigurationError(
            f"a study named {config.name!r} exists with another configuration ({difference}): "
            "give this one another name, or undo the change to resume it"
        )
    return study


def _same_images(store: Store, study: Study, images: ImageFolder) -> None:
    """See that a study that goes on has the images that it began with.

    Raises OtherImagesError.
    """
    before = store.studies.result(study.id, IMAGES)
    if before is None:
        store.studies.put_result(study.id, IMAGES, json.dumps(images.fingerprint))
    elif json.loads(before) != images.fingerprint:
        raise OtherImagesError(
            f"the images in {images.root} have changed since the study {study.name!r} began: put "
            "the old ones back, or start a study under another name"
        )


def make_search(
    config: StudyConfig, store: Store, study: Study, loader: ImageLoader, ledger: Ledger
) -> Search:
    """The search of a study, before its first step."""
    channels = _channels(config, loader.folder)
    proposer = Proposer(space_of(config), Task(channels, len(loader.folder.classes)))

    def on_scored(proposals: Sequence[Proposal]) -> None:
        first = len(search.archive) - len(proposals)
        rows = [StudyCandidate(p.key, first + n, "scored") for n, p in enumerate(proposals)]
        store.studies.add_candidates(study.id, rows)

    search = Search(
        config=config,
        limits=limits_of(config),
        proposer=proposer,
        scorer=Scorer(
            store=store,
            ensemble=judge(config.search.ensemble, config.search.proxies),
            view=view_of_images(loader, config.search.batch_size, seed=config.seed),
            subject=proposer.subject,
        ),
        ledger=ledger,
        surrogates=Surrogates({device.name: device.config.threads for device in ledger.devices}),
        reporter=ledger.reporter,
        on_scored=on_scored,
    )
    return search


def space_of(config: StudyConfig) -> SearchSpace:
    """The search space that a study names."""
    restrict = {name: tuple(choices) for name, choices in config.space.restrict.items()}
    return space_by_name(config.space.name, restrict=restrict, resolution=config.space.resolution)


def front_report(config: StudyConfig, search: Search, front: list[Proposal]) -> FrontReport:
    """The front as plain values."""
    scores = search.combined_scores()
    chosen = {proposal.key for proposal in front}
    others = [
        Point(
            score=scores[p.key],
            latency_seconds={
                device.name: measurement.latency_seconds
                for device in search.ledger.devices
                if (measurement := search.ledger.measurement(p.key, device.name)) is not None
            },
            within_limits=search.within_limits(p),
        )
        for p in search.measured()
        if p.key not in chosen
    ]
    return FrontReport(
        study=config.name,
        space=config.space.name,
        proxies=list(search.scorer.ensemble.members),
        limits=[str(limit) for limit in search.limits],
        device_limits_seconds={
            limit.device: limit.maximum
            for limit in search.limits
            if limit.quantity == "latency_seconds" and limit.device is not None
        },
        scored=len(search.archive),
        measured=len(search.measured()),
        rows=[_row(search, proposal, scores[proposal.key]) for proposal in front],
        others=others,
    )


def _search(store: Store, study: Study, search: Search) -> list[Proposal]:
    store.studies.set_stage(study.id, "calibrate")
    search.calibrate()
    store.studies.set_stage(study.id, "search")
    search.explore()
    store.studies.set_stage(study.id, "front")
    return search.settle()


def _finish(
    config: StudyConfig,
    study: Study,
    store: Store,
    folder: Path,
    search: Search,
    front: list[Proposal],
    loader: ImageLoader,
) -> tuple[FinalistResult, ...]:
    store.studies.set_stage(study.id, "finalists")
    search.reporter.stage("finalists")
    finishing = Finishing(config=config, study=study, store=store, folder=folder, search=search)
    chosen = choose(front, config.finalists.count)
    return tuple(finishing.finish(proposal, loader) for proposal in chosen)


def _keep(
    store: Store, study: Study, search: Search, front: list[Proposal], report: FrontReport
) -> None:
    """Write down what the search found: candidates, cost models, predictions, front."""
    for role, proposals in (
        ("measured", search.measured()),
        ("front", front),
    ):
        rows = [StudyCandidate(p.key, order, role) for order, p in enumerate(proposals)]
        store.studies.add_candidates(study.id, rows)
    ids = {device.name: device.device.id for device in search.ledger.devices}
    for device, device_id in ids.items():
        _keep_models(store, study, search, device, device_id)
    predictions = [
        PredictionRow(
            candidate_key=key,
            device_id=ids[device],
            target=target,
            value=prediction.value,
            low=prediction.low,
            high=prediction.high,
            level=prediction.level,
            model_id=None,
        )
        for (key, device, target), prediction in search.foretold.items()
    ]
    store.studies.add_predictions(study.id, predictions)
    store.studies.add_front(study.id, [p.key for p in front])
    store.studies.put_result(study.id, FRONT, report.model_dump_json())


def _keep_models(store: Store, study: Study, search: Search, device: str, device_id: str) -> None:
    """Store the cost models of a device, unless its runtime changed while the study ran: what was
    fitted on two versions holds for neither.
    """
    examples, settings = [], set()
    for key in search.surrogates.fitted_on.get(device, ()):
        measurement = search.ledger.measurement(key, device)
        if measurement is None:
            return
        settings.add(Setting.of_measurement(measurement))
        known = store.measurements.list(device_id, measurement.model_sha256)
        numbers = (o.number for o in known if o.measurement.measured_at == measurement.measured_at)
        text = search.archive[key].text
        examples.append(Example(text, measurement.model_sha256, next(numbers, None)))
    if len(settings) != 1:
        return
    (setting,) = settings
    for (name, _), model in search.surrogates.models.items():
        if name == device:
            keep_of_study(store, device_id, setting, model, examples, study.name)


def _row(search: Search, proposal: Proposal, score: float) -> FrontRow:
    devices = []
    for device in search.ledger.devices:
        measurement = search.ledger.measurement(proposal.key, device.name)
        if measurement is not None:
            latency = search.foretold.get((proposal.key, device.name, "latency_seconds"))
            memory = search.foretold.get((proposal.key, device.name, "peak_rss_bytes"))
            devices.append(OnDevice.of(device.name, measurement, latency=latency, peak_rss=memory))
    scores = search.scorer.scores[proposal.key]
    return FrontRow(
        key=proposal.key,
        text=proposal.text,
        score=score,
        scores={name: None if math.isnan(value) else value for name, value in scores.items()},
        parameters=proposal.network.parameters,
        macs=proposal.network.macs,
        model_bytes=proposal.model_bytes,
        devices=devices,
    )


def _channels(config: StudyConfig, folder: ImageFolder) -> Channels:
    if config.data.colour == "auto":
        return folder.channels
    return 1 if config.data.colour == "grey" else 3


def _differences(before: Any, now: Any, key: str) -> Iterator[str]:
    """Where two effective configurations differ, as `key: before, now after`."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in sorted({*before, *now}):
            path = f"{key}.{name}" if key else name
            yield from _differences(before.get(name), now.get(name), path)
    elif before != now:
        yield f"{key}: {before}, now {now}"


@contextmanager
def _only_one(folder: Path, name: str) -> Iterator[None]:
    """Hold the study's lock, which ends with the process whatever ends it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StudyRunsError(
                f"the study {name!r} is running in another process: wait for it or stop that one"
            ) from error
        yield
