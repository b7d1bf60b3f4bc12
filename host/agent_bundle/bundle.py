"""The archive itself: made of the same files, it has the same bytes."""

import gzip
import hashlib
import json
import tarfile
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

from host.agent_bundle.agent_wheel import build_agent_wheel
from host.agent_bundle.recipes import NO_RUNTIME, PIP, Recipe
from host.agent_bundle.wheels import Progress, Wheels
from protos.machines import Pin, machines

FORMAT = "genba-agent-bundle/1"
_OWN = "the installed genba"
_OLDEST_SECONDS = 315_532_800  # 1980-01-01, which every file system can note
_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class AgentBundle:
    """An archive that was written."""

    path: Path
    size_bytes: int
    sha256: str
    manifest: dict[str, Any]


@dataclass(frozen=True)
class _Wheel:
    path: Path
    pin: Pin
    origin: str

    @property
    def sha256(self) -> str:
        return _sha256(self.path)


def bundle_name(recipe: Recipe) -> str:
    """The name of the archive without its ending, and of the folder in it."""
    machine = recipe.machine
    runtimes = "-".join(recipe.runtimes) or NO_RUNTIME
    python = machine.python.replace(".", "")
    cpu = "" if machine.is_usual else f"-{machine.cpu}"
    return f"genba-agent-{version('genba')}-{machine.architecture}{cpu}-py{python}-{runtimes}"


def write_agent_bundle(
    recipe: Recipe, wheels: Wheels, output: Path, progress: Progress
) -> AgentBundle:
    """Write one .tar.gz with all that the agent needs on such a machine.

    At every moment `output` is absent, the old file or the whole new one. Raises what
    Wheels.fetch and build_agent_wheel raise, and OSError where the file cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="genba-agent-bundle-") as name:
        collected = _collect(recipe, wheels, Path(name), progress)
        manifest = _manifest(recipe, collected)
        contents: dict[str, bytes | Path] = {
            "MANIFEST.json": _json(manifest),
            "README.md": _filled("README.md", recipe),
            "install.sh": _filled("install.sh", recipe),
            "requirements.txt": _requirements(collected),
            **{f"wheels/{wheel.path.name}": wheel.path for wheel in collected},
        }
        contents["SHA256SUMS"] = _sums(contents)
        partial = output.with_name(f".{output.name}.part")
        try:
            _write(partial, bundle_name(recipe), contents)
            partial.replace(output)
        finally:
            partial.unlink(missing_ok=True)
    return AgentBundle(output, output.stat().st_size, _sha256(output), manifest)


def _collect(recipe: Recipe, wheels: Wheels, folder: Path, progress: Progress) -> list[_Wheel]:
    found = wheels.fetch([PIP, *recipe.pins], recipe.machine, folder, progress)
    own = _Wheel(build_agent_wheel(folder), Pin("genba", version("genba")), _OWN)
    others = [_Wheel(path, pin, wheels.origin) for pin, path in found.items()]
    return sorted([own, *others], key=lambda wheel: wheel.path.name)


def _manifest(recipe: Recipe, wheels: Iterable[_Wheel]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "genba": version("genba"),
        "architecture": recipe.machine.architecture,
        "cpu": recipe.machine.cpu,
        "python": recipe.machine.python,
        "runtimes": list(recipe.runtimes),
        "debian_packages": list(recipe.apt.values()),
        "wheels": [
            {
                "package": wheel.pin.name,
                "version": wheel.pin.version,
                "file": wheel.path.name,
                "size_bytes": wheel.path.stat().st_size,
                "sha256": wheel.sha256,
                "origin": wheel.origin,
            }
            for wheel in wheels
        ],
    }


def _requirements(wheels: Iterable[_Wheel]) -> bytes:
    """Every package with its hash, so that pip takes these very files."""
    lines = [f"{wheel.pin} --hash=sha256:{wheel.sha256}\n" for wheel in wheels if wheel.pin != PIP]
    return "".join(lines).encode()


def _filled(name: str, recipe: Recipe) -> bytes:
    """A text of this package with what this bundle is in place of @NAME@."""
    machine, packages = recipe.machine, " ".join(recipe.apt.values())
    runtimes = ", ".join(recipe.runtimes)
    level = machines().level(machine.architecture, machine.cpu)
    values = {
        "VERSION": version("genba"),
        "ARCH": machine.architecture,
        "CPU_EN": level.label.en,
        "CPU_JA": level.label.ja,
        "BITS": str(machine.bits),
        "PYTHON": machine.python,
        "APT": " ".join(f"{module}:{package}" for module, package in recipe.apt.items()),
        "PIP": f"{PIP.name}-{PIP.version}-py3-none-any.whl",
        "RUNTIMES": runtimes or "none, so it measures no model",
        "RUNTIMES_JA": runtimes or "なし(モデルの測定はできません)",
        "APT_EN": f"The device must have these packages of Debian: `sudo apt install openssl"
        f"{' ' * bool(packages)}{packages}`.",
        "MISSING_EN": "".join(f"\nNot {name}: {why.en}." for name, why in recipe.missing.items()),
        "MISSING_JA": "".join(
            f"\n{name} は使えません: {why.ja}。" for name, why in recipe.missing.items()
        ),
        "OLDER_CPU": _older_cpu(recipe),
        "APT_JA": f"次の Debian パッケージが装置に必要です: `sudo apt install openssl"
        f"{' ' * bool(packages)}{packages}`。",
    }
    text = (files("host.agent_bundle") / name).read_text(encoding="utf-8")
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text.encode()


def _older_cpu(recipe: Recipe) -> str:
    """The level below, for which another bundle may work; empty at the lowest."""
    machine = recipe.machine
    levels = [level.name for level in machines().levels(machine.architecture)]
    for name in levels[levels.index(machine.cpu) + 1 :]:
        if machines().row(machine.architecture, machine.python, name) is not None:
            return name
    return ""


def _sums(contents: dict[str, bytes | Path]) -> bytes:
    return "".join(f"{_sha256(data)}  {name}\n" for name, data in sorted(contents.items())).encode()


def _write(path: Path, folder: str, contents: dict[str, bytes | Path]) -> None:
    with (
        path.open("wb") as file,
        # Without a name and a date, which would differ from one run to the next.
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, data in sorted(contents.items()):
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.mtime = _OLDEST_SECONDS
            entry.mode = 0o755 if name.endswith(".sh") else 0o644
            if isinstance(data, Path):
                entry.size = data.stat().st_size
                with data.open("rb") as wheel:
                    archive.addfile(entry, wheel)
            else:
                entry.size = len(data)
                archive.addfile(entry, BytesIO(data))


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()


def _sha256(data: bytes | Path) -> str:
    if isinstance(data, bytes):
        return hashlib.sha256(data).hexdigest()
    with data.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
