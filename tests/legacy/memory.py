"""How much memory the agent and its worker need, and how much the agent writes to its disk.

Emulation says nothing of either, so this runs natively in the 32-bit x86 root, whose pointers are
as wide as those of a 32-bit Pi: in a control group that is not allowed more than the limit.
"""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.legacy.boards import board
from tests.legacy.bundles import make_bundle
from tests.legacy.errors import LegacyError
from tests.legacy.plant import LARGE_MODEL, Plant, end
from tests.legacy.roots import STORE, Machine, prepared_root
from tests.legacy.showing import AGENT, HOME, children_of

MIB = 1 << 20
LIMIT_BYTES = 180 * MIB
IDLE_BYTES_AN_HOUR = 100_000
MEASUREMENT_BYTES = 300_000
_IDLE_SECONDS = 90.0
_SETTLE_SECONDS = 5.0
_ATTACH_SECONDS = 60.0
_DEVICE = "i386-native"
_GROUP = "genba-legacy"


@dataclass(frozen=True)
class Control:
    """A control group for memory, and the names of its files, which differ between versions."""

    folder: Path
    limit: str
    peak: str


@dataclass(frozen=True)
class Memory:
    """What was seen. Where nothing limits memory here, `limited_because_not` says so."""

    limit_bytes: int
    limited_because_not: str
    group_peak_bytes: int | None
    agent_peak_bytes: int
    worker_peak_bytes: int
    parameters: int
    model_bytes: int
    idle_bytes_an_hour: float
    first_measurement_bytes: int
    next_measurement_bytes: int

    @property
    def is_good(self) -> bool:
        """Whether it fits, and writes no more than it should."""
        return (
            self.agent_peak_bytes + self.worker_peak_bytes <= self.limit_bytes
            and self.idle_bytes_an_hour <= IDLE_BYTES_AN_HOUR
            and self.next_measurement_bytes <= MEASUREMENT_BYTES
        )

    @property
    def sentence(self) -> str:
        """All of it for people."""
        limited = (
            f"ran in a control group limited to {self.limit_bytes / MIB:.0f} MiB, peak"
            f" {(self.group_peak_bytes or 0) / MIB:.0f} MiB without files that others had read"
            if not self.limited_because_not
            else f"ran without a limit, because {self.limited_because_not}"
        )
        both = self.agent_peak_bytes + self.worker_peak_bytes
        return (
            f"memory (32-bit x86, native, ncnn, {self.parameters / 1e6:.1f} M parameters): agent"
            f" {self.agent_peak_bytes / MIB:.0f} MiB and worker"
            f" {self.worker_peak_bytes / MIB:.0f} MiB resident at most,"
            f" {both / MIB:.0f} of {self.limit_bytes / MIB:.0f} MiB; {limited}\n"
            f"writes: {self.idle_bytes_an_hour / 1e3:.0f} kB an idle hour (from"
            f" {_IDLE_SECONDS:.0f} s; limit {IDLE_BYTES_AN_HOUR / 1e3:.0f}),"
            f" {self.first_measurement_bytes / 1e3:.0f} kB for a measurement with its model of"
            f" {self.model_bytes / 1e3:.0f} kB, {self.next_measurement_bytes / 1e3:.0f} kB for one"
            f" more (limit {MEASUREMENT_BYTES / 1e3:.0f})"
        )

    def record(self) -> dict[str, Any]:
        return {**asdict(self), "is_good": self.is_good}


def show_memory(plant: Plant, say: Callable[[str], None]) -> Memory:
    """Install, enrol and measure natively in the 32-bit root, under the limit.

    Raises LegacyError.
    """
    machine = _installed()
    say(f"{_DEVICE}: installed")
    token = plant.token(_DEVICE)
    enrolled = machine.run([AGENT, "enroll", "--home", HOME, "--token", token], network=True)
    if enrolled.returncode != 0:
        raise LegacyError(f"{_DEVICE} cannot enrol: {enrolled.stderr.strip()}")
    with _control() as (control, why_not), (machine.folder / "agent.log").open("wb") as log:
        command = machine.command([AGENT, "run", "--home", HOME], network=True)
        if control is not None:
            into = f'echo $$ > {control.folder}/cgroup.procs && exec "$@"'
            command = ["sh", "-c", into, "sh", *command]
        agent = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            return _watched(plant, agent, control, why_not, say)
        finally:
            end(agent)


