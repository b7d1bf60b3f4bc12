"""One model with onnxruntime's profiler on: our loop's samples, and its own events of those runs.

    python -m benchmarks.measurement.profiled MODEL.onnx

Prints one JSON object with both medians. A process of its own, as a measurement has.
"""

import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime as ort

from device_agent.instruments import LIVE
from device_agent.measuring import time_alone
from device_agent.runtimes.onnx import OnnxModel

WARMUP, RUNS = 10, 100


def run(path: Path) -> dict[str, float]:
    """Medians in seconds of the same runs, timed around the call and by the runtime itself."""
    with tempfile.TemporaryDirectory() as folder:
        session = _profiled_session(path, Path(folder))
        model = OnnxModel(np, session, ())
        model.make_inputs(seed=1)
        for _ in range(WARMUP):
            model.run()
        ours = [wall for wall, _ in time_alone(model.run, RUNS, LIVE)]
        events = json.loads(Path(session.end_profiling()).read_text())
    theirs = [event["dur"] * 1e-6 for event in events if event["name"] == "model_run"]
    return {
        "ours_seconds": statistics.median(ours),
        "theirs_seconds": statistics.median(theirs[-RUNS:]),
    }


def _profiled_session(path: Path, folder: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "trace")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]))))
