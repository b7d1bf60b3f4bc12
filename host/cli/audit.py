"""`genba audit`: who did what, whether that record is whole, and a copy of it."""

import contextlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from host.cli.console import (
    local,
    note,
    plain_table,
    print_json,
    table_console,
)
from host.cli.workspace import JsonOption, WorkspaceOption, opened
from host.errors import GenbaError, UsageError
from host.peer import peer_address

if TYPE_CHECKING:
    from rich.table import Table

    from host.store.audit import Action, AuditCheck, AuditEntry

audit_app = typer.Typer(no_args_is_help=True)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LONG_ID = re.compile(r"[0-9a-f]{32,}")
_SHORT_ID = 12


class AuditBrokenError(GenbaError):
    """The audit log was changed, or is not all there."""


@audit_app.command()
def show(
    *,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Only what was done to this device, or what it did.",
            show_default=False,
        ),
    ] = None,
    action: Annotated[
        str | None,
        typer.Option(
            metavar="ACTION", help="Only this action, such as enrol or refuse.", show_default=False
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Only from this time on: a date such as 2026-11-24, or one with a time of day.",
            show_default=False,
        ),
    ] = None,
    last: Annotated[int, typer.Option(min=1, max=1_000_000, help="The newest so many.")] = 50,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Show the newest entries of the audit log, the newest last."""
    from host.store.audit_file import entry_to_json

    wanted = None if action is None else _action(action)
    start = None if since is None else _moment(since)
    with opened(workspace) as (_, store):
        # One more than is shown tells whether there are more.
        found = store.queue_view.audit(device=device, action=wanted, since=start, last=last + 1)
    entries = found[-last:]
    if as_json:
        print_json([entry_to_json(entry) for entry in entries])
    elif entries:
        table_console().print(audit_table(entries))
        if len(found) > last:
            print(f"Older entries are not shown: --last shows more than {last}")
    else:
        print("No entry of the audit log fits")


@audit_app.command()
def verify(
    *,
    expect: Annotated[
        str | None,
        typer.Option(
            metavar="HASH",
            help="A head that was noted before: it must still be in the chain.",
            show_default=False,
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Check a file of `genba audit export`, without a workspace.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Compute the chain of the audit log anew; ends with 1 where an entry does not fit.

    Note the head that it prints on paper or on another machine: --expect then shows later whether
    the end of the log was cut off.
    """
    expected = None if expect is None else _hash(expect)
    check = _check(workspace, expected) if file is None else _check_file(file, expected)
    if as_json:
        print_json(asdict(check))
    if check.problem is not None:
        raise AuditBrokenError(
            f"the audit log is not as it was written: {check.problem};"
            f" {_entries(check.entries)} fit together, with the head {check.head_sha256}"
        )
    if not as_json:
        print(f"The audit log is whole: {_entries(check.entries)}")
        print(f"Head: {check.head_sha256}")
        if expected is not None:
            print(f"The expected hash {expected[:_SHORT_ID]}… is in the chain")


@audit_app.command()
def export(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The file to write, or - for the output.")
    ],
    *,
    workspace: WorkspaceOption = None,
) -> None:
    """Write the whole audit log as JSON lines, to keep it on another machine."""
    from host.store.audit_file import entry_to_json

    with opened(workspace) as (_, store):
        lines = (json.dumps(entry_to_json(e), ensure_ascii=False) for e in store.audit.entries())
        if str(file) == "-":
            for line in lines:
                print(line)
            return
        count = 0
        with file.open("w", encoding="utf-8") as out:
            for line in lines:
                out.write(line + "\n")
                count += 1
    note(f"wrote {_entries(count)} to {file}; genba audit verify --file {file} checks them")


def audit_table(entries: "Iterable[AuditEntry]") -> "Table":
    """A row for each entry; hashes and ids are shortened."""
    from rich.text import Text

    table = plain_table()
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("time", no_wrap=True)
    table.add_column("who", overflow="fold")
    table.add_column("what", no_wrap=True)
    table.add_column("on", overflow="fold")
    table.add_column("details", overflow="fold")
    for entry in entries:
        details = (_detail(name, value) for name, value in entry.details.items() if value)
        table.add_row(
            str(entry.number),
            local(entry.at),
            Text(peer_address(entry.actor)),
            entry.action,
            Text(entry.subject),
            Text(", ".join(details)),
        )
    return table


def _check(workspace: Path | None, expected: str | None) -> "AuditCheck":
    from host.store.audit_file import not_in_chain

    with opened(workspace) as (_, store):
        check = store.audit.verify()
        if check.problem is not None or expected is None or store.queue_view.is_in_chain(expected):
            return check
    return replace(check, problem=not_in_chain(expected))


def _check_file(file: Path, expected: str | None) -> "AuditCheck":
    from host.store.audit_file import check_lines

    try:
        with file.open(encoding="utf-8") as lines:
            return check_lines(lines, expected)
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not text: give a file of `genba audit export`") from error


def _entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count} entries"


def _detail(name: str, value: str) -> str:
    if _LONG_ID.fullmatch(value):
        value = f"{value[:_SHORT_ID]}…"
    elif name == "peer":
        value = peer_address(value)
    elif name.endswith("_at"):
        with contextlib.suppress(ValueError):  # then it is shown as it is
            value = local(datetime.fromisoformat(value))
    return f"{name.replace('_', ' ')} {value}"


def _hash(text: str) -> str:
    found = text.strip().lower()
    if not _SHA256.fullmatch(found):
        raise UsageError(f"{text!r} is no head of an audit log: give all 64 hexadecimal digits")
    return found


def _action(text: str) -> "Action":
    from host.store.audit import Action

    if text not in get_args(Action):
        raise UsageError(f"there is no action {text!r}: use one of {', '.join(get_args(Action))}")
    return cast("Action", text)


def _moment(text: str) -> datetime:
    """That moment; without a time zone the one of this machine is meant."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{text!r} is no time: write it as 2026-11-24 or 2026-11-24T08:30"
        ) from error
