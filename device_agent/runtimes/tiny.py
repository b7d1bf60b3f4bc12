"""The self-test of a runtime: a model that computes almost nothing, and the answer it must give."""

from __future__ import annotations

from typing import Any

from device_agent.errors import ModelRejectedError, NoRuntimeError, ResourceError
from device_agent.reference import TINY_INPUT, TINY_OUTPUT
from device_agent.runtimes.base import Runtime


def check_tiny(runtime: Runtime, np: Any) -> None:
    """Raises NoRuntimeError where the runtime fails on its tiny model, or answers wrongly."""
    library = runtime.library
    try:
        model = runtime.load_tiny()
        model.set_inputs({"x": np.array(TINY_INPUT, np.float32)})
        model.run()
        (output,) = model.outputs().values()
    except (ModelRejectedError, ResourceError) as error:
        raise NoRuntimeError(f"{library} fails on a tiny model: {error}") from error
    if output.tolist() != TINY_OUTPUT:
        raise NoRuntimeError(
            f"{library} computes wrong numbers here: {output.tolist()} for {TINY_OUTPUT}"
        )
