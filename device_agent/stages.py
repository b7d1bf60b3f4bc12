"""What a worker says while it works: which stage it is in, and that it pauses; and how the agent
reads it, who believes nothing of it.

A mark is one short line of JSON, {"stage": "load"} or {"pause": true}. After a pause the worker
waits for one byte.
"""

from __future__ import annotations

import enum
import json
import os
from dataclasses import dataclass

from device_agent.errors import AgentError

MAX_MARK_BYTES = 64
"""No mark is longer, its end of line included."""


class Stage(enum.Enum):
    """A part of a worker's life, in the order in which they come."""

    START = "start"
    SCAN = "scan"
    LOAD = "load"
    FIRST_INFERENCE = "first_inference"
    WARM_UP = "warm_up"
    MEASURE = "measure"
    ENERGY = "energy"
    RUN = "run"

    @property
    def order(self) -> int:
        return list(Stage).index(self)


_SAYINGS = {
    Stage.START: "starting the worker",
    Stage.SCAN: "scanning the model",
    Stage.LOAD: "loading the model",
    Stage.FIRST_INFERENCE: "the first inference",
    Stage.WARM_UP: "warming up",
    Stage.MEASURE: "measuring",
    Stage.ENERGY: "the energy run",
    Stage.RUN: "running the model",
}


class StageTimeoutError(AgentError):
    """One stage of a worker lasted too long, though the job still had time."""

    def __init__(self, stage: Stage, seconds: float) -> None:
        super().__init__(f"{_SAYINGS[stage]} took longer than {seconds:.0f} s")
        self.stage = stage
        self.seconds = seconds


@dataclass(frozen=True)
class Mark:
    """A stage that begins, or a pause where there is none."""

    stage: Stage | None


PAUSE = Mark(None)


def read_mark(line: bytes) -> Mark | None:
    """The mark in a line, None where it is none."""
    if len(line) > MAX_MARK_BYTES:
        return None
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if content == {"pause": True}:
        return PAUSE
    if not isinstance(content, dict) or set(content) != {"stage"}:
        return None
    try:
        return Mark(Stage(content["stage"]))
    except ValueError:
        return None


class Line:
    """The worker's end: it speaks on one descriptor and hears on another."""

    def __init__(self, mouth: int, ear: int) -> None:
        self._mouth = mouth
        self._ear = ear

    def begin(self, stage: Stage) -> None:
        """Say that a stage begins."""
        self._say({"stage": stage.value})

    def pause(self) -> None:
        """Stand still until the agent says go on; at once where nobody is there to say it."""
        self._say({"pause": True})
        os.read(self._ear, 1)

    def _say(self, content: object) -> None:
        os.write(self._mouth, json.dumps(content).encode() + b"\n")
