"""A network as the file of any runtime."""

from collections.abc import Mapping

from host.device import RuntimeName
from host.network.graph import Network
from host.network.weights import Weights, random_weights

_LAYOUTS: Mapping[RuntimeName, str] = {"onnx": "NCHW", "tflite": "NHWC", "ncnn": "CHW"}


def rendered(
    network: Network,
    runtime: RuntimeName,
    weights: Weights,
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """The float32 file of a network; `metadata` as ONNX files have them, but for the layout."""
    said = {**metadata, "input_layout": _LAYOUTS[runtime]} if metadata else None
    match runtime:
        case "onnx":
            from host.network.onnx_model import onnx_bytes

            return onnx_bytes(network, weights, said)
        case "tflite":
            from host.network.tflite_model import tflite_bytes

            return tflite_bytes(network, weights, said)
        case "ncnn":
            from host.network.ncnn_model import ncnn_bytes

            return ncnn_bytes(network, weights, said)


def untrained(network: Network, runtime: RuntimeName, *, seed: int) -> bytes:
    """The file with random weights, which takes as long as the trained one: to be measured."""
    return rendered(network, runtime, random_weights(network, seed=seed))
