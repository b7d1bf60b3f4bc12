"""A real host on this machine: workspace, gateway, tokens, and what it measures on devices."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.legacy.bundles import REPOSITORY
from tests.legacy.errors import LegacyError

_COMMAND_SECONDS = 120.0
# An emulated worker is fifty and more times slower than a real one.
_MEASURE_SECONDS = 600.0
MODELS = {"onnx": "candidate.onnx", "tflite": "candidate.tflite", "ncnn": "candidate.ncnn"}
LARGE_MODEL = "large.ncnn"
_LARGE_PARAMETERS = 2_000_000
_DRAWS = 200


@dataclass(frozen=True)
class Told:
    """How a command ended, and what it printed."""

    status: int
    output: str
    error: str

    @property
    def last(self) -> str:
        """The last line that says something."""
        lines = (self.error.strip() or self.output.strip()).splitlines()
        return lines[-1].strip() if lines else "it said nothing"


class Plant:
    """A workspace below `folder`, with one candidate in every form there is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace = folder / "workspace"
        folder.mkdir(parents=True)
        _write_candidate(folder)
        self.large_parameters = _write_large(folder)
        gateway, enrolment = _free_ports()
        made = self.genba(
            *("init", str(self.workspace), "--address", "127.0.0.1", "--bind", "127.0.0.1"),
            *("--gateway-port", str(gateway), "--enrolment-port", str(enrolment)),
        )
        if made.status != 0:
            raise LegacyError(f"genba init: {made.last}")

    def genba(self, *arguments: str, timeout_seconds: float = _COMMAND_SECONDS) -> Told:
        """Run a command of genba to its end."""
        done = subprocess.run(
            [sys.executable, "-m", "host", *arguments],
            cwd=REPOSITORY,
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_seconds,
        )
        return Told(done.returncode, done.stdout, done.stderr)

    def token(self, device: str) -> str:
        """A one-time token for a device of that name."""
        told = self.genba("device", "enroll", device, "--json")
        if told.status != 0:
            raise LegacyError(f"genba device enroll: {told.last}")
        token: str = json.loads(told.output)["token"]
        return token

    def measure(self, device: str, model: str, preset: str = "quick") -> tuple[Told, Any]:
        """Have a file of this plant measured anew, and what came of it: the record, or None."""
        told = self.genba(*self.measuring(device, model, preset), timeout_seconds=900.0)
        return told, self.last_record(told.output)

    @staticmethod
    def last_record(output: str) -> Any:
        """The last line of JSON, or None."""
        lines = [line for line in output.splitlines() if line.startswith("{")]
        return json.loads(lines[-1]) if lines else None

    def measuring(self, device: str, model: str, preset: str) -> list[str]:
        """The arguments of a command that measures a file of this plant."""
        seconds = f"{_MEASURE_SECONDS:g}"
        return [
            *("measure", str(self.folder / model), "--device", device, "--again"),
            *("--preset", preset, "--on-busy", "flag", "--wait-quiet", "0", "--json"),
            *("--worker-timeout", seconds, "--timeout", seconds),
        ]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command of genba."""
        return subprocess.Popen(
            [sys.executable, "-m", "host", *arguments],
            cwd=REPOSITORY,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @contextmanager
    def served(self) -> Iterator[None]:
        """The gateway as a process, for as long as the block lasts."""
        with (self.folder / "gateway.log").open("wb") as log:
            gateway = subprocess.Popen(
                [sys.executable, "-m", "host", "serve"],
                cwd=REPOSITORY,
                env=self._environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            try:
                yield
            finally:
                end(gateway)

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "GENBA_WORKSPACE": str(self.workspace)}


def end(process: subprocess.Popen[Any]) -> None:
    """Have a process end, by force where it does not."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _free_ports() -> list[int]:
    opened = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [one.getsockname()[1] for one in opened]
    for one in opened:
        one.close()
    return ports


def _write_candidate(folder: Path) -> None:
    """One candidate of a space, rendered from one Network into every form."""
    from host.network.ncnn_model import ncnn_bytes
    from host.network.onnx_model import onnx_bytes
    from host.network.tflite_model import tflite_bytes
    from host.network.weights import random_weights
    from host.spaces.base import Task, sample
    from host.spaces.mobile import Mobile

    space = Mobile({"resolution": (32,), "width": (0.25,)})
    network = space.build(sample(space, np.random.default_rng(5)), Task(channels=3, classes=4))
    weights = random_weights(network, seed=0)
    writers = {"onnx": onnx_bytes, "tflite": tflite_bytes, "ncnn": ncnn_bytes}
    for runtime, write in writers.items():
        (folder / MODELS[runtime]).write_bytes(write(network, weights))


def _write_large(folder: Path) -> int:
    """A candidate of about two million parameters for ncnn; how many it has."""
    from host.network.ncnn_model import ncnn_bytes
    from host.network.weights import random_weights
    from host.spaces.base import Task, sample
    from host.spaces.mobile import Mobile

    space = Mobile({"resolution": (96,)})
    rng, task = np.random.default_rng(5), Task(channels=3, classes=10)
    networks = [space.build(sample(space, rng), task) for _ in range(_DRAWS)]
    network = min(networks, key=lambda one: abs(one.parameters - _LARGE_PARAMETERS))
    (folder / LARGE_MODEL).write_bytes(ncnn_bytes(network, random_weights(network, seed=0)))
    return network.parameters
