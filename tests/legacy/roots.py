"""Small Debian root filesystems for other CPUs, and the emulator that runs them.

All of it lies below one folder that git ignores. What is there already is used again; a root whose
list of packages has changed is built anew. Nothing is installed on this machine, and when the block
of `emulation` ends the kernel is as it was.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.legacy import entering
from tests.legacy.boards import Board
from tests.legacy.errors import LegacyError

HERE = Path(__file__).resolve().parent
STORE = HERE.parents[1] / ".legacy-roots"
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_PROGRAMS = ("mmdebstrap", "unshare", "mount", "chroot", "dpkg-deb", "apt-get")
# The qemu of Debian 12 itself (7.2) crashes in numpy 2 and onnxruntime where real CPUs do not.
_QEMU_SUITE = "bookworm-backports"
_EMULATORS = ("qemu-arm", "qemu-aarch64", "qemu-i386", "qemu-x86_64")
_BASE = (
    *("dash", "coreutils", "sed", "grep", "gzip", "tar", "findutils", "ca-certificates"),
    *("openssl", "python3", "libstdc++6", "libgcc-s1", "libatomic1", "libgomp1"),
)
_TRIPLETS = {
    "armhf": "arm-linux-gnueabihf",
    "arm64": "aarch64-linux-gnu",
    "i386": "i386-linux-gnu",
    "amd64": "x86_64-linux-gnu",
}
_DEVICES = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}  # minor numbers of major 1
# Class and machine of the programs that each emulator runs (ELF specification).
_ELF = {"qemu-arm": (1, 40), "qemu-aarch64": (2, 183), "qemu-i386": (1, 3), "qemu-x86_64": (2, 62)}
# Stands in padding that nothing reads, and tells an x86 program to emulate from all the others.
_MARK, _MARK_AT = b"EMULATE", 9
_MASK = bytes([0xFF] * 7 + [0] + [0xFF] * 8 + [0xFE, 0xFF, 0xFF, 0xFF])
_BUILD_SECONDS = 900.0
WRITABLE = ("/opt", "/tmp", "/root", "/var/lib", "/w")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def require_machine() -> None:
    """Raises LegacyError where these programs cannot run on this machine."""
    if os.geteuid() != 0:
        raise LegacyError("the legacy tests mount and chroot: run them as root")
    if os.uname().machine != "x86_64":
        raise LegacyError("the legacy tests emulate from an x86-64 machine, and this is none")
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    if not _KEYRING.exists():
        missing.append("debian-archive-keyring")
    if missing:
        raise LegacyError(
            f"the legacy tests need {', '.join(missing)}: apt-get install mmdebstrap"
            " debian-archive-keyring, on Debian or Ubuntu"
        )


@contextmanager
def emulation() -> Iterator[None]:
    """Have the kernel start programs of other CPUs for as long as the block lasts; one at a time.

    Raises LegacyError.
    """
    STORE.mkdir(exist_ok=True)
    with (STORE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LegacyError("the legacy tests run here already: wait for their end") from error
        for name in _EMULATORS:
            _register(name, _emulator(name))
        try:
            yield
        finally:
            for name in _EMULATORS:
                (_BINFMT / f"genba-{name}").write_text("-1", encoding="ascii")


@dataclass(frozen=True)
class Root:
    """A root filesystem on this disk."""

    path: Path


def debian_mirror() -> str:
    """The address that this machine's own apt takes Debian from. Raises LegacyError."""
    told = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for line in told.splitlines():
        address, _, codename = line.partition(" ")
        if codename in ("bullseye", "bookworm", "trixie"):
            return address
    raise LegacyError(
        "the apt sources of this machine name no Debian: set GENBA_LEGACY_MIRROR to a mirror"
    )


def _mirror() -> str:
    return os.environ.get("GENBA_LEGACY_MIRROR") or debian_mirror()


