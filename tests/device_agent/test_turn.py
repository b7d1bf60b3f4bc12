"""Two agents on one machine do not measure at once."""

from __future__ import annotations

import pytest

from device_agent import turn
from device_agent.turn import machine_turn


@pytest.fixture(autouse=True)
def _another_name(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    """An agent may be at work on this machine."""
    monkeypatch.setattr(turn, "_NAME", f"\0genba-test-{id(tmp_path)}")


class GivenUpError(Exception):
    pass


def test_the_second_job_waits_for_the_first() -> None:
    pauses = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        raise GivenUpError

    with machine_turn(pause), pytest.raises(GivenUpError), machine_turn(pause):
        pytest.fail("two jobs ran at once")

    assert pauses == [1.0]


def test_the_machine_is_free_after_a_job_whatever_became_of_it() -> None:
    with pytest.raises(GivenUpError), machine_turn(lambda _: None):
        raise GivenUpError

    with machine_turn(lambda _: pytest.fail("it is still taken")):
        pass
