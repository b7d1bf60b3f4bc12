"""(d) What the agent costs: memory at rest, modules, upload, and time to the first inference."""

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.measurement.plant import READINESS, Plant
from host.measurement import PRESETS, Measurement, MeasureSpec, ModelRun

HEAVY = ("numpy", "onnxruntime", "onnx", "ai_edge_litert", "tflite_runtime")
UPLOADS, UPLOAD_BYTES = 5, 50_000_000


@dataclass(frozen=True)
class AgentCost:
    """Bytes, megabytes (of 1,000,000 bytes) a second, seconds."""

    idle_rss_bytes: int
    idle_anonymous_bytes: int
    heavy_modules: tuple[str, ...]
    upload_megabytes_per_second: float
    first_block_seconds: float


def agent_cost(plant: Plant, model: Path) -> AgentCost:
    """Of the agent that attends to the plant, before it has measured anything."""
    memory = _memory(plant.agent.pid)
    return AgentCost(
        idle_rss_bytes=memory["VmRSS"],
        idle_anonymous_bytes=memory["RssAnon"],
        heavy_modules=_heavy_modules(),
        upload_megabytes_per_second=_upload(plant),
        first_block_seconds=_first_block(plant, model),
    )


def _memory(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    pairs = (line.split() for line in lines if line.startswith(("VmRSS", "RssAnon")))
    return {name.rstrip(":"): int(kibibytes) * 1024 for name, kibibytes, _ in pairs}


def _heavy_modules() -> tuple[str, ...]:
    script = (
        "import sys, device_agent.__main__, device_agent.session, device_agent.jobs\n"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return tuple(ran.stdout.split())


def _upload(plant: Plant) -> float:
    """Host to device: mTLS, chunks, SHA-256 and the write on the device's side; median of 5."""
    with plant.other_device() as (device, home):
        for number in range(UPLOADS):
            blob = plant.store.blobs.put(os.urandom(UPLOAD_BYTES))
            spec = MeasureSpec(ModelRun(blob.sha256, blob.size_bytes))
            plant.store.jobs.submit(device.id, spec, purpose=f"upload {number}")
        command = [sys.executable, "-m", "benchmarks.measurement.pull", str(home)]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
    rates = json.loads(ran.stdout)
    if len(rates) != UPLOADS:
        raise ValueError(f"{len(rates)} of {UPLOADS} uploads arrived")
    return float(statistics.median(rates))


def _first_block(plant: Plant, model: Path) -> float:
    """From the submission of a job to the first timed block, the shortest preflight included."""
    plan = replace(PRESETS["quick"], warmup_runs=1, warmup_seconds=0.0)
    readiness = replace(READINESS, observe_seconds=0.1)
    blob = plant.store.blobs.put_file(model)
    spec = MeasureSpec(ModelRun(blob.sha256, blob.size_bytes), plan=plan, readiness=readiness)
    spans = []
    for number in range(5):
        started = time.monotonic()
        outcome = plant.ask(spec, f"first block {number}")
        if not isinstance(outcome, Measurement):
            raise TypeError(str(outcome))
        spans.append(outcome.processes[0].blocks[0].started_monotonic_seconds - started)
    return statistics.median(spans)
