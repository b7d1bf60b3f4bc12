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
from pathlib import Path
from typing import Any

from cost_models.latency import LatencyModel
from host.calibration.setting import Setting
from host.calibration.stored import Example, keep_of_study, load
from host.config import StudyConfig
from host.data.dataset import Dataset
from host.errors import GenbaError, UsageError
from host.export.signing import SigningKey, signing_key
from host.proxies.choice import judge
from host.spaces.base import SearchSpace, Task
from host.spaces.catalogue import space_by_name
from host.spaces.conv1d import Conv1d
from host.spaces.mobile import Mobile
from host.spaces.refine import refine
from host.store.store import Store
from host.store.studies import PredictionRow, Study, StudyCandidate, UnknownStudyError
from host.study.data import channels_of, facts_of, open_study_data, view_of_data
from host.study.feasibility import profiles_with_energy
from host.study.finalist import FinalistResult, TrialsReport
from host.study.finalists import Finishing, choose, defect_of
from host.study.front import (
    FRONT,
    FrontReport,
    FrontRow,
    LimitLine,
    OnDevice,
    Point,
    Profile,
    Spent,
)
from host.study.ledger import Ledger, Manner, StudyDevice, study_devices
from host.study.limits import Limit, limits_of
from host.study.proposal import Proposal, Proposer
from host.study.report import Reporter
from host.study.scoring import Scorer
from host.study.search import Search
from host.study.spending import Spending
from host.study.stored import DATA, FINGERPRINT, StudyResult
from host.study.surrogates import Surrogates, profile_settings
from host.study.trials import Trained, Trials
from host.workspace import PKI_FOLDER

_REFINED = "refined"


class StudyRunsError(GenbaError):
    """Another process works on the study."""


class OtherConfigurationError(UsageError):
    """A study of that name exists with another configuration."""


class OtherDataError(UsageError):
    """The data are no longer those that the study began with."""


def run_study(
    config: StudyConfig, *, store: Store, workspace: Path, reporter: Reporter
) -> StudyResult:
    """Run a study, or go on with it where it stopped. Needs a gateway that serves the workspace.

    Raises GenbaError for whatever ends it; the study can be resumed.
    """
    devices = study_devices(store, config.devices)
    reporter.stage("data")
    data = open_study_data(config.data, seed=config.seed)
    for file in data.excluded:
        reporter.say(f"left out {file.path}: {file.reason}")
    # What is wrong shows before the study takes its name.
    space_of(config)
    defect_of(config.data, data.classes)
    key = signing_key(workspace / PKI_FOLDER)
    study = open_study(store, config)
    _same_data(store, study, data)
    folder = workspace / "studies" / study.name
    with _only_one(folder, study.name):
        try:
            manner = Manner.of_search(config.measuring)
            energy_on = profiles_with_energy(limits_of(config))
            ledger = Ledger(store, study.id, devices, reporter, manner, energy_on)
            search = make_search(config, store, study, data, ledger)
            front = _search(store, study, search)
            found = front_report(config, search, front)
            _keep(store, study, search, front, found)
            _keep_facts(store, study, config, data, front[0])
            finalists, trials = _finish(config, study, store, folder, search, front, data, key)
            search.spending.save()
            report = found.model_copy(update={"spent": _spent(config, search)})
            store.studies.put_result(study.id, FRONT, report.model_dump_json())
        except GenbaError as error:
            store.studies.fail(study.id, str(error))
            raise
        store.studies.finish(study.id)
        return StudyResult(report, finalists, trials)


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


def _same_data(store: Store, study: Study, data: Dataset) -> None:
    """See that a study that goes on has the data that it began with.

    Raises OtherDataError.
    """
    before = store.studies.result(study.id, FINGERPRINT)
    if before is None:
        store.studies.put_result(study.id, FINGERPRINT, json.dumps(data.fingerprint))
    elif json.loads(before) != data.fingerprint:
        raise OtherDataError(
            f"the data in {data.folder.root} have changed since the study {study.name!r} began: put"
            " the old ones back, or start a study under another name"
        )


def _keep_facts(
    store: Store, study: Study, config: StudyConfig, data: Dataset, example: Proposal
) -> None:
    facts = facts_of(config.data, data, data.split_at(example.network.input_shape))
    store.studies.put_result(study.id, DATA, facts.model_dump_json())


