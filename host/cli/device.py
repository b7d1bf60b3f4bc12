"""`genba device`: enrol, list, show, probe, calibrate, see drift, bind a meter, revoke, remove."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from host.cli.calibrate import calibrate
from host.cli.console import UNKNOWN, iso, local, print_json, table_console
from host.cli.drift import drift
from host.cli.meter import meter
from host.cli.probe import probe
from host.cli.workspace import JsonOption, WorkspaceOption, opened

if TYPE_CHECKING:
    from host.cli.fleet import DeviceStatus
    from host.device import Device, DeviceFacts
    from host.store import Store
    from host.store.audit import AuditEntry

device_app = typer.Typer(no_args_is_help=True)
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the device.")]
_REFUSALS_SINCE = timedelta(days=7)
_AUDIT_ENTRIES = 10


@device_app.command()
def enroll(
    name: NameArgument,
    *,
    expires: Annotated[
        float,
        typer.Option(
            metavar="MINUTES", min=0.1, max=525_600, help="How long the token can be used."
        ),
    ] = 60.0,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Print a one-time token with which a device enrols under NAME, for the first time or anew."""
    from host.pki import Token

    with opened(workspace) as (found, store):
        gateway = found.settings.gateway
        token = Token.make(gateway.address, gateway.enrolment_port, found.authority().fingerprint)
        expires_at = store.now() + timedelta(minutes=expires)
        store.devices.add_token(name, token.secret_sha256, expires_at)
        known = next((device for device in store.devices.all() if device.name == name), None)
    if as_json:
        values = {"name": name, "token": str(token), "expires_at": expires_at.isoformat()}
        print_json({**values, "enrols_again": known is not None})
        return
    print(f"Token for {name}, for one use until {local(expires_at)}:")
    print()
    print(token)
    print()
    print(f"On the device: genba-agent enroll --token {token}")
    if known is not None:
        print(_enrols_again(known))


def _enrols_again(device: "Device") -> str:
    if device.revoked_at is not None:
        return (
            f"{device.name} is revoked: using this token lets it connect again, with a new key; its"
            " measurements and its history stay its own."
        )
    return (
        f"{device.name} is enrolled already: using this token replaces its key, and the machine"
        " that has the old one is shut out; its measurements and its history stay its own."
    )


@device_app.command("list")
def list_devices(*, as_json: JsonOption = False, workspace: WorkspaceOption = None) -> None:
    """List the devices: seen when, doing what, what waits, versions, last probe, warnings."""
    from host.cli.fleet import fleet_table, refusal_lines, status_record, statuses

    with opened(workspace) as (_, store):
        now = store.now()
        found = statuses(store, store.devices.all())
        refusals = store.queue_view.audit(action="refuse", since=now - _REFUSALS_SINCE)
    if as_json:
        print_json([status_record(status) for status in found])
        return
    if found:
        table_console().print(fleet_table(found, now))
    else:
        print("No device is enrolled yet: make a token with `genba device enroll NAME`")
    for line in refusal_lines(refusals):
        print(line)


@device_app.command()
def show(
    name: NameArgument, *, as_json: JsonOption = False, workspace: WorkspaceOption = None
) -> None:
    """Show all that is known of a device, and what was done to it lately."""
    from host.cli.fleet import status_record, statuses

    with opened(workspace) as (_, store):
        device = store.devices.by_name(name)
        (status,) = statuses(store, [device])
        session = store.devices.session_of(device.id)
        entries = store.queue_view.audit(device=name, last=_AUDIT_ENTRIES)
        if not as_json:
            _print_device(store, status, session, entries)
            return
    from host.store.audit_file import entry_to_json

    print_json(
        {
            **status_record(status),
            "id": device.id,
            "enrolled_at": iso(device.enrolled_at),
            "key_sha256": device.spki_sha256,
            "session_id": session,
            "facts": None if device.facts is None else asdict(device.facts),
            "audit": [entry_to_json(entry) for entry in entries],
        }
    )


