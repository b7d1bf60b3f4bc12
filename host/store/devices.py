"""Who may connect: enrolled devices, and the tokens that enrol them."""

import re
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import ClassVar
from uuid import uuid4

from sqlalchemy import ColumnElement, Select, and_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from host.device import Device, DeviceFacts
from host.errors import UsageError
from host.peer import peer_address
from host.store.audit import Audit, AuditEntry
from host.store.database import ConflictError, Database, StoreError, retried
from host.store.leases import cancel_jobs_of, lose_leases
from host.store.records import device_from_row, facts_to_json
from host.store.tables import DeviceRow, LeaseRow, TokenRow

ONLINE_WITHIN = timedelta(seconds=30)
"""A device seen within this time is online."""
REFUSALS_NOTED_EVERY = timedelta(minutes=1)
"""The same refusal is noted again after this time: whoever has no token must not fill the log."""
NOBODY = "unknown"
"""The subject of refusals of a token that nobody made."""

_NAME = re.compile(r"\w[\w.-]{0,62}")


class DeviceNameError(UsageError):
    """The name cannot be a device's."""


class UnknownDeviceError(UsageError):
    """No device of that name is enrolled."""


class RevokedDeviceError(UnknownDeviceError):
    """The device may not connect until it enrols again."""


class EnrolmentRefusedError(StoreError):
    """Nothing was enrolled. `reason` says why in a word or two, `subject` under which name."""

    reason: ClassVar[str]

    def __init__(self, subject: str, message: str) -> None:
        super().__init__(message)
        self.subject = subject


class KeyInUseError(EnrolmentRefusedError):
    """The same key would belong to two devices."""

    reason = "key in use"

    def __init__(self, name: str, other: str) -> None:
        super().__init__(
            name, f"this key is enrolled as {other!r} already: remove that device first"
        )


class TokenError(EnrolmentRefusedError):
    """The token does not enrol anything."""


class UnknownTokenError(TokenError):
    """Nobody made this token here."""

    reason = "unknown token"

    def __init__(self) -> None:
        super().__init__(
            NOBODY,
            "this token is unknown here: make one with `genba device enroll NAME` in the workspace"
            " of this gateway",
        )


class UsedTokenError(TokenError):
    """A token enrols once."""

    reason = "used token"

    def __init__(self, name: str) -> None:
        super().__init__(
            name, f"this token was used already: make another with `genba device enroll {name}`"
        )


class ExpiredTokenError(TokenError):
    """A token lives only for a while."""

    reason = "expired token"

    def __init__(self, name: str) -> None:
        super().__init__(
            name, f"this token has expired: make another with `genba device enroll {name}`"
        )


