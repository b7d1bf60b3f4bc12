"""CPU time of every proxy and ensemble on its own, in the setting in which networks are scored."""

import gc
import statistics
import time
from collections.abc import Mapping, Sequence

from benchmarks.proxies.setting import Setting
from host.spaces.base import Candidate


def cpu_milliseconds(
    groups: Mapping[str, Sequence[str]], candidates: Sequence[Candidate], setting: Setting
) -> dict[str, float]:
    """Milliseconds of this process a network, by group of proxies that share a pass.

    A network is built and scored anew for each group, groups in alternation; the first network
    warms up and does not count, the median of the others is returned. Groups that raise are left
    out.
    """
    found: dict[str, list[float]] = {name: [] for name in groups}
    failed: set[str] = set()
    for candidate in candidates:
        for name, members in groups.items():
            if name in failed:
                continue
            try:
                found[name].append(_milliseconds(candidate, members, setting))
            except Exception:  # noqa: BLE001  # whatever a proxy raises; scoring has reported it
                failed.add(name)
    return {
        name: statistics.median(times[1:])
        for name, times in found.items()
        if name not in failed and len(times) > 1
    }


def _milliseconds(candidate: Candidate, names: Sequence[str], setting: Setting) -> float:
    setting.batch()
    # What an earlier group left behind is none of this one's work.
    gc.collect()
    started = time.process_time()
    setting.scores(candidate, names)
    return 1000.0 * (time.process_time() - started)
