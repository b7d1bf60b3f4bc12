"""Memory of a process, read as the kernel tells it."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import pytest

from device_agent.errors import SensorUnavailableError
from device_agent.sensors.memory import ProcessMemory

STATUS = "VmHWM:\t  200 kB\nVmRSS:\t  100 kB\n"
ROLLUP = "Rss: 100 kB\nPss:      60 kB\nPrivate_Clean:  10 kB\nPrivate_Dirty:    30 kB\n"


def test_memory_is_read_by_stage(tmp_path: Path) -> None:
    (tmp_path / "status").write_text(STATUS)
    (tmp_path / "smaps_rollup").write_text(ROLLUP)

    memory = ProcessMemory(tmp_path)

    assert memory.peak_rss_bytes() == 200 * 1024
    assert (memory.now().rss_bytes, memory.now().uss_bytes) == (100 * 1024, 40 * 1024)
    assert memory.now().pss_bytes == 60 * 1024


def test_memory_that_the_kernel_does_not_share_out_is_none(tmp_path: Path) -> None:
    (tmp_path / "status").write_text(STATUS)

    now = ProcessMemory(tmp_path).now()

    assert now.rss_bytes == 100 * 1024
    assert now.uss_bytes is None
    assert now.pss_bytes is None


@pytest.mark.parametrize("status", [None, "Name: x\n"])
def test_a_process_without_resident_memory_is_an_error(tmp_path: Path, status: Any) -> None:
    if status is not None:
        (tmp_path / "status").write_text(status)

    with pytest.raises(SensorUnavailableError):
        ProcessMemory(tmp_path).now()


def test_the_memory_of_this_process_is_real() -> None:
    memory = ProcessMemory()
    before = memory.now()
    # Mapped anew: an allocator would give out again what earlier tests left resident.
    with mmap.mmap(-1, 30_000_000) as ballast:
        for page in range(0, len(ballast), mmap.PAGESIZE):
            ballast[page] = 1
        after = memory.now()
        peak_rss_bytes = memory.peak_rss_bytes()

    assert after.rss_bytes - before.rss_bytes > 25_000_000
    assert peak_rss_bytes >= after.rss_bytes
