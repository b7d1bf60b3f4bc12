"""Workers as processes: started in a group of their own, bounded in time and in what they say,
killed as a group.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Protocol

# The worker finds every package that the agent finds, however genba was installed, while -I keeps
# the current folder and the environment out. -B: a worker may write no file.
_BOOT = (
    "import sys; sys.path.extend(p for p in sys.argv.pop(1).split(':') if p not in sys.path);"
    "from device_agent.worker import main; sys.exit(main())"
)
_READ_BYTES = 1 << 16
_MAX_ANSWER_BYTES = 1 << 26
"""Far more than the samples of any job; a worker that says more is out of order."""
_KEPT_NOISE_BYTES = 1 << 14
_FIRST_PAUSE_SECONDS = 0.001
_LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Ended:
    """How a worker ended. `status` is that of subprocess: negative for a signal. `stderr` is the
    end of what it wrote there.
    """

    status: int
    timed_out: bool
    stdout: str
    stderr: str
    answer_too_long: bool = False


class Cancellation:
    """A wish to stop one job, expressed from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requested = False
        self._stop: Callable[[], None] | None = None

    @property
    def requested(self) -> bool:
        return self._requested

    def request(self) -> None:
        with self._lock:
            self._requested = True
            if self._stop is not None:
                self._stop()

    def stop_by(self, stop: Callable[[], None] | None) -> None:
        """Call `stop` when the wish comes, or now where it came already."""
        with self._lock:
            self._stop = stop
            if stop is not None and self._requested:
                stop()


def default_worker_command() -> list[str]:
    """This interpreter running device_agent.worker, isolated from folder and environment."""
    paths = ":".join(str(Path(path).absolute()) for path in sys.path if ":" not in path)
    return [sys.executable, "-I", "-B", "-c", _BOOT, paths]


def run_worker(
    command: Sequence[str], *, timeout_seconds: float, cancellation: Cancellation
) -> Ended:
    """Run a worker to its end, or kill its whole group when time is up, when the wish comes, or
    when its answer does not end.

    Must be called from the main thread: a worker dies with the thread that started it. Raises
    OSError where the command cannot be started.
    """
    until = time.monotonic() + timeout_seconds
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        cwd="/",
    ) as process:
        cancellation.stop_by(lambda: _kill_group(process))
        try:
            answer, noise = _Answer(), _Noise()
            timed_out = not _listen(process, answer, noise, until)
        finally:
            cancellation.stop_by(None)
            _kill_group(process)
            process.wait()
    return Ended(process.returncode, timed_out, answer.text, noise.text, answer.is_too_long)


class _Sink(Protocol):
    """Takes what comes out of a pipe."""

    def take(self, data: bytes) -> bool:
        """False where no more is wanted."""


class _Answer:
    """All of it, up to a size that no answer has."""

    def __init__(self) -> None:
        self._data = bytearray()

    def take(self, data: bytes) -> bool:
        if self.is_too_long:
            return False
        self._data += data
        return True

    @property
    def is_too_long(self) -> bool:
        return len(self._data) > _MAX_ANSWER_BYTES

    @property
    def text(self) -> str:
        return self._data.decode("utf-8", "replace")


class _Noise:
    """The end of it: libraries may print without end."""

    def __init__(self) -> None:
        self._data = b""

    def take(self, data: bytes) -> bool:
        self._data = (self._data + data)[-_KEPT_NOISE_BYTES:]
        return True

    @property
    def text(self) -> str:
        return self._data.decode("utf-8", "replace")


def _listen(process: subprocess.Popen[bytes], answer: _Sink, noise: _Sink, until: float) -> bool:
    """Read both pipes to their ends and wait for the process; False where time was up first."""
    with selectors.DefaultSelector() as selector:
        for pipe, sink in ((process.stdout, answer), (process.stderr, noise)):
            if pipe is not None:
                selector.register(pipe, selectors.EVENT_READ, sink)
        while selector.get_map():
            left = max(0.0, until - time.monotonic())
            events = selector.select(min(left, _LOOK_SECONDS))
            if not _read(selector, events):
                _kill_group(process)
            elif events:
                continue
            elif left == 0.0:
                _kill_group(process)
                return False
            elif _has_ended(process):
                # Its pipes are held by a process that left the group.
                break
    return _await_end(process, until)


def _read(
    selector: selectors.DefaultSelector, events: list[tuple[selectors.SelectorKey, int]]
) -> bool:
    for key, _ in events:
        data = os.read(key.fd, _READ_BYTES)
        if not data:
            selector.unregister(key.fileobj)
        elif not key.data.take(data):
            return False
    return True


def _await_end(process: subprocess.Popen[bytes], until: float) -> bool:
    """A process may close its pipes and go on."""
    pause = _FIRST_PAUSE_SECONDS
    while not _has_ended(process):
        left = until - time.monotonic()
        if left <= 0:
            _kill_group(process)
            return False
        time.sleep(min(pause, left))
        pause = min(2 * pause, _LOOK_SECONDS)
    # Its number is not given away before it is waited for, and neither is its group's.
    _kill_group(process)
    process.wait()
    return True


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Without taking notice of it, so that its children can still be found by its group."""
    if process.returncode is not None:
        return True
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:
        # It may have ended this moment.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
