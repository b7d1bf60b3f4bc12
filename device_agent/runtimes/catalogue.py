"""The runtimes that an agent knows by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Callable

from device_agent.errors import NoRuntimeError
from device_agent.runtimes.base import Runtime


def _onnx() -> Runtime:
    from device_agent.runtimes.onnx import OnnxRuntime

    return OnnxRuntime()


RUNTIMES: Mapping[str, Callable[[], Runtime]] = {"onnx": _onnx}

LIBRARIES: Mapping[str, str] = {"onnx": "onnxruntime"}
"""The library behind each runtime, known before it can be imported."""


def open_runtime(name: str) -> Runtime:
    """Import the library and return the runtime.

    Raises NoRuntimeError where the name is unknown or the library is missing or does not load.
    """
    open_it = RUNTIMES.get(name)
    if open_it is None:
        known = ", ".join(sorted(RUNTIMES))
        raise NoRuntimeError(f"this agent has no runtime {name!r}: it knows {known}")
    return open_it()
