"""Hundreds of faults of every kind, drawn by chance, while devices measure."""

import contextlib
import os
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import grpc
import psutil
import pytest

from host.job import Job
from host.measurement import MeasurementFailure, MeasureSpec
from host.workspace import STORE_FILE
from tests.faults.plant import Panel, Plant, Simulated, wait_until

SEED_VARIABLE = "GENBA_CHAOS_SEED"
FAULTS = 320
DEVICES = ("press", "oven", "saw")
WAITING = 3
"""So many jobs of each device have no outcome at any time."""
DAY_SECONDS = 86_400
ENDED = ("done", "failed", "cancelled")


@dataclass(frozen=True)
class Kind:
    """A kind of fault: how often it comes beside the others, and what it does. It gives False where
    there was nothing to hit.
    """

    weight: float
    act: Callable[[Panel], bool | None]


class Chaos:
    """Draws faults, and keeps work coming meanwhile."""

    def __init__(self, plant: Plant, panels: list[Panel], clients: list[Simulated], seed: int):
        self.seed = seed
        self.rng = random.Random(seed)
        self.plant = plant
        self.panels = panels
        self.jobs: list[Job] = []
        self.killed_workers = 0
        self._clients = {client.device.id: client for client in clients}
        self._open: list[Job] = []
        self._later: list[tuple[float, Callable[[], object]]] = []
        self.kinds = {
            "cut": Kind(6, lambda panel: panel.link.cut()),
            "close": Kind(3, lambda panel: panel.link.close()),
            "cut later": Kind(6, self._cut_later),
            "truncate report": Kind(4, self._truncate_report),
            "lose answer": Kind(4, self._lose_answer),
            "half open": Kind(6, self._half_open),
            "refuse": Kind(4, self._refuse),
            "slow": Kind(3, self._slow),
            "kill worker": Kind(8, self._kill_worker),
            "corrupt cache": Kind(5, self._corrupt_cache),
            "corrupt part": Kind(20, self._corrupt_part),
            "report again": Kind(5, self._report_again),
            "cancel": Kind(2, self._cancel),
            "set clock": Kind(2, self._set_clock),
            "lock store": Kind(2, self._lock_store),
            "hang agent": Kind(2, self._hang_agent),
            "kill agent": Kind(5, self._kill_agent),
            "kill gateway": Kind(2, self._kill_gateway),
            "stop gateway": Kind(0.7, self._stop_gateway),
        }

    def strike(self) -> str:
        """One fault of a kind and on a device drawn by chance; gives the kind."""
        names = list(self.kinds)
        while True:
            (name,) = self.rng.choices(names, [self.kinds[name].weight for name in names])
            if self.kinds[name].act(self.rng.choice(self.panels)) is not False:
                return name

    def go_on(self) -> None:
        """Do what is due, and ask for more where a device has little to do."""
        now = time.monotonic()
        due = [act for at, act in self._later if at <= now]
        self._later = [(at, act) for at, act in self._later if at > now]
        for act in due:
            act()
        self._open = [
            job
            for job, outcome in zip(self._open, self.plant.outcomes(self._open), strict=True)
            if outcome is None
        ]
        load = Counter(job.device_id for job in self._open)
        for panel in self.panels:
            for _ in range(WAITING - load[panel.device.id]):
                self._ask(panel)

    def end(self) -> None:
        """No more faults."""
        for _, act in self._later:
            act()
        self._later = []
        self.plant.heal()

    def _ask(self, panel: Panel) -> None:
        hold_seconds = round(self.rng.choice([0.0, 0.0, 0.1, 0.3]), 2)
        size_bytes = self.rng.choice([0, 0, 50_000, 600_000])
        asked = self.plant.ask(panel.device, size_bytes=size_bytes, hold_seconds=hold_seconds)
        self.jobs += asked
        self._open += asked

    def _soon(self, act: Callable[[], object], longest: float = 0.5) -> None:
        self._later.append((time.monotonic() + self.rng.uniform(0.02, longest), act))

    # -- links --------------------------------------------------------------------------------

    def _cut_later(self, panel: Panel) -> None:
        lane = self.rng.choice([panel.link.up, panel.link.down])
        panel.link.cut_after(lane, self.rng.randrange(1, 3000))

    def _truncate_report(self, panel: Panel) -> None:
        panel.link.truncate_report(self.rng.randrange(1, 500))

    def _lose_answer(self, panel: Panel) -> None:
        panel.link.lose_answer()
        self._soon(panel.link.cut, 0.8)
        self._soon(panel.link.heal, 0.8)

    def _half_open(self, panel: Panel) -> None:
        lanes = self.rng.choice([[panel.link.up], [panel.link.down], []])
        panel.link.hold(*lanes)
        if self.rng.random() < 0.5:
            self._soon(panel.link.cut)
        self._soon(panel.link.heal, 0.8)

    def _refuse(self, panel: Panel) -> None:
        panel.link.refuse()
        self._soon(panel.link.heal)

    def _slow(self, panel: Panel) -> None:
        panel.link.slow(
            delay_seconds=self.rng.choice([0.0, 0.03]),
            bytes_per_second=self.rng.choice([None, 300_000.0]),
        )
        self._soon(panel.link.heal, 1.0)

    # -- a device -------------------------------------------------------------------------------

    def _kill_worker(self, panel: Panel) -> bool:
        before = self.killed_workers
        for worker in panel.workers():
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()
                self.killed_workers += 1
        return self.killed_workers > before

    def _corrupt_cache(self, panel: Panel) -> bool:
        """What no job needs at this moment: the agent looks before each job, not during it."""
        needed = {_model_of(job) for job in self._open}
        ended = [job for job in self.jobs if _model_of(job) not in needed]
        cached = [job for job in ended if panel.cached(_model_of(job)).is_file()]
        if not cached:
            return False
        job = self.rng.choice(cached)
        path = panel.cached(_model_of(job))
        path.chmod(0o600)
        with path.open("r+b") as file:
            file.seek(self.rng.randrange(path.stat().st_size))
            file.write(b"\0\0\0")
        purpose = f"again {len(self.jobs)}"
        again = self.plant.store.jobs.submit(job.device_id, job.spec, purpose=purpose)
        self.jobs.append(again)
        self._open.append(again)
        return True

    def _corrupt_part(self, panel: Panel) -> bool:
        parts = panel.parts()
        for path in parts:
            with contextlib.suppress(OSError), path.open("ab") as file:
                file.write(self.rng.randbytes(self.rng.randrange(1, 1000)))
        return bool(parts)

    def _hang_agent(self, panel: Panel) -> bool:
        process = panel.process
        if process is None or not process.runs:
            return False
        process.pause()
        self._soon(process.resume)
        return True

    def _kill_agent(self, panel: Panel) -> bool:
        if not panel.runs:
            return False
        panel.kill()
        self._soon(lambda: panel.runs or panel.start(), 0.3)
        return True

    def _report_again(self, panel: Panel) -> bool:
        """As a device does that did not hear the answer, perhaps because it lost power."""
        mine = [job for job in self.jobs if job.device_id == panel.device.id]
        ended = [job for job, o in zip(mine, self.plant.outcomes(mine), strict=True) if o]
        if not ended:
            return False
        with contextlib.suppress(grpc.RpcError):
            assert not self._clients[panel.device.id].report_again(self.rng.choice(ended))
        return True

    # -- the host -------------------------------------------------------------------------------

    def _cancel(self, panel: Panel) -> bool:
        if not self._open:
            return False
        return self.plant.store.jobs.cancel([self.rng.choice(self._open).id]) > 0

    def _set_clock(self, panel: Panel) -> None:
        days = self.rng.choice([-400, -1, 0, 1, 400])
        (self.plant.workspace.root / "clock-offset").write_text(str(days * DAY_SECONDS))

    def _lock_store(self, panel: Panel) -> None:
        database = self.plant.workspace.root / STORE_FILE
        with contextlib.closing(sqlite3.connect(database, 30.0, isolation_level=None)) as store:
            store.execute("BEGIN EXCLUSIVE")
            time.sleep(self.rng.uniform(0.05, 0.4))
            store.execute("ROLLBACK")

    def _kill_gateway(self, panel: Panel) -> None:
        self.plant.restart_gateway()

    def _stop_gateway(self, panel: Panel) -> None:
        assert self.plant.gateway is not None
        self.plant.gateway.stop()
        self.plant.start_gateway()