@device_app.command()
def revoke(
    name: NameArgument,
    *,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Why, for the audit log.", show_default=False)
    ] = "",
    workspace: WorkspaceOption = None,
) -> None:
    """Shut a device out at once, until it enrols again; its name and its history stay."""
    with opened(workspace) as (_, store):
        before = store.devices.by_name(name).revoked_at
        cancelled = store.devices.revoke(name, reason=reason)
    if before is not None:
        print(f"{name} was revoked already, on {local(before)}")
    else:
        jobs = "1 job of it is" if cancelled == 1 else f"{cancelled} jobs of it are"
        print(
            f"Revoked {name}: its key opens nothing any more, a connection is cut within about a"
            f" second, and {jobs} cancelled; its measurements and its history stay."
        )
    print(f"To let it come back, make a new token: genba device enroll {name}")


@device_app.command()
def remove(name: NameArgument, *, workspace: WorkspaceOption = None) -> None:
    """Take a device out of service and cancel its jobs; its name becomes free."""
    with opened(workspace) as (_, store):
        store.devices.remove(name)
    print(f"Removed {name}: it can no longer connect; what it measured is kept")


device_app.command()(probe)
device_app.command()(calibrate)
device_app.command()(drift)
device_app.command()(meter)


def _print_device(
    store: "Store", status: "DeviceStatus", session: str | None, entries: "list[AuditEntry]"
) -> None:
    from host.cli.fleet import work_words

    device, queue, verdict = status.device, status.queue, status.probe
    by_study = [f"{jobs} of {study or 'no study'}" for study, jobs in queue.waiting.items()]
    _print_lines(
        {
            "name": device.name,
            "state": status.state,
            "works on": None if queue.work is None else work_words(queue.work, store.now()),
            "job": None if queue.work is None else queue.work.job_id,
            "waiting jobs": f"{queue.waiting_jobs}, {queue.put_off} of them put off"
            if queue.put_off
            else queue.waiting_jobs,
            "by study": by_study if len(by_study) > 1 else None,
            "last seen": local(device.last_seen_at),
            "enrolled": local(device.enrolled_at),
            "revoked": local(device.revoked_at),
            "key SHA-256": device.spki_sha256,
            "id": device.id,
            "session": session,
            "agent": _agent(status),
            "last probe": "not probed"
            if verdict is None
            else f"{verdict.level} on {local(verdict.at)}",
        }
    )
    for reason in verdict.reasons if verdict is not None else ():
        print(f"  {reason}")
    if device.facts is not None:
        print()
        _print_facts(device.facts)
    if entries:
        from host.cli.audit import audit_table

        print()
        table_console().print(audit_table(entries))


def _agent(status: "DeviceStatus") -> str | None:
    if not status.agent_is_older:
        return status.device.agent_version
    return f"{status.device.agent_version}, older than this host: update it"


def _print_facts(facts: "DeviceFacts") -> None:
    plain = asdict(facts)
    for name in ("runtimes", "power_sources", "guards", "cpu_flags"):
        del plain[name]
    _print_lines({**plain, "cpu_flags": " ".join(facts.cpu_flags) or None})
    for runtime in facts.runtimes:
        state = "works" if runtime.works else f"does not work: {runtime.why_not}"
        print(f"runtime {runtime.name}: {runtime.library} {runtime.version} {state}".strip())
    for source in facts.power_sources:
        print(f"power {source.name}: {'works' if source.works else source.why_not}")
    for guard in facts.guards:
        stands = f"works, by {guard.how}" if guard.how else "works"
        print(f"guard {guard.name}: {stands if guard.works else f'MISSING: {guard.why_not}'}")


def _print_lines(values: Mapping[str, Any]) -> None:
    width = max(len(name) for name in values)
    for name, value in values.items():
        shown = ", ".join(value) if isinstance(value, list) else value
        print(f"{name:{width}}  {UNKNOWN if shown is None or shown == '' else shown}")
