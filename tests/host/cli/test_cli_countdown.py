"""How far a computation is, and what time it leaves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.cli.countdown import LineCountdown, Pace, left


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0.2, "0 s left"),
        (59.4, "59 s left"),
        (60.0, "1 min 0 s left"),
        (200.0, "3 min 20 s left"),
        (3600.0, "1 h 0 min left"),
        (90_061.0, "25 h 1 min left"),
    ],
)
def test_the_time_left_has_its_two_largest_units(seconds: float | None, text: str) -> None:
    assert left(seconds) == text


@given(st.floats(0.0, 0.4), st.floats(0.1, 0.5), st.floats(0.1, 1000.0))
def test_what_was_there_from_the_first_says_nothing_about_the_pace(
    had: float, done: float, whole_seconds: float
) -> None:
    clock = Clock()
    pace = Pace(clock)

    assert pace.left_seconds("scored", had) is None
    clock.now += whole_seconds * done

    left_seconds = pace.left_seconds("scored", had + done)
    assert left_seconds == pytest.approx(whole_seconds * (1 - had - done), rel=1e-6)


def test_another_computation_has_a_pace_of_its_own() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.left_seconds("drawn", 0.0)
    clock.now += 1000.0

    assert pace.left_seconds("scored", 0.3) is None


def test_lines_come_now_and_then_and_in_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    lines = LineCountdown(Pace(clock), clock)

    for done in range(31):
        lines.update("scored", done, 30, done / 30)
        clock.now += 1.0

    assert capsys.readouterr().err.splitlines() == [
        "genba: scored: 0 of 30",
        "genba: scored: 10 of 30, 20 s left",
        "genba: scored: 20 of 30, 10 s left",
        "genba: scored: 30 of 30",
    ]
