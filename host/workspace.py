"""A folder that holds all of one fleet: settings, store, models and keys."""

import fcntl
import json
import os
import socket
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from host.errors import GenbaError, UsageError
from host.pki import CertificateAuthority
from host.store import Store, utc_now

SETTINGS_FILE = "genba.toml"
STORE_FILE = "genba.db"
BLOBS_FOLDER = "blobs"
PKI_FOLDER = "pki"
LOCK_FILE = "gateway.lock"
ENVIRONMENT_VARIABLE = "GENBA_WORKSPACE"
GATEWAY_PORT = 8443
ENROLMENT_PORT = 8444


class WorkspaceError(UsageError):
    """The folder is not a workspace that can be used, or cannot become one."""


class GatewayRunsError(GenbaError):
    """Only one gateway serves a workspace."""


def _address(value: str) -> str:
    if not value or any(c.isspace() or c in "/[]" for c in value):
        raise ValueError("must be a host name or an IP address, without port or brackets")
    if value.count(":") == 1:
        raise ValueError("must not contain a port: ports are keys of their own")
    return value


Address = Annotated[str, AfterValidator(_address)]
Port = Annotated[int, Field(ge=1, le=65535, strict=True)]


class GatewaySettings(BaseModel):
    """Where devices reach the host. `address` stands in every enrolment token."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: Address
    bind: Address = "0.0.0.0"  # noqa: S104 - devices dial in from the plant's network
    gateway_port: Port = GATEWAY_PORT
    enrolment_port: Port = ENROLMENT_PORT

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        if self.gateway_port == self.enrolment_port:
            raise ValueError("gateway_port and enrolment_port must differ")
        return self


class StoreSettings(BaseModel):
    """Where the store is, if it is not the SQLite file of the workspace."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str | None = None


class Settings(BaseModel):
    """The content of genba.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gateway: GatewaySettings
    store: StoreSettings = StoreSettings()


@dataclass(frozen=True)
class Workspace:
    """An opened workspace; opening reads the settings and nothing else."""

    root: Path
    settings: Settings

    @classmethod
    def create(cls, root: Path, gateway: GatewaySettings | None = None) -> Self:
        """Make a workspace in a folder, which may exist; nothing in it is overwritten.

        Raises WorkspaceError.
        """
        root = root.absolute()
        for name in (SETTINGS_FILE, STORE_FILE, BLOBS_FOLDER, PKI_FOLDER):
            if (root / name).exists():
                raise WorkspaceError(
                    f"{root} has a {name} already and nothing was changed: choose another folder"
                )
        settings = Settings(gateway=gateway or GatewaySettings(address=own_address()))
        workspace = cls(root, settings)
        try:
            root.mkdir(parents=True, exist_ok=True)
            (root / BLOBS_FOLDER).mkdir()
            (root / PKI_FOLDER).mkdir(mode=0o700)
            CertificateAuthority.make().save(root / PKI_FOLDER)
            workspace.open_store().close()
            # Last, because this file makes the folder a workspace.
            (root / SETTINGS_FILE).write_text(_toml(settings.gateway), encoding="utf-8")
        except OSError as error:
            raise WorkspaceError(f"no workspace can be made in {root}: {error}") from error
        return workspace

    @classmethod
    def open(cls, root: Path) -> Self:
        """The workspace in that folder. Raises WorkspaceError, naming the key that is wrong."""
        root = root.absolute()
        path = root / SETTINGS_FILE
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise WorkspaceError(
                f"{root} is not a workspace, because it has no {SETTINGS_FILE}: make one with"
                " `genba init DIR`"
            ) from error
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise WorkspaceError(f"{path} cannot be read: {error}") from error
        try:
            return cls(root, Settings.model_validate(values))
        except ValidationError as error:
            raise WorkspaceError(f"{path}: {first_complaint(error)}") from error

    @classmethod
    def find(
        cls,
        start: Path,
        named: Path | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> Self:
        """The workspace `named`, else GENBA_WORKSPACE, else the nearest one from `start` upwards.

        Raises WorkspaceError.
        """
        chosen = named or _from(environment)
        if chosen is not None:
            return cls.open(chosen)
        start = start.absolute()
        for folder in (start, *start.parents):
            if (folder / SETTINGS_FILE).is_file():
                return cls.open(folder)
        raise WorkspaceError(
            f"there is no workspace in {start} or above: go into one, name it with --workspace or"
            f" {ENVIRONMENT_VARIABLE}, or make one with `genba init DIR`"
        )

    @property
    def blobs_folder(self) -> Path:
        """Where files lie by their SHA-256."""
        return self.root / BLOBS_FOLDER

    @property
    def pki_folder(self) -> Path:
        """Where the keys lie."""
        return self.root / PKI_FOLDER

    @property
    def store_place(self) -> str | Path:
        """The URL of the store, or the path of its SQLite file."""
        return self.settings.store.url or self.root / STORE_FILE

    def open_store(self, now: Callable[[], datetime] = utc_now) -> Store:
        """The store of this workspace. Raises StoreError or StoreUrlError."""
        return Store.open(self.store_place, blobs_folder=self.blobs_folder, now=now)

    def authority(self) -> CertificateAuthority:
        """The certificate authority of this workspace. Raises PkiError."""
        return CertificateAuthority.load(self.pki_folder)

    @contextmanager
    def gateway_lock(self) -> Iterator[None]:
        """Be the gateway of this workspace. Raises GatewayRunsError where another process is."""
        handle = os.open(self.root / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if not _lock(handle):
                process = os.read(handle, 32).decode(errors="replace").strip()
                raise GatewayRunsError(
                    f"a gateway of {self.root} runs already, as process {process or 'unknown'}"
                )
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(handle)

    def gateway_runs(self) -> bool:
        """Whether some process is the gateway of this workspace now."""
        with suppress(FileNotFoundError), (self.root / LOCK_FILE).open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False


def _lock(handle: int) -> bool:
    # `gateway_runs` holds the lock for a moment to look: that is no gateway.
    for _ in range(3):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)
        else:
            return True
    return False


def own_address() -> str:
    """The address of this machine on the network that it would use to reach others."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Sends nothing; 192.0.2.0/24 is for documentation (RFC 5737).
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def _from(environment: Mapping[str, str]) -> Path | None:
    value = environment.get(ENVIRONMENT_VARIABLE)
    return Path(value) if value else None


def first_complaint(error: ValidationError) -> str:
    """What is wrong with settings, naming the key."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"the key {key} is unknown"
    if first["type"] == "missing":
        return f"the key {key} is missing"
    return f"the key {key} is wrong: {first['msg']}"


def _toml(gateway: GatewaySettings) -> str:
    # A JSON string without escapes of surrogates is a TOML basic string.
    def quoted(value: str) -> str:
        return json.dumps(value, ensure_ascii=False)

    return f"""\
# A genba workspace.

[gateway]
# How devices reach this machine: a host name or an IP address. It stands in every token.
address = {quoted(gateway.address)}
# Which of this machine's addresses listen; 0.0.0.0 is all of them.
bind = {quoted(gateway.bind)}
gateway_port = {gateway.gateway_port}
enrolment_port = {gateway.enrolment_port}

# The store is {STORE_FILE} in this folder unless a database is named here.
# [store]
# url = "postgresql+psycopg://user:password@server/genba"
"""
