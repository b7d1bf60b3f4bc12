"""What the kernel says of others that took the core."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from device_agent.canary import run_canary
from device_agent.interference import (
    TaskRunDelay,
    involuntary_switches,
    open_run_delay,
    steal_seconds,
)

STAT = "cpu  1 2 3 4 5 6 7 900\ncpu0 1 2 3 4 5 6 7 300\ncpu1 1 2 3 4 5 6 7 600\nintr 5\n"


def burn(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_two_programs_on_one_core_make_each_other_wait() -> None:
    core = min(os.sched_getaffinity(0))
    script = (
        "import os, sys, time\n"
        "from device_agent.interference import TaskRunDelay, involuntary_switches\n"
        f"os.sched_setaffinity(0, {{{core}}})\n"
        "delay = TaskRunDelay(); before = delay(), involuntary_switches()\n"
        "until = time.process_time() + 0.3\n"
        "while time.process_time() < until: pass\n"
        "print(delay.works, delay() - before[0], involuntary_switches() - before[1])\n"
    )
    hog = subprocess.Popen(["taskset", "-c", str(core), sys.executable, "-c", "while True: pass"])
    try:
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
    finally:
        hog.kill()
        hog.wait()

    works, delay, switches = done.stdout.split()
    if works == "False":
        pytest.skip("this kernel has no schedstat")
    assert int(delay) > 0.1e9
    assert int(switches) > 0


def test_a_kernel_without_schedstat_says_so(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()

    assert open_run_delay(tmp_path) is None
    assert open_run_delay(tmp_path / "none") is None


def test_a_kernel_that_is_built_to_count_but_does_not_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "schedstat").write_text("0 0 0\n")

    assert open_run_delay(tmp_path) is None


def test_the_delay_is_that_of_all_threads(tmp_path: Path) -> None:
    for thread, delay in (("1", 5), ("2", 70)):
        (tmp_path / thread).mkdir()
        (tmp_path / thread / "schedstat").write_text(f"100 {delay} 3\n")

    counter = open_run_delay(tmp_path)

    assert counter is not None
    assert counter() == 75
    counter.close()


def test_a_thread_that_ends_takes_nothing_else_with_it() -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    counter = TaskRunDelay()
    before = counter()

    end.set()
    thread.join()
    # The kernel removes the task a moment after it was joined.
    time.sleep(0.05)

    assert counter.works
    assert before >= 0
    assert counter() >= 0
    counter.close()


def test_reading_the_delay_is_short_beside_a_sample() -> None:
    counter = TaskRunDelay()
    started = time.perf_counter()
    for _ in range(1000):
        counter()

    # A tenth of the shortest sample, on whatever runs this test.
    assert (time.perf_counter() - started) / 1000 < 1e-4
    counter.close()


def test_switches_only_grow() -> None:
    before = involuntary_switches()
    burn(0.05)

    assert involuntary_switches() >= before


@pytest.mark.parametrize(("cpus", "ticks"), [((), 900), ((1,), 600), ((0, 1), 900)])
def test_steal_is_that_of_the_cores_in_use(tmp_path: Path, cpus: Any, ticks: int) -> None:
    stat = tmp_path / "stat"
    stat.write_text(STAT)

    assert steal_seconds(cpus, stat) == pytest.approx(ticks / os.sysconf("SC_CLK_TCK"))


@pytest.mark.parametrize("text", ["cpu  1 2 3\n", "intr 5\n", ""])
def test_steal_that_is_not_counted_is_none(tmp_path: Path, text: str) -> None:
    stat = tmp_path / "stat"
    stat.write_text(text)

    assert steal_seconds((), stat) is None
    assert steal_seconds((0,), stat) is None
    assert steal_seconds((), tmp_path / "none") is None


def test_the_canary_takes_twice_as_long_by_a_clock_that_runs_twice_as_fast() -> None:
    ticks = iter(range(0, 100, 7))

    assert run_canary(lambda: next(ticks)) == pytest.approx(7e-9)
