"""Who and what decides how fast the cores run a model."""

from __future__ import annotations

from collections.abc import Iterator

from device_agent.doctor.checkup import Check, Look, Patient, State, cgroup_folders, text_of
from device_agent.errors import NotReadyError
from device_agent.preflight import observe
from device_agent.processes import Cancellation
from device_agent.surroundings import Deadline

_OBSERVE_SECONDS = 1.0
_LONGEST_SECONDS = 60.0
# The limit at which the host's presets refuse a device.
_BUSY_SHARE = 0.05
# Reading these takes about a microsecond or moves in steps of milliseconds.
_SLOW_CLOCKSOURCES = ("hpet", "acpi_pm", "pit", "jiffies", "refined-jiffies")


def _load(patient: Patient) -> Iterator[Check]:
    deadline = Deadline(patient.around, _LONGEST_SECONDS, Cancellation())
    try:
        usage = observe(_OBSERVE_SECONDS, patient.around, deadline).usage
    except NotReadyError as error:
        yield Check("other programs", State.FAIL, str(error), "no measurement is taken")
        return
    found = f"they take {usage.foreign_cpu:.0%} of the CPU"
    if usage.foreign_cpu <= _BUSY_SHARE:
        yield Check("other programs", State.OK, found)
        return
    names = [f"{who.name} (process {who.pid})" for who in usage.consumers[:3]]
    yield Check(
        "other programs",
        State.WARN,
        f"{found}, most of it: {', '.join(names)}" if names else found,
        "a device that is busier than 5 % is not ready, or its figures are marked as contended",
        "stop them while you measure (systemctl stop SERVICE, or kill PROCESS)",
    )


def _governor(patient: Patient) -> Iterator[Check]:
    files = sorted(patient.cpu_folder.glob("cpu[0-9]*/cpufreq/scaling_governor"))
    governors = sorted({text_of(file) for file in files} - {""})
    if not governors:
        yield Check("governor", State.OK, "the kernel does not change the clock here")
        return
    if governors == ["performance"]:
        yield Check("governor", State.OK, "performance")
        return
    yield Check(
        "governor",
        State.WARN,
        ", ".join(governors),
        "the clock rises only after a while of load, so short models come out slower and scatter",
        "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
    )


def _turbo(patient: Patient) -> Iterator[Check]:
    switches = (("intel_pstate/no_turbo", "0", "1"), ("cpufreq/boost", "1", "0"))
    for path, on, off in switches:
        value = text_of(patient.cpu_folder / path)
        if value == "":
            continue
        if value != on:
            yield Check("turbo", State.OK, "off")
            return
        yield Check(
            "turbo",
            State.WARN,
            "on",
            "the clock depends on heat and on the other cores; leave it on only where the line runs"
            " with it",
            f"echo {off} | sudo tee /sys/devices/system/cpu/{path}",
        )
        return


def _cores(patient: Patient) -> Iterator[Check]:
    allowed = patient.around.allowed_cpus()
    isolated = text_of(patient.cpu_folder / "isolated")
    beside = f"; isolated and left alone: {isolated}" if isolated else ""
    found = f"{len(allowed)} of {patient.online_cpus} may be used{beside}"
    if len(allowed) >= patient.online_cpus or isolated:
        yield Check("cores", State.OK, found)
        return
    yield Check(
        "cores",
        State.WARN,
        found,
        "a cpuset or an affinity keeps the agent off the others",
        "sudo systemctl set-property genba-agent.service AllowedCPUs=, or start it without taskset",
    )


def _cgroup_quota(patient: Patient) -> Iterator[Check]:
    limits = [limit for limit in _quotas(patient) if limit is not None]
    if not limits:
        yield Check("cgroup cpu", State.OK, "no limit of CPU time")
        return
    yield Check(
        "cgroup cpu",
        State.WARN,
        f"at most {min(limits):.2g} cores' time",
        "the kernel stops the model in the middle of a run when the share is used up",
        "sudo systemctl set-property genba-agent.service CPUQuota= (or docker run without --cpus)",
    )


def _quotas(patient: Patient) -> Iterator[float | None]:
    for folder in cgroup_folders(patient, "cpu"):
        unified = text_of(folder / "cpu.max").split()
        yield _share(*unified) if len(unified) == 2 else None
        quota, period = text_of(folder / "cpu.cfs_quota_us"), text_of(folder / "cpu.cfs_period_us")
        yield _share(quota, period)


def _share(quota: str, period: str) -> float | None:
    """None where there is no limit: "max" of version 2, -1 of version 1."""
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None
    return int(quota) / int(period)


def _clocksource(patient: Patient) -> Iterator[Check]:
    folder = patient.around.roots.sys / "devices/system/clocksource/clocksource0"
    current = text_of(folder / "current_clocksource")
    if current not in _SLOW_CLOCKSOURCES:
        yield Check("clocksource", State.OK, current or "not told by the kernel")
        return
    better = [
        name
        for name in text_of(folder / "available_clocksource").split()
        if name not in _SLOW_CLOCKSOURCES
    ]
    yield Check(
        "clocksource",
        State.WARN,
        current,
        "reading the time takes so long that short models come out slower",
        f"echo {better[0]} | sudo tee /sys/devices/system/clocksource/clocksource0/"
        "current_clocksource"
        if better
        else "this kernel has no better one here: measure models of more than 1 ms",
    )


def _run_delay(patient: Patient) -> Iterator[Check]:
    words = text_of(patient.around.roots.proc / "self/schedstat").split()
    if len(words) == 3 and int(words[2]) > 0:
        yield Check("schedstat", State.OK, "the kernel counts how long a thread waited for a core")
        return
    yield Check(
        "schedstat",
        State.WARN,
        "switched off" if words else "not in this kernel",
        "samples that other programs disturbed cannot be told from clean ones",
        "sudo sysctl -w kernel.task_delayacct=1"
        if words
        else "boot a kernel built with CONFIG_SCHEDSTATS=y or CONFIG_TASK_DELAY_ACCT=y",
    )


LOOKS: tuple[Look, ...] = (
    _load,
    _governor,
    _turbo,
    _cores,
    _cgroup_quota,
    _clocksource,
    _run_delay,
)
