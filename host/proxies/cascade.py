"""Cheap first: what free proxies say decides which candidates the dear ones look at."""

import math
from collections.abc import Sequence

import numpy as np

from host.errors import UsageError
from host.proxies.base import Proxy


def survivors(combined: Sequence[float], keep: float) -> list[int]:
    """The places of the best share of candidates, in ascending order; higher is better.

    `keep` is above 0 and at most 1; the count is rounded up, so at least one survives. Of equals
    the earlier stay. Raises ValueError for another share.
    """
    if not 0 < keep <= 1:
        raise ValueError(f"keep must be above 0 and at most 1, got {keep}")
    # 0.07 * 100 is 7.000000000000001: what rounding adds is no candidate.
    count = math.ceil(round(keep * len(combined), 9))
    best = np.argsort(-np.asarray(combined, dtype=np.float64), kind="stable")[:count]
    return sorted(int(place) for place in best)


def divided(proxies: Sequence[Proxy]) -> tuple[list[Proxy], list[Proxy]]:
    """The free proxies and the dear ones, in their order.

    Raises UsageError where either has none: then nothing can be pruned cheaply.
    """
    free = [proxy for proxy in proxies if proxy.cost == "free"]
    dear = [proxy for proxy in proxies if proxy.cost != "free"]
    if not free:
        names = ", ".join(proxy.name for proxy in dear)
        raise UsageError(
            f"--keep needs a free proxy to prune with, and {names} are none: add flops"
        )
    if not dear:
        raise UsageError("--keep saves nothing where every proxy is free: leave it out")
    return free, dear
