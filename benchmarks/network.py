"""How many candidates a second: build, kernels, ONNX bytes, torch module, for both spaces.

    python -m benchmarks.network [--count N] [--repeats N] [--json] [--check]

Process time of one core, per candidate, median over repeats. The peer of the kernels is the long
way round, writing the ONNX file and reading kernels from it, and the peer of the ONNX bytes is
building the module and `torch.onnx.export`: each runs in the same process, on the first five.
`--check` wants 1,000 kernel lists and 100 ONNX files a second for nasbench201.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cost_models.kernels import KernelGraph
from cost_models.onnx_graph import kernels_from_onnx
from host.network.graph import DeadNetworkError, Network
from host.network.kernels import kernels_of
from host.network.onnx_model import onnx_bytes
from host.network.torch_module import build_module
from host.network.weights import random_weights
from host.spaces.base import Candidate, SearchSpace, Task, sample
from host.spaces.mobile import Mobile
from host.spaces.nasbench201 import NasBench201

TASK = Task(channels=3, classes=10)
SPACES: tuple[SearchSpace, ...] = (NasBench201(), Mobile({"resolution": (32, 64, 96, 128)}))
BARS = {"kernels": 1000.0, "onnx": 100.0}
PEER_COUNT = 5


def run(count: int, repeats: int) -> dict[str, dict[str, float]]:
    """Candidates a second by space and rendering, `build` included in none of the others."""
    return {space.name: _of_space(space, count, repeats) for space in SPACES}


def _of_space(space: SearchSpace, count: int, repeats: int) -> dict[str, float]:
    candidates, networks = _draw(space, count)
    few = networks[:PEER_COUNT]
    return {
        "build": _rate(lambda c: space.build(c, TASK), candidates, repeats),
        "kernels": _rate(_kernels_anew, networks, repeats),
        "kernels by way of ONNX (peer)": _rate(_kernels_by_file, few, repeats),
        "onnx": _rate(_write, networks, repeats),
        "onnx by torch.onnx.export (peer)": _rate(_traced, few, 1),
        "torch module": _rate(lambda n: build_module(n, seed=0), networks[:20], repeats),
    }


def _draw(space: SearchSpace, count: int) -> tuple[list[Candidate], list[Network]]:
    rng = np.random.default_rng(0)
    candidates: list[Candidate] = []
    networks: list[Network] = []
    while len(networks) < count:
        candidate = sample(space, rng)
        try:
            networks.append(space.build(candidate, TASK))
        except DeadNetworkError:
            continue
        candidates.append(candidate)
    return candidates, networks


def _kernels_anew(network: Network) -> KernelGraph:
    """Without what the network has cached from an earlier repeat."""
    return kernels_of(Network(network.nodes))


def _kernels_by_file(network: Network) -> KernelGraph:
    return kernels_from_onnx(_write(network))


def _write(network: Network) -> bytes:
    return onnx_bytes(network, random_weights(network, seed=0))


def _traced(network: Network) -> bytes:
    module = build_module(network, seed=0).eval()
    image = torch.zeros(1, *network.input_shape)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder, "model.onnx")
        torch.onnx.export(module, (image,), path, dynamo=False)
        return path.read_bytes()


def _rate(work: Callable[[Any], object], inputs: Sequence[Any], repeats: int) -> float:
    rates = []
    for _ in range(repeats):
        start = time.process_time()
        for item in inputs:
            work(item)
        rates.append(len(inputs) / (time.process_time() - start))
    return statistics.median(rates)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=150, help="candidates of each space")
    parser.add_argument("--repeats", type=int, default=5, help="runs to take the median of")
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    parser.add_argument("--check", action="store_true", help="exit 1 below the targets")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    result = run(arguments.count, arguments.repeats)
    figures = result["nasbench201"]
    if arguments.json:
        print(json.dumps(result))
    else:
        for name, rates in result.items():
            print(f"{name}: candidates a second of process time")
            for rendering, rate in rates.items():
                print(f"  {rendering:34}{rate:10.1f}")
        print(
            f"nasbench201: {figures['kernels']:.0f} kernel lists a second (target 1,000), "
            f"{figures['onnx']:.0f} ONNX files a second (target 100)"
        )
    missed = any(figures[name] < bar for name, bar in BARS.items())
    return 1 if arguments.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
