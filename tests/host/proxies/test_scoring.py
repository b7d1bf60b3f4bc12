"""Scores are computed once in the life of a workspace, and are in the store as they come."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from host.network.graph import Network, Shape
from host.proxies.catalogue import PROXIES, proxies_by_name
from host.proxies.executors import InProcess
from host.proxies.scoring import Progress, Subject, Table, View, score_subjects
from host.proxies.work import Batch, Labels, Scores, Work
from host.spaces.base import Task, sample
from host.spaces.nasbench201 import NasBench201
from host.store.store import Store

TASK = Task(channels=3, classes=10)
SPACE = NasBench201(cells=1)


class Counting(InProcess):
    """Remembers what it was asked for, and may stop like Ctrl-C after so many works."""

    def __init__(self, stops_after: int | None = None) -> None:
        self.asked: list[Work] = []
        self._stops_after = stops_after

    def run(self, works: Iterable[Work]) -> Iterator[tuple[Work, Scores]]:
        for work in works:
            if len(self.asked) == self._stops_after:
                raise KeyboardInterrupt
            self.asked.append(work)
            yield from super().run([work])


class Gap:
    """A model of the user's own without activations."""

    key = "gap"
    input_shape = (3, 16, 16)

    def module(self, seed: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "genba.db", blobs_folder=tmp_path / "blobs") as opened:
        yield opened


def a_view(
    seed: int = 0, *, pixels: int = 0, count: int = 8, side: int = 16, labels: Labels | None = None
) -> View:
    @cache
    def batch(shape: Shape) -> Batch:
        drawn = np.random.default_rng(pixels).standard_normal((count, shape[0], side, side))
        return Batch("images", drawn.astype(np.float32), labels)

    return View(batch, seed)


def subjects(count: int, seed: int = 0) -> list[Subject]:
    rng = np.random.default_rng(seed)
    found: dict[str, Subject] = {}
    while len(found) < count:
        candidate = sample(SPACE, rng)
        network = SPACE.build(candidate, TASK)
        text = SPACE.text(candidate)
        found[network.key] = Subject(
            network.key, "nasbench201", text, network, network.macs, network.parameters
        )
    return list(found.values())


@pytest.fixture
def scored(store: Store) -> Callable[..., list[Table]]:
    """Scores subjects by the proxies of those names."""

    def run(
        of: list[Subject],
        names: str,
        *views: View,
        executor: InProcess | None = None,
        told: list[Progress] | None = None,
    ) -> list[Table]:
        return score_subjects(
            of,
            proxies_by_name(names.split()),
            views or (a_view(),),
            store=store,
            executor=executor or InProcess(),
            on_progress=lambda far: None if told is None else told.append(far),
        )

    return run


def test_every_subject_has_every_score(scored: Callable[..., list[Table]]) -> None:
    three = subjects(3)

    (table,) = scored(three, "flops naswot jacob_cov")

    assert set(table) == {one.key for one in three}
    assert all(set(scores) == {"flops", "naswot", "jacob_cov"} for scores in table.values())
    assert table[three[0].key]["flops"] == three[0].macs


def test_nothing_is_computed_twice(scored: Callable[..., list[Table]]) -> None:
    first = scored(subjects(4), "flops naswot jacob_cov")
    nobody = Counting(stops_after=0)

    assert scored(subjects(4), "jacob_cov naswot", executor=nobody)[0].keys() == first[0].keys()
    assert scored(subjects(4), "flops naswot jacob_cov", executor=nobody) == first


def test_only_what_is_missing_is_computed(scored: Callable[..., list[Table]]) -> None:
    scored(subjects(2), "naswot")
    counting = Counting()

    scored(subjects(4), "flops naswot jacob_cov", executor=counting)

    assert [work.proxies for work in counting.asked] == [
        *[("jacob_cov",)] * 2,
        *[("naswot", "jacob_cov")] * 2,
    ]


