from __future__ import annotations

import threading
from typing import Callable

import pytest

from device_agent.errors import HostAwayError
from device_agent.processes import Cancellation
from device_agent.renewal import Renewal
from device_agent.work import Lease, MeasureSpec


class Host:
    """Remembers when it was asked, on a clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.renewals: list[float] = []
        self.wants_cancel = False
        self.is_away = False

    def renew(self, lease_id: str) -> bool:
        assert lease_id == "lease-1"
        self.renewals.append(self.now)
        if self.is_away:
            raise HostAwayError("UNAVAILABLE", "nobody answers")
        return self.wants_cancel


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def make(host: Host, spec: MeasureSpec) -> Callable[..., Renewal]:
    def renewal(cancellation: Cancellation | None = None) -> Renewal:
        lease = Lease("lease-1", "job-1", 1, 60.0, spec)
        return Renewal(
            host.renew, lease, cancellation or Cancellation(), lambda: None, lambda: host.now
        )

    return renewal


def measure(host: Host, renewal: Renewal, *, blocks: int, seconds: float) -> list[float]:
    """Blocks with pauses between them, and the thread's look at every tenth of a second of each;
    the moments of renewals that fell into a block.
    """
    disturbed = []
    for _ in range(blocks):
        before = len(host.renewals)
        for _ in range(round(seconds * 10)):
            host.now += 0.1
            renewal.renew_after(2 / 3)
        disturbed += host.renewals[before:]
        renewal.between_blocks()
    return disturbed


@pytest.mark.parametrize("seconds", [0.5, 3.0, 19.0])
def test_no_block_up_to_a_third_of_the_lease_is_disturbed(
    host: Host, make: Callable[..., Renewal], seconds: float
) -> None:
    disturbed = measure(host, make(), blocks=round(200 / seconds), seconds=seconds)

    assert disturbed == []
    gaps = [b - a for a, b in zip([1000.0, *host.renewals], host.renewals)]
    assert max(gaps) <= 40.0


def test_no_block_is_disturbed_while_the_host_is_away(
    host: Host, make: Callable[..., Renewal]
) -> None:
    host.is_away = True

    disturbed = measure(host, make(), blocks=100, seconds=2.0)

    assert disturbed == []
    assert len(host.renewals) >= 8


def test_what_never_pauses_is_renewed_at_two_thirds(
    host: Host, make: Callable[..., Renewal]
) -> None:
    renewal = make()

    for _ in range(121):
        renewal.renew_after(2 / 3)
        host.now += 1.0

    assert host.renewals == [1040.0, 1080.0, 1120.0]


def test_a_pause_just_after_a_renewal_asks_nobody(host: Host, make: Callable[..., Renewal]) -> None:
    renewal = make()
    host.now += 19.0

    renewal.between_blocks()

    assert host.renewals == []


def test_an_answer_that_wants_the_job_cancelled_cancels_it(
    host: Host, make: Callable[..., Renewal]
) -> None:
    host.wants_cancel = True
    cancellation = Cancellation()
    renewal = make(cancellation)
    host.now += 20.0

    renewal.between_blocks()

    assert cancellation.requested


def test_a_block_does_not_begin_while_the_thread_still_talks_to_the_host(
    spec: MeasureSpec,
) -> None:
    asked, answer, order = threading.Event(), threading.Event(), []

    def renew(_: str) -> bool:
        asked.set()
        assert answer.wait(10)
        order.append("renewed")
        return False

    lease = Lease("lease-1", "job-1", 1, 0.03, spec)
    renewal = Renewal(renew, lease, Cancellation(), lambda: None)
    with renewal.in_background():
        assert asked.wait(10)
        threading.Timer(0.05, answer.set).start()
        renewal.between_blocks()
        order.append("block")

    assert order.index("renewed") < order.index("block")
