"""What the store wrote comes back as it was, or is refused with the name of what is wrong."""

import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.measurement import (
    PRESETS,
    Block,
    Energy,
    Measurement,
    MeasureSpec,
    ModelRun,
    Preflight,
    Reason,
    Verdict,
)
from host.store import StoredValueError
from host.store.codec import from_plain, pack, spec_from_plain, to_plain, unpack

MakeMeasurement = Callable[..., Measurement]
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
LISTS = st.lists(NUMBERS, max_size=5).map(tuple)
TEXTS = st.lists(st.text(), max_size=3).map(tuple)
NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def test_a_whole_measurement_comes_back(make_measurement: MakeMeasurement) -> None:
    reason = Reason("DRIFT", "WARN", "it became slower")
    measurement = make_measurement("d", "a" * 64, verdict=Verdict("WARN", (reason,)))
    bare = replace(measurement, plan=None, preflight=None, energy_run=None, energies=())

    for value in (measurement, bare):
        assert unpack(Measurement, pack(value)) == value


@given(
    st.builds(
        Block,
        started_monotonic_seconds=NUMBERS,
        lasted_seconds=NUMBERS,
        canary_seconds=NUMBERS,
        reference_seconds=LISTS,
        reference_cpu_seconds=LISTS,
        latency_seconds=LISTS,
        cpu_seconds=LISTS,
        run_delay_seconds=st.none() | LISTS,
        involuntary_switches=st.none() | st.integers(0, 2**63),
        steal_seconds=st.none() | NUMBERS,
    )
)
def test_any_block_comes_back(block: Block) -> None:
    assert unpack(Block, pack(block)) == block


@given(
    st.builds(
        Preflight,
        foreign_cpu=NUMBERS,
        swapped_in_pages=st.none() | st.integers(0),
        free_ram_bytes=st.integers(0),
        temperature_celsius=st.none() | NUMBERS,
        throttled=TEXTS,
        canary_seconds=NUMBERS,
        waited_seconds=NUMBERS,
        problems=TEXTS,
    )
)
def test_any_preflight_comes_back(preflight: Preflight) -> None:
    assert unpack(Preflight, pack(preflight)) == preflight


def test_raw_samples_are_kept_small(make_measurement: MakeMeasurement) -> None:
    measurement = make_measurement("d", "a" * 64)

    assert len(pack(measurement)) < 3000


def test_a_field_that_was_added_since_takes_its_default() -> None:
    plain = to_plain(MeasureSpec(ModelRun("a" * 64, 7)))
    del plain["run"]["options"], plain["readiness"]

    spec = spec_from_plain("measure", plain)

    assert spec == MeasureSpec(ModelRun("a" * 64, 7))


def test_whole_numbers_are_numbers_too() -> None:
    plain = to_plain(PRESETS["quick"]) | {"budget_seconds": 6}

    budget = from_plain(type(PRESETS["quick"]), plain).budget_seconds

    assert (budget, type(budget)) == (6.0, float)


def _change(path: str, value: Any) -> Callable[[Any], None]:
    def change(plain: Any) -> None:
        *steps, last = path.split(".")
        for step in steps:
            plain = plain[int(step)] if step.isdigit() else plain[step]
        plain[int(last) if last.isdigit() else last] = value

    return change


def _remove(plain: Any) -> None:
    del plain["cpus"]


BLOCK = "processes.0.blocks.0"


@pytest.mark.parametrize(
    ("spoil", "because"),
    [
        (_change("device_id", 3), r"Measurement\.device_id is not of type str"),
        (_change("nonsense", 3), "unknown fields: nonsense"),
        (_remove, "missing or unknown fields: cpus"),
        (_change("run", []), r"Measurement\.run is not an object"),
        (_change("run.input_shapes.0.sizes.1", True), r"input_shapes\[0\]\.sizes\[1\]"),
        (_change(f"{BLOCK}.latency_seconds", "fast"), "latency_seconds is not a list"),
        (_change(f"{BLOCK}.latency_seconds.2", "1"), r"latency_seconds\[2\] is not a finite"),
        (_change(f"{BLOCK}.latency_seconds.2", float("nan")), r"latency_seconds\[2\] is not a fin"),
        (_change(f"{BLOCK}.latency_seconds.2", True), r"latency_seconds\[2\] is not a finite"),
        (_change("processes.0.steady", 1), "steady is not of type bool"),
        (_change("energies.0.scope", "room"), "scope is none of board, package, wall"),
        (_change("energies.0.scope", ["wall"]), "scope is none of"),
        (_change("energies.0.gross_interval_joules", [1.0]), "does not have 2 items"),
        (_change("measured_at", "yesterday"), "measured_at is not a point in time"),
        (_change("measured_at", 5), "measured_at is not a point in time"),
        (_change("measured_at", "2026-11-24T09:00:00"), "without a time zone"),
    ],
)
def test_a_damaged_value_is_named(
    make_measurement: MakeMeasurement, spoil: Callable[[Any], None], because: str
) -> None:
    plain = to_plain(make_measurement("d", "a" * 64))
    spoil(plain)

    with pytest.raises(StoredValueError, match=because):
        from_plain(Measurement, plain)


@pytest.mark.parametrize(
    "content", [b"", b"nothing", zlib.compress(b"{"), zlib.compress(b"\xff"), zlib.compress(b"[]")]
)
def test_damaged_bytes_are_named(content: bytes) -> None:
    with pytest.raises(StoredValueError, match="damaged Energy"):
        unpack(Energy, content)


def test_a_job_of_an_unknown_kind_is_named() -> None:
    with pytest.raises(StoredValueError, match="'bake'"):
        spec_from_plain("bake", {})


def test_a_number_that_json_does_not_know_is_not_written(
    make_measurement: MakeMeasurement,
) -> None:
    measurement = replace(make_measurement("d", "a" * 64), load_average_start=float("inf"))

    with pytest.raises(ValueError, match="JSON"):
        pack(measurement)


def test_the_content_is_json_that_others_can_read(make_measurement: MakeMeasurement) -> None:
    plain = json.loads(zlib.decompress(pack(make_measurement("d", "a" * 64))))

    assert plain["run"]["model_sha256"] == "a" * 64
    assert plain["measured_at"] == "2026-11-24T09:00:00+00:00"