class Devices:
    """The devices of a workspace."""

    def __init__(self, database: Database, now: Callable[[], datetime], audit: Audit) -> None:
        self._database = database
        self._now = now
        self._audit = audit
        self._noted: dict[tuple[str, ...], datetime] = {}  # refusals, by what is the same of them

    @retried
    def add_token(self, name: str, secret_sha256: str, expires_at: datetime) -> None:
        """Let whoever knows the secret enrol once under `name`.

        Raises DeviceNameError for a name that is not 1 to 63 letters, digits, `_`, `.` or `-`.
        """
        if not _NAME.fullmatch(name):
            raise DeviceNameError(
                f"{name!r} cannot be a device's name: use 1 to 63 letters, digits, '_', '.' or '-'"
                ", beginning with a letter or a digit"
            )
        with self._database.write() as session:
            session.add(
                TokenRow(
                    secret_sha256=secret_sha256,
                    device_name=name,
                    created_at=self._now(),
                    expires_at=expires_at,
                    used_at=None,
                )
            )
            session.flush()
            details = {"expires_at": expires_at.isoformat(), "token": _shown(secret_sha256)}
            self._audit.note_in(session, "token", name, details)

    def enrol(
        self, secret_sha256: str, spki_sha256: str, facts: DeviceFacts, *, peer: str = ""
    ) -> Device:
        """Use up the token and enrol its device under the key with that hash.

        A device that is enrolled already or was revoked keeps its id and history and gets the new
        key; one that was removed is a new device. A refusal is noted in the audit log as well,
        with the address `peer` of whoever asked. Raises TokenError, or KeyInUseError where another
        device has that key.
        """
        try:
            return self._enrol(secret_sha256, spki_sha256, facts, peer)
        except EnrolmentRefusedError as error:
            self._note_refusal(error, _shown(secret_sha256), peer)
            raise

    @retried
    def _enrol(self, secret_sha256: str, spki_sha256: str, facts: DeviceFacts, peer: str) -> Device:
        with self._database.write() as session:
            token = self._usable_token(session, secret_sha256)
            now = self._now()
            token.used_at = now
            name = token.device_name
            _refuse_key_of_another(session, spki_sha256, name)
            row = session.scalars(
                _present(DeviceRow.name == name).with_for_update(key_share=True)
            ).one_or_none()
            if row is None:
                row = DeviceRow(id=uuid4().hex, name=name)
                session.add(row)
            row.spki_sha256 = spki_sha256
            row.enrolled_at = now
            row.revoked_at = row.session_id = None
            row.facts = facts_to_json(facts)
            try:
                session.flush()
            except IntegrityError as error:  # somebody else enrolled that name or key just now
                raise ConflictError(f"{name} was enrolled twice at once: try again") from error
            device = device_from_row(row)
            details = {
                "device_id": device.id,
                "key_sha256": spki_sha256,
                "peer": peer,
                "token": _shown(secret_sha256),
            }
            self._audit.note_in(session, "enrol", name, details, actor=f"device {name}")
            return device

    def refusals(self, name: str) -> list[AuditEntry]:
        """The refused enrolments under that name, oldest first.

        `details` holds the "reason" ("used token", "expired token", "key in use"), the "peer", and
        the "token" as the first digits of its hash; NOBODY as the name gives those of tokens that
        nobody made ("unknown token").
        """
        return list(self._audit.entries(action="refuse", subject=name))

    def by_name(self, name: str) -> Device:
        """The device of that name. Raises UnknownDeviceError, naming those that there are."""
        with self._database.read() as session:
            row = session.scalars(_present(DeviceRow.name == name)).one_or_none()
            if row is None:
                raise self._unknown(session, name)
            return device_from_row(row)

    def by_id(self, device_id: str) -> Device | None:
        """The device with that id, removed or not."""
        with self._database.read() as session:
            row = session.get(DeviceRow, device_id)
            return None if row is None else device_from_row(row)

    def by_spki(self, spki_sha256: str) -> Device | None:
        """The device whose public key has that hash, if it may connect."""
        with self._database.read() as session:
            row = session.scalars(
                _present(DeviceRow.spki_sha256 == spki_sha256, DeviceRow.revoked_at.is_(None))
            ).one_or_none()
            return None if row is None else device_from_row(row)

    def all(self) -> list[Device]:
        """The devices that were not removed, by name; revoked ones are among them."""
        with self._database.read() as session:
            statement = _present().order_by(DeviceRow.name)
            return [device_from_row(row) for row in session.scalars(statement)]

    def removed(self) -> list[Device]:
        """The devices that were removed, by name; their measurements are kept."""
        with self._database.read() as session:
            statement = (
                select(DeviceRow).where(DeviceRow.removed_at.is_not(None)).order_by(DeviceRow.name)
            )
            return [device_from_row(row) for row in session.scalars(statement)]

    @retried
    def remove(self, name: str) -> None:
        """Shut the device out for good and cancel its jobs; what it measured is kept.

        Its name becomes free. Raises UnknownDeviceError.
        """
        with self._database.write() as session:
            row = self._locked(session, name)
            row.removed_at = self._now()
            self._shut_out(session, row, "removed", "")

    @retried
    def revoke(self, name: str, *, reason: str = "") -> int:
        """Forbid the key of the device to connect and cancel its jobs; returns how many.

        The device keeps its name and history and may enrol again, with a token that is made after
        this: those that were not used yet expire. Does nothing where it is revoked already. Raises
        UnknownDeviceError.
        """
        with self._database.write() as session:
            row = self._locked(session, name)
            if row.revoked_at is not None:
                return 0
            row.revoked_at = self._now()
            return self._shut_out(session, row, "revoked", reason)

    @retried
    def open_session(
        self, device_id: str, session_id: str, *, agent_version: str, facts: DeviceFacts
    ) -> int:
        """Note that the agent of a device has started or connected anew, and what it says.

        The leases that other sessions of the device hold end and their jobs are queued again;
        returns how many leases that were. Raises UnknownDeviceError where the device may not
        connect.
        """
        with self._database.write() as session:
            row = require_device(session, device_id, changes=True)
            now = self._now()
            row.last_seen_at, row.session_id = now, session_id
            row.agent_version, row.facts = agent_version, facts_to_json(facts)
            others = and_(LeaseRow.device_id == device_id, LeaseRow.session_id != session_id)
            return lose_leases(session, now, others, "the agent went away")

    def session_of(self, device_id: str) -> str | None:
        """The session that the device opened last; None where it has to open one first."""
        with self._database.read() as session:
            return session.scalar(select(DeviceRow.session_id).where(DeviceRow.id == device_id))

    @retried
    def seen(self, *device_ids: str) -> None:
        """Note that these devices are connected now."""
        these = DeviceRow.id.in_(device_ids)
        with self._database.write() as session:
            # Everybody locks devices in this order, so nobody waits in a circle.
            session.execute(
                select(DeviceRow.id)
                .where(these)
                .order_by(DeviceRow.id)
                .with_for_update(key_share=True)
            )
            session.execute(update(DeviceRow).where(these).values(last_seen_at=self._now()))

    def is_online(self, device: Device) -> bool:
        """Whether the device was seen within ONLINE_WITHIN, as `device` says."""
        if device.last_seen_at is None:
            return False
        return self._now() - device.last_seen_at < ONLINE_WITHIN

    def offline(self, device_ids: Iterable[str]) -> list[Device]:
        """Those of the devices that are not online, by name."""
        wanted = set(device_ids)
        return [d for d in self.all() if d.id in wanted and not self.is_online(d)]

    def _usable_token(self, session: Session, secret_sha256: str) -> TokenRow:
        token = session.get(TokenRow, secret_sha256, with_for_update=True)
        if token is None:
            raise UnknownTokenError
        if token.used_at is not None:
            raise UsedTokenError(token.device_name)
        if token.expires_at <= self._now():
            raise ExpiredTokenError(token.device_name)
        return token

    def _locked(self, session: Session, name: str) -> DeviceRow:
        row = session.scalars(
            _present(DeviceRow.name == name).with_for_update(key_share=True)
        ).one_or_none()
        if row is None:
            raise self._unknown(session, name)
        return row

    def _unknown(self, session: Session, name: str) -> UnknownDeviceError:
        statement = _present().with_only_columns(DeviceRow.name).order_by(DeviceRow.name)
        names = ", ".join(session.scalars(statement))
        known = f"enrolled are {names}" if names else "enrol it with `genba device enroll NAME`"
        return UnknownDeviceError(f"no device is named {name!r}: {known}")

    def _shut_out(self, session: Session, row: DeviceRow, how: str, reason: str) -> int:
        now = self._now()
        row.session_id = None
        session.execute(
            update(TokenRow)
            .where(
                TokenRow.device_name == row.name,
                TokenRow.used_at.is_(None),
                TokenRow.expires_at > now,
            )
            .values(expires_at=now)
        )
        jobs = cancel_jobs_of(session, now, row.id)
        session.flush()
        details = {"how": how, "key_sha256": row.spki_sha256, "cancelled_jobs": str(jobs)}
        self._audit.note_in(
            session, "revoke", row.name, details | ({"reason": reason} if reason else {})
        )
        return jobs

    def _note_refusal(self, refusal: EnrolmentRefusedError, token: str, peer: str) -> None:
        now = self._now()
        same: tuple[str, ...] = (refusal.reason,)
        if refusal.subject != NOBODY:  # tokens that nobody made can be made up without end
            # The port of a caller changes with every connection.
            same = (*same, refusal.subject, peer_address(peer), token)
        recent = {
            key: at for key, at in self._noted.items() if abs(now - at) < REFUSALS_NOTED_EVERY
        }
        self._noted = {same: now} | recent
        if same not in recent:
            details = {"reason": refusal.reason, "peer": peer, "token": token}
            self._audit.note("refuse", refusal.subject, details, actor=peer or NOBODY)


