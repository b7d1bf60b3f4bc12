"""The offline bundle of a board, as `genba agent-bundle` makes it, and the wheels it is made of."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from protos.machines import RUNTIMES, machines
from tests.legacy.boards import Board
from tests.legacy.errors import LegacyError
from tests.legacy.roots import STORE

REPOSITORY = Path(__file__).resolve().parents[2]
_MAKE_SECONDS = 900.0
# What runs the agent's own tests: pure Python, and the same for all boards.
_TEST_TOOLS = (
    *("pytest==8.4.2", "pluggy==1.6.0", "iniconfig==2.1.0", "packaging==25.0", "pygments==2.19.2"),
    *("exceptiongroup==1.3.0", "tomli==2.2.1", "typing-extensions==4.15.0"),
    *("hypothesis==6.141.1", "sortedcontainers==2.4.0", "attrs==25.3.0"),
)


@dataclass(frozen=True)
class Bundle:
    """An archive, with what it needs of Debian, the runtimes in it, and why others are not."""

    archive: Path
    folder: str
    debian_packages: tuple[str, ...]
    runtimes: tuple[str, ...]
    missing: dict[str, str]


def make_bundle(board: Board, target: Path) -> Bundle:
    """Make the bundle for the board; wheels that were fetched once are fetched no more.

    Raises LegacyError.
    """
    wheels = STORE / "wheels" / f"{board.architecture}-{board.python}"
    wheels.mkdir(parents=True, exist_ok=True)
    archive = target / "bundle.tar.gz"
    told = _genba_bundle(board, archive, "--wheels", str(wheels))
    if told is None:
        told = _genba_bundle(board, archive)
        if told is None:
            raise LegacyError(f"no bundle can be made for {board.name}: see above")
        _keep_wheels(archive, wheels)
    manifest = told["manifest"]
    with tarfile.open(archive) as opened:
        folder = opened.getnames()[0].split("/")[0]
    return Bundle(
        archive,
        folder,
        tuple(manifest["debian_packages"]),
        tuple(manifest["runtimes"]),
        _missing(board),
    )


def test_tools() -> Path:
    """The folder with pytest, for every Python from 3.9 on. Raises LegacyError."""
    folder = STORE / "pytest"
    stamp, listed = folder / "listed.txt", "\n".join(_TEST_TOOLS)
    if stamp.exists() and stamp.read_text(encoding="ascii") == listed:
        return folder
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade"),
            *("--only-binary=:all:", "--implementation=py", "--abi=none", "--platform=any"),
            *("--python-version=3.9", "--target", str(folder), *_TEST_TOOLS),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=_MAKE_SECONDS,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise LegacyError(f"pytest for the boards cannot be fetched: {last}")
    stamp.write_text(listed, encoding="ascii")
    return folder


def _genba_bundle(
    board: Board, archive: Path, *more: str
) -> dict[str, dict[str, list[str]]] | None:
    """What the command says of the archive it made; None where it could not make it."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "host", "agent-bundle", "--arch", board.architecture),
            *("--python", board.python, "--cpu", board.cpu, "--output", str(archive), "--json"),
            *more,
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=_MAKE_SECONDS,
    )
    if done.returncode != 0:
        if not more:
            sys.stderr.write(done.stderr)
        return None
    told: dict[str, dict[str, list[str]]] = json.loads(done.stdout)
    return told


def _keep_wheels(archive: Path, wheels: Path) -> None:
    with tempfile.TemporaryDirectory(dir=STORE) as scratch, tarfile.open(archive) as opened:
        opened.extractall(scratch, filter="data")
        for wheel in Path(scratch).glob("*/wheels/*.whl"):
            # The agent's own is made of what stands here now.
            if not wheel.name.startswith("genba-"):
                wheel.replace(wheels / wheel.name)


def _missing(board: Board) -> dict[str, str]:
    """Why runtimes do not exist there, as the table of machines says it."""
    table = machines()
    level = next(
        (
            level.name
            for level in table.levels(board.architecture)
            if board.cpu.lower() in (level.name, *level.cores)
        ),
        "",
    )
    row = table.row(board.architecture, board.python, level)
    if row is None:
        raise LegacyError(f"protos/machines.json has no row for {board.name}")
    reasons = {name: row.runtimes[name].because for name in RUNTIMES if name in row.runtimes}
    return {name: because.en for name, because in reasons.items() if because is not None}
