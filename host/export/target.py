"""What a model is exported for: a library that runs models, in one version."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import get_args

from host.device import Device, RuntimeName
from host.errors import UsageError
from protos.machines import Machines, Row, machines

_RUNTIME_OF: Mapping[str, RuntimeName] = {
    "onnxruntime": "onnx",
    "tflite-runtime": "tflite",
    "ai-edge-litert": "tflite",
    "ncnn": "ncnn",
}
_LIBRARY = re.compile(r"([a-z][a-z-]*)(?:==(\d+(?:\.\d+)*))?")


class TargetError(UsageError):
    """A text names nothing that a model can be exported for."""


@dataclass(frozen=True)
class Target:
    """A library in a version, as `name` calls it. `lacks` are operators, by the names of its
    format, that it is known not to run.
    """

    name: str
    runtime: RuntimeName
    library: str
    version: str
    lacks: frozenset[str] = frozenset()

    @property
    def number(self) -> tuple[int, ...]:
        """The version for comparisons."""
        return version_number(self.version)


def version_number(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def targets_of_library(text: str) -> list[Target]:
    """The target in "onnxruntime==1.15.1"; none where the text names no library.

    Raises TargetError for a library without the version that decides what it loads.
    """
    found = _LIBRARY.fullmatch(text)
    if found is None or found[1] not in _RUNTIME_OF:
        return []
    library, version = found[1], found[2] or ""
    if not version and library != "ncnn":
        raise TargetError(f"{text}: say its version too, such as {library}=={_example(library)}")
    return [Target(f"{library} {version}".strip(), _RUNTIME_OF[library], library, version)]


def targets_of_machine(text: str, table: Machines | None = None) -> list[Target]:
    """What runs on a machine of the table that is written as "armv7l/3.11" or, with the level of
    its CPU, as "x86_64/3.12/no-sse4.1"; none where the text is no such thing.

    Raises TargetError for a machine that the table does not have, or on which nothing runs.
    """
    parts = text.split("/")
    if len(parts) not in {2, 3}:
        return []
    known = table or machines()
    row = _row(known, *parts)
    if row is None:
        rows = ", ".join(sorted({f"{each.architecture}/{each.python}" for each in known.rows}))
        raise TargetError(f"there is no machine {text}: choose from {rows}")
    found = list(_targets(text, row))
    if not found:
        raise TargetError(f"nothing that runs models is known for {text}")
    return found


def targets_of_device(device: Device) -> list[Target]:
    """What works on a device, as it says itself. Raises TargetError where nothing does."""
    if device.facts is None:
        raise TargetError(
            f"{device.name} has not said yet what it can run: start genba-agent there once"
        )
    found = [
        Target(f"{device.name} ({one.library} {one.version})", name, one.library, one.version)
        for name in get_args(RuntimeName)
        if (one := device.facts.runtime(name)) is not None
    ]
    if not found:
        raise TargetError(f"nothing on {device.name} runs models: see `genba device show`")
    return found


def _row(table: Machines, architecture: str, python: str, cpu: str | None = None) -> Row | None:
    if cpu is not None:
        return table.row(architecture, python, cpu)
    rows = (table.row(architecture, python, each.name) for each in table.levels(architecture))
    return next((row for row in rows if row is not None), None)


def _targets(text: str, row: Row) -> Iterator[Target]:
    for runtime in get_args(RuntimeName):
        source = row.runtimes[runtime]
        if source.pins:
            library, version = source.pins[0].name, source.pins[0].version
        elif source.debian is not None:
            library, version = source.debian.module, source.debian.version
        else:
            continue
        yield Target(f"{text} ({library} {version})", runtime, library, version)


def _example(library: str) -> str:
    return {"onnxruntime": "1.15.1", "tflite-runtime": "2.14.0"}.get(library, "2.1.0")
