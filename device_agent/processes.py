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

from device_agent.cage.stragglers import boot_seconds, kill_stragglers
from device_agent.errors import AgentError, WorkerCrashedError
from device_agent.stages import MAX_MARK_BYTES, Mark, read_mark
from device_agent.vigil import LOOK_SECONDS, Vigil, Watch

# The worker finds every package that the agent finds, however genba was installed, while -I keeps
# the current folder and the environment out. -B: a worker may write no file.
_BOOT = (
    "import sys; sys.path.extend(p for p in sys.argv.pop(1).split(':') if p not in sys.path);"
    "from device_agent.worker import main; sys.exit(main())"
)
_READ_BYTES = 1 << 16
_MAX_ANSWER_BYTES = 1 << 23
"""Far more than the samples of any job; a worker that says more is out of order."""
_KEPT_NOISE_BYTES = 1 << 14
_FIRST_PAUSE_SECONDS = 0.001
_WATCH_NOTHING = Watch()


@dataclass(frozen=True)
class Ended:
    """How a worker ended. `status` is that of subprocess: negative for a signal. `stdout` is what
    it said after its marks, `stderr` the end of what it wrote there; `reason` is why it was killed
    before its time was up, where it was.
    """

    status: int
    timed_out: bool
    stdout: str
    stderr: str
    reason: AgentError | None = None


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
    command: Sequence[str],
    *,
    timeout_seconds: float,
    cancellation: Cancellation,
    watch: Watch = _WATCH_NOTHING,
) -> Ended:
    """Run a worker to its end, or kill it and all that it started when time is up, when the wish
    comes, or when `watch` finds it too slow or too large or its answer does not end.

    Must be called from the main thread: a worker dies with the thread that started it. Raises
    OSError where the command cannot be started.
    """
    began = boot_seconds()
    try:
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            cwd="/",
        ) as process:
            cancellation.stop_by(lambda: _kill_group(process))
            try:
                vigil = Vigil(watch, process.pid, timeout_seconds, _ear_of(process))
                answer, noise = _Answer(vigil.heed), _Noise()
                _listen(process, answer, noise, vigil)
            finally:
                cancellation.stop_by(None)
                _kill_group(process)
                process.wait()
    finally:
        kill_stragglers(began)
    return Ended(process.returncode, vigil.timed_out, answer.text, noise.text, vigil.reason)


def _ear_of(process: subprocess.Popen[bytes]) -> int:
    """The descriptor by which the worker hears; one that does not listen must not hold us up."""
    if process.stdin is None:
        raise ValueError("a worker needs a pipe to hear by")
    os.set_blocking(process.stdin.fileno(), False)
    return process.stdin.fileno()


class _Sink(Protocol):
    """Takes what comes out of a pipe."""

    def take(self, data: bytes) -> bool:
        """False where no more is wanted."""


class _Answer:
    """What follows the marks, up to a size that no answer has; the marks are heeded."""

    def __init__(self, heed: Callable[[Mark], None]) -> None:
        self._heed = heed
        self._data = bytearray()
        self._taken_bytes = 0
        self._begun = False

    def take(self, data: bytes) -> bool:
        self._taken_bytes += len(data)
        if self._taken_bytes > _MAX_ANSWER_BYTES:
            return False
        self._data += data
        while not self._begun and self._take_line():
            pass
        return True

    def _take_line(self) -> bool:
        """Heed the mark that stands first; False where there is none yet, or no more."""
        end = self._data.find(b"\n", 0, MAX_MARK_BYTES)
        if end < 0:
            self._begun = len(self._data) >= MAX_MARK_BYTES
            return False
        mark = read_mark(bytes(self._data[:end]))
        if mark is None:
            self._begun = True
            return False
        del self._data[: end + 1]
        self._heed(mark)
        return True

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


def _listen(process: subprocess.Popen[bytes], answer: _Sink, noise: _Sink, vigil: Vigil) -> None:
    """Read both pipes to their ends and wait for the process, unless the vigil ends it first."""
    with selectors.DefaultSelector() as selector:
        for pipe, sink in ((process.stdout, answer), (process.stderr, noise)):
            if pipe is not None:
                selector.register(pipe, selectors.EVENT_READ, sink)
        ended_at = float("inf")
        while selector.get_map():
            events = selector.select(vigil.wait_seconds())
            if not _read(selector, events):
                vigil.reason = WorkerCrashedError("the worker's answer does not end")
            if vigil.is_over():
                return
            if _has_ended(process):
                ended_at = min(ended_at, time.monotonic())
                # Its pipes are held by a process that left the group, and may even be filled by it.
                if not events or time.monotonic() >= ended_at + LOOK_SECONDS:
                    return
    _await_end(process, vigil)


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


def _await_end(process: subprocess.Popen[bytes], vigil: Vigil) -> None:
    """A process may close its pipes and go on."""
    pause = _FIRST_PAUSE_SECONDS
    while not _has_ended(process) and not vigil.is_over():
        time.sleep(min(pause, vigil.wait_seconds()))
        pause = min(2 * pause, LOOK_SECONDS)


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