def _installed() -> Machine:
    atom = board("atom32")
    folder = STORE / "runs" / _DEVICE
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    bundle = make_bundle(atom, folder)
    machine = Machine(atom, prepared_root(atom, bundle.debian_packages), folder, native=True)
    with tarfile.open(bundle.archive) as archive:
        archive.extractall(machine.outside("/w"), filter="data")
    done = machine.run(["/bin/sh", f"/w/{bundle.folder}/install.sh"])
    if done.returncode != 0:
        raise LegacyError(f"{_DEVICE}: install.sh: {done.stderr.strip()}")
    return machine


def _watched(
    plant: Plant,
    agent: subprocess.Popen[bytes],
    control: Control | None,
    why_not: str,
    say: Callable[[str], None],
) -> Memory:
    _await_attached(plant)
    time.sleep(_SETTLE_SECONDS)
    before = _written_bytes(agent.pid)
    time.sleep(_IDLE_SECONDS)
    idle = (_written_bytes(agent.pid) - before) * 3600.0 / _IDLE_SECONDS
    say(f"{_DEVICE}: {idle / 1e3:.0f} kB written an idle hour")
    first, _ = _measured(plant, agent)
    following, record = _measured(plant, agent)
    model = plant.folder / LARGE_MODEL
    return Memory(
        limit_bytes=LIMIT_BYTES,
        limited_because_not=why_not,
        group_peak_bytes=None if control is None else _number(control.folder / control.peak),
        agent_peak_bytes=_status_kib(agent.pid, "VmHWM") * 1024,
        worker_peak_bytes=record["peak_rss_bytes"],
        parameters=plant.large_parameters,
        model_bytes=model.stat().st_size,
        idle_bytes_an_hour=idle,
        first_measurement_bytes=first,
        next_measurement_bytes=following,
    )


def _await_attached(plant: Plant) -> None:
    deadline = time.monotonic() + _ATTACH_SECONDS
    while time.monotonic() < deadline:
        told = plant.genba("device", "list", "--json")
        if f'"{_DEVICE}"' in told.output and '"idle"' in told.output:
            return
        time.sleep(1.0)
    raise LegacyError(f"{_DEVICE} did not attach within {_ATTACH_SECONDS:.0f} s")


def _measured(plant: Plant, agent: subprocess.Popen[bytes]) -> tuple[int, Any]:
    """Measure the large model: the bytes that agent and worker wrote, and the record."""
    before = _written_bytes(agent.pid)
    by_workers: dict[int, int] = {}
    measuring = plant.start(*plant.measuring(_DEVICE, LARGE_MODEL, "quick"))
    while measuring.poll() is None:
        for pid in children_of(agent.pid):
            by_workers[pid] = max(by_workers.get(pid, 0), _written_bytes(pid))
        time.sleep(0.05)
    output, error = measuring.communicate()
    if measuring.returncode != 0 or not output.startswith("{"):
        raise LegacyError(f"{_DEVICE} cannot measure the large model: {error.strip()[-300:]}")
    time.sleep(1.0)
    written = _written_bytes(agent.pid) - before + sum(by_workers.values())
    return written, Plant.last_record(output)


@contextmanager
def _control() -> Iterator[tuple[Control | None, str]]:
    """A control group with the limit, for as long as the block lasts; or why there is none."""
    made, why_not = _made_control()
    try:
        yield made, why_not
    finally:
        if made is not None:
            _remove(made.folder)


def _made_control() -> tuple[Control | None, str]:
    first, second = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    if (first / "memory.limit_in_bytes").exists():
        control = Control(first / _GROUP, "memory.limit_in_bytes", "memory.max_usage_in_bytes")
    elif "memory" in _text(second / "cgroup.subtree_control").split():
        control = Control(second / _GROUP, "memory.max", "memory.peak")
    else:
        return None, "this machine lets nobody make a control group for memory"
    _remove(control.folder)
    try:
        control.folder.mkdir()
        (control.folder / control.limit).write_text(str(LIMIT_BYTES), encoding="ascii")
    except OSError as error:
        return None, f"a control group for memory cannot be made ({error.strerror})"
    return control, ""


def _remove(folder: Path) -> None:
    if folder.exists():
        folder.rmdir()


def _written_bytes(pid: int) -> int:
    """What the process has sent to disks; 0 where it is gone."""
    for line in _text(Path(f"/proc/{pid}/io")).splitlines():
        name, _, value = line.partition(":")
        if name == "write_bytes":
            return int(value)
    return 0


def _status_kib(pid: int, name: str) -> int:
    for line in _text(Path(f"/proc/{pid}/status")).splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise LegacyError(f"the agent is gone: /proc/{pid} has no {name}")


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
