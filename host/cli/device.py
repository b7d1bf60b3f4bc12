"""`genba device`: enrol, list, show, probe, bind a meter, and remove."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from host.cli.console import print_json, table_console
from host.cli.meter import meter
from host.cli.probe import probe
from host.cli.workspace import JsonOption, WorkspaceOption, opened

if TYPE_CHECKING:
    from host.device import Device, DeviceFacts
    from host.store import Store

device_app = typer.Typer(no_args_is_help=True)
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the device.")]
UNKNOWN = "–"


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
    """Print a one-time token with which a device enrols under NAME."""
    from host.pki import Token

    with opened(workspace) as (found, store):
        gateway = found.settings.gateway
        token = Token.make(gateway.address, gateway.enrolment_port, found.authority().fingerprint)
        expires_at = store.now() + timedelta(minutes=expires)
        store.devices.add_token(name, token.secret_sha256, expires_at)
        known = any(device.name == name for device in store.devices.all())
    if as_json:
        print_json({"name": name, "token": str(token), "expires_at": expires_at.isoformat()})
        return
    print(f"Token for {name}, for one use until {_local(expires_at)}:")
    print()
    print(token)
    print()
    print(f"On the device: genba-agent enroll --token {token}")
    if known:
        print(f"{name} is enrolled already: using this token replaces its key.")


@device_app.command("list")
def list_devices(*, as_json: JsonOption = False, workspace: WorkspaceOption = None) -> None:
    """List the devices, whether they are online, and what waits for them."""
    with opened(workspace) as (_, store):
        summaries = [_summary(store, device) for device in store.devices.all()]
    if as_json:
        print_json(summaries)
    elif summaries:
        _print_table(summaries)
    else:
        print("No device is enrolled yet: make a token with `genba device enroll NAME`")


@device_app.command()
def show(
    name: NameArgument, *, as_json: JsonOption = False, workspace: WorkspaceOption = None
) -> None:
    """Show all that is known of a device."""
    with opened(workspace) as (_, store):
        device = store.devices.by_name(name)
        summary = _summary(store, device)
    facts = None if device.facts is None else asdict(device.facts)
    values = {
        **summary,
        "id": device.id,
        "enrolled_at": device.enrolled_at.isoformat(),
        "agent_version": device.agent_version,
        "key_sha256": device.spki_sha256,
    }
    if as_json:
        print_json({**values, "facts": facts})
        return
    _print_lines({**values, "last_seen_at": _local_or_unknown(device.last_seen_at)})
    if device.facts is not None:
        print()
        _print_facts(device.facts)


@device_app.command()
def remove(name: NameArgument, *, workspace: WorkspaceOption = None) -> None:
    """Shut a device out and cancel its jobs; its measurements are kept."""
    with opened(workspace) as (_, store):
        store.devices.remove(name)
    print(f"Removed {name}: it can no longer connect; what it measured is kept")


device_app.command()(probe)
device_app.command()(meter)


def _summary(store: "Store", device: "Device") -> dict[str, Any]:
    facts = device.facts
    runtimes = [f"{r.library} {r.version}" for r in facts.runtimes if r.works] if facts else []
    return {
        "name": device.name,
        "state": "online" if store.devices.is_online(device) else "offline",
        "last_seen_at": device.last_seen_at.isoformat() if device.last_seen_at else None,
        "runtimes": runtimes,
        "cpu_model": facts.cpu_model if facts else None,
        "ram_bytes": facts.ram_bytes if facts else None,
        "waiting_jobs": store.jobs.waiting(device.id),
    }


def _print_table(summaries: list[dict[str, Any]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("Name", "State", "Last seen", "Runtime", "CPU", "RAM", "Waiting jobs")
    for summary in summaries:
        seen = summary["last_seen_at"]
        cells = (
            summary["name"],
            summary["state"],
            _local_or_unknown(datetime.fromisoformat(seen) if seen else None),
            ", ".join(summary["runtimes"]) or UNKNOWN,
            summary["cpu_model"] or UNKNOWN,
            f"{summary['ram_bytes'] / 1e9:.1f} GB" if summary["ram_bytes"] else UNKNOWN,
            str(summary["waiting_jobs"]),
        )
        # Text, because a device's own words must not be read as markup.
        table.add_row(*(Text(cell) for cell in cells))
    table_console().print(table)


def _print_facts(facts: "DeviceFacts") -> None:
    plain = asdict(facts)
    for name in ("runtimes", "power_sources", "cpu_flags"):
        del plain[name]
    _print_lines({**plain, "cpu_flags": " ".join(facts.cpu_flags) or None})
    for runtime in facts.runtimes:
        state = "works" if runtime.works else f"does not work: {runtime.why_not}"
        print(f"runtime {runtime.name}: {runtime.library} {runtime.version} {state}".strip())
    for source in facts.power_sources:
        print(f"power {source.name}: {'works' if source.works else source.why_not}")


def _print_lines(values: Mapping[str, Any]) -> None:
    width = max(len(name) for name in values)
    for name, value in values.items():
        shown = ", ".join(value) if isinstance(value, list) else value
        print(f"{name:{width}}  {UNKNOWN if shown is None or shown == '' else shown}")


def _local(moment: datetime) -> str:
    return moment.astimezone(UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _local_or_unknown(moment: datetime | None) -> str:
    return UNKNOWN if moment is None else _local(moment)
