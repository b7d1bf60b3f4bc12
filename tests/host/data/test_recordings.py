"""Recordings from CSV and NPZ bytes: every odd file is samples or a reason."""

import io
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from host.data.recordings import UnreadableRecordingError, read_recording


def npz(**arrays: object) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("x,y\n1,2\n3.5,-4e1\n", ("x", "y")),
        ("1,2\n3.5,-4e1\n", ("1", "2")),
        ("\ufeffx;y\r\n1;2\r\n3,5;-4e1\r\n", ("x", "y")),
        ("# a logger\n\nx\ty\n1\t2\n3.5\t-40\n\n", ("x", "y")),
        ("x y\n  1   2\n3.5 -40\n", ("x", "y")),
        ('"x","y, z"\n"1","2"\n"3.5","-40"\n', ("x", "y, z")),
        (",振動\n1,2\n3.5,-40\n", ("1", "振動")),
    ],
    ids=["named", "unnamed", "decimal comma", "tabs", "spaces", "quoted", "half named"],
)
def test_csv_columns_are_channels(text: str, names: tuple[str, ...]) -> None:
    recording = read_recording(text.encode(), ".csv")

    assert recording.channels == names
    assert recording.values.dtype == np.float32
    assert recording.values.tolist() == [[1, 3.5], [2, -40]]


def test_one_column_is_one_channel() -> None:
    assert read_recording(b"1\n2\n3\n", ".csv").values.tolist() == [[1, 2, 3]]


def test_wanted_channels_come_in_the_wanted_order() -> None:
    recording = read_recording(b"t,x,y\n1,2,3\n4,5,6\n", ".csv", ("y", "x"))

    assert recording.channels == ("y", "x")
    assert recording.values.tolist() == [[3, 6], [2, 5]]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it is empty"),
        ("x,y\n", "it has a line of names and no samples"),
        ("x,y\n1,2\n3\n", "line 3 has 1 columns, and those before it 2"),
        ("x,y\n1,2\n\n3,4,5\n", "line 4 has 3 columns, and those before it 2"),
        ("x,y\n1,2,3\n4,5,6\n", "line 2 has 3 columns|names 2 columns, and its samples have 3"),
        ("x,y\n1,2\n3,\n", "line 3 has an empty cell where a number is needed"),
        ("x,y\n1,2\n3,OL\n", 'line 3 has "OL" where a number is needed'),
        ("x,y\n1,nan\n3,4\n", 'sample 1 of channel "y" is not a finite number'),
        ("x,y\n1,2\ninf,4\n", 'sample 2 of channel "x" is not a finite number'),
        ("x,y\n1,2\n1e300,4\n", 'sample 2 of channel "x" is not a finite number'),
        ("x,y\n1,2\n3,4\n", 'it has no channel "z" but x, y'),
    ],
)
def test_a_csv_file_that_cannot_be_used_says_where_and_why(text: str, reason: str) -> None:
    wanted = ("z",) if reason.startswith("it has no channel") else ()

    with pytest.raises(UnreadableRecordingError, match=reason):
        read_recording(text.encode(), ".csv", wanted)


@pytest.mark.parametrize("text", ["{0},2\n1,2\n", "x,y\n1,2\n3,{0}\n"], ids=["first", "later"])
def test_a_cell_that_is_longer_than_any_is_a_sentence(text: str) -> None:
    with pytest.raises(UnreadableRecordingError, match="a line that is no CSV: field larger"):
        read_recording(text.format("x" * 200_000).encode(), ".csv")


def test_shift_jis_is_named() -> None:
    with pytest.raises(UnreadableRecordingError, match="perhaps Shift-JIS: save it as UTF-8"):
        read_recording("時刻,振動\n1,2\n".encode("cp932"), ".csv")


@settings(max_examples=40)
@given(
    st.integers(1, 4).flatmap(
        lambda columns: st.lists(
            st.lists(
                st.floats(-(2.0**100), 2.0**100, width=32), min_size=columns, max_size=columns
            ),
            min_size=1,
            max_size=20,
        )
    ),
    st.sampled_from([",", ";", "\t"]),
)
def test_numbers_survive_a_csv_file(rows: list[list[float]], delimiter: str) -> None:
    text = "\n".join(delimiter.join(repr(value) for value in row) for row in rows)

    values = read_recording(text.encode(), ".csv").values

    assert np.array_equal(values, np.array(rows, np.float32).T)


def test_an_npz_array_is_channels_by_samples() -> None:
    values = np.arange(12).reshape(2, 6)

    recording = read_recording(npz(anything=values), ".npz")

    assert recording.channels == ("1", "2")
    assert recording.values.tolist() == values.tolist()
    assert read_recording(npz(x=np.arange(5.0)), ".npz").values.shape == (1, 5)
    assert read_recording(npz(inputs=values, rate=np.array(8)), ".npz").values.shape == (2, 6)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no archive", "it is no NPZ file, is damaged, or holds Python objects"),
        (npz(a=np.zeros((2, 6)))[:-40], "it is no NPZ file, is damaged"),
        (npz(a=np.array([{}], object)), "holds Python objects"),
        (npz(a=np.zeros(3), b=np.zeros(3)), 'it has 2 arrays, none of them named "inputs"'),
        (npz(a=np.zeros((2, 3, 4))), "its array has 3 dimensions"),
        (npz(a=np.zeros((6, 2))), "6 channels by 2 samples: turn it to"),
        (npz(a=np.array(["x", "y"])), "which are no numbers"),
        (npz(a=np.array([[1, np.nan]])), 'sample 2 of channel "1" is not a finite number'),
    ],
)
def test_an_npz_file_that_cannot_be_used_says_why(content: bytes, reason: str) -> None:
    with pytest.raises(UnreadableRecordingError, match=reason):
        read_recording(content, ".npz")


def test_a_bare_array_file_is_no_npz() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((2, 6)))

    with pytest.raises(UnreadableRecordingError, match="it is no NPZ file"):
        read_recording(buffer.getvalue(), ".npz")


@pytest.mark.parametrize("kind", [".csv", ".npz"])
def test_damaged_bytes_are_samples_or_a_reason_and_nothing_else(kind: str) -> None:
    whole = {
        ".csv": b"x,y\n" + b"1.5,2\n" * 20,
        ".npz": npz(inputs=np.random.default_rng(0).normal(size=(2, 30))),
    }[kind]
    rng = random.Random(1)
    reasons = []

    for _ in range(200):
        damaged = bytearray(whole[: rng.randint(1, len(whole))])
        for _ in range(rng.randint(0, 6)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        try:
            read_recording(bytes(damaged), kind)
        except UnreadableRecordingError as error:
            reasons.append(str(error))

    assert reasons
    assert all(reasons)
