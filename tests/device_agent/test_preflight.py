"""A device is measured only when it is fit for it, and says in one sentence why it is not."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.errors import JobCancelledError, JobTimeoutError, NotReadyError
from device_agent.preflight import become_ready, choose_cpus, free_ram_bytes
from device_agent.processes import Cancellation
from device_agent.surroundings import Deadline, Surroundings
from device_agent.work import Readiness

STRICT = Readiness(
    observe_seconds=2.0,
    max_foreign_cpu=0.05,
    min_free_ram_bytes=64_000_000,
    max_start_celsius=60.0,
    wait_seconds=0.0,
    measure_when_busy=False,
)


@pytest.fixture
def check(machine: Any) -> Any:
    """Run the preflight on the made-up machine, with changes to a strict readiness."""

    def run(threads: int = 1, around: Any = None, **changes: Any) -> Any:
        surroundings = around or machine.surroundings()
        deadline = Deadline(surroundings, 600.0, Cancellation())
        readiness = dataclasses.replace(STRICT, **changes)
        return become_ready(readiness, threads, surroundings, deadline)

    return run


def test_a_quiet_machine_is_ready_at_once(check: Any, machine: Any) -> None:
    ready = check()

    preflight = ready.preflight
    assert preflight.foreign_cpu == pytest.approx(0.0)
    assert preflight.swapped_in_pages == 0
    assert preflight.free_ram_bytes == 2_000_000 * 1024
    assert preflight.temperature_celsius is None
    assert preflight.canary_seconds == pytest.approx(0.003)
    assert preflight.waited_seconds == pytest.approx(0.0)
    assert preflight.problems == ()
    assert sum(machine.naps) == pytest.approx(2.0)


def test_a_busy_machine_names_value_limit_culprit_and_mend(check: Any, machine: Any) -> None:
    machine.loads = {0: 0.8, 1: 0.2}
    machine.programs = {77: ("plc (line 4)", 1, 0.8), 78: ("sshd", 1, 0.2)}

    with pytest.raises(NotReadyError) as caught:
        check()

    text = str(caught.value)
    assert text.startswith("busy: other programs take 50% of the CPU and the limit is 5%")
    assert "plc (line 4) (process 77) 40%, sshd (process 78) 10%" in text
    assert "stop them" in text


def test_a_busy_machine_is_measured_where_that_was_asked_for_and_says_so(
    check: Any, machine: Any
) -> None:
    machine.loads = {0: 0.8, 1: 0.2}

    ready = check(measure_when_busy=True, wait_seconds=100.0)

    (problem,) = ready.preflight.problems
    assert problem.startswith("busy: other programs take 50%")
    assert ready.preflight.foreign_cpu == pytest.approx(0.5, abs=0.01)
    assert ready.preflight.waited_seconds == pytest.approx(0.0)


def test_what_the_agent_and_its_children_take_is_not_foreign(check: Any, machine: Any) -> None:
    machine.loads = {0: 0.9, 1: 0.0}
    machine.programs = {4242: ("python3", 1, 0.5), 4300: ("worker", 4242, 0.4), 9: ("x", 1, 0.0)}

    ready = check()

    assert ready.preflight.foreign_cpu == pytest.approx(0.0, abs=0.01)


def test_time_that_a_hypervisor_steals_is_foreign(check: Any, machine: Any) -> None:
    machine.steal = 0.3

    with pytest.raises(NotReadyError, match="busy: other programs take 30%"):
        check()


def test_pages_that_come_back_from_swap_are_refused(check: Any, machine: Any) -> None:
    machine.swap_ins_per_second = 40

    with pytest.raises(NotReadyError, match=r"swapping: 80 pages .* swapoff"):
        check(measure_when_busy=True)


def test_a_kernel_that_counts_no_swapping_says_nothing_of_it(machine: Any, check: Any) -> None:
    machine.hide("vmstat")

    assert check().preflight.swapped_in_pages is None


def test_little_memory_is_refused(check: Any) -> None:
    with pytest.raises(NotReadyError, match="low memory: 1953 MiB are free and 3815 MiB"):
        check(min_free_ram_bytes=4_000_000_000)


def test_a_hot_cpu_is_refused(check: Any, machine: Any) -> None:
    machine.set_celsius(71.25)

    with pytest.raises(NotReadyError, match=r"hot: the CPU is at 71\.\d °C .* 60\.0 °C"):
        check()


def test_a_hot_cpu_is_waited_for_until_it_has_cooled_down(check: Any, machine: Any) -> None:
    machine.set_celsius(71.0)
    machine.cooling_per_second = 1.0

    ready = check(wait_seconds=60.0)

    assert ready.preflight.temperature_celsius <= 60.0
    assert 8.0 < ready.preflight.waited_seconds < 16.0


def test_a_throttled_cpu_is_refused(check: Any, machine: Any) -> None:
    word = machine.sys / "devices/platform/soc/soc:firmware/get_throttled"
    machine.write(word, "50005")

    with pytest.raises(NotReadyError, match=r"throttled: .*undervoltage, throttled.* power supply"):
        check(measure_when_busy=True)


def test_every_reason_is_told_at_once(check: Any, machine: Any) -> None:
    machine.loads = {0: 1.0, 1: 1.0}
    machine.set_celsius(80.0)

    with pytest.raises(NotReadyError, match=r"busy: .*; low memory: .*; hot: "):
        check(min_free_ram_bytes=4_000_000_000)


def test_waiting_ends_after_its_time(check: Any, machine: Any) -> None:
    machine.loads = {0: 1.0, 1: 1.0}
    started = machine.now

    with pytest.raises(NotReadyError):
        check(wait_seconds=30.0)

    assert 30.0 <= machine.now - started < 36.0


def test_waiting_ends_with_the_time_of_the_job(machine: Any) -> None:
    machine.loads = {0: 1.0, 1: 1.0}
    surroundings = machine.surroundings()
    deadline = Deadline(surroundings, 5.0, Cancellation())

    with pytest.raises(JobTimeoutError, match="within 5 s"):
        become_ready(dataclasses.replace(STRICT, wait_seconds=300.0), 1, surroundings, deadline)


def test_waiting_ends_when_the_job_is_cancelled() -> None:
    surroundings, cancellation = Surroundings(), Cancellation()
    deadline = Deadline(surroundings, 600.0, cancellation)
    threading.Timer(0.2, cancellation.request).start()
    started = time.monotonic()

    with pytest.raises(JobCancelledError):
        become_ready(dataclasses.replace(STRICT, observe_seconds=60.0), 1, surroundings, deadline)

    assert time.monotonic() - started < 5


def test_a_kernel_that_counts_no_time_is_no_quiet_machine(check: Any, machine: Any) -> None:
    machine.loads = {}

    with pytest.raises(NotReadyError, match="outside of this container"):
        check(measure_when_busy=True, observe_seconds=0.0)


def test_without_proc_nobody_knows_who_disturbs(machine: Any, check: Any) -> None:
    machine.hide("stat")

    with pytest.raises(NotReadyError, match="does not tell how busy"):
        check()


def test_old_kernels_leave_the_sum_of_free_memory_to_the_reader(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemFree: 100 kB\nBuffers: 20 kB\nCached: 3 kB\n")

    assert free_ram_bytes(tmp_path) == 123 * 1024


@pytest.mark.parametrize("text", ["", "MemTotal: 100 kB\n"])
def test_memory_that_the_kernel_does_not_tell_is_no_memory(tmp_path: Path, text: str) -> None:
    (tmp_path / "meminfo").write_text(text)

    with pytest.raises(NotReadyError, match="how much memory"):
        free_ram_bytes(tmp_path)


def test_the_least_busy_cores_are_chosen(check: Any, machine: Any) -> None:
    machine.loads = {0: 0.0, 1: 0.6}

    ready = check(measure_when_busy=True)

    assert ready.cpus == (0,)


def test_only_allowed_cores_are_chosen(tmp_path: Path) -> None:
    assert choose_cpus(frozenset({2, 5}), {2: 0.9, 5: 0.8, 0: 0.0}, 1, tmp_path) == (5,)
    assert choose_cpus(frozenset({2, 5}), {}, 4, tmp_path) == (2, 5)


def test_among_equal_cores_the_last_ones_are_chosen(tmp_path: Path) -> None:
    loads = {0: 0.012, 1: 0.003, 2: 0.019, 3: 0.0}

    assert choose_cpus(frozenset(loads), loads, 2, tmp_path) == (2, 3)


def topology(sys: Path, cpu: int, *, core: int, capacity: int | None = None) -> None:
    folder = sys / f"devices/system/cpu/cpu{cpu}"
    (folder / "topology").mkdir(parents=True)
    (folder / "topology/core_id").write_text(f"{core}\n")
    (folder / "topology/physical_package_id").write_text("0\n")
    if capacity is not None:
        (folder / "cpu_capacity").write_text(f"{capacity}\n")


def test_two_threads_of_a_model_do_not_share_a_core_where_two_are_free(tmp_path: Path) -> None:
    for cpu in range(4):
        topology(tmp_path, cpu, core=cpu % 2)

    assert choose_cpus(frozenset(range(4)), {0: 0.3}, 2, tmp_path) == (2, 3)
    assert choose_cpus(frozenset(range(4)), {}, 3, tmp_path) == (1, 2, 3)


def test_fast_cores_come_before_slow_ones(tmp_path: Path) -> None:
    for cpu in range(6):
        topology(tmp_path, cpu, core=cpu, capacity=1024 if cpu >= 4 else 485)

    assert choose_cpus(frozenset(range(6)), {4: 0.2, 5: 0.2}, 1, tmp_path) == (5,)
    assert choose_cpus(frozenset(range(6)), {}, 3, tmp_path) == (3, 4, 5)


@given(
    allowed=st.frozensets(st.integers(0, 15), min_size=1),
    percents=st.lists(st.integers(0, 100), max_size=16),
    threads=st.integers(0, 20),
)
def test_as_many_cores_are_chosen_as_there_are_threads_and_never_none(
    allowed: Any, percents: Any, threads: Any
) -> None:
    loads = {cpu: percent / 100 for cpu, percent in enumerate(percents)}

    chosen = choose_cpus(allowed, loads, threads, Path("/nowhere"))

    assert set(chosen) <= allowed
    assert len(set(chosen)) == min(len(allowed), max(1, threads))
    assert list(chosen) == sorted(chosen)


def test_a_real_hog_on_this_machine_is_found_by_name() -> None:
    surroundings = Surroundings()
    deadline = Deadline(surroundings, 60.0, Cancellation())
    readiness = dataclasses.replace(
        STRICT, observe_seconds=0.5, max_foreign_cpu=0.0, min_free_ram_bytes=0
    )
    # Below a shell in the background the hog is nobody's child of this process.
    hog = f"{sys.executable} -c 'while True: pass' >/dev/null 2>&1 & echo $!"
    pid = int(subprocess.run(["sh", "-c", hog], capture_output=True, check=True).stdout)
    try:
        with pytest.raises(NotReadyError, match=rf"busy: .*\(process {pid}\)"):
            become_ready(readiness, 1, surroundings, deadline)
    finally:
        subprocess.run(["kill", str(pid)], check=True)
