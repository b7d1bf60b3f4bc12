"""Numbers in JSON documents, whatever these hold."""

import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.meters import MeterError
from host.meters.documents import number_at, optional_number_at, parse_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=10,
)
PATHS = st.lists(st.sampled_from(["", "a", "0", "1", "-1", "²", "power"]), max_size=3)


@given(JSON, PATHS)
def test_there_is_a_finite_number_or_an_error(document: object, path: list[str]) -> None:
    found = optional_number_at(document, path)

    if found is None:
        with pytest.raises(MeterError):
            number_at(document, path)
    else:
        assert math.isfinite(found)
        assert number_at(document, path) == found


@given(st.binary(max_size=50))
def test_bytes_are_json_or_an_error(text: bytes) -> None:
    with suppress(MeterError):
        parse_json(text)


def test_numbers_are_found_by_keys_and_places() -> None:
    document = {"a": [{"p": 1.5}, {"p": "2.5"}], "b": 10**400}

    assert number_at(document, ["a", "0", "p"]) == 1.5
    assert number_at(document, ["a", "1", "p"]) == 2.5
    assert optional_number_at(document, ["a", "2", "p"]) is None
    assert optional_number_at(document, ["b"]) is None
