"""How each device is doing, in one look at the store for all of them."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

from host.cli.console import UNKNOWN, iso, lasted, local, plain_table
from host.peer import peer_address

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from host.device import Device, Guard
    from host.measurement import MeasurementFailure, ProbeResult
    from host.store import Store
    from host.store.audit import AuditEntry
    from host.store.queue_view import DeviceQueue, Work

State = Literal["working", "idle", "offline", "never connected", "revoked"]
_STYLES: dict[State, str] = {
    "working": "green",
    "idle": "green",
    "offline": "red",
    "never connected": "default",
    "revoked": "bold red",
}
_STUDIES_SHOWN = 3
_REFUSALS_SHOWN = 5


@dataclass(frozen=True)
class ProbeVerdict:
    """What the last probe says of a device: WARN sets no baseline, FAILED has no figures.

    `codes` are the reasons in short.
    """

    at: datetime
    level: Literal["OK", "WARN", "FAILED"]
    codes: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class DeviceStatus:
    """A device, what it does, and what somebody should see to.

    `agent_is_older` is None where a version is not known.
    """

    device: "Device"
    state: State
    queue: "DeviceQueue"
    probe: ProbeVerdict | None
    agent_is_older: bool | None

    @property
    def runtimes(self) -> list[str]:
        """Those that work, with their versions."""
        facts = self.device.facts
        return [f"{r.library} {r.version}" for r in facts.runtimes if r.works] if facts else []

    @property
    def missing_guards(self) -> "list[Guard]":
        """The walls that do not stand around its workers."""
        facts = self.device.facts
        return [guard for guard in facts.guards if not guard.works] if facts else []


def statuses(store: "Store", devices: "Sequence[Device]") -> list[DeviceStatus]:
    """The status of each of the devices."""
    from host.store.queue_view import DeviceQueue

    queues, probes = store.queue_view.devices(), store.queue_view.last_probes()
    host_version = version("genba")
    found = []
    for device in devices:
        queue, probe = queues.get(device.id, DeviceQueue()), probes.get(device.id)
        found.append(
            DeviceStatus(
                device=device,
                state=_state(store, device, queue),
                queue=queue,
                probe=None if probe is None else probe_verdict(probe),
                agent_is_older=_is_older(device.agent_version, host_version),
            )
        )
    return found


def _state(store: "Store", device: "Device", queue: "DeviceQueue") -> State:
    if device.revoked_at is not None:
        return "revoked"
    if device.last_seen_at is None:
        return "never connected"
    if not store.devices.is_online(device):
        return "offline"
    return "idle" if queue.work is None else "working"


def probe_verdict(probe: "ProbeResult | MeasurementFailure") -> ProbeVerdict:
    """What a probe, or its failure, says of the device."""
    from host.measurement import MeasurementFailure, is_disturbed

    if isinstance(probe, MeasurementFailure):
        return ProbeVerdict(probe.failed_at, "FAILED", (probe.kind.upper(),), (probe.message,))
    reasons = list(probe.preflight.problems)
    throttled = probe.thermal.throttled or probe.preflight.throttled
    if throttled or probe.thermal.throttle_events:
        reasons.append(f"throttled: {', '.join(throttled) or 'counted while it was probed'}")
    # A runtime that an old CPU cannot run is no fault of the device.
    dead = [run for run in probe.references if not run.latency_seconds]
    absent = [f"{run.runtime}: {run.failed_because or 'no samples'}" for run in dead]
    if len(dead) == len(probe.references):
        return ProbeVerdict(probe.probed_at, "FAILED", ("NO_FIGURES",), (*reasons, *absent))
    codes = tuple(dict.fromkeys(reason.partition(":")[0].upper() for reason in reasons))
    level: Literal["OK", "WARN"] = "WARN" if is_disturbed(probe) else "OK"
    return ProbeVerdict(probe.probed_at, level, codes, (*reasons, *absent))


def _is_older(agent: str | None, host: str) -> bool | None:
    """Whether the agent's release is below the host's; a version that is no numbers is unknown."""
    if agent is None:
        return None
    try:
        ours, theirs = (tuple(int(part) for part in v.split(".")[:3]) for v in (host, agent))
    except ValueError:
        return None
    return theirs < ours


def status_record(status: DeviceStatus) -> dict[str, Any]:
    """The status for programs."""
    device, facts = status.device, status.device.facts
    work = status.queue.work
    return {
        "name": device.name,
        "state": status.state,
        "online": status.state in ("working", "idle"),
        "last_seen_at": iso(device.last_seen_at),
        "revoked_at": iso(device.revoked_at),
        "working_on": None if work is None else {**asdict(work), "since": iso(work.since)},
        "waiting_jobs": status.queue.waiting_jobs,
        "waiting_by_study": [
            {"study": study, "jobs": jobs} for study, jobs in status.queue.waiting.items()
        ],
        "put_off_jobs": status.queue.put_off,
        "agent_version": device.agent_version,
        "agent_is_older": status.agent_is_older,
        "runtimes": status.runtimes,
        "probe": _probe_record(status.probe),
        "emulated": facts.emulated if facts else None,
        "missing_guards": [guard.name for guard in status.missing_guards],
        "cpu_model": facts.cpu_model if facts else None,
        "ram_bytes": facts.ram_bytes if facts else None,
    }


def _probe_record(probe: ProbeVerdict | None) -> dict[str, Any] | None:
    if probe is None:
        return None
    return {"at": iso(probe.at), "level": probe.level, "reasons": list(probe.reasons)}


def fleet_table(found: Iterable[DeviceStatus], now: datetime) -> "Table":
    """A row for each device."""
    from rich.text import Text

    table = plain_table()
    table.add_column("device", overflow="fold")
    table.add_column("state", overflow="fold")
    table.add_column("seen", no_wrap=True)
    table.add_column("waiting", overflow="fold")
    table.add_column("agent", no_wrap=True)
    table.add_column("runtimes", no_wrap=True)
    table.add_column("last probe", no_wrap=True)
    for status in found:
        seen = status.device.last_seen_at
        # Text, because a device's own words must not be read as markup.
        table.add_row(
            Text(status.device.name),
            _state_text(status, now),
            UNKNOWN if seen is None else f"{lasted(seen, now)} ago",
            Text(_waiting(status.queue)),
            _agent_text(status),
            Text(_runtimes(status)),
            _probe_text(status.probe, now),
        )
    return table


def _state_text(status: DeviceStatus, now: datetime) -> "Text":
    from rich.text import Text

    text = Text(status.state, style=_STYLES[status.state])
    work = status.queue.work
    if work is not None and status.state in ("working", "offline"):
        text.append(f"\n{work_words(work, now)}", style="not bold default")
    if status.device.is_emulated:
        text.append("\nemulated", style="not bold yellow")
    if status.missing_guards:
        names = ", ".join(guard.name for guard in status.missing_guards)
        text.append(f"\nno guard: {names}", style="not bold yellow")
    return text


def work_words(work: "Work", now: datetime) -> str:
    """What a device works on, and how long already."""
    doing = "stopping " if work.stopping else ""
    what = f"{work.kind} {work.label}".strip()
    return f"{doing}{what}, {lasted(work.since, now)}"


def _waiting(queue: "DeviceQueue") -> str:
    lines = [str(queue.waiting_jobs)]
    if len(queue.waiting) > 1:
        most = list(queue.waiting.items())
        shown = most if len(most) <= _STUDIES_SHOWN else most[: _STUDIES_SHOWN - 1]
        lines += [f"{jobs} {study or 'no study'}" for study, jobs in shown]
        if len(most) > len(shown):
            rest = sum(jobs for _, jobs in most[len(shown) :])
            lines.append(f"{rest} of {len(most) - len(shown)} more")
    if queue.put_off:
        lines.append(f"{queue.put_off} put off")
    return "\n".join(lines)


def _runtimes(status: DeviceStatus) -> str:
    """Those that work, by the names that commands take."""
    facts = status.device.facts
    works = [f"{r.name} {r.version}" for r in facts.runtimes if r.works] if facts else []
    return "\n".join(works) or UNKNOWN


def _agent_text(status: DeviceStatus) -> "Text":
    from rich.text import Text

    text = Text(status.device.agent_version or UNKNOWN)
    if status.agent_is_older:
        text.append("\nupdate", style="yellow")
    return text


def _probe_text(probe: ProbeVerdict | None, now: datetime) -> "Text":
    from rich.text import Text

    if probe is None:
        return Text("not probed")
    style = {"OK": "green", "WARN": "yellow", "FAILED": "red"}[probe.level]
    text = Text(probe.level, style=style)
    text.append(f" {lasted(probe.at, now)} ago", style="default")
    text.append("".join(f"\n{code}" for code in probe.codes), style="default")
    return text


def refusal_lines(refusals: "Sequence[AuditEntry]") -> list[str]:
    """A sentence for each kind of refused enrolment, used tokens first and then the newest."""
    from host.store.devices import UsedTokenError

    newest: dict[tuple[str, str, str], AuditEntry] = {}
    times: dict[tuple[str, str, str], int] = {}
    for entry in reversed(refusals):
        peer = peer_address(entry.details.get("peer", ""))
        key = (entry.subject, entry.details.get("reason", ""), peer)
        newest.setdefault(key, entry)
        times[key] = times.get(key, 0) + 1
    ordered = sorted(newest.items(), key=lambda item: item[0][1] != UsedTokenError.reason)
    lines = [_refusal(entry, times[key]) for key, entry in ordered]
    more = len(lines) - _REFUSALS_SHOWN
    if more <= 0:
        return lines
    return [*lines[:_REFUSALS_SHOWN], f"and {more} more: genba audit show --action refuse"]


def _refusal(entry: "AuditEntry", times: int) -> str:
    from host.store.devices import UnknownTokenError, UsedTokenError

    reason, peer = entry.details.get("reason", ""), peer_address(entry.details.get("peer", ""))
    # The store notes a refusal that repeats only now and then, so there is no count to tell.
    when = f"on {local(entry.at)}{' and before' if times > 1 else ''}"
    if reason == UsedTokenError.reason:
        return (
            f"a used token for {entry.subject} was presented again from {peer} {when}: if that was"
            f" not you, somebody else has that token: genba device revoke {entry.subject}"
        )
    whose = "a device" if reason == UnknownTokenError.reason else entry.subject
    return f"enrolling {whose} from {peer} was refused {when}: {reason}"
