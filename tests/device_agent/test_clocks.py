"""Agents whose wall clock is decades wrong: boards without a battery boot in 1970, and a dead one
may say anything. The shift is preloaded into the agent's processes; the host's clock is right.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable

import pytest

from device_agent.state import Home

pytest.importorskip("onnxruntime")

EPOCH_AND_A_MINUTE = datetime(1970, 1, 1, 0, 1, tzinfo=timezone.utc)
YEAR_2099 = datetime(2099, 12, 31, tzinfo=timezone.utc)
_AGENT = [sys.executable, "-m", "device_agent"]


class ShiftedClock:
    """A wall clock for processes that are started with `environment`."""

    def __init__(self, library: Path, file: Path) -> None:
        self._file = file
        self.environment = {
            **os.environ,
            "LD_PRELOAD": str(library),
            "CLOCK_OFFSET_FILE": str(file),
        }
        file.write_bytes(bytes(8))

    def set_to(self, moment: datetime) -> None:
        """Take effect at once, in every process that is running too."""
        shift = moment - datetime.now(timezone.utc)
        with self._file.open("r+b") as file:
            file.write(struct.pack("=q", round(shift.total_seconds())))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here to make a shifted clock with")
    made = tmp_path_factory.mktemp("clock") / "shifted_clock.so"
    source = Path(__file__).with_name("shifted_clock.c")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", str(made), str(source), "-ldl"], check=True
    )
    return made


@pytest.fixture
def clock(library: Path, tmp_path: Path) -> ShiftedClock:
    return ShiftedClock(library, tmp_path / "offset")


@pytest.fixture
def start(clock: ShiftedClock) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `genba-agent` under that clock."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        agent = subprocess.Popen(
            [*_AGENT, *arguments],
            env=clock.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(agent)
        return agent

    yield start
    for agent in started:
        agent.kill()
        agent.communicate()


def year_in(clock: ShiftedClock) -> int:
    """What three ways of asking say in a process under that clock, if they agree."""
    script = (
        "import datetime, subprocess, time\n"
        "date = subprocess.run(['date', '-u', '+%Y'], capture_output=True, text=True).stdout\n"
        "print({time.gmtime().tm_year, datetime.datetime.utcnow().year, int(date)})"
    )
    command = [sys.executable, "-W", "ignore", "-c", script]
    said = subprocess.run(
        command, env=clock.environment, capture_output=True, text=True, check=True
    )
    (year,) = eval(said.stdout)
    return int(year)


@pytest.mark.parametrize("moment", [EPOCH_AND_A_MINUTE, YEAR_2099], ids=["1970", "2099"])
def test_a_device_with_a_wrong_clock_enrols_connects_measures_and_reports(
    host: Any,
    tmp_path: Path,
    clock: ShiftedClock,
    start: Callable[..., subprocess.Popen[str]],
    conv_model: bytes,
    moment: datetime,
) -> None:
    clock.set_to(moment)
    assert year_in(clock) == moment.year
    home = tmp_path / "new"
    host.offer(conv_model)

    enrolment = start("enroll", "--home", str(home), "--token", host.token)
    said, _ = enrolment.communicate(timeout=60)
    assert enrolment.returncode == 0, said
    agent = start("run", "--once", "--home", str(home))
    output, _ = agent.communicate(timeout=60)

    assert agent.returncode == 0, output
    (report,) = host.reports
    assert report.WhichOneof("outcome") == "measured", output
    (process,) = report.measured.processes
    assert 0 < process.load_seconds < 60
    assert all(0 < block.lasted_seconds < 60 for block in process.blocks)


def test_a_clock_that_jumps_by_decades_disturbs_neither_a_job_nor_the_next_connection(
    host: Any,
    enrolled: Home,
    clock: ShiftedClock,
    start: Callable[..., subprocess.Popen[str]],
    conv_model: bytes,
    plan_lasting: Callable[[float], Any],
) -> None:
    clock.set_to(EPOCH_AND_A_MINUTE)
    agent = start("run", "--home", str(enrolled.path))
    assert host.watching.wait(30)
    lease = host.offer(conv_model, lease_seconds=1.2, plan=plan_lasting(2.0))
    wait_for(lambda: host.renewals)

    clock.set_to(YEAR_2099)
    (report,) = host.wait_for_reports(1)
    clock.set_to(EPOCH_AND_A_MINUTE)
    renewals = len(host.renewals)
    host.stop()
    host.start()
    host.offer(conv_model)
    _, after = host.wait_for_reports(2)

    assert report.WhichOneof("outcome") == after.WhichOneof("outcome") == "measured"
    (process,) = report.measured.processes
    assert 1.5 < sum(block.lasted_seconds for block in process.blocks) < 30
    # Neither a storm of renewals nor none.
    assert 2 <= renewals < 30
    assert set(host.renewals) == {lease.id}
    assert agent.poll() is None


def wait_for(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.01)
