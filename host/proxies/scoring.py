"""Scores of candidates, each computed once in the life of a workspace.

The one place where studies and rankings get scores from: what the store holds is read, the rest is
computed by an executor and written as it comes.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from host.network.graph import Network, Shape
from host.proxies.base import Proxy
from host.proxies.executors import Executor
from host.proxies.work import NO_BATCH, Batch, Scorable, Scores, Work, compute
from host.store.candidates import StoredCandidate, StoredScore
from host.store.store import Store

GRAPH = "graph"
"""The input of proxies that need nothing but the graph of a `Network`."""
_ROWS_A_TRANSACTION = 500
_LEAST_EFFORT = 20e6
"""What a network takes however small it is: some ten milliseconds to make a module."""

Table = dict[str, Scores]
"""The scores of candidates by their key."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A candidate to score, under its key.

    `looked_at` is what dear proxies look at, where that is a stand-in for the network.
    """

    key: str
    space: str
    text: str
    network: Scorable
    macs: int
    parameters: int
    looked_at: Network | None = None

    @property
    def seen(self) -> Scorable:
        """The network itself, or its stand-in."""
        return self.network if self.looked_at is None else self.looked_at


@dataclass(frozen=True, eq=False)
class View:
    """What a score depends on beside network and proxy: the images, for (channels, height, width)
    of a network's input, and the seed of the weights.

    `batch` is a function; it is asked for as few batches as can be, so it need not keep them.
    """

    batch: Callable[[Shape], Batch]
    seed: int

    def input_key(self, subject: Subject) -> str:
        """Names all of it, and the stand-in where there is one."""
        key = f"{self.batch_key(subject.seen.input_shape)} seed {self.seed}"
        if subject.looked_at is None:
            return key
        return f"{key} as {subject.looked_at.key[:16]}"

    def batch_key(self, shape: Shape) -> str:
        """The key of the batch that a network sees with an input of that shape."""
        return self._known(shape)[0]

    def image_elements(self, shape: Shape) -> int:
        """How many numbers one image of that batch has."""
        return self._known(shape)[1]

    def _known(self, shape: Shape) -> tuple[str, int]:
        if shape not in self._memory:
            batch = self.batch(shape)
            self._memory[shape] = batch.key, batch.images[0].size
        return self._memory[shape]

    @cached_property
    def _memory(self) -> dict[Shape, tuple[str, int]]:
        return {}


@dataclass(frozen=True)
class Progress:
    """How many of how many networks are scored, each view counted, and the share of the computing
    that is done: large networks take longer, and what the store holds takes nothing.
    """

    done: int
    total: int
    share: float


OnProgress = Callable[[Progress], None]
"""Told when a network is scored; first of those in the store."""


def score_subjects(
    subjects: Sequence[Subject],
    proxies: Sequence[Proxy],
    views: Sequence[View],
    *,
    store: Store,
    executor: Executor,
    on_progress: OnProgress,
) -> list[Table]:
    """The scores of every subject in each of the views.

    A score is in the store before `on_progress` is told of it, so whatever ends this, the next
    call goes on. What needs the graph alone is the same in every view. Raises what the executor
    raises.
    """
    store.candidates.add_all(
        StoredCandidate(s.key, s.space, s.text, s.macs, s.parameters) for s in subjects
    )
    of_graph = _scores_of_graphs(subjects, proxies, views[0], store)
    tables: list[Table] = [{key: dict(known) for key, known in of_graph.items()} for _ in views]
    missing: list[_Missing] = []
    for view, table in zip(views, tables, strict=True):
        keys = {subject.key: view.input_key(subject) for subject in subjects if proxies}
        missing += _missing(subjects, proxies, view, keys, table, store)
    total = len(subjects) * len(views)
    left, effort = len(missing), math.fsum(one.effort for one in missing)
    left_effort = effort
    on_progress(Progress(total - left, total, 0.0 if left else 1.0))
    for one, scores in _computed(missing, executor):
        store.candidates.add_scores(_rows(one, scores))
        one.table[one.subject.key] |= scores
        left, left_effort = left - 1, left_effort - one.effort
        share = 1.0 - left_effort / effort if left else 1.0
        on_progress(Progress(total - left, total, share))
    return tables


@dataclass(frozen=True, eq=False)
class _Missing:
    """Scores that the store does not have, and the table that wants them."""

    subject: Subject
    proxies: Sequence[Proxy]
    view: View
    input_key: str
    table: Table

    @property
    def effort(self) -> float:
        """What computing them takes, in a unit of its own: the operations of one image."""
        seen = self.subject.seen
        macs = seen.macs if isinstance(seen, Network) else self.subject.macs
        looked_at = self.view.image_elements(seen.input_shape)
        return _LEAST_EFFORT + macs * looked_at / math.prod(seen.input_shape)

    def work(self, batch: Batch) -> Work:
        names = tuple(proxy.name for proxy in self.proxies)
        return Work(self.subject.text, self.subject.seen, names, batch, self.view.seed)


def _missing(
    subjects: Sequence[Subject],
    proxies: Sequence[Proxy],
    view: View,
    keys: Mapping[str, str],
    table: Table,
    store: Store,
) -> list[_Missing]:
    """Fill the table with what the store holds of these inputs, and name the rest."""
    for proxy in proxies:
        for key, value in _stored(store, proxy, keys).items():
            table[key].setdefault(proxy.name, value)
    found = []
    for subject in subjects:
        wanted = [proxy for proxy in proxies if proxy.name not in table[subject.key]]
        if wanted:
            found.append(_Missing(subject, wanted, view, keys[subject.key], table))
    return found


def _computed(missing: Sequence[_Missing], executor: Executor) -> Iterator[tuple[_Missing, Scores]]:
    """Batch by batch, so that each travels once to each process."""
    by_batch: dict[tuple[View, str], list[_Missing]] = defaultdict(list)
    for one in missing:
        key = one.view.batch_key(one.subject.seen.input_shape)
        by_batch[one.view, key].append(one)
    asked: dict[Work, _Missing] = {}

    def works() -> Iterator[Work]:
        for (view, _), group in by_batch.items():
            batch = view.batch(group[0].subject.seen.input_shape)
            for one in group:
                work = one.work(batch)
                asked[work] = one
                yield work

    for work, scores in executor.run(works()):
        yield asked.pop(work), scores


def _scores_of_graphs(
    subjects: Sequence[Subject], proxies: Sequence[Proxy], view: View, store: Store
) -> Table:
    """What needs the graph alone takes less time than sending it anywhere."""
    table: Table = {subject.key: {} for subject in subjects}
    networks = [subject for subject in subjects if isinstance(subject.network, Network)]
    cheap = [proxy for proxy in proxies if not proxy.needs]
    keys = {subject.key: GRAPH for subject in networks}
    rows: list[StoredScore] = []
    for one in _missing(networks, cheap, view, keys, table, store):
        names = tuple(proxy.name for proxy in one.proxies)
        work = Work(one.subject.text, one.subject.network, names, NO_BATCH, view.seed)
        scores = compute(work)
        one.table[one.subject.key] |= scores
        rows += _rows(one, scores)
        if len(rows) >= _ROWS_A_TRANSACTION:
            store.candidates.add_scores(rows)
            rows.clear()
    store.candidates.add_scores(rows)
    return table


def _stored(store: Store, proxy: Proxy, keys: Mapping[str, str]) -> Scores:
    values = store.candidates.scores(proxy.name, str(proxy.version), keys)
    return {key: math.nan if value is None else value for key, value in values.items()}


def _rows(one: _Missing, scores: Scores) -> Iterable[StoredScore]:
    return [
        StoredScore(one.subject.key, p.name, str(p.version), one.input_key, scores[p.name])
        for p in one.proxies
    ]
