"""How many devices one gateway serves: connects, dispatch, results, memory, CPU, restarts.

    python -m benchmarks.fleet [--agents 1000] [--json] [--check]

`genba serve` as a process on a fresh workspace with an SQLite store, and simulated agents: real
clients over mTLS, each with a key of its own, in a few processes of the same machine. Only the
measuring is fake; what they report is as large as a measurement by the preset "standard".
"""

import argparse
import json
import os
import random
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from benchmarks.fleet.plant import FleetPlant, PlantError, fleet_plant

PROCESSES = 2
IDLE_SECONDS = 10.0
DISPATCHES, DISPATCHES_PER_SECOND = 400, 20.0
WARM_UP_JOBS_A_DEVICE, LOAD_JOBS_A_DEVICE, RESTART_JOBS_A_DEVICE = 2, 8, 5
PATIENCE_SECONDS = 300.0
P99_BAR_SECONDS, RESULTS_BAR, RSS_BAR_BYTES = 0.250, 300.0, 600 * 2**20


def run(agents: int, *, say: Callable[[str], None]) -> dict[str, Any]:
    """Every figure of the benchmark, in SI units."""
    say(f"enrolling {agents} devices")
    with fleet_plant(agents, PROCESSES) as plant:
        plant.gateway.start()
        figures = _connects(plant)
        say(f"connected in {figures['connect_seconds']:.1f} s; at rest")
        figures |= {f"idle_{name}": value for name, value in _idle(plant).items()}
        say("dispatch")
        figures |= _dispatch(plant)
        say(f"p99 {figures['dispatch_p99_seconds'] * 1e3:.0f} ms; load")
        figures |= _load(plant)
        say(f"{figures['results_per_second']:.0f} results/s; load with restarts")
        figures |= _restarts(plant, say)
        plant.gateway.look()
        figures["gateway_peak_rss_bytes"] = plant.gateway.peak_rss_bytes
    return {"agents": agents, "cores": os.cpu_count(), **figures}


def _connects(plant: FleetPlant) -> dict[str, Any]:
    answers = plant.ask("connect")
    started = min(answer["started"] for answer in answers)
    seconds = max(answer["ended"] for answer in answers) - started
    connected = sum(answer["connected"] for answer in answers)
    return {
        "connected": connected,
        "connect_seconds": seconds,
        "connects_per_second": connected / seconds,
    }


def _idle(plant: FleetPlant) -> dict[str, Any]:
    time.sleep(2.0)  # the last watches open
    cpu = _Cpu(plant)
    time.sleep(IDLE_SECONDS)
    return {"gateway_rss_bytes": plant.gateway.look(), **cpu.used()}


def _dispatch(plant: FleetPlant) -> dict[str, Any]:
    rng = random.Random(1)  # noqa: S311 - a choice of devices, not a secret
    asked: dict[str, float] = {}
    due = time.monotonic()
    for number in range(DISPATCHES):
        due += 1 / DISPATCHES_PER_SECOND
        time.sleep(max(0.0, due - time.monotonic()))
        at = time.monotonic()
        asked[plant.submit(rng.choice(plant.devices), number)] = at
    _wait(plant)
    leased: dict[str, float] = {}
    for answer in plant.ask("figures"):
        leased |= answer["leased_at"]
    seconds = sorted(leased[job] - at for job, at in asked.items())
    return {
        "dispatches": len(seconds),
        "dispatch_p50_seconds": statistics.median(seconds),
        "dispatch_p99_seconds": seconds[round(0.99 * (len(seconds) - 1))],
    }


def _load(plant: FleetPlant) -> dict[str, Any]:
    """Results a second once each device has its model and the host knows how fast it was."""
    plant.queue(WARM_UP_JOBS_A_DEVICE)
    _wait(plant)
    cpu = _Cpu(plant)
    started = time.monotonic()
    jobs = plant.queue(LOAD_JOBS_A_DEVICE)
    _wait(plant)
    seconds = time.monotonic() - started
    used = {f"busy_{name}": value for name, value in cpu.used().items()}
    return {"results": jobs, "results_per_second": jobs / seconds, **used}


