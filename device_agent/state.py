"""The agent's home folder: who this device is, and where its cache, outbox and spool lie."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from device_agent.errors import AlreadyRunningError, DamagedStateError, NotEnrolledError
from device_agent.files import write_atomically
from device_agent.scan_limits import ScanLimits
from device_agent.sensors.base import PowerSettings

DEFAULT_HOME = Path("~/.genba-agent")

_CONFIG = "config.json"
_IDENTITIES = "identity"


@dataclasses.dataclass(frozen=True)
class Identity:
    """What the host gave this device at enrolment, and the key that never left it."""

    device_id: str
    device_name: str
    host: str
    gateway_port: int
    key_pem: bytes = dataclasses.field(repr=False)
    certificate_pem: bytes = dataclasses.field(repr=False)
    ca_pem: bytes = dataclasses.field(repr=False)

    @property
    def address(self) -> str:
        """Where the service Fleet listens, as HOST:PORT."""
        return f"{self.host}:{self.gateway_port}"


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a person may set in config.json under "limits"; None stands for the default."""

    worker_address_space_bytes: int | None = None
    cache_bytes: int | None = None


class Home:
    """The folder of one agent, readable by its user alone."""

    def __init__(self, path: Path = DEFAULT_HOME) -> None:
        # Workers run in another folder, so a relative path would mean another place to them.
        self.path = path.expanduser().absolute()

    @property
    def cache(self) -> Path:
        return self.path / "cache"

    @property
    def outbox(self) -> Path:
        return self.path / "outbox.sqlite"

    @property
    def identities(self) -> Path:
        """Where the device's key lies: no worker may see it."""
        return self.path / _IDENTITIES

    @property
    def spool(self) -> Path:
        """Where workers write, and where outputs wait for the host."""
        return self.path / "spool"

    def create(self) -> None:
        """Make the folder if it is not there. Raises DamagedStateError where that fails."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.chmod(0o700)
        except OSError as error:
            raise DamagedStateError(str(self.path), error.strerror or str(error)) from error

    @contextlib.contextmanager
    def exclusively(self) -> Iterator[None]:
        """Hold the folder for one running agent; the kernel lets go when the process ends.

        Raises AlreadyRunningError where another process holds it, and DamagedStateError where the
        folder cannot be written.
        """
        self.create()
        lock = self.path / "agent.lock"
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(lock.open("a", encoding="ascii"))
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise AlreadyRunningError(str(self.path)) from error
            except OSError as error:
                raise DamagedStateError(str(lock), error.strerror or str(error)) from error
            yield

    def is_enrolled(self) -> bool:
        return "identity" in self._config()

    def identity(self) -> Identity:
        """Raises NotEnrolledError, or DamagedStateError where the files contradict themselves."""
        entry = self._config().get("identity")
        if entry is None:
            raise NotEnrolledError(str(self.path))
        try:
            folder = self.identities / Path(str(entry["folder"])).name
            return Identity(
                device_id=str(entry["device_id"]),
                device_name=str(entry["device_name"]),
                host=str(entry["host"]),
                gateway_port=int(entry["gateway_port"]),
                key_pem=(folder / "key.pem").read_bytes(),
                certificate_pem=(folder / "certificate.pem").read_bytes(),
                ca_pem=(folder / "ca.pem").read_bytes(),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedStateError(str(self._config_path), f"identity: {error!r}") from error
        except OSError as error:
            raise DamagedStateError(str(error.filename), error.strerror or str(error)) from error

    def limits(self) -> Limits:
        """Raises DamagedStateError for a limit that is unknown or no positive whole number."""
        entry = self._config().get("limits", {})
        known = {field.name for field in dataclasses.fields(Limits)}
        if not isinstance(entry, dict) or set(entry) - known:
            problem = f"limits may hold {', '.join(sorted(known))} and nothing else"
            raise DamagedStateError(str(self._config_path), problem)
        for name, value in entry.items():
            if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
                problem = f"limits.{name} must be a positive whole number"
                raise DamagedStateError(str(self._config_path), problem)
        return Limits(**entry)

    def scan_limits(self) -> ScanLimits:
        """What config.json says under "models" about the models that this device takes.

        Raises DamagedStateError for what makes no sense.
        """
        entry = self._config().get("models", {})
        known = {field.name: field.default for field in dataclasses.fields(ScanLimits)}
        if not isinstance(entry, dict) or set(entry) - known.keys():
            problem = f"models may hold {', '.join(sorted(known))} and nothing else"
            raise DamagedStateError(str(self._config_path), problem)
        for name, value in entry.items():
            wanted = _wrong_limit(known[name], value)
            if wanted:
                problem = f"models.{name} must be {wanted}"
                raise DamagedStateError(str(self._config_path), problem)
        if "domains" in entry:
            entry = {**entry, "domains": tuple(entry["domains"])}
        return ScanLimits(**entry)

    def power_settings(self) -> PowerSettings:
        """What config.json says under "power" about sensors that a person soldered in.

        Raises DamagedStateError for what makes no sense.
        """
        entry = self._config().get("power", {})
        known = {field.name for field in dataclasses.fields(PowerSettings)}
        if not isinstance(entry, dict) or set(entry) - known:
            problem = f"power may hold {', '.join(sorted(known))} and nothing else"
            raise DamagedStateError(str(self._config_path), problem)
        try:
            return PowerSettings(
                shunt_ohm=_positive_numbers(entry.get("shunt_ohm", {})),
                channels={
                    chip: _names(labels) for chip, labels in entry.get("channels", {}).items()
                },
                board_supply=_names(entry.get("board_supply", [])),
            )
        except (AttributeError, TypeError, ValueError) as error:
            problem = (
                "power must read like"
                ' {"shunt_ohm": {"ina219": 0.1}, "channels": {"ina3221": ["VDD_IN"]},'
                ' "board_supply": ["ina219"]}'
            )
            raise DamagedStateError(str(self._config_path), problem) from error

    def save_identity(self, identity: Identity) -> None:
        """Replace the identity; at every moment either the old or the new one is whole.

        Raises DamagedStateError where the files cannot be written.
        """
        # Here and not above, so that whoever only reads an identity loads no OpenSSL.
        import hashlib

        config = self._config()
        name = hashlib.sha256(identity.certificate_pem).hexdigest()[:16]
        folder = self.identities / name
        config["identity"] = {
            "folder": name,
            "device_id": identity.device_id,
            "device_name": identity.device_name,
            "host": identity.host,
            "gateway_port": identity.gateway_port,
        }
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(folder / "key.pem", identity.key_pem, mode=0o600)
            write_atomically(folder / "certificate.pem", identity.certificate_pem, mode=0o644)
            write_atomically(folder / "ca.pem", identity.ca_pem, mode=0o644)
            text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
            # This rename is the moment at which the new identity counts.
            write_atomically(self._config_path, text.encode(), mode=0o600)
            self._forget_identities_except(folder)
        except OSError as error:
            raise DamagedStateError(str(self.path), error.strerror or str(error)) from error

    def _forget_identities_except(self, kept: Path) -> None:
        for folder in kept.parent.iterdir():
            if folder != kept:
                for file in folder.iterdir():
                    file.unlink()
                folder.rmdir()

    @property
    def _config_path(self) -> Path:
        return self.path / _CONFIG

    def _config(self) -> dict[str, Any]:
        try:
            config = json.loads(self._config_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except OSError as error:
            problem = error.strerror or str(error)
            raise DamagedStateError(str(self._config_path), problem) from error
        except ValueError as error:
            raise DamagedStateError(str(self._config_path), f"not JSON: {error}") from error
        if not isinstance(config, dict):
            raise DamagedStateError(str(self._config_path), "not a JSON object")
        return config


def _wrong_limit(default: Any, value: Any) -> str:
    """What a limit with this default must be, empty where the value is that."""
    if isinstance(default, bool):
        return "" if isinstance(value, bool) else "true or false"
    if isinstance(default, tuple):
        fits = isinstance(value, list) and all(isinstance(name, str) for name in value)
        return "" if fits else 'a list of domains like ["", "ai.onnx", "com.microsoft"]'
    fits = isinstance(value, int) and not isinstance(value, bool) and value > 0
    return "" if fits else "a positive whole number"


def _positive_numbers(entry: Any) -> dict[str, float]:
    """Raises TypeError or ValueError for anything else."""
    numbers = {}
    for name, value in entry.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(name)
        # "Not above 0" also holds for what JSON calls NaN.
        if not 0.0 < value < float("inf"):
            raise ValueError(name)
        numbers[str(name)] = float(value)
    return numbers


def _names(entry: Any) -> tuple[str, ...]:
    """Raises TypeError for anything but a list of texts."""
    if not isinstance(entry, list) or not all(isinstance(name, str) for name in entry):
        raise TypeError(entry)
    return tuple(entry)
