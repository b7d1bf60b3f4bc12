"""Values between processes: exact there and back, and nothing but what was expected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.codec import from_json, from_tagged_json, to_json, to_tagged_json
from device_agent.errors import BadAnswerError
from device_agent.requests import Confinement, MeasureRequest
from device_agent.work import (
    Block,
    Failure,
    FailureKind,
    ModelRun,
    Phase,
    PhaseKind,
    Plan,
    Thermal,
)

FAILURE = Failure(FailureKind.TIMEOUT, "too slow")
PLAN = Plan(1, 5, 0.2, 5, 30, 0.5, 30, 0.03, 6.0, 0, 10.0)
seconds = st.floats(0, 1e6, allow_nan=False)
samples = st.lists(seconds, max_size=5).map(tuple)


@settings(deadline=None)
@given(latency=samples, delay=st.none() | samples, canary=seconds)
def test_samples_survive_json_exactly(latency: Any, delay: Any, canary: Any) -> None:
    block = Block(0.0, 1.0, canary, (), (), latency, latency, delay)

    assert from_json(Block, to_json(block)) == block


@settings(deadline=None)
@given(kind=st.sampled_from(FailureKind), message=st.text())
def test_a_value_survives_with_its_name(kind: Any, message: Any) -> None:
    failure = Failure(kind, message)

    assert from_tagged_json((Phase, Failure), to_tagged_json(failure)) == failure


def test_a_request_survives_with_its_paths_and_options() -> None:
    request = MeasureRequest(
        confinement=Confinement(1 << 30, 42, (0, 1)),
        model_path=Path("/var/模型"),
        run=ModelRun("a" * 64, 9, "onnx", 1, options=("spin=0",)),
        plan=PLAN,
        min_samples=30,
        budget_seconds=2.0,
    )

    assert from_json(MeasureRequest, to_json(request)) == request


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "nap"}, "no such value"),
        ({"inferences": 1.5}, "not of type int"),
        ({"inferences": True}, "not of type int"),
        ({"ended_monotonic_seconds": "2"}, "not a number"),
        ({"ended_monotonic_seconds": True}, "not a number"),
        ({"inferences": -1}, "out of range"),
        ({"inferences": 1 << 70}, "out of range"),
        ({"ended_monotonic_seconds": -0.1}, "negative"),
        ({"ended_monotonic_seconds": 10**400}, "not finite"),
        ({"surprise": 1}, "missing or unknown fields: surprise"),
    ],
)
def test_a_field_of_another_kind_is_refused_by_name(change: Any, words: str) -> None:
    data = {**json.loads(to_json(Phase(PhaseKind.BUSY, 1.0, 2.0, 3))), **change}

    with pytest.raises(BadAnswerError, match=words):
        from_json(Phase, json.dumps(data))


def test_temperatures_may_be_below_zero() -> None:
    cold = Thermal(start_celsius=-20.5)

    assert from_json(Thermal, to_json(cold)) == cold


def test_json_that_is_nested_without_end_is_refused() -> None:
    with pytest.raises(BadAnswerError, match="not JSON"):
        from_json(Phase, "[" * 1_000_000)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"Failure": 1}', '{"Plan": {}}', "nan", "1"])
def test_what_is_no_expected_value_is_refused(text: str) -> None:
    with pytest.raises(BadAnswerError):
        from_tagged_json((Failure, Phase), text)


def test_a_number_that_is_not_finite_is_refused_both_ways() -> None:
    text = to_json(Phase(PhaseKind.BUSY, 1.0, 2.0, 3)).replace("1.0", "Infinity")

    with pytest.raises(ValueError, match="JSON"):
        to_json(Phase(PhaseKind.BUSY, float("nan"), 2.0, 3))
    with pytest.raises(BadAnswerError, match="not finite"):
        from_json(Phase, text)


def test_a_list_where_a_value_stands_is_refused() -> None:
    data = json.loads(to_json(Block(0.0, 1.0, 0.1, (), (), (), ())))

    with pytest.raises(BadAnswerError, match="latency_seconds is not a list"):
        from_json(Block, json.dumps({**data, "latency_seconds": 3}))
