"""A whole study on photos of solar cells: three device profiles, limits on all, signed bundles.

    python -m benchmarks.study [--workspace DIR] [--seeds N] [--json] [--check]

Runs `genba search run` with a real gateway and agent on this machine, then (outside the study's
time) measures every shipped form anew by `genba measure` against every limit, and trains the
winner, a random candidate of equal size within the limits, and the largest candidate within the
limits, each from several seeds by the study's recipe. The winner is the finalist with the best
validation AUROC. Test photos chose nothing. Needs the extra `demo` (CC BY-NC-SA 4.0) and the
machine for itself. A second run with the same workspace goes on where the first one stopped.
"""

import argparse
import json
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.proxies.options import positive
from benchmarks.reporter import Unheard
from benchmarks.study.plant import PlantError, genba, measured_afresh, running_plant
from benchmarks.study.rivals import Trained, largest, random_of_size, trained
from host.config import StudyConfig, load_study
from host.errors import GenbaError
from host.spaces.base import Task
from host.store.store import Store
from host.study.data import channels_of, open_study_data
from host.study.finalist import FinalistResult
from host.study.ledger import Ledger, Manner, study_devices
from host.study.proposal import Proposal
from host.study.run import make_search, space_of
from host.study.search import Search
from host.study.stored import StudyResult, stored_result
from host.workspace import Workspace

HERE = Path(__file__).resolve().parent
ELPV = HERE.parent.parent / "examples" / "elpv"
SECONDS = 45 * 60.0
AUROC = 0.85


@dataclass(frozen=True)
class Fresh:
    """A shipped form measured anew, against the limits of its profile."""

    finalist: str
    profile: str
    form: str
    latency_seconds: float
    peak_rss_bytes: float
    verdict: str
    broken: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What the benchmark found."""

    study_seconds: float
    fresh: tuple[Fresh, ...]
    winner: Trained
    random: Trained
    largest: Trained

    def missed(self) -> list[str]:
        """Targets of the issue that were not reached."""
        broken = [f"{f.profile} {f.form}: {b}" for f in self.fresh for b in f.broken]
        checks = {
            "45 minutes": self.study_seconds <= SECONDS,
            f"test AUROC of {AUROC}": self.winner.mean >= AUROC,
            "better than a random candidate of equal size": self.winner.mean > self.random.mean,
            "better than the largest candidate": self.winner.mean > self.largest.mean,
        }
        return [name for name, held in checks.items() if not held] + broken


def main(words: Sequence[str] | None = None) -> int:
    """The exit status: 0, 1 for a missed target, 2 for what cannot be run."""
    arguments = _parser().parse_args(words)
    try:
        outcome = _outcome(arguments.workspace.resolve(), arguments.seeds)
    except (PlantError, GenbaError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 2
    misses = outcome.missed()
    if arguments.json:
        print(json.dumps(asdict(outcome) | {"missed": misses}, allow_nan=False))
    else:
        _print(outcome)
        if arguments.check:
            print(f"missed: {'; '.join(misses) or 'nothing'}")
    return 1 if arguments.check and misses else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.study", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--workspace", type=Path, default=Path("study-workspace"), metavar="DIR")
    parser.add_argument("--seeds", type=positive, default=3, help="trainings of each network (3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    parser.add_argument("--check", action="store_true", help="exit 1 below the targets")
    return parser


def _outcome(workspace: Path, seeds: int) -> Outcome:
    workspace.mkdir(parents=True, exist_ok=True)
    file = _study_file(workspace)
    config = load_study(file)
    with running_plant(workspace):
        began = time.monotonic()
        genba(workspace, "search", "run", str(file), "--json")
        seconds = time.monotonic() - began
        opened = Workspace.open(workspace)
        with opened.open_store() as store:
            result = stored_result(store, store.studies.by_name(config.name))
            if result is None:
                raise PlantError("the study has no front")
            spent = next(s.spent for s in result.front.spent if s.what == "minutes")
            fresh = _fresh(workspace, result)
            winner, rivals, larger = _trained(workspace, store, config, result, seeds)
    return Outcome(max(seconds, 60 * spent), fresh, winner, rivals, larger)


def _study_file(workspace: Path) -> Path:
    """The study's file beside its photos, in the workspace."""
    photos = [sys.executable, str(ELPV / "prepare.py"), str(workspace / "images")]
    subprocess.run(photos, check=True, stdout=sys.stderr)
    file = workspace / "study.toml"
    file.write_text((HERE / "study.toml").read_text())
    return file