def make_search(
    config: StudyConfig, store: Store, study: Study, data: Dataset, ledger: Ledger
) -> Search:
    """The search of a study, before its first step."""
    limits = limits_of(config)
    task = Task(channels_of(config.data, data), len(data.classes))
    proposer = Proposer(refined_space(config, store, study, ledger, task), task)

    def on_scored(proposals: Sequence[Proposal]) -> None:
        first = len(search.archive) - len(proposals)
        rows = [StudyCandidate(p.key, first + n, "scored") for n, p in enumerate(proposals)]
        store.studies.add_candidates(study.id, rows)

    search = Search(
        config=config,
        limits=limits,
        proposer=proposer,
        scorer=Scorer(
            store=store,
            ensemble=judge(config.search.ensemble, config.search.proxies),
            view=view_of_data(data, config.search.batch_size, seed=config.seed),
            subject=proposer.subject,
        ),
        ledger=ledger,
        surrogates=Surrogates(profile_settings(ledger.devices, limits, config.line.rate_hertz)),
        spending=Spending(
            store,
            study.id,
            config.budget,
            ledger.device_seconds,
            counts=study.finished_at is None,
        ),
        reporter=ledger.reporter,
        on_scored=on_scored,
    )
    return search


def space_of(config: StudyConfig) -> SearchSpace:
    """The search space that a study names."""
    restrict = {name: tuple(choices) for name, choices in config.space.restrict.items()}
    space = space_by_name(config.space.name, restrict=restrict, resolution=config.space.resolution)
    window = config.data.window
    if isinstance(space, Conv1d) and window is not None:
        return space.reading_at_most(window)
    return space


def refined_space(
    config: StudyConfig, store: Store, study: Study, ledger: Ledger, task: Task
) -> SearchSpace:
    """The space of a study without what is dear on one of its devices, as far as these were
    calibrated when the study began; what was decided then is kept.
    """
    space = space_of(config)
    if not isinstance(space, Mobile) or not config.space.refine:
        return space
    known = store.studies.result(study.id, _REFINED)
    if known is not None:
        kept = {name: tuple(choices) for name, choices in json.loads(known).items()}
        return Mobile(kept)
    models = {
        device.name: found.model
        for device in ledger.devices
        if device.runtime == "onnx"
        and (setting := ledger.setting(device)) is not None
        and (found := load(store, device.device.id, setting, LatencyModel)) is not None
    }
    if models:
        refinement = refine(space, models, task)
        for reason in refinement.reasons:
            ledger.reporter.say(reason)
        space = refinement.space
    store.studies.put_result(study.id, _REFINED, json.dumps(dict(space.restrict)))
    return space


def front_report(config: StudyConfig, search: Search, front: list[Proposal]) -> FrontReport:
    """The front as plain values."""
    scores = search.combined_scores()
    chosen = {proposal.key for proposal in front}
    rest = [p for p in search.measured() if p.key not in chosen]
    others = [
        Point(
            score=scores[p.key],
            latency_seconds={
                device.name: measurement.latency_seconds
                for device in search.ledger.devices
                if (measurement := search.ledger.measurement(p.key, device.name)) is not None
            },
            within_limits=is_met,
        )
        for p, is_met in zip(rest, search.feasibility.met(rest), strict=True)
    ]
    return FrontReport(
        study=config.name,
        space=config.space.name,
        proxies=list(search.scorer.ensemble.members),
        profiles=[profile_of(device) for device in search.ledger.devices],
        limits=[_limit_line(limit) for limit in search.limits],
        scored=len(search.archive),
        measured=len(search.measured()),
        hypervolume=list(zip(search.marks, search.hypervolumes(), strict=True)),
        stopped_because=search.stopped_because,
        spent=_spent(config, search),
        rows=[_row(search, proposal, scores[proposal.key]) for proposal in front],
        others=others,
    )


def profile_of(device: StudyDevice) -> Profile:
    """A device profile as plain values; what its agent has not said is empty."""
    facts = device.device.facts
    runtime = None if facts is None else facts.runtime(device.runtime)
    return Profile(
        name=device.name,
        device=device.device.name,
        architecture="" if facts is None else facts.machine,
        cpu="" if facts is None else facts.cpu_model,
        runtime=device.runtime,
        runtime_version="" if runtime is None else f"{runtime.library} {runtime.version}",
        threads=device.config.threads,
    )


