"""Which library runs TFLite files here, found without importing any."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class TfliteLibrary:
    """A package as installers name it, and its module with the interpreter."""

    name: str
    package: str

    @property
    def module(self) -> str:
        """The module to import."""
        return f"{self.package}.interpreter"


AI_EDGE_LITERT = TfliteLibrary("ai-edge-litert", "ai_edge_litert")
TFLITE_RUNTIME = TfliteLibrary("tflite-runtime", "tflite_runtime")


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def choose_library(
    is_installed: Callable[[str], bool] = _is_installed, cpuinfo: Path = CPUINFO
) -> TfliteLibrary | None:
    """The installed library that runs faster here, or None where none is installed.

    ai-edge-litert 2.3 runs int8 models up to ten times as fast as tflite-runtime 2.14, which ended
    there; but all of its versions need SSE4.1 on an x86 CPU and die by SIGILL on an older one.
    """
    wanted = [AI_EDGE_LITERT, TFLITE_RUNTIME]
    if _lacks_sse4_1(cpuinfo):
        wanted.reverse()
    return next((library for library in wanted if is_installed(library.package)), None)


def _lacks_sse4_1(cpuinfo: Path) -> bool:
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    # Only x86 kernels call the line so; ARM has "Features".
    flags = next((line.split() for line in lines if line.startswith("flags")), None)
    return flags is not None and "sse4_1" not in flags
