"""What free proxies leave for the dear ones."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.errors import UsageError
from host.proxies.cascade import divided, survivors
from host.proxies.catalogue import proxies_by_name

SCORES = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=60)
SHARES = st.floats(0.001, 1.0)


@given(SCORES, SHARES)
def test_the_share_that_survives_is_rounded_up(scores: list[float], keep: float) -> None:
    kept = survivors(scores, keep)

    assert 1 <= len(kept) <= len(scores)
    assert keep * len(scores) - 1e-6 <= len(kept) < keep * len(scores) + 1 + 1e-6


@given(SCORES, SHARES)
def test_nobody_who_is_left_out_is_better_than_a_survivor(scores: list[float], keep: float) -> None:
    kept = survivors(scores, keep)

    out = [score for place, score in enumerate(scores) if place not in kept]
    assert kept == sorted(set(kept))
    assert min(scores[place] for place in kept) >= max(out, default=-math.inf)


@given(SCORES)
def test_a_share_of_one_leaves_nobody_out(scores: list[float]) -> None:
    assert survivors(scores, 1.0) == list(range(len(scores)))


def test_of_equals_the_earlier_survive() -> None:
    assert survivors([1.0, 2.0, 1.0, 1.0], 0.5) == [0, 1]


def test_a_share_that_is_a_whole_number_of_candidates_is_not_rounded_up() -> None:
    assert len(survivors([0.0] * 100, 0.07)) == 7


@pytest.mark.parametrize("keep", [0.0, -0.5, 1.1, math.nan])
def test_another_share_is_refused(keep: float) -> None:
    with pytest.raises(ValueError, match="keep"):
        survivors([1.0], keep)


def test_free_and_dear_proxies_are_told_apart_in_their_order() -> None:
    free, dear = divided(proxies_by_name(["naswot", "flops", "synflow", "parameters"]))

    assert [proxy.name for proxy in free] == ["flops", "parameters"]
    assert [proxy.name for proxy in dear] == ["naswot", "synflow"]


@pytest.mark.parametrize(
    ("names", "why"), [(["naswot"], "naswot are none"), (["flops"], "every proxy is free")]
)
def test_a_cascade_needs_both_kinds(names: list[str], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        divided(proxies_by_name(names))