def require_device(session: Session, device_id: str, *, changes: bool = False) -> DeviceRow:
    """The row of a device that may connect, locked until the transaction ends: against being
    shut out meanwhile, or against every change where the caller makes one.

    Raises UnknownDeviceError for a removed or unknown device and RevokedDeviceError.
    """
    lock = {"key_share": True} if changes else {"read": True}
    row = session.get(DeviceRow, device_id, with_for_update=lock)
    if row is None:
        raise UnknownDeviceError(f"no device with the id {device_id} is enrolled")
    shut_out = why_shut_out(row)
    if shut_out is not None:
        raise shut_out
    return row


def why_shut_out(row: DeviceRow) -> UnknownDeviceError | None:
    """What to say to a removed or revoked device; None to one that may connect."""
    again = f"enrol it again with `genba device enroll {row.name}`"
    if row.removed_at is not None:
        return UnknownDeviceError(f"{row.name} was removed from this workspace: {again}")
    if row.revoked_at is not None:
        return RevokedDeviceError(f"{row.name} was revoked and may not connect: {again}")
    return None


def _present(*conditions: ColumnElement[bool]) -> Select[DeviceRow]:
    return select(DeviceRow).where(DeviceRow.removed_at.is_(None), *conditions)


def _shown(secret_sha256: str) -> str:
    """What tells tokens apart in the audit log; nobody can make the token from it."""
    return secret_sha256[:12]


def _refuse_key_of_another(session: Session, spki_sha256: str, name: str) -> None:
    other = session.scalars(
        _present(DeviceRow.spki_sha256 == spki_sha256, DeviceRow.name != name)
    ).one_or_none()
    if other is not None:
        raise KeyInUseError(name, other.name)