def test_what_was_scored_before_it_was_stopped_is_in_the_store(
    scored: Callable[..., list[Table]],
) -> None:
    expected = scored(subjects(4), "naswot", a_view(seed=9), a_view(seed=10))
    with pytest.raises(KeyboardInterrupt):
        scored(subjects(4), "naswot", a_view(), a_view(seed=1), executor=Counting(stops_after=5))
    rest, told = Counting(), list[Progress]()

    found = scored(subjects(4), "naswot", a_view(), a_view(seed=1), executor=rest, told=told)

    assert len(rest.asked) == 3
    assert [(far.done, far.total) for far in told] == [(5, 8), (6, 8), (7, 8), (8, 8)]
    shares = [far.share for far in told]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert found[0].keys() == expected[0].keys()


def test_a_score_is_stored_before_anyone_is_told(
    store: Store, scored: Callable[..., list[Table]]
) -> None:
    (subject,) = subjects(1)
    view = a_view()
    seen: list[dict[str, float | None]] = []

    score_subjects(
        [subject],
        proxies_by_name(["naswot"]),
        [view],
        store=store,
        executor=InProcess(),
        on_progress=lambda *_: seen.append(
            store.candidates.scores("naswot", "1", {subject.key: view.input_key(subject)})
        ),
    )

    assert seen[0] == {}
    assert math.isfinite(seen[1][subject.key] or math.nan)


def test_free_proxies_are_counted_once_for_all_views(scored: Callable[..., list[Table]]) -> None:
    counting = Counting(stops_after=0)

    first, second = scored(
        subjects(3), "flops parameters", a_view(), a_view(seed=1), executor=counting
    )

    assert first == second


@pytest.mark.parametrize(
    "other",
    [
        a_view(seed=1),
        a_view(pixels=1),
        a_view(count=9),
        a_view(side=8),
        a_view(labels=np.zeros(8, np.int64)),
        a_view(labels=np.ones(8, np.int64)),
    ],
    ids=["seed", "pixels", "count", "resolution", "labels", "other labels"],
)
def test_an_input_is_told_by_all_that_a_score_depends_on(other: View) -> None:
    (subject,) = subjects(1)
    labelled = a_view(labels=np.zeros(8, np.int64))

    keys = {view.input_key(subject) for view in (a_view(), labelled, other)}

    assert len(keys) == (2 if other.input_key(subject) == labelled.input_key(subject) else 3)
    assert all(len(key) <= 128 for key in keys)


def test_a_stand_in_is_part_of_the_input_and_is_what_proxies_see(
    scored: Callable[..., list[Table]],
) -> None:
    one, other = subjects(2)
    assert isinstance(other.network, Network)
    standing_in = replace(one, looked_at=other.network)

    own, seen = scored([one, other], "naswot flops")[0], scored([standing_in], "naswot flops")[0]

    assert a_view().input_key(standing_in) != a_view().input_key(one)
    assert seen[one.key]["naswot"] == own[other.key]["naswot"]
    assert seen[one.key]["flops"] == own[one.key]["flops"]


def test_a_file_has_every_score_of_its_module_and_none_that_needs_our_graph(
    scored: Callable[..., list[Table]],
) -> None:
    file = Subject("gap", "onnx", "gap.onnx", Gap(), 0, 0)

    (table,) = scored([file], " ".join(PROXIES))

    assert set(table["gap"]) == set(PROXIES)
    assert table["gap"]["parameters"] == 3 * 4 * 9 + 4
    assert table["gap"]["layers"] == 1
    assert math.isnan(table["gap"]["depth"])


def test_what_is_not_finite_is_not_computed_again(scored: Callable[..., list[Table]]) -> None:
    file = Subject("gap", "onnx", "gap.onnx", Gap(), 0, 0)
    (before,) = scored([file], "naswot depth")

    (after,) = scored([file], "naswot depth", executor=Counting(stops_after=0))

    assert math.isnan(before["gap"]["naswot"])
    assert math.isnan(after["gap"]["naswot"])


def test_nothing_to_score_is_no_trouble(scored: Callable[..., list[Table]]) -> None:
    assert scored([], "flops naswot") == [{}]
    assert scored(subjects(1), "naswot")[0] != {}
