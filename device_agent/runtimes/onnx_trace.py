"""The trace that onnxruntime's profiler writes: one event a line, in microseconds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from device_agent.errors import ResourceError
from device_agent.work import OperatorTime

_MICRO = 1e-6
_KERNEL = "_kernel_time"
_RUN = "model_run"


def operator_times(trace: Path, *, skip: int) -> tuple[float, tuple[OperatorTime, ...]]:
    """Mean seconds of a run, and of each operator in it, slowest first; `skip` runs do not count.

    Raises ResourceError where the trace ends early: it outgrew the largest file that may be
    written.
    """
    runs, run_microseconds = -skip, 0
    sums: dict[tuple[str, str], int] = {}
    # An event is written when it ends, so the operators of a run stand before the run itself.
    for event in _events(trace):
        category, name = event.get("cat"), str(event.get("name", ""))
        if category == "Session" and name == _RUN:
            runs += 1
            run_microseconds += int(event["dur"]) if runs > 0 else 0
        elif category == "Node" and name.endswith(_KERNEL) and runs >= 0:
            key = (name[: -len(_KERNEL)], str(event["args"].get("op_name", "")))
            sums[key] = sums.get(key, 0) + int(event["dur"])
    if runs < 1:
        raise _cut_short()
    operators = [
        OperatorTime(name, kind, total * _MICRO / runs) for (name, kind), total in sums.items()
    ]
    operators.sort(key=lambda operator: -operator.seconds)
    return run_microseconds * _MICRO / runs, tuple(operators)


def _events(trace: Path) -> Iterator[Mapping[str, Any]]:
    # Line by line: as one document a trace of some megabytes takes ten times that in memory.
    ended = False
    with trace.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            text = line.strip().rstrip(",")
            ended = text == "]"
            if text in ("", "[", "]"):
                continue
            try:
                yield json.loads(text)
            except ValueError as error:
                raise _cut_short() from error
    if not ended:
        raise _cut_short()


def _cut_short() -> ResourceError:
    return ResourceError(
        "onnxruntime's trace is incomplete: it is larger than a worker may write; ask for fewer"
        " runs"
    )
