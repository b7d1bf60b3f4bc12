"""`genba device meter`: which meter on the network measures a device."""

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from host.cli.console import note, print_json
from host.cli.workspace import JsonOption, WorkspaceOption, opened
from host.device import MeterBinding
from host.errors import UsageError

if TYPE_CHECKING:
    from host.meters import MeterFacts, Reading


class MeterCommandError(UsageError):
    """What was asked of a meter makes no sense."""


@dataclass(frozen=True)
class _Tested:
    """What a meter said when it was read once, and how long that took."""

    facts: "MeterFacts"
    reading: "Reading"
    seconds: float


def meter(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the device.")],
    url: Annotated[
        str | None,
        typer.Argument(
            metavar="URL",
            help="modbus://, shelly://, tasmota://, mqtt://, snmp:// or nut://, HOST and path.",
            show_default=False,
        ),
    ] = None,
    *,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Option of the meter; a KEY alone is asked for without showing it. Repeatable.",
            show_default=False,
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Show the device's meter.")] = False,
    test: Annotated[
        bool, typer.Option("--test", help="Read the meter once: URL, or the device's.")
    ] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Forget the device's meter.")] = False,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Bind a meter to a device, or show, test or remove the one that it has.

    The host reads it while the device measures energy; what it needs is installed by
    the extra `meters`.
    """
    _require_one_wish(url, settings, show=show, test=test, remove=remove)
    given = None if url is None else MeterBinding(url, _options(settings or ()))
    if given is not None and not test:
        _bind(name, given, workspace, as_json=as_json)
    elif remove:
        _remove(name, workspace)
    else:
        binding = _bound(name, workspace) if given is None else given
        tested = _read_once(binding) if test else None
        _print(name, binding, tested, as_json=as_json)


def _bind(name: str, binding: MeterBinding, workspace: Path | None, *, as_json: bool) -> None:
    """Keep a meter that can be opened, even if it does not answer now. Raises MeterUsageError."""
    from host.meters import MeterError

    with opened(workspace) as (_, store):
        device = store.devices.by_name(name)
        tested = None
        try:
            tested = _read_once(binding)
        except MeterError as error:
            note(f"it is bound, though it cannot be read now: {error}")
        store.meters.bind(device.id, binding)
    _print(name, binding, tested, as_json=as_json)


def _remove(name: str, workspace: Path | None) -> None:
    with opened(workspace) as (_, store):
        had_one = store.meters.unbind(store.devices.by_name(name).id)
    print(f"{name} has no meter any more" if had_one else f"{name} had no meter")


def _bound(name: str, workspace: Path | None) -> MeterBinding:
    with opened(workspace) as (_, store):
        binding = store.meters.of_device(store.devices.by_name(name).id)
    if binding is None:
        raise MeterCommandError(f"{name} has no meter: bind one with genba device meter {name} URL")
    return binding


def _read_once(binding: MeterBinding) -> _Tested:
    """Raises MeterError, MeterUsageError and MissingPackageError."""
    from host.meters import open_meter

    with closing(open_meter(binding)) as opened_meter:
        started = time.perf_counter()
        reading = opened_meter.read()
        return _Tested(opened_meter.facts, reading, time.perf_counter() - started)


def _require_one_wish(
    url: str | None, settings: Sequence[str] | None, *, show: bool, test: bool, remove: bool
) -> None:
    if show + test + remove > 1 or (url is not None and (show or remove)):
        raise MeterCommandError("--show, --test, --remove and a URL to bind: choose one of them")
    if settings and url is None:
        raise MeterCommandError("--set belongs to the URL of a meter: name that too")


def _options(settings: Sequence[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        key = key.strip()
        if not key or (not equals and not sys.stdin.isatty()):
            raise MeterCommandError(f"--set {setting}: write it as key=value, such as channel=0")
        if key in options:
            raise MeterCommandError(f"--set names {key!r} twice: once is enough")
        options[key] = value if equals else str(typer.prompt(key, hide_input=True))
    return options


def _print(name: str, binding: MeterBinding, tested: _Tested | None, *, as_json: bool) -> None:
    from host.meters import masked_options, meter_name

    options = masked_options(binding)
    if as_json:
        print_json(
            {
                "device": name,
                "meter": meter_name(binding),
                "url": binding.url,
                "options": options,
                "facts": None if tested is None else asdict(tested.facts),
                "reading": None if tested is None else _reading_record(tested),
            }
        )
        return
    print(f"{name} is measured by {meter_name(binding)}")
    rows = {"URL": binding.url} | {f"option {key}": value for key, value in options.items()}
    rows |= {} if tested is None else _reading_rows(tested)
    width = max(len(key) for key in rows)
    for key, value in rows.items():
        print(f"  {key:{width}}  {value}")


def _reading_rows(tested: _Tested) -> Mapping[str, str]:
    facts, reading = tested.facts, tested.reading
    rows = {}
    if reading.power_watts is not None:
        rows["power"] = f"{reading.power_watts:.2f} W"
    if reading.energy_joules is not None:
        kilowatt_hours = reading.energy_joules / 3.6e6
        rows["energy counter"] = f"{reading.energy_joules:.0f} J ({kilowatt_hours:.3f} kWh)"
    uses = "power" if facts.quantity == "watts" else "energy counter"
    step = "" if facts.resolution_watts is None else f", in steps of {facts.resolution_watts:g} W"
    return rows | {
        "uses": f"{uses}, every {facts.interval_seconds:g} s{step}",
        "measures": f"{facts.scope}, {facts.kind}, at most {facts.max_watts:g} W",
        "answered in": f"{tested.seconds * 1e3:.0f} ms",
    }


def _reading_record(tested: _Tested) -> dict[str, Any]:
    return {
        "power_watts": tested.reading.power_watts,
        "energy_joules": tested.reading.energy_joules,
        "answered_seconds": tested.seconds,
    }