def _fresh(workspace: Path, result: StudyResult) -> tuple[Fresh, ...]:
    found = []
    for finalist in result.finalists:
        for choice in finalist.choices:
            profile = next(p for p in result.front.profiles if p.name == choice.device)
            model = _unpacked(workspace, finalist, profile.device_class, choice.form)
            record = measured_afresh(workspace, model, profile.threads)
            broken = [
                f"{limit.text}, got {record[limit.quantity]:.6g}"
                for limit in result.front.limits
                if limit.device == profile.name and record[limit.quantity] > limit.maximum
            ]
            sizes = [limit for limit in result.front.limits if limit.quantity == "model_bytes"]
            broken += [limit.text for limit in sizes if model.stat().st_size > limit.maximum]
            found.append(
                Fresh(
                    finalist.key[:8],
                    profile.name,
                    choice.form,
                    record["latency_seconds"],
                    record["peak_rss_bytes"],
                    record["verdict"]["level"],
                    tuple(broken),
                )
            )
            print(_line(found[-1]), file=sys.stderr, flush=True)
    return tuple(found)


def _unpacked(workspace: Path, finalist: FinalistResult, device_class: str, form: str) -> Path:
    """The file of a form from the finalist's bundle for a class of devices."""
    bundle = next(b for b in finalist.bundles if b.device_class == device_class)
    runtime, precision = form.split("-")
    with zipfile.ZipFile(bundle.path) as archive:
        name = next(n for n in archive.namelist() if n.endswith(f".{precision}.{runtime}"))
        return Path(archive.extract(name, workspace / "unpacked"))


def _trained(
    workspace: Path, store: Store, config: StudyConfig, result: StudyResult, seeds: int
) -> tuple[Trained, Trained, Trained]:
    search, task = _search(store, config)
    best = max(result.finalists, key=lambda f: f.validation_auroc or 0.0)
    winner = search.archive[best.key]
    space = space_of(config)

    def fits(proposal: Proposal) -> bool:
        return search.feasibility.met([proposal])[0]

    feasible = [p for p in search.archive.values() if fits(p)]

    drawn = [
        random_of_size(space, task, best.parameters, fits=fits, seed=1000 + n) for n in range(seeds)
    ]
    contenders = {
        "winner": [winner] * seeds,
        "random of equal size": drawn,
        "largest within limits": [largest(feasible)] * seeds,
    }

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    won, random, large = trained(contenders, config, workspace / "rivals", tell)
    return won, random, large


def _search(store: Store, config: StudyConfig) -> tuple[Search, Task]:
    """The study's search, made again from what the store holds: nothing is measured anew."""
    study = store.studies.by_name(config.name)
    data = open_study_data(config.data, seed=config.seed)
    devices = study_devices(store, config.devices)
    ledger = Ledger(store, study.id, devices, Unheard(), Manner.of_search(config.measuring))
    search = make_search(config, store, study, data, ledger)
    search.calibrate()
    search.explore()
    search.settle()
    return search, Task(channels_of(config.data, data), len(data.classes))


def _print(outcome: Outcome) -> None:
    print(f"study: {outcome.study_seconds / 60:.1f} min")
    for fresh in outcome.fresh:
        print(_line(fresh))
    for one in (outcome.winner, outcome.random, outcome.largest):
        low, high = one.interval
        each = ", ".join(f"{area:.3f}" for area in one.aurocs)
        print(
            f"{one.name}: test AUROC {one.mean:.3f} [{low:.3f}, {high:.3f}] ({each}), "
            f"{one.parameters:,} parameters"
        )


def _line(fresh: Fresh) -> str:
    state = "; ".join(fresh.broken) or "within every limit"
    return (
        f"{fresh.finalist} {fresh.form} on {fresh.profile}: {1e3 * fresh.latency_seconds:.3f} ms, "
        f"{fresh.peak_rss_bytes / 1e6:.1f} MB, {fresh.verdict}: {state}"
    )


if __name__ == "__main__":
    sys.exit(main())