def _limit_line(limit: Limit) -> LimitLine:
    return LimitLine(
        quantity=limit.quantity, device=limit.device, maximum=limit.maximum, text=str(limit)
    )


def _spent(config: StudyConfig, search: Search) -> list[Spent]:
    budget, spending = config.budget, search.spending
    return [
        Spent(what="candidates", spent=len(search.archive), allowed=budget.candidates),
        Spent(what="measurements", spent=len(search.ledger.keys), allowed=budget.measurements),
        Spent(
            what="device minutes",
            spent=spending.device_seconds() / 60,
            allowed=budget.device_minutes,
        ),
        Spent(what="minutes", spent=spending.saved_seconds / 60, allowed=budget.minutes),
        Spent(what="epochs", spent=spending.epochs, allowed=budget.epochs),
    ]


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
    data: Dataset,
    key: SigningKey,
) -> tuple[tuple[FinalistResult, ...], TrialsReport]:
    store.studies.set_stage(study.id, "finalists")
    search.reporter.stage("training")
    finishing = Finishing(config, study, store, folder, data=data, search=search, key=key)
    trials = Trials(
        config,
        study,
        store,
        folder,
        data=data,
        spending=search.spending,
        reporter=search.reporter,
    )
    # Spread over the front, the best score first: where a budget is short, the last are left out.
    chosen = choose(front, config.finalists.first_round)
    finalists, trained = trials.run(chosen, search.combined_scores())
    search.reporter.stage("finalists")
    found = []
    for proposal in finalists:
        known = finishing.stored(proposal)
        if known is None:
            known = finishing.finish(proposal, _trained(config, trials, proposal, finalists[0]))
        found.append(known)
        search.spending.save()
    return tuple(found), trained


def _trained(config: StudyConfig, trials: Trials, proposal: Proposal, best: Proposal) -> Trained:
    """With what the best one teaches, where that is wanted and this one is smaller."""
    is_smaller = proposal.network.macs < best.network.macs
    if config.finalists.distillation and is_smaller:
        return trials.taught(proposal, best)
    return trials.trained(proposal)


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
    devices = {device.name: device for device in search.ledger.devices}
    for device in devices.values():
        _keep_models(store, study, search, device)
    predictions = [
        PredictionRow(
            candidate_key=key,
            device_id=devices[name].device.id,
            # A device may stand in several profiles.
            target=f"{target} ({devices[name].runtime}, {devices[name].config.threads})",
            value=prediction.value,
            low=prediction.low,
            high=prediction.high,
            level=prediction.level,
            model_id=None,
        )
        for (key, name, target), prediction in search.foretold.items()
    ]
    store.studies.add_predictions(study.id, predictions)
    store.studies.add_front(study.id, [p.key for p in front])
    store.studies.put_result(study.id, FRONT, report.model_dump_json())


def _keep_models(store: Store, study: Study, search: Search, device: StudyDevice) -> None:
    """Store the cost models of a profile, unless its runtime changed while the study ran: what was
    fitted on two versions holds for neither.
    """
    examples, settings = [], set()
    for key in search.surrogates.fitted_on.get(device.name, ()):
        measurement = search.ledger.measurement(key, device.name)
        if measurement is None:
            return
        settings.add(Setting.of_measurement(measurement))
        known = store.measurements.list(device.device.id, measurement.model_sha256)
        numbers = (o.number for o in known if o.measurement.measured_at == measurement.measured_at)
        text = search.archive[key].text
        examples.append(Example(text, measurement.model_sha256, next(numbers, None)))
    if len(settings) != 1:
        return
    (setting,) = settings
    for target in ("latency_seconds", "peak_rss_bytes"):
        model = search.surrogates.models[device.name][target]
        keep_of_study(store, device.device.id, setting, model, examples, study.name)


def _row(search: Search, proposal: Proposal, score: float) -> FrontRow:
    devices = []
    for device in search.ledger.devices:
        measurement = search.ledger.measurement(proposal.key, device.name)
        if measurement is not None:
            latency = search.foretold.get((proposal.key, device.name, "latency_seconds"))
            memory = search.foretold.get((proposal.key, device.name, "peak_rss_bytes"))
            devices.append(
                OnDevice.of(
                    device.name,
                    measurement,
                    latency=latency,
                    peak_rss=memory,
                    rate_hertz=search.config.line.rate_hertz,
                )
            )
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
