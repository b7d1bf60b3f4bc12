"""Are the cost models right about networks that they have never seen anything like?

    python -m benchmarks.arbitrary_onnx [--runtimes onnx litert] [--threads 1 2] [--looks N]
        [--corpus DIR] [--measurements FILE] [--only TEXT …] [--json] [--check]

This machine is the device. Each setting of runtime and threads is calibrated with at most 30
measurements of synthetic networks and candidates of the space 'mobile', by the Calibrator of
`genba device calibrate`; then the networks of networks.toml are predicted and measured, each in
fresh workers of the agent. Needs the extra genba[bench] and pip, once, for the corpus.
`--measurements` keeps what was measured: run again to go on after a stop, or to judge other models
without measuring anew.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.arbitrary_onnx import corpus
from benchmarks.arbitrary_onnx.calibrating import calibrated
from benchmarks.arbitrary_onnx.corpus import NetworkFile
from benchmarks.arbitrary_onnx.judging import Figures, Miss, Setting, Unseen, judge
from benchmarks.arbitrary_onnx.measurements import Job, Measurements
from cost_models.kernels import KernelGraph
from cost_models.onnx_graph import kernels_from_onnx
from cost_models.program import GraphError

MEDIAN_BAR, WITHIN_BAR, SPEARMAN_BAR, MEMORY_BAR = 0.10, 0.90, 0.98, 0.08
COVERAGE_BARS = (0.85, 0.95)

Say = Callable[[str], None]


def run(
    files: Sequence[NetworkFile],
    settings: Sequence[tuple[str, int]],
    folder: Path,
    measurements: Measurements,
    looks: int,
    say: Say,
) -> list[Setting]:
    """Calibrate, measure and judge each setting."""
    graphs = _graphs(files, say)
    found = []
    for runtime, threads in settings:

        def take(jobs: Sequence[Job]) -> None:
            measurements.take(jobs, looks, say)

        say(f"{runtime}, threads {threads}: calibration")
        fitted = calibrated(runtime, threads, folder / "calibration", measurements, take)
        jobs = {
            file.name: Job(file.name, file.path, dict(file.shapes), threads)
            for file in files
            if file.runtime == runtime and file.name in graphs
        }
        take(list(jobs.values()))
        tested = []
        for name, job in jobs.items():
            measured = measurements.measured(job.key)
            if measured is None:
                say(f"left out: {name}: {measurements.failed.get(job.key)}")
                continue
            tested.append(Unseen(name, graphs[name], measured))
        found.append(judge(runtime, threads, fitted, tested))
    return found


def missed(settings: Sequence[Setting]) -> list[str]:
    """The targets that are not reached, each as a sentence."""
    low, high = COVERAGE_BARS
    found = []
    for each in settings:
        bars = {
            "median error <= 10 %": each.latency.median_error <= MEDIAN_BAR,
            "90 % within 25 %": each.latency.within_25_percent >= WITHIN_BAR,
            "Spearman >= 0.98": (each.latency.spearman or 0.0) >= SPEARMAN_BAR,
            "coverage 85-95 %": low <= each.coverage <= high,
            "memory: median error <= 8 %": each.memory.median_error <= MEMORY_BAR,
        }
        where = f"{each.runtime}, threads {each.threads}"
        found += [f"{where}: {name}" for name, holds in bars.items() if not holds]
    return found


def _graphs(files: Sequence[NetworkFile], say: Say) -> dict[str, KernelGraph]:
    from cost_models.tflite_graph import kernels_from_tflite

    found = {}
    for file in files:
        read = kernels_from_tflite if file.runtime == "litert" else kernels_from_onnx
        try:
            found[file.name] = read(file.path, input_shapes=file.shapes or None)
        except GraphError as error:
            say(f"left out: {file.name}: {error}")
    return found


def _print(setting: Setting) -> None:
    print(
        f"\n{setting.runtime}, threads {setting.threads}: {setting.latency.n} networks,"
        f" calibrated with {setting.calibrated_on} measurements; {setting.quiet} undisturbed"
    )
    print(f"  latency             {_line(setting.latency)}  covered {setting.coverage:.0%}")
    if setting.unflagged is not None and setting.loud:
        print(f"  without {setting.loud:3} flagged {_line(setting.unflagged)}")
    print(f"  by MACs alone       {_line(setting.flops)}")
    print(f"  by weights alone    {_line(setting.parameters)}")
    print(f"  peak memory         {_line(setting.memory)}")
    print("  worst, predicted | measured ms:")
    for miss in setting.worst:
        print(f"    {miss.name:42}{_missed(miss, 1e3)}")
    print("  worst, predicted | measured MB:")
    for miss in setting.worst_memory[:5]:
        print(f"    {miss.name:42}{_missed(miss, 1e-6)}")


def _line(figures: Figures) -> str:
    rho = "-" if figures.spearman is None else f"{figures.spearman:.3f}"
    return (
        f"median error {figures.median_error:6.1%}  within 25 % {figures.within_25_percent:4.0%}"
        f"  Spearman {rho}"
    )


def _missed(miss: Miss, scale: float) -> str:
    return f"{miss.predicted * scale:10.2f}{miss.measured * scale:10.2f}{miss.error:+8.0%}"


def _summary(settings: Sequence[Setting], spread: float | None, failed: Sequence[str]) -> str:
    parts = [
        f"{s.runtime} {s.threads}t: {s.latency.median_error:.1%} median,"
        f" {s.latency.within_25_percent:.0%} within 25 %, rho {s.latency.spearman or 0.0:.3f},"
        f" covered {s.coverage:.0%}, memory {s.memory.median_error:.1%}"
        for s in settings
    ]
    noise = "unknown" if spread is None else f"{spread:.1%}"
    return f"{'; '.join(parts)}; noise floor {noise}; missed: {'; '.join(failed) or 'nothing'}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runtimes", nargs="+", choices=("onnx", "litert"), default=None)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--looks", type=int, default=1, help="workers for each model file")
    parser.add_argument("--only", nargs="+", default=[""], help="networks whose name holds a text")
    cache = Path.home() / ".cache/genba-benchmarks/arbitrary_onnx"
    parser.add_argument("--corpus", type=Path, default=cache, help="where model files are kept")
    parser.add_argument("--measurements", type=Path, help="file to keep measurements in")
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    parser.add_argument("--check", action="store_true", help="exit 1 below the targets")
    return parser.parse_args()


def main() -> int:
    arguments = _arguments()

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def wanted(name: str) -> bool:
        return any(text in name for text in arguments.only)

    folder: Path = arguments.corpus
    files = corpus.build(folder / "models", wanted, say)
    with tempfile.TemporaryDirectory() as scratch:
        measurements = Measurements(arguments.measurements or Path(scratch, "measurements.json"))
        pairs = [
            (r, t) for r in arguments.runtimes or ("onnx", "litert") for t in arguments.threads
        ]
        settings = run(files, pairs, folder, measurements, arguments.looks, say)
    failed = missed(settings)
    if arguments.json:
        result: dict[str, Any] = {
            "settings": [dataclasses.asdict(each) for each in settings],
            "noise_floor": measurements.spread(),
            "missed": failed,
        }
        print(json.dumps(result))
    else:
        for each in settings:
            _print(each)
        print(_summary(settings, measurements.spread(), failed))
    return 1 if arguments.check and failed else 0


if __name__ == "__main__":
    sys.exit(main())
