"""What a simulated agent reports: a measurement as the preset "standard" takes one."""

import random
from collections.abc import Sequence

from host.measurement import PROTOCOL
from protos import genba_agent_pb2 as pb

LATENCY_SECONDS, REFERENCE_SECONDS, CANARY_SECONDS = 0.020, 0.002, 0.005
PROCESSES, BLOCKS, BLOCK_RUNS = 3, 5, 30
_TICKS_PER_SECOND = 10_000_000


def measured_samples(seed: int) -> pb.MeasuredSamples:
    """Three processes with 450 samples in all, on a quiet device without a power source."""
    rng = random.Random(seed)  # noqa: S311 - noise, not a secret
    return pb.MeasuredSamples(
        protocol=PROTOCOL,
        runtime="onnx",
        runtime_library="onnxruntime",
        runtime_version="1.23.2",
        threads=1,
        runtime_options=["intra_op_num_threads=1", "inter_op_num_threads=1"],
        cpus=[1],
        preflight=pb.Preflight(
            foreign_cpu=0.01,
            swapped_in_pages=0,
            free_ram_bytes=2_000_000_000,
            temperature_celsius=41.0,
            canary_seconds=CANARY_SECONDS,
        ),
        processes=[_process(rng) for _ in range(PROCESSES)],
        thermal=pb.Thermal(start_celsius=41.0, end_celsius=47.0, max_celsius=48.0),
        governor="performance",
        load_average_start=0.1,
        energy_absent_because="no powercap zone",
    )


def _process(rng: random.Random) -> pb.ProcessRun:
    lasted = LATENCY_SECONDS * BLOCK_RUNS
    blocks = [_block(rng, BLOCK_RUNS, number * lasted) for number in range(BLOCKS)]
    return pb.ProcessRun(
        memory=pb.Memory(
            base_rss_bytes=45_000_000,
            load_rss_bytes=85_000_000,
            peak_rss_bytes=98_000_000,
            uss_bytes=60_000_000,
        ),
        load_seconds=0.5,
        first_inference_seconds=0.03,
        warmup_runs=25,
        steady=True,
        runs_per_sample=1,
        call_overhead_seconds=5e-6,
        blocks=[*blocks, _block(rng, 0, BLOCKS * lasted)],
    )


def _block(rng: random.Random, runs: int, started: float) -> pb.Block:
    latency = _around(rng, LATENCY_SECONDS, runs)
    reference = _around(rng, REFERENCE_SECONDS, 5)
    return pb.Block(
        latency_ticks=_ticks(latency),
        cpu_ticks=_ticks([0.995 * value for value in latency]),
        run_delay_ticks=_ticks([0.0] * runs),
        reference_ticks=_ticks(reference),
        reference_cpu_ticks=_ticks(reference),
        involuntary_switches=0,
        steal_seconds=0.0,
        canary_seconds=CANARY_SECONDS,
        started_monotonic_seconds=1000.0 + started,
        lasted_seconds=sum(latency),
    )


def _around(rng: random.Random, seconds: float, count: int) -> list[float]:
    return [seconds * (1 + abs(rng.gauss(0, 0.005))) for _ in range(count)]


def _ticks(seconds: Sequence[float]) -> list[int]:
    values = [round(value * _TICKS_PER_SECOND) for value in seconds]
    return [after - before for before, after in zip([0, *values], values, strict=False)]
