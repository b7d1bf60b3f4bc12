"""A study that is only its demands: `study.py WORKSPACE DEVICE SEED` asks for five measurements,
the same for the same seed, and says what came of each.
"""

import json
import random
import sys
from pathlib import Path

from host.measurement import Measurement, MeasureSpec, ModelRun, Plan, Readiness
from host.store import wait_for_outcomes
from host.workspace import Workspace

MODELS = 5


def main(root: Path, device_name: str, seed: int) -> None:
    rng = random.Random(seed)
    with Workspace.open(root).open_store() as store:
        device = store.devices.by_name(device_name)
        plan = Plan(1, 1, 0.0, 2, 20, 0.5, 30, 0.5, 2.0)
        readiness = Readiness(0.02, 1.0, 1_000_000, None, 0.0, True)
        jobs = []
        for number in range(MODELS):
            line = json.dumps({"study": seed, "number": number, "hold_seconds": 0.2})
            blob = store.blobs.put(line.encode() + b"\n" + rng.randbytes(20_000))
            spec = MeasureSpec(ModelRun(blob.sha256, blob.size_bytes), plan, readiness, 60.0)
            jobs.append(store.jobs.submit(device.id, spec))
        for _, outcome in wait_for_outcomes(store, jobs):
            print("measured" if isinstance(outcome, Measurement) else outcome, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
