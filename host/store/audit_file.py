"""The audit log as a file of JSON lines, to be kept elsewhere and checked there."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from host.errors import UsageError
from host.store.audit import (
    GENESIS_SHA256,
    AuditCheck,
    AuditEntry,
    check_chain,
    details_to_json,
)
from host.store.tables import AuditRow


class AuditFileError(UsageError):
    """The file holds something else than entries of an audit log."""


def entry_to_json(entry: AuditEntry) -> dict[str, Any]:
    """The entry as plain JSON values."""
    return {
        "number": entry.number,
        "at": entry.at.isoformat(timespec="microseconds"),
        "actor": entry.actor,
        "action": entry.action,
        "subject": entry.subject,
        "details": dict(entry.details),
        "previous_sha256": entry.previous_sha256,
        "sha256": entry.sha256,
    }


def check_lines(lines: Iterable[str], expected_sha256: str | None = None) -> AuditCheck:
    """Compute the chain of a file anew; it stops at the first entry that does not fit.

    Where an expected hash is given, one of the entries must have it. Raises AuditFileError.
    """
    missing = expected_sha256 not in (None, GENESIS_SHA256)

    def watched() -> Iterator[AuditRow]:
        nonlocal missing
        for row in _rows(lines):
            missing = missing and row.sha256 != expected_sha256
            yield row

    check = check_chain(watched())
    if check.problem is None and missing:
        return replace(check, problem=not_in_chain(str(expected_sha256)))
    return check


def not_in_chain(expected_sha256: str) -> str:
    """What is wrong where a head that was noted before is no longer there."""
    return (
        f"no entry has the expected hash {expected_sha256}, so the end was cut off, or the hash is"
        " of another workspace"
    )


def _rows(lines: Iterable[str]) -> Iterator[AuditRow]:
    for number, line in enumerate(lines, start=1):
        try:
            yield _row(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise AuditFileError(
                f"line {number} is no entry of an audit log: give a file that"
                " `genba audit export` wrote"
            ) from error


def _row(values: Mapping[str, Any]) -> AuditRow:
    return AuditRow(
        number=values["number"],
        at=datetime.fromisoformat(values["at"]),
        actor=values["actor"],
        action=values["action"],
        subject=values["subject"],
        details_json=details_to_json(values["details"]),
        previous_sha256=values["previous_sha256"],
        sha256=values["sha256"],
    )