def _model_of(job: Job) -> str:
    assert isinstance(job.spec, MeasureSpec)
    return job.spec.run.model_sha256


def seed_of_today() -> int:
    text = os.environ.get(SEED_VARIABLE)
    return random.SystemRandom().randrange(1 << 32) if text is None else int(text)


@pytest.fixture
def chaos(plant):
    """Devices at work, and what will befall them."""
    seed = seed_of_today()
    panels, clients = [], []
    for name in DEVICES:
        panels.append(plant.panel(name))
        panels[-1].heal()
        clients.append(Simulated(panels[-1].device, plant.credentials[name], plant.port))
    made = Chaos(plant, panels, clients, seed)
    yield made
    made.end()
    for client in clients:
        client.close()
    for panel in panels:
        panel.stop()
        del plant.panels[panel.device.name]


def ask_anew(plant, jobs):
    """What a study does whose jobs were withdrawn, or whose device went away too often: it asks
    for the same again. What the device itself said to be impossible it asks for as `--again` does.
    """
    for number, job in enumerate(jobs):
        found = plant.store.jobs.progress([job.id])[job.id]
        if found.state == "cancelled":
            plant.store.jobs.submit(job.device_id, job.spec, purpose=job.purpose)
        elif isinstance(found.outcome, MeasurementFailure):
            said_nothing = "times while running" in found.outcome.message
            purpose = job.purpose if said_nothing else f"{job.purpose}, again"
            jobs[number] = plant.store.jobs.submit(job.device_id, job.spec, purpose=purpose)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_hundreds_of_faults_lose_nothing_and_count_nothing_twice(plant, chaos, capsys):
    with capsys.disabled():
        print(f"\n{SEED_VARIABLE}={chaos.seed}", flush=True)
    struck: Counter[str] = Counter()

    while struck.total() < FAULTS:
        chaos.go_on()
        struck[chaos.strike()] += 1
        time.sleep(chaos.rng.uniform(0.0, 0.15))
    chaos.end()
    wait_until(
        lambda: all(plant.store.jobs.get(job.id).state in ENDED for job in chaos.jobs), "all"
    )
    failures = [o for o in plant.outcomes(chaos.jobs) if isinstance(o, MeasurementFailure)]
    ask_anew(plant, chaos.jobs)

    plant.measured(chaos.jobs, 120.0)
    with capsys.disabled():
        print(f"{len(chaos.jobs)} jobs, {len(failures)} failures, {dict(struck)}", flush=True)
    said_by_device = [f.message for f in failures if "times while running" not in f.message]
    # Whoever kills a worker, or writes into a file while it is pulled, makes that job fail.
    caused = chaos.killed_workers + struck["corrupt part"]
    assert len(said_by_device) <= caused, "\n".join(said_by_device)
