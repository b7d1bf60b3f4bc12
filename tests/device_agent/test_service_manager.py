"""What the agent tells systemd, read from a real datagram socket."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_agent.service.manager import ServiceManager


class Listener:
    """The service manager's end."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.setblocking(False)

    def heard(self) -> list[str]:
        messages = []
        with contextlib.suppress(BlockingIOError):
            while True:
                messages.append(self._socket.recv(4096).decode())
        return messages

    def close(self) -> None:
        self._socket.close()


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "notify") if request.param == "path" else f"@genba-{os.urandom(8).hex()}"


@pytest.fixture
def listener(address: str) -> Iterator[Listener]:
    listener = Listener("\0" + address[1:] if address.startswith("@") else address)
    yield listener
    listener.close()


def test_every_message_is_one_datagram(address: str, listener: Listener) -> None:
    manager = ServiceManager.from_environment({"NOTIFY_SOCKET": address})

    manager.ready()
    manager.status("waiting for\na job\n")
    manager.stopping()

    assert listener.heard() == ["READY=1", "STATUS=waiting for a job", "STOPPING=1"]


def test_a_sign_of_life_is_sent_once_in_a_third_of_the_time_of_the_watchdog(
    address: str, listener: Listener
) -> None:
    clock = Clock()
    environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "180000000"}
    manager = ServiceManager.from_environment(environ, clock=clock)

    for _ in range(600):
        manager.alive()
        clock.now += 1.0

    assert listener.heard() == ["WATCHDOG=1"] * 10


@pytest.mark.parametrize(
    "watchdog",
    [
        {},
        {"WATCHDOG_USEC": ""},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "-5"},
        {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
    ],
)
def test_without_a_watchdog_for_this_process_no_sign_of_life_is_sent(
    address: str, listener: Listener, watchdog: dict[str, str]
) -> None:
    manager = ServiceManager.from_environment({"NOTIFY_SOCKET": address, **watchdog})

    manager.alive()

    assert listener.heard() == []


def test_a_watchdog_for_this_very_process_counts(address: str, listener: Listener) -> None:
    environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "42"}

    ServiceManager.from_environment(environ, pid=42).alive()

    assert listener.heard() == ["WATCHDOG=1"]


def test_workers_inherit_none_of_the_variables(address: str) -> None:
    environ = {
        "NOTIFY_SOCKET": address,
        "WATCHDOG_USEC": "1000000",
        "WATCHDOG_PID": "42",
        "HOME": "/",
    }

    ServiceManager.from_environment(environ)

    assert environ == {"HOME": "/"}


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}])
def test_without_a_manager_nothing_happens(environ: dict[str, str]) -> None:
    manager = ServiceManager.from_environment(environ)

    manager.ready()
    manager.alive()
    manager.status("well")
    manager.stopping()


def test_a_manager_that_is_gone_does_not_stop_the_agent(tmp_path: Path) -> None:
    manager = ServiceManager(str(tmp_path / "nobody"), watchdog_seconds=3.0)

    manager.ready()
    manager.alive()