def _restarts(plant: FleetPlant, say: Callable[[str], None]) -> dict[str, Any]:
    """Stop the gateway twice in the middle of the load, once without a warning."""
    started = time.monotonic()
    jobs = plant.queue(RESTART_JOBS_A_DEVICE)
    for share, number in ((2 / 3, signal.SIGTERM), (1 / 3, signal.SIGKILL)):
        _wait(plant, most=round(share * jobs))
        asked = time.monotonic()
        plant.gateway.end(number)
        say(f"ended by {number.name} in {time.monotonic() - asked:.1f} s")
        plant.gateway.start()
    _wait(plant)
    seconds = time.monotonic() - started
    time.sleep(MAX_ANSWER_SECONDS)  # those whose answer was lost report once more
    told: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for answer in plant.ask("figures"):
        told.update(answer["stored"])
        failed.update(answer["failed_calls"])
    states, measured = plant.kept()
    kept = Counter(measured)
    return {
        "restarts": 2,
        "restart_results_per_second": jobs / seconds,
        "failed_calls": dict(failed),
        "lost": sum(state != "done" for state in states.values())
        + sum(job not in kept for job in told),
        "twice": sum(count > 1 for count in kept.values())
        + sum(count > 1 for count in told.values()),
    }


MAX_ANSWER_SECONDS = 6.0


class _Cpu:
    """CPU time of the gateway and of the agents since it was made."""

    def __init__(self, plant: FleetPlant) -> None:
        self._plant = plant
        self._at, self._gateway, self._agents = self._now()

    def used(self) -> dict[str, float]:
        at, gateway, agents = self._now()
        seconds = at - self._at
        hundreds = len(self._plant.devices) / 100
        return {
            "gateway_cpu_cores": (gateway - self._gateway) / seconds,
            "gateway_cpu_cores_per_100_agents": (gateway - self._gateway) / seconds / hundreds,
            "agents_cpu_cores": (agents - self._agents) / seconds,
        }

    def _now(self) -> tuple[float, float, float]:
        agents = sum(float(answer["cpu_seconds"]) for answer in self._plant.ask("figures"))
        return time.monotonic(), self._plant.gateway.cpu_seconds(), agents


def _wait(plant: FleetPlant, most: int = 0) -> None:
    """Until at most so many jobs are not done."""
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while (left := plant.unfinished()) > most:
        if time.monotonic() > give_up_at:
            raise PlantError(f"{left} jobs are not done after {PATIENCE_SECONDS:.0f} s")
        time.sleep(0.1)


def missed(result: dict[str, Any]) -> list[str]:
    """The targets that the figures do not reach, each as a sentence."""
    bars = {
        "every agent is connected": result["connected"] == result["agents"],
        "dispatch p99 <= 250 ms": result["dispatch_p99_seconds"] <= P99_BAR_SECONDS,
        "results >= 300/s": result["results_per_second"] >= RESULTS_BAR,
        "gateway <= 600 MiB": result["gateway_peak_rss_bytes"] <= RSS_BAR_BYTES,
        "nothing is lost over the restarts": result["lost"] == 0,
        "nothing is kept twice": result["twice"] == 0,
    }
    return [name for name, holds in bars.items() if not holds]


def _print(r: dict[str, Any]) -> None:
    print(
        f"{r['connected']} agents on {r['cores']} cores: {r['connects_per_second']:.0f} connects/s"
    )
    for name in ("idle", "busy"):
        print(
            f"{name}: gateway {r[f'{name}_gateway_cpu_cores']:.2f} cores"
            f" ({r[f'{name}_gateway_cpu_cores_per_100_agents'] * 100:.2f} % of one per 100 agents),"
            f" the simulated agents {r[f'{name}_agents_cpu_cores']:.2f}"
        )
    print(
        f"gateway: {r['idle_gateway_rss_bytes'] / 2**20:.0f} MiB at rest; calls that failed over"
        f" the restarts and were tried again: {sum(r['failed_calls'].values())}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    parser.add_argument("--check", action="store_true", help="exit 1 below the targets")
    arguments = parser.parse_args()
    result = run(arguments.agents, say=lambda text: print(text, file=sys.stderr, flush=True))
    failed = missed(result)
    if arguments.json:
        print(json.dumps(result))
    else:
        _print(result)
        print(
            f"{result['connected']} connected (target {result['agents']}); dispatch p50"
            f" {result['dispatch_p50_seconds'] * 1e3:.0f} ms, p99"
            f" {result['dispatch_p99_seconds'] * 1e3:.0f} ms (250); results"
            f" {result['results_per_second']:.0f}/s (300); gateway peak"
            f" {result['gateway_peak_rss_bytes'] / 2**20:.0f} MiB (600); lost {result['lost']},"
            f" twice {result['twice']} over {result['restarts']} restarts; missed:"
            f" {'; '.join(failed) or 'nothing'}"
        )
    return 1 if arguments.check and failed else 0


if __name__ == "__main__":
    sys.exit(main())
