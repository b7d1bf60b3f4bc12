"""A worker whose models are a line of JSON: `quick_worker.py PLANT measure REQUEST`.

Everything around the runtime is the product's: limits, request, timing loop, answer. The clock is
made up, so the same file always gives the same measurement, and no library is loaded. The line says
how long, in real seconds, loading takes ("hold_seconds"), and which signal ends the worker ("die").
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from device_agent.instruments import Clock, Instruments
from device_agent.sensors.memory import MemoryNow
from device_agent.work import ModelRun
from device_agent.worker import main

FIXED_NS = 2_000_000
NS_PER_BYTE = 2
_MIB = 1 << 20


class Machine:
    """Its clock moves when something runs or sleeps."""

    def __init__(self) -> None:
        self.now_ns = 0

    def clock(self) -> int:
        return self.now_ns

    def seconds(self) -> float:
        return self.now_ns * 1e-9

    def sleep(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)

    def canary(self, clock: Clock) -> float:
        self.sleep(0.003)
        return 0.003

    def now(self) -> MemoryNow:
        return MemoryNow(40 * _MIB, 40 * _MIB, 40 * _MIB)

    def peak_rss_bytes(self) -> int:
        return 50 * _MIB


class QuickModel:
    """Runs in a made-up time."""

    inputs = ()
    options = ("quick=1",)

    def __init__(self, machine: Machine, run_ns: int) -> None:
        self._machine = machine
        self._run_ns = run_ns

    def make_inputs(self, seed: int, shapes: object = ()) -> None:
        """It has none."""

    def run(self) -> None:
        self._machine.now_ns += self._run_ns


class QuickRuntime:
    """Loads the models of these tests."""

    library = "onnxruntime"
    version = "1.0"
    reference_path = Path("reference")

    def __init__(self, name: str, machine: Machine) -> None:
        self.name = name
        self._machine = machine

    def scan(self, path: Path, limits: object) -> None:
        """Nothing in it is hostile."""

    def load(self, path: Path, run: ModelRun) -> QuickModel:
        if path == self.reference_path:
            return QuickModel(self._machine, FIXED_NS)
        with path.open("rb") as file:
            wishes = json.loads(file.readline())
        time.sleep(wishes.get("hold_seconds", 0.0))
        if "die" in wishes:
            os.kill(os.getpid(), wishes["die"])
        return QuickModel(self._machine, FIXED_NS + NS_PER_BYTE * path.stat().st_size)

    def load_tiny(self) -> QuickModel:
        return QuickModel(self._machine, 5_000)

    def self_test(self) -> None:
        """It works."""


class NoDelay:
    """Nobody else wants a core."""

    def __call__(self) -> int:
        return 0

    def close(self) -> None:
        """Nothing is open."""


def quick(machine: Machine) -> Instruments:
    def open_quick_runtime(name: str) -> Any:
        return QuickRuntime(name, machine)

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
        open_runtime=open_quick_runtime,
    )


if __name__ == "__main__":
    sys.argv.pop(1)  # the plant, by which the tests find what it left running
    sys.exit(main(instruments=quick(Machine())))