def prepared_root(board: Board, packages: Sequence[str]) -> Root:
    """The root for the board with these packages of Debian beside Python, built where it is not
    there. Raises LegacyError.
    """
    wanted = sorted({*_BASE, *packages})
    extras = "+".join(sorted(package.removeprefix("python3-") for package in packages))
    name = f"{board.suite}-{board.debian}{f'-{extras}' * bool(extras)}"
    path, stamp = STORE / "roots" / name, STORE / "roots" / f"{name}.packages"
    listed = "\n".join(wanted)
    if not stamp.exists() or stamp.read_text(encoding="ascii") != listed:
        _build(board, wanted, path)
        stamp.write_text(listed, encoding="ascii")
    return Root(path)


def _build(board: Board, packages: Sequence[str], path: Path) -> None:
    if path.exists():
        # Mounts live in namespaces of their own, so nothing of this machine is below it.
        shutil.rmtree(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    source = f"deb [signed-by={_KEYRING}] {_mirror()} {board.suite} main"
    # Unpacked only: maintainer scripts would run for minutes under emulation.
    _run(
        [
            *("mmdebstrap", "--mode=root", "--variant=extract"),
            *(f"--architectures={board.debian}", f"--include={','.join(packages)}"),
            *(board.suite, str(path), source),
        ],
        f"the root of {board.name} cannot be built",
    )
    _finish(path, _TRIPLETS[board.debian])


def _finish(root: Path, triplet: str) -> None:
    """What maintainer scripts would have done, as far as Python and a shell need it."""
    for name in ("bin", "sbin", "lib", "lib64"):
        if (root / "usr" / name).is_dir() and not (root / name).exists():
            (root / name).symlink_to(f"usr/{name}")
    for name, text in {
        "passwd": "root:x:0:0:root:/root:/bin/sh\n",
        "group": "root:x:0:\n",
        "hosts": "127.0.0.1 localhost\n",
    }.items():
        (root / "etc" / name).write_text(text, encoding="ascii")
    # update-alternatives would make these.
    for library in ("blas/libblas.so.3", "lapack/liblapack.so.3"):
        if (root / "usr/lib" / triplet / library).exists():
            link = root / "usr/lib" / triplet / Path(library).name
            link.unlink(missing_ok=True)
            link.symlink_to(library)
    if not (root / "bin/sh").exists():
        (root / "bin/sh").symlink_to("dash")
    for folder in ("dev/shm", "proc", "sys", *(name[1:] for name in WRITABLE)):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, minor in _DEVICES.items():
        if not (root / "dev" / name).exists():
            os.mknod(root / "dev" / name, stat.S_IFCHR | 0o666, os.makedev(1, minor))


def _emulator(name: str) -> Path:
    """The emulator's program, fetched where it is not there; nothing is installed."""
    folder = STORE / "qemu"
    if not (folder / name).exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=STORE) as scratch:
            _fetch_emulators(Path(scratch), folder)
    return folder / name


def _fetch_emulators(scratch: Path, folder: Path) -> None:
    for name in ("lists/partial", "cache/archives/partial", "packed", "unpacked"):
        (scratch / name).mkdir(parents=True)
    source = scratch / "sources.list"
    source.write_text(
        f"deb [arch=amd64 signed-by={_KEYRING}] {_mirror()} {_QEMU_SUITE} main\n", encoding="ascii"
    )
    apt = ["apt-get", "-q"]
    for option in (
        f"Dir::Etc::sourcelist={source}",
        "Dir::Etc::sourceparts=/dev/null",
        f"Dir::State::lists={scratch / 'lists'}",
        f"Dir::Cache={scratch / 'cache'}",
        "APT::Sandbox::User=root",
    ):
        apt += ["-o", option]
    _run([*apt, "update"], "the list of Debian's backports cannot be read")
    _run([*apt, "download", "qemu-user"], "qemu-user cannot be fetched", scratch / "packed")
    (package,) = (scratch / "packed").glob("qemu-user_*.deb")
    _run(["dpkg-deb", "--extract", str(package), str(scratch / "unpacked")], "it cannot be opened")
    for name in _EMULATORS:
        (scratch / "unpacked/usr/bin" / name).replace(folder / name)


