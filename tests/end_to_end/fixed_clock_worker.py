"""A worker on a made-up quiet machine: what a run takes follows from the size of its file alone.

The model is scanned, loaded and run as always; only what is read from the machine is made up, so
the same file always gives the same measurement.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from device_agent.instruments import Clock, Instruments
from device_agent.runtimes.base import LoadedModel, Runtime
from device_agent.runtimes.catalogue import open_runtime
from device_agent.sensors.memory import MemoryNow
from device_agent.work import ModelRun
from device_agent.worker import main

BASE_RSS_BYTES = 40 * 1024 * 1024
FIXED_NS = 1_000_000
NS_PER_BYTE = 2
REFERENCE_NS = 1_500_000
TINY_NS = 5_000
CANARY_NS = 3_000_000


class Machine:
    """Its only clock moves when something runs or sleeps, and its memory when a model is loaded."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.model_bytes = 0

    def clock(self) -> int:
        return self.now_ns

    def seconds(self) -> float:
        return self.now_ns * 1e-9

    def sleep(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)

    def canary(self, clock: Clock) -> float:
        self.now_ns += CANARY_NS
        return CANARY_NS * 1e-9

    def now(self) -> MemoryNow:
        resident = BASE_RSS_BYTES + self.model_bytes
        return MemoryNow(resident, resident, resident)

    def peak_rss_bytes(self) -> int:
        return BASE_RSS_BYTES + 3 * self.model_bytes


class NoDelay:
    """Nobody else wants a core."""

    def __call__(self) -> int:
        return 0

    def close(self) -> None:
        """Nothing is open."""


class FixedModel:
    """A real model whose run takes a made-up time."""

    def __init__(self, model: LoadedModel, machine: Machine, run_ns: int) -> None:
        self._model = model
        self._machine = machine
        self._run_ns = run_ns

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def run(self) -> None:
        self._model.run()
        self._machine.now_ns += self._run_ns


class FixedRuntime:
    """A real runtime whose models take made-up times."""

    def __init__(self, runtime: Runtime, machine: Machine) -> None:
        self._runtime = runtime
        self._machine = machine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)

    def load(self, path: Path, run: ModelRun) -> Any:
        model = self._runtime.load(path, run)
        if path == self._runtime.reference_path:
            return FixedModel(model, self._machine, REFERENCE_NS)
        size = path.stat().st_size
        self._machine.model_bytes = size
        self._machine.now_ns += FIXED_NS
        return FixedModel(model, self._machine, FIXED_NS + NS_PER_BYTE * size)

    def load_tiny(self) -> Any:
        return FixedModel(self._runtime.load_tiny(), self._machine, TINY_NS)


def quiet(machine: Machine) -> Instruments:
    """Instruments on that machine, on which nothing else runs."""

    def open_fixed_runtime(name: str) -> Any:
        return FixedRuntime(open_runtime(name), machine)

    return Instruments(
        clock=machine.clock,
        cpu_clock=machine.clock,
        process_clock=machine.clock,
        monotonic_seconds=machine.seconds,
        sleep=machine.sleep,
        memory=machine,
        open_run_delay=NoDelay,
        involuntary_switches=lambda: 0,
        steal_seconds=lambda _cpus: 0.0,
        canary=machine.canary,
        load=machine.sleep,
        open_runtime=open_fixed_runtime,
    )


if __name__ == "__main__":
    sys.exit(main(instruments=quiet(Machine())))
