"""Workers as processes: started in a group of their own, bounded in time, killed as a group."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

# The worker finds every package that the agent finds, however genba was installed, while -I keeps
# the current folder and the environment out. -B: a worker may write no file.
_BOOT = (
    "import sys; sys.path.extend(p for p in sys.argv.pop(1).split(':') if p not in sys.path);"
    "from device_agent.worker import main; sys.exit(main())"
)


@dataclass(frozen=True)
class Ended:
    """How a worker ended. `status` is that of subprocess: negative for a signal."""

    status: int
    timed_out: bool
    stdout: str
    stderr: str


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
    """Run a worker to its end, or kill its whole group when time is up or the wish comes.

    Must be called from the main thread: a worker dies with the thread that started it. Raises
    OSError where the command cannot be started.
    """
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        cwd="/",
    ) as process:
        cancellation.stop_by(lambda: _kill_group(process))
        timed_out = False
        try:
            stdout, stderr = process.communicate(timeout=timeout_seconds)
        except subprocess.TimeoutExpired:
            timed_out = True
            _kill_group(process)
            stdout, stderr = process.communicate()
        finally:
            cancellation.stop_by(None)
            _kill_group(process)
    return Ended(
        process.returncode,
        timed_out,
        stdout.decode("utf-8", "replace"),
        stderr.decode("utf-8", "replace"),
    )


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:
        # It may have ended this moment.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