def _register(name: str, qemu: Path) -> None:
    """Have the kernel start programs of that CPU by the emulator; x86 ones only with the mark."""
    if not (_BINFMT / "register").exists():
        _run(
            ["mount", "-t", "binfmt_misc", "none", str(_BINFMT)],
            "this kernel cannot start programs of other CPUs (binfmt_misc)",
        )
    entry = _BINFMT / f"genba-{name}"
    if entry.exists():  # of a run that was killed
        entry.write_text("-1", encoding="ascii")
    width, machine = _ELF[name]
    padding = _MARK if name in ("qemu-i386", "qemu-x86_64") else bytes(len(_MARK))
    magic = b"\x7fELF" + bytes([width, 1, 1, 0, 0, *padding, 2, 0, machine, 0])
    # F: the kernel opens the emulator now, so that no root needs a copy at that place.
    rule = f":genba-{name}:M::{_escaped(magic)}:{_escaped(_MASK)}:{qemu}:PF"
    (_BINFMT / "register").write_text(rule, encoding="ascii")


def _escaped(data: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in data)


def _run(command: Sequence[str], failure: str, folder: Path | None = None) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=_BUILD_SECONDS,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise LegacyError(f"{failure}: {last}")


@dataclass
class Machine:
    """A board as it is entered: its root, with folders of its own wherever it may write.

    The kernel starts its Python by the emulator, and all that this Python starts with it: a worker
    that an emulated x86 process starts would otherwise run on the CPU of this machine.
    """

    board: Board
    root: Root
    folder: Path
    native: bool = False
    binds: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for target in WRITABLE:
            own = self.folder / target.strip("/").replace("/", "-")
            own.mkdir(parents=True, exist_ok=True)
            self.binds[target] = str(own)
        if not self.native:
            self._emulate_python()

    def outside(self, path: str) -> Path:
        """Where a path of the board lies on this machine."""
        for target, source in self.binds.items():
            if path == target or path.startswith(f"{target}/"):
                return Path(f"{source}{path.removeprefix(target)}")
        return Path(f"{self.root.path}{path}")

    def command(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str] | None = None,
        *,
        network: bool = False,
    ) -> list[str]:
        """The command of this machine that runs `arguments` there."""
        settings = {
            "root": str(self.root.path),
            "binds": self.binds,
            "personality32": self.native and self.board.debian == "i386",
            "environment": {
                "PATH": PATH,
                "HOME": "/root",
                "LANG": "C.UTF-8",
                "TMPDIR": "/tmp",
                **({} if self.native else {"GENBA_EMULATED": "1", "QEMU_CPU": self.board.cpu}),
                **(environment or {}),
            },
            "command": list(arguments),
        }
        own_network = () if network else ("--net",)
        return [
            *("unshare", "--mount", "--propagation", "private", *own_network),
            *(sys.executable, str(entering.__file__), json.dumps(settings)),
        ]

    def run(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str] | None = None,
        *,
        network: bool = False,
        timeout_seconds: float = 600.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command there to its end; without a network unless asked for."""
        return subprocess.run(
            self.command(arguments, environment, network=network),
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=timeout_seconds,
        )

    def _emulate_python(self) -> None:
        if self.board.cpuinfo is None:
            return
        name = f"python{self.board.python}"
        marked = self.folder / name
        program = bytearray((self.root.path / "usr/bin" / name).read_bytes())
        program[_MARK_AT : _MARK_AT + len(_MARK)] = _MARK
        marked.write_bytes(program)
        marked.chmod(0o755)
        self.binds[f"/usr/bin/{name}"] = str(marked)
        self.binds["/proc/cpuinfo"] = str(self.board.cpuinfo)
