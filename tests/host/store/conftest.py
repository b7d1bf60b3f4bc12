"""Every test of the store runs on SQLite and on PostgreSQL."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from host.workspace import STORE_FILE, Workspace

if TYPE_CHECKING:
    from tests.host.postgresql import Server


@pytest.fixture(params=["sqlite", "postgresql"])
def dialect(request: pytest.FixtureRequest) -> str:
    """The database that the test runs on."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def postgresql_common(postgresql_server: "Server", postgresql_template: str) -> str:
    """The name of a database that the tests use one after the other."""
    name = "genba_common"
    postgresql_server.create(name, postgresql_template)
    return name


@pytest.fixture
def store_place(
    dialect: str, workspace: Workspace, request: pytest.FixtureRequest
) -> Iterator[str | Path]:
    """The workspace's SQLite file, or a PostgreSQL database without any row."""
    if dialect == "sqlite":
        yield workspace.root / STORE_FILE
        return
    server: Server = request.getfixturevalue("postgresql_server")
    name: str = request.getfixturevalue("postgresql_common")
    yield server.url(name)
    server.empty(name)


@pytest.fixture
def empty_place(
    dialect: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[str | Path]:
    """Where no store is yet: the path of a new SQLite file, or a PostgreSQL database."""
    if dialect == "sqlite":
        yield tmp_path / "new.db"
        return
    server: Server = request.getfixturevalue("postgresql_server")
    server.create("genba_new")
    yield server.url("genba_new")
    server.drop("genba_new")


@pytest.fixture
def mount_disk() -> Iterator[Callable[[Path, int], Path]]:
    """Makes small file systems, of so many bytes; skips where this user may not mount any."""
    mounted: list[Path] = []

    def mount(folder: Path, size_bytes: int) -> Path:
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "genba-test", str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)
