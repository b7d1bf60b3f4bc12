"""Scores every distinct network of a population once, in several processes, and keeps them."""

import math
import multiprocessing
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.proxies.population import Population
from benchmarks.proxies.score_file import ScoreFile, versioned
from benchmarks.proxies.setting import Setting
from host.errors import UsageError
from host.proxies.base import Proxy
from host.spaces.base import Candidate


@dataclass(frozen=True)
class Work:
    """One network in one setting, and the names of the proxies that are missing."""

    setting: Setting
    candidate: Candidate
    key: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Scored:
    """What became of it: scores by proxy name, and why others have none."""

    work: Work
    scores: dict[str, float]
    failures: dict[str, str]
    cpu_seconds: float


def keys_of(found: Population, setting: Setting) -> list[str | None]:
    """The key of each cell's stand-in in a setting; None where no path leads through."""
    known: dict[Candidate, str] = {}
    for candidate in found.candidates:
        if candidate is not None and candidate not in known:
            known[candidate] = setting.stand_in(candidate).key
    return [None if one is None else known[one] for one in found.candidates]


def score_missing(
    found: Population,
    proxies: Sequence[Proxy],
    settings: Sequence[Setting],
    file: ScoreFile,
    processes: int,
) -> dict[str, str]:
    """Score what the file lacks; says of each proxy that raised what it said last.

    Networks are scored in random order, so that a file that is not complete holds a random sample.
    """
    work = missing(found, proxies, settings, file)
    failures: dict[str, str] = {}
    versions = {proxy.name: versioned(proxy) for proxy in proxies}
    progress = _Progress(len(work))
    for done in run(work, processes):
        scores = {versions[name]: value for name, value in done.scores.items()}
        file.add(done.work.setting, done.work.key, scores, done.cpu_seconds)
        for name, why in done.failures.items():
            if name not in failures:
                progress.say(f"{name} raised on a network, which counts as nan: {why}")
            failures[name] = why
        progress.step()
    progress.end()
    return failures


def missing(
    found: Population, proxies: Sequence[Proxy], settings: Sequence[Setting], file: ScoreFile
) -> list[Work]:
    """Every distinct network in every setting that lacks a score, setting by setting."""
    work: list[Work] = []
    for setting in settings:
        own: dict[str, Work] = {}
        for candidate, key in zip(found.candidates, keys_of(found, setting), strict=True):
            if candidate is None or key is None or key in own:
                continue
            known = file.of(setting, key)
            names = tuple(proxy.name for proxy in proxies if versioned(proxy) not in known)
            if names:
                own[key] = Work(setting, candidate, key, names)
        ordered = [own[key] for key in sorted(own)]
        order = np.random.default_rng(setting.seed).permutation(len(ordered))
        work += [ordered[place] for place in order.tolist()]
    return work


def run(work: Sequence[Work], processes: int) -> Iterator[Scored]:
    """Results as they come, each process on one thread."""
    if processes == 1 or len(work) < 2:
        torch.set_num_threads(1)
        yield from map(score_one, work)
        return
    # A fork of a process that has used torch may hang.
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(processes, len(work)), initializer=_start) as pool:
        yield from pool.imap_unordered(score_one, work)


def _start() -> None:
    torch.set_num_threads(1)
    # A stop from the keyboard is the parent's to handle.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def score_one(work: Work) -> Scored:
    """All its proxies in one shared pass; one by one where that raises, so that one fails alone.

    Raises UsageError for a batch that suits no proxy.
    """
    started = time.process_time()
    failures: dict[str, str] = {}
    try:
        scores = work.setting.scores(work.candidate, work.names)
    except UsageError:
        raise
    except Exception:  # noqa: BLE001  # whatever a proxy raises, the run goes on
        scores = {}
        for name in work.names:
            try:
                scores |= work.setting.scores(work.candidate, [name])
            except Exception as error:  # noqa: BLE001  # as above; the reason is reported
                failures[name] = f"{type(error).__name__}: {error}"
    return Scored(work, scores, failures, time.process_time() - started)


def gathered(
    found: Population, proxies: Iterable[Proxy], settings: Sequence[Setting], file: ScoreFile
) -> dict[str, list[np.typing.NDArray[np.float64]]]:
    """Scores of all cells by proxy name, one array for each setting; nan where there is none."""
    proxies = list(proxies)
    runs: dict[str, list[np.typing.NDArray[np.float64]]] = {proxy.name: [] for proxy in proxies}
    for setting in settings:
        rows: list[Mapping[str, float]] = [
            {} if key is None else file.of(setting, key) for key in keys_of(found, setting)
        ]
        for proxy in proxies:
            name = versioned(proxy)
            runs[proxy.name].append(np.array([row.get(name, math.nan) for row in rows]))
    return runs


class _Progress:
    """How far a run is and what time is left, on stderr."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._started = self._told = time.monotonic()
        # A line that is written over on a terminal, a line now and then in a log.
        self._ends, self._every = ("\r", 1.0) if sys.stderr.isatty() else ("\n", 30.0)
        if total:
            self.say(f"{total:,} networks to score")

    def step(self) -> None:
        self._done += 1
        now = time.monotonic()
        if now - self._told >= self._every:
            self._told = now
            each = (now - self._started) / self._done
            left = each * (self._total - self._done)
            print(
                f"{self._done:,} of {self._total:,} networks, {each:.2f} s each, "
                f"{_minutes(left)} left   ",
                end=self._ends,
                file=sys.stderr,
                flush=True,
            )

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._total:
            spent = _minutes(time.monotonic() - self._started)
            self.say(f"scored {self._done:,} networks in {spent}   ")


def _minutes(seconds: float) -> str:
    if seconds < 90.0:
        return f"{seconds:.0f} s"
    return f"{seconds / 60.0:.0f} min" if seconds < 5400.0 else f"{seconds / 3600.0:.1f} h"
