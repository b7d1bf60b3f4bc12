"""Outputs of a device are a stranger's file."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from host.measurement.outputs import BadOutputsError, read_outputs

VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


def npz(path: Path, *, compression: int = zipfile.ZIP_STORED, name: str = "y") -> Path:
    stream = io.BytesIO()
    np.save(stream, VALUES)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(f"{name}.npy", stream.getvalue())
    return path


def test_what_an_agent_writes_is_read(tmp_path):
    np.savez(tmp_path / "y.npz", y=VALUES)

    found = read_outputs(tmp_path / "y.npz", max_bytes=10_000)

    np.testing.assert_array_equal(found["y"], VALUES)


@pytest.mark.parametrize(
    "changes",
    [{"compression": zipfile.ZIP_DEFLATED}, {"name": "\x1b[31my"}],
    ids=["a file that may grow a thousandfold", "a name that moves the cursor"],
)
def test_what_no_agent_writes_is_refused(tmp_path, changes):
    path = npz(tmp_path / "y.npz", **changes)

    with pytest.raises(BadOutputsError, match="no agent writes"):
        read_outputs(path, max_bytes=10_000)


def test_outputs_larger_than_was_agreed_are_refused(tmp_path):
    with pytest.raises(BadOutputsError, match="no agent writes"):
        read_outputs(npz(tmp_path / "y.npz"), max_bytes=100)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 broken", b"\x93NUMPY"])
def test_what_is_no_archive_is_refused(tmp_path, data):
    path = tmp_path / "y.npz"
    path.write_bytes(data)

    with pytest.raises(BadOutputsError, match="cannot be read"):
        read_outputs(path, max_bytes=10_000)


def test_pickled_objects_are_not_loaded(tmp_path):
    np.savez(tmp_path / "y.npz", allow_pickle=True, y=np.array([{}], dtype=object))

    with pytest.raises(BadOutputsError, match="cannot be read"):
        read_outputs(tmp_path / "y.npz", max_bytes=10_000)
