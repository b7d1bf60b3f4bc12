"""The runtimes that an agent knows by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Callable

from device_agent.errors import NoRuntimeError
from device_agent.runtimes.base import Runtime
from device_agent.runtimes.tflite_library import AI_EDGE_LITERT, choose_library


def _onnx() -> Runtime:
    from device_agent.runtimes.onnx import OnnxRuntime

    return OnnxRuntime()


def _tflite() -> Runtime:
    from device_agent.runtimes.tflite import TfliteRuntime

    return TfliteRuntime()


def _ncnn() -> Runtime:
    from device_agent.runtimes.ncnn import NcnnRuntime

    return NcnnRuntime()


RUNTIMES: Mapping[str, Callable[[], Runtime]] = {
    "onnx": _onnx,
    "tflite": _tflite,
    "ncnn": _ncnn,
}

LIBRARIES: Mapping[str, str] = {
    "onnx": "onnxruntime",
    "tflite": (choose_library() or AI_EDGE_LITERT).name,
    "ncnn": "ncnn",
}
"""The package behind each runtime, known before it can be imported."""


def open_runtime(name: str) -> Runtime:
    """Import the library and return the runtime.

    Raises NoRuntimeError where the name is unknown or the library is missing or does not load.
    """
    open_it = RUNTIMES.get(name)
    if open_it is None:
        known = ", ".join(sorted(RUNTIMES))
        raise NoRuntimeError(f"this agent has no runtime {name!r}: it knows {known}")
    return open_it()
