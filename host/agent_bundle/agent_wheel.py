"""A wheel of the agent alone, made of the installed distribution without a build backend.

Format: packaging.python.org, "Binary distribution format" (PEP 427).
"""

import base64
import hashlib
import zipfile
from collections.abc import Iterator
from email import message_from_string
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from host.errors import GenbaError

_DISTRIBUTION = "genba"
_PACKAGES = ("device_agent", "protos")
_ENTRY_POINTS = "[console_scripts]\ngenba-agent = device_agent.__main__:main\n"
_WHEEL = (
    "Wheel-Version: 1.0\nGenerator: genba agent-bundle\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
)
_OLDEST = (1980, 1, 1, 0, 0, 0)  # the first date that a zip file can name
_MODE = 0o100644


class NotInstalledError(GenbaError):
    """genba runs from files that no installation describes."""


def build_agent_wheel(folder: Path) -> Path:
    """Write the wheel into the folder; the same installation makes the same bytes.

    Raises NotInstalledError where genba is not installed.
    """
    try:
        installed = distribution(_DISTRIBUTION)
    except PackageNotFoundError as error:
        raise NotInstalledError(
            "the agent's wheel is made of an installed genba: run `pip install '.[host]'` first"
        ) from error
    info = f"{_DISTRIBUTION}-{installed.version}.dist-info"
    contents = {
        **_modules(),
        f"{info}/METADATA": _metadata(installed),
        f"{info}/WHEEL": _WHEEL.encode(),
        f"{info}/entry_points.txt": _ENTRY_POINTS.encode(),
        f"{info}/licenses/LICENSE": (installed.read_text("licenses/LICENSE") or "").encode(),
    }
    contents[f"{info}/RECORD"] = _record(contents, f"{info}/RECORD")
    path = folder / f"{_DISTRIBUTION}-{installed.version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in contents.items():
            entry = zipfile.ZipInfo(name, _OLDEST)
            entry.external_attr = _MODE << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            wheel.writestr(entry, data)
    return path


def _modules() -> dict[str, bytes]:
    found = {}
    for package in _PACKAGES:
        for name, file in _files_below(files(package), package):
            found[name] = file.read_bytes()
    return dict(sorted(found.items()))


def _files_below(folder: Traversable, name: str) -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        path = f"{name}/{entry.name}"
        if entry.is_file():
            yield path, entry
        elif entry.name != "__pycache__":
            yield from _files_below(entry, path)


def _metadata(installed: Distribution) -> bytes:
    """Those of the installed distribution, less the extras: their packages are for the host, and
    what runs models comes with the bundle.
    """
    lines = []
    for name, value in message_from_string(installed.read_text("METADATA") or "").items():
        extra = name == "Provides-Extra" or (name == "Requires-Dist" and "extra ==" in value)
        # The description follows the header lines and stays behind.
        if not extra and name != "Description-Content-Type":
            lines.append(f"{name}: {value}\n")
    return "".join(lines).encode()


def _record(contents: dict[str, bytes], own_name: str) -> bytes:
    lines = []
    for name, data in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        lines.append(f"{name},sha256={digest},{len(data)}\n")
    return "".join([*lines, f"{own_name},,\n"]).encode()
