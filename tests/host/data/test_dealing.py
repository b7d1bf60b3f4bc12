"""Dividing samples: whole groups, fair shares, and an answer wherever there is one."""

from collections import defaultdict
from dataclasses import dataclass
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from host.data.dealing import deal, missing, units_of
from host.data.split import SUBSETS, Subset


@dataclass(frozen=True)
class Sample:
    path: str
    label: int
    sha256: str
    group: str | None = None
    subset: Subset | None = None
    weight: int = 1


def samples_of(groups: list[dict[int, int]]) -> list[Sample]:
    """Groups by how many samples of each class they hold."""
    return [
        Sample(f"{label}/{group}-{n}", label, f"{label}-{group}-{n}", str(group))
        for group, counts in enumerate(groups)
        for label, count in counts.items()
        for n in range(count)
    ]


def classes_in(samples: list[Sample]) -> int:
    return 1 + max(sample.label for sample in samples)


def parts_of_groups(parts: dict[Subset, tuple[Sample, ...]]) -> dict[str, set[Subset]]:
    found: dict[str, set[Subset]] = defaultdict(set)
    for subset, chosen in parts.items():
        for sample in chosen:
            found[str(sample.group)].add(subset)
    return found


group_sizes = st.lists(
    st.dictionaries(st.integers(0, 2), st.integers(1, 12), min_size=1), min_size=1, max_size=12
)


@given(group_sizes, st.integers(0, 2**31))
def test_every_sample_is_in_one_part_and_no_group_is_in_two(
    groups: list[dict[int, int]], seed: int
) -> None:
    samples = samples_of(groups)

    parts = deal(samples, classes_in(samples), seed=seed)

    dealt = [sample for chosen in parts.values() for sample in chosen]
    assert sorted(dealt, key=lambda s: s.path) == sorted(samples, key=lambda s: s.path)
    assert all(len(subsets) == 1 for subsets in parts_of_groups(parts).values())
    assert deal(samples, classes_in(samples), seed=seed) == parts


@settings(max_examples=60)
@given(
    st.lists(
        st.dictionaries(st.integers(0, 1), st.integers(1, 9), min_size=1), min_size=3, max_size=6
    ),
    st.integers(0, 100),
)
def test_a_class_is_missing_only_where_no_division_of_whole_groups_has_it(
    groups: list[dict[int, int]], seed: int
) -> None:
    samples = samples_of(groups)
    classes = classes_in(samples)
    occurring = {sample.label for sample in samples}

    def covers(division: tuple[int, ...]) -> bool:
        return all(
            {label for g, p in zip(groups, division, strict=True) if p == part for label in g}
            == occurring
            for part in range(3)
        )

    possible = any(covers(division) for division in product(range(3), repeat=len(groups)))

    found = missing(deal(samples, classes, seed=seed), classes)

    assert (found is None) == (possible and occurring == set(range(classes)))


@given(st.integers(0, 1000), st.integers(1, 6))
def test_many_small_groups_bring_each_part_its_share_of_each_class(seed: int, size: int) -> None:
    samples = samples_of([{n % 3: size} for n in range(90)])

    parts = deal(samples, 3, seed=seed)

    for subset, share in (("test", 0.2), ("validation", 0.2), ("train", 0.6)):
        for label in range(3):
            count = sum(sample.label == label for sample in parts[subset])  # type: ignore[index]
            assert count == pytest.approx(share * 30 * size, abs=size)


def test_one_huge_group_goes_to_training() -> None:
    parts = deal(samples_of([{0: 500, 1: 500}, *[{0: 10, 1: 10}] * 20]), 2, seed=1)

    assert parts_of_groups(parts)["0"] == {"train"}
    assert len(parts["test"]) == len(parts["validation"]) == 200


def test_samples_weigh_as_much_as_they_have_windows() -> None:
    long = [Sample(f"long{n}", 0, f"long{n}", f"long{n}", weight=100) for n in range(5)]
    short = [Sample(f"short{n}", 0, f"short{n}", f"short{n}", weight=1) for n in range(5)]

    parts = deal([*long, *short], 1, seed=0)

    windows = {subset: sum(s.weight for s in chosen) for subset, chosen in parts.items()}
    assert windows["test"] == pytest.approx(100, abs=5)
    assert windows["validation"] == pytest.approx(100, abs=5)


def test_another_seed_deals_other_groups_into_test() -> None:
    samples = samples_of([{n % 2: 3} for n in range(40)])

    dealt = {
        frozenset(sample.group for sample in deal(samples, 2, seed=seed)["test"])
        for seed in range(5)
    }

    assert len(dealt) == 5


def test_parts_that_are_given_stay_and_only_the_others_are_cut_from_training() -> None:
    groups = [{n % 2: 2} for n in range(30)]
    samples = [
        Sample(s.path, s.label, s.sha256, s.group, "test" if int(s.group or 0) < 4 else None)
        for s in samples_of(groups)
    ]

    parts = deal(samples, 2, seed=0)

    assert {sample.group for sample in parts["test"]} == {"0", "1", "2", "3"}
    assert 8 <= len(parts["validation"]) <= 12
    assert sum(map(len, parts.values())) == 60


def test_copies_in_two_groups_tie_the_groups_together() -> None:
    one = Sample("a", 0, "same", "left")
    other = Sample("b", 0, "same", "right")
    third = Sample("c", 0, "third", "right")
    alone = Sample("d", 0, "fourth")

    units = units_of([one, other, third, alone])

    assert [[item.path for item in unit.items] for unit in units] == [["a", "b", "c"], ["d"]]


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30))
def test_units_are_what_hangs_together_by_group_or_content(pairs: list[tuple[int, int]]) -> None:
    samples = [Sample(str(n), 0, str(c), str(g)) for n, (c, g) in enumerate(pairs)]

    units = units_of(samples)

    unit_of = {item.path: place for place, unit in enumerate(units) for item in unit.items}
    assert len(unit_of) == len(samples)
    for one, other in product(samples, samples):
        if one.sha256 == other.sha256 or one.group == other.group:
            assert unit_of[one.path] == unit_of[other.path]
    for unit in units:
        reached, waiting = {unit.items[0].path}, [unit.items[0]]
        while waiting:
            item = waiting.pop()
            near = [
                other
                for other in unit.items
                if other.path not in reached
                and (other.sha256 == item.sha256 or other.group == item.group)
            ]
            reached |= {other.path for other in near}
            waiting += near
        assert reached == {item.path for item in unit.items}


def test_a_hard_division_of_mixed_groups_is_found() -> None:
    """Twenty classes, each in exactly three groups that all hold several classes."""
    groups = [dict.fromkeys(range(20), 1) for _ in range(3)]

    parts = deal(samples_of(groups), 20, seed=0)

    assert missing(parts, 20) is None
    assert [len(parts[subset]) for subset in SUBSETS] == [20, 20, 20]
