"""What a model may be like on this device; a person may set it in config.json under "models"."""

from __future__ import annotations

from dataclasses import dataclass

from device_agent.errors import ModelRejectedError

# The operator sets of ONNX itself and those that onnxruntime implements.
DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc")


@dataclass(frozen=True)
class ScanLimits:
    """`max_elements` bounds every shape that a file states, `max_chain` the longest path of nodes
    from one end of an ONNX graph to the other, and `max_graph_depth` graphs and functions inside
    each other. `control_flow` allows loops and branches, which the clock alone can stop.
    """

    max_bytes: int = 512 << 20
    max_nodes: int = 20_000
    max_graph_depth: int = 4
    max_chain: int = 5_000
    max_elements: int = 1 << 28
    control_flow: bool = False
    domains: tuple[str, ...] = DOMAINS


def beyond_limit(problem: str, advice: str, key: str) -> ModelRejectedError:
    """The refusal of a model that is whole and yet more than this device takes."""
    return ModelRejectedError(
        f"{problem}: {advice}, or change models.{key} in the agent's config.json on the device"
    )
