"""What sharing passes saves: all cheap proxies together against each of them on its own.

The plain implementations of benchmarks.proxies.naive run one after the other on a module that
stands ready, as the shared pass builds its own; both see the same networks, images, and labels, on
one thread, in alternation. Cheap are the proxies that run a network but take no gradient for each
image.
"""

import gc
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch

from benchmarks.proxies.naive.catalogue import NAIVE
from host.errors import UsageError
from host.network.graph import DeadNetworkError, Network
from host.network.torch_module import build_module
from host.proxies.base import Proxy
from host.proxies.catalogue import PROXIES
from host.proxies.engine import score
from host.proxies.images import gaussian_batch
from host.spaces.base import Task, sample
from host.spaces.nasbench201 import NasBench201

LEAST_RATIO = 5.0
BATCH, RESOLUTION, CLASSES = 64, 32, 10


@dataclass(frozen=True)
class Cost:
    """CPU milliseconds a network, medians; `naive` by proxy name, `building` of one module."""

    networks: int
    shared: float
    naive: dict[str, float]
    building: float

    @property
    def separate(self) -> float:
        """The naive passes together, without building."""
        return sum(self.naive.values())

    @property
    def ratio(self) -> float:
        """How many times the shared pass's time the separate ones take."""
        return self.separate / self.shared


def cheap_proxies() -> tuple[Proxy, ...]:
    """Those that run the network, and not once for each image, with a plain implementation."""
    return tuple(
        proxy
        for proxy in PROXIES.values()
        if proxy.cost in {"forward", "backward"} and proxy.name in NAIVE
    )


def measure(count: int) -> Cost:
    """Time so many networks of the full depth; the first warms up and does not count.

    Raises UsageError for fewer than two.
    """
    if count < 2:
        raise UsageError(f"--timed {count} leaves nothing to time: give 2 or more")
    torch.set_num_threads(1)
    proxies = cheap_proxies()
    batch = gaussian_batch((BATCH, 3, RESOLUTION, RESOLUTION), seed=0)
    labels = torch.arange(BATCH) % CLASSES
    shared: list[float] = []
    building: list[float] = []
    naive: dict[str, list[float]] = {proxy.name: [] for proxy in proxies}
    for network in _networks(count):
        together = partial(score, network, proxies, batch=batch, seed=0, labels=labels)
        shared.append(_milliseconds(together))
        building.append(_milliseconds(partial(build_module, network, seed=0)))
        module = build_module(network, seed=0).train()
        for name, times in naive.items():
            times.append(_milliseconds(partial(NAIVE[name], module, batch, labels)))
    return Cost(
        networks=count - 1,
        shared=statistics.median(shared[1:]),
        naive={name: statistics.median(times[1:]) for name, times in naive.items()},
        building=statistics.median(building[1:]),
    )


def report(count: int, *, as_json: bool, check: bool) -> int:
    """Measure, print, and say by the exit status whether a target of `check` is missed."""
    found = measure(count)
    if as_json:
        derived = {"separate": found.separate, "ratio": found.ratio}
        print(json.dumps(asdict(found) | derived, allow_nan=False))
    else:
        print(
            f"CPU ms a network, median of {found.networks}: nasbench201, batch {BATCH} of "
            f"{RESOLUTION}x{RESOLUTION}, one thread"
        )
        for name, spent in sorted(found.naive.items(), key=lambda item: item[1]):
            print(f"  {name:22}{spent:10.1f}")
        print(f"  {'all one by one':22}{found.separate:10.1f}")
        print(f"  {'all in shared passes':22}{found.shared:10.1f}   building the module included")
        print(
            f"{len(found.naive)} proxies in shared passes: {found.ratio:.1f} times less CPU time "
            f"(target {LEAST_RATIO:.0f}); building a module once takes {found.building:.1f} ms"
        )
    return 1 if check and found.ratio < LEAST_RATIO else 0


def _networks(count: int) -> Sequence[Network]:
    space, rng = NasBench201(), np.random.default_rng(0)
    found: list[Network] = []
    while len(found) < count:
        try:
            found.append(space.build(sample(space, rng), Task(3, CLASSES)))
        except DeadNetworkError:
            continue
    return found


def _milliseconds(action: Callable[[], object]) -> float:
    # What an earlier action left behind is none of this one's work.
    gc.collect()
    started = time.process_time()
    action()
    return 1000.0 * (time.process_time() - started)
