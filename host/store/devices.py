"""Who may connect: enrolled devices, and the tokens that enrol them."""

import re
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from uuid import uuid4

from sqlalchemy import ColumnElement, Select, select, update
from sqlalchemy.orm import Session

from host.device import Device, DeviceFacts
from host.errors import UsageError
from host.store.database import Database, StoreError
from host.store.records import device_from_row, facts_to_json
from host.store.tables import DeviceRow, JobRow, TokenRow

ONLINE_WITHIN = timedelta(seconds=30)
"""A device seen within this time is online."""

_NAME = re.compile(r"\w[\w.-]{0,62}")


class DeviceNameError(UsageError):
    """The name cannot be a device's."""


class UnknownDeviceError(UsageError):
    """No device of that name is enrolled."""


class KeyInUseError(StoreError):
    """The same key would belong to two devices."""


class TokenError(StoreError):
    """The token does not enrol anything."""


class UnknownTokenError(TokenError):
    """Nobody made this token here."""

    def __init__(self) -> None:
        super().__init__(
            "this token is unknown here: make one with `genba device enroll NAME` in the workspace"
            " of this gateway"
        )


class UsedTokenError(TokenError):
    """A token enrols once."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"this token was used already: make another with `genba device enroll {name}`"
        )


class ExpiredTokenError(TokenError):
    """A token lives only for a while."""

    def __init__(self, name: str) -> None:
        super().__init__(f"this token has expired: make another with `genba device enroll {name}`")


class Devices:
    """The devices of a workspace."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

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

    def enrol(self, secret_sha256: str, spki_sha256: str, facts: DeviceFacts) -> Device:
        """Use up the token and enrol its device under the key with that hash.

        A device that is enrolled already keeps its id and gets the new key; one that was removed
        is a new device. Raises TokenError, or KeyInUseError where another device has that key.
        """
        with self._database.write() as session:
            token = self._usable_token(session, secret_sha256)
            now = self._now()
            token.used_at = now
            _refuse_key_of_another(session, spki_sha256, token.device_name)
            row = session.scalars(_active(DeviceRow.name == token.device_name)).one_or_none()
            if row is None:
                row = DeviceRow(id=uuid4().hex, name=token.device_name)
                session.add(row)
            row.spki_sha256 = spki_sha256
            row.enrolled_at = now
            row.facts = facts_to_json(facts)
            session.flush()
            return device_from_row(row)

    def by_name(self, name: str) -> Device:
        """The device of that name. Raises UnknownDeviceError, naming those that there are."""
        with self._database.read() as session:
            row = session.scalars(_active(DeviceRow.name == name)).one_or_none()
            if row is not None:
                return device_from_row(row)
        names = ", ".join(device.name for device in self.all())
        known = f"enrolled are {names}" if names else "enrol it with `genba device enroll NAME`"
        raise UnknownDeviceError(f"no device is named {name!r}: {known}")

    def by_id(self, device_id: str) -> Device | None:
        """The device with that id, removed or not."""
        with self._database.read() as session:
            row = session.get(DeviceRow, device_id)
            return None if row is None else device_from_row(row)

    def by_spki(self, spki_sha256: str) -> Device | None:
        """The device whose public key has that hash, if it may connect."""
        with self._database.read() as session:
            row = session.scalars(_active(DeviceRow.spki_sha256 == spki_sha256)).one_or_none()
            return None if row is None else device_from_row(row)

    def all(self) -> list[Device]:
        """The devices that may connect, by name."""
        with self._database.read() as session:
            statement = _active().order_by(DeviceRow.name)
            return [device_from_row(row) for row in session.scalars(statement)]

    def removed(self) -> list[Device]:
        """The devices that may no longer connect, by name; their measurements are kept."""
        with self._database.read() as session:
            statement = (
                select(DeviceRow).where(DeviceRow.removed_at.is_not(None)).order_by(DeviceRow.name)
            )
            return [device_from_row(row) for row in session.scalars(statement)]

    def remove(self, name: str) -> None:
        """Shut the device out and cancel its jobs; what it measured is kept.

        Raises UnknownDeviceError.
        """
        device = self.by_name(name)
        with self._database.write() as session:
            now = self._now()
            session.execute(
                update(DeviceRow).where(DeviceRow.id == device.id).values(removed_at=now)
            )
            session.execute(
                update(JobRow)
                .where(JobRow.device_id == device.id, JobRow.state.in_(("queued", "leased")))
                .values(state="cancelled", finished_at=now)
            )

    def seen(
        self,
        *device_ids: str,
        agent_version: str | None = None,
        facts: DeviceFacts | None = None,
    ) -> None:
        """Note that these devices are connected now, and what their agent says of itself."""
        values: dict[str, object] = {"last_seen_at": self._now()}
        if agent_version is not None:
            values["agent_version"] = agent_version
        if facts is not None:
            values["facts"] = facts_to_json(facts)
        with self._database.write() as session:
            session.execute(update(DeviceRow).where(DeviceRow.id.in_(device_ids)).values(**values))

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


def require_device(session: Session, device_id: str) -> DeviceRow:
    """The row of an enrolled device. Raises UnknownDeviceError for a removed or unknown one."""
    row = session.get(DeviceRow, device_id)
    if row is None:
        raise UnknownDeviceError(f"no device with the id {device_id} is enrolled")
    if row.removed_at is not None:
        raise UnknownDeviceError(
            f"{row.name} was removed from this workspace: enrol it again with"
            f" `genba device enroll {row.name}`"
        )
    return row


def _active(*conditions: ColumnElement[bool]) -> Select[DeviceRow]:
    return select(DeviceRow).where(DeviceRow.removed_at.is_(None), *conditions)


def _refuse_key_of_another(session: Session, spki_sha256: str, name: str) -> None:
    other = session.scalars(
        _active(DeviceRow.spki_sha256 == spki_sha256, DeviceRow.name != name)
    ).one_or_none()
    if other is not None:
        raise KeyInUseError(
            f"this key is enrolled as {other.name!r} already: remove that device first"
        )
