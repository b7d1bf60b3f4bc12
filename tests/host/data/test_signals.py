"""Signals: windows of one recording stay together, and networks of any length see the same ones."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.data.dataset import open_data, read_data
from host.data.signal_loader import SignalLoader, preprocessing_of_windows
from host.data.signals import SignalFolder, Windows
from host.errors import GenbaError, UsageError
from host.network.torch_module import NetworkModule
from host.preprocessing import SignalPreprocessing
from host.spaces.base import Task, sample
from host.spaces.conv1d import Conv1d


def write_csv(path: Path, seed: int, samples: int = 400, names: str = "x,y") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).normal(3, 2, (samples, names.count(",") + 1))
    np.savetxt(path, values, delimiter=",", header=names, comments="")


@pytest.fixture
def machines(tmp_path: Path) -> Path:
    """Two classes of ten recordings of 400 samples."""
    for label, name in enumerate(("bearing", "ok")):
        for number in range(10):
            write_csv(tmp_path / name / f"{number:02}.csv", 100 * label + number)
    return tmp_path


def opened(folder: Path, **options: object) -> SignalLoader:
    data = open_data(folder, **{"seed": 0, "length": 64, **options})  # type: ignore[arg-type]
    assert isinstance(data, SignalLoader)
    return data


@given(st.integers(1, 200), st.integers(1, 40), st.integers(1, 40))
def test_windows_are_counted_as_they_are_cut(samples: int, length: int, step: int) -> None:
    windows = Windows(length, step)
    values = np.arange(2 * samples, dtype=np.float32).reshape(2, samples)

    if windows.count(samples) == 0:
        assert samples < length
        return
    cut = windows.cut(values)

    assert cut.shape == (windows.count(samples), 2, length)
    for number, window in enumerate(cut):
        start = number * step
        assert np.array_equal(window, values[:, start : start + length])
    assert len(cut) * step + length > samples


def test_windows_of_one_recording_never_stand_in_two_parts(machines: Path) -> None:
    loader = opened(machines, step=16)

    split = loader.split_at((2, 64))

    assert (len(split.train), len(split.validation), len(split.test)) == (12 * 22, 4 * 22, 4 * 22)
    assert split.train.inputs.dtype == np.float32
    for subset in ("train", "validation", "test"):
        samples = getattr(split, subset)
        labels = [item.label for item in loader.parts[subset] for _ in range(22)]
        assert samples.inputs.shape[1:] == (2, 64)
        assert samples.labels.tolist() == labels
    parts = [{item.path for item in items} for items in loader.parts.values()]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 20


def test_recordings_of_one_machine_stay_together_where_groups_say_so(machines: Path) -> None:
    """Both classes were recorded on each of ten machines."""
    loader = opened(machines, group=r"/\d(\d)")

    groups = [{item.group for item in items} for items in loader.parts.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 10
    assert [len(items) for items in loader.parts.values()] == [12, 4, 4]


def test_too_few_independent_recordings_are_refused(machines: Path) -> None:
    with pytest.raises(
        UsageError,
        match=r'class "bearing" of .* has one independent recording only.*; record 2 more',
    ):
        opened(machines, group=r"(\w+)/")


def test_a_network_of_fewer_samples_reads_the_middle_of_the_same_windows(machines: Path) -> None:
    loader = opened(machines)
    whole = loader.split_at((2, 64))

    short = loader.split_at((2, 16))

    assert np.array_equal(short.test.inputs, whole.test.inputs[:, :, 24:40])
    assert np.array_equal(short.test.labels, whole.test.labels)
    assert short.preprocessing.length == 16  # type: ignore[union-attr]
    assert np.shares_memory(short.test.inputs, whole.test.inputs)
    assert loader.split_at((2, 16)) is short


def test_a_network_of_the_space_reads_what_a_split_holds(machines: Path) -> None:
    import torch

    loader = opened(machines, length=300)
    space = Conv1d({"length": (256,), "stem_stride": (2,)})
    network = space.build(sample(space, np.random.default_rng(0)), Task(loader.channels, 2))

    split = loader.split_at(network.input_shape)

    module = NetworkModule(network).eval()
    with torch.no_grad():
        logits = module(torch.from_numpy(split.preprocessing.normalise(split.test.inputs)))
    assert split.test.inputs.shape == (4, 2, 1, 256)
    assert logits.shape == (4, 2)


def test_windows_are_normalised_by_the_mean_and_deviation_of_training(machines: Path) -> None:
    split = opened(machines).split_at((2, 64))

    normalised = split.preprocessing.normalise(split.train.inputs)

    assert normalised.dtype == np.float32
    assert normalised.mean(axis=(0, 2)) == pytest.approx([0, 0], abs=1e-5)
    assert normalised.std(axis=(0, 2)) == pytest.approx([1, 1], abs=1e-5)


def test_both_layouts_are_normalised_alike_by_the_formula() -> None:
    preprocessing = SignalPreprocessing(2, 3, (1.0, 10.0), (2.0, 5.0))
    windows = np.array([[[1, 3, 5], [10, 15, 20]]], np.float32)

    flat = preprocessing.normalise(windows)

    assert flat.tolist() == [[[0, 1, 2], [0, 1, 2]]]
    assert np.array_equal(
        preprocessing.normalise(windows[:, :, np.newaxis]), flat[:, :, np.newaxis]
    )


def test_a_channel_that_never_changes_becomes_zero() -> None:
    windows = np.full((300, 2, 8), 1234.5, np.float32)
    windows[:, 1] = np.arange(8)

    preprocessing = preprocessing_of_windows(windows)

    assert np.abs(preprocessing.normalise(windows)[:, 0]).max() < 1e-3
    assert preprocessing.std[1] == pytest.approx(np.arange(8).std())


@given(st.integers(0, 100), st.floats(-1e6, 1e6), st.floats(1e-3, 1e3))
def test_mean_and_deviation_are_those_of_all_windows(seed: int, mean: float, std: float) -> None:
    windows = np.random.default_rng(seed).normal(mean, std, (600, 1, 5)).astype(np.float32)

    found = preprocessing_of_windows(windows)

    assert found.mean[0] == pytest.approx(windows.astype(np.float64).mean(), rel=1e-9, abs=1e-9)
    if found.std[0] != 1.0:
        assert found.std[0] == pytest.approx(windows.astype(np.float64).std(), rel=1e-6)


def test_a_batch_is_drawn_from_training_and_reads_no_other_recording(machines: Path) -> None:
    loader = opened(machines)
    train = {item.path for item in loader.parts["train"]}
    for file in machines.rglob("*.csv"):
        if file.relative_to(machines).as_posix() not in train:
            file.unlink()

    inputs, labels = loader.batch_at(20, (2, 1, 32))

    assert inputs.shape == (20, 2, 1, 32)
    assert inputs.mean(axis=(0, 2, 3)) == pytest.approx([0, 0], abs=1e-5)
    assert set(labels.tolist()) == {0, 1}
    assert np.array_equal(loader.batch_at(20, (2, 1, 32))[0], inputs)
    assert loader.batch_at(10_000, (2, 32))[0].shape == (12 * 6, 2, 32)


def test_a_batch_holds_windows_of_the_split_with_their_classes(machines: Path) -> None:
    loader = opened(machines)
    train = loader.split_at((2, 64)).train

    inputs, labels = loader.batch_at(10_000, (2, 64))

    def shapes(windows: np.ndarray, classes: np.ndarray) -> set[tuple[int, int]]:
        orders = [hash(np.argsort(window[0]).tobytes()) for window in windows]
        return set(zip(orders, classes.tolist(), strict=True))

    assert shapes(inputs, labels) == shapes(train.inputs, train.labels)


def test_recordings_that_cannot_be_used_are_named_and_left_out(machines: Path) -> None:
    write_csv(machines / "ok" / "short.csv", 500, samples=63)
    write_csv(machines / "ok" / "other.csv", 501, names="x,z")
    (machines / "ok" / "gap.csv").write_text("x,y\n" + "1,2\n" * 70 + "3,nan\n")
    (machines / "ok" / "ragged.csv").write_text("x,y\n" + "1,2\n" * 70 + "3\n")
    (machines / "ok" / "copy.csv").write_bytes((machines / "bearing" / "03.csv").read_bytes())

    loader = opened(machines)

    assert {file.path: file.reason for file in loader.excluded} == {
        "ok/short.csv": "it has 63 samples, fewer than a window of 64",
        "ok/other.csv": "its channels are x, z, and mostly they are x, y",
        "ok/gap.csv": 'sample 71 of channel "y" is not a finite number',
        "ok/ragged.csv": "line 72 has 1 columns, and those before it 2",
        "ok/copy.csv": 'the same recording stands in "bearing" and "ok"',
        "bearing/03.csv": 'the same recording stands in "bearing" and "ok"',
    }
    assert loader.class_counts() == {"bearing": 9 * 6, "ok": 10 * 6}


def test_wanted_channels_are_read_in_their_order(machines: Path) -> None:
    from host.data.table import Columns

    both = opened(machines).split_at((2, 64)).test.inputs

    one = opened(machines, columns=Columns(channels=("y",))).split_at((1, 64)).test.inputs

    assert np.array_equal(one, both[:, 1:])


def test_a_table_gives_classes_parts_and_groups_to_recordings(machines: Path) -> None:
    rows = ["path;label;group;split"]
    for number, file in enumerate(sorted(machines.rglob("*.csv"))):
        part = "test" if number % 10 < 3 else "train"
        path = file.relative_to(machines).as_posix()
        rows.append(f"{path};{'fault' if number < 10 else 'fine'};m{number // 2};{part}")
    (machines / "labels.csv").write_text("\n".join(rows))

    loader = opened(machines, table=machines / "labels.csv")

    assert loader.classes == ("fault", "fine")
    # Machine m1 has a recording in test, so the other one is left out of training.
    assert [file.path for file in loader.excluded] == ["bearing/03.csv", "ok/03.csv"]
    assert {item.group for item in loader.parts["test"]} == {"m0", "m1", "m5", "m6"}


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 32), "reads 3 channels, and the recordings in .* have 2"),
        ((2, 128), "reads 128 samples, and windows have 64: cut longer windows"),
        ((2, 8, 8), "a network here reads 2x8x8, which is no signal"),
        ((2,), "which is no signal"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(
    machines: Path, shape: tuple[int, ...], message: str
) -> None:
    loader = opened(machines)

    for read in (loader.split_at, lambda shape: loader.batch_at(4, shape)):
        with pytest.raises(UsageError, match=message):
            read(shape)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.unlink(), "can no longer be read"),
        (lambda file: file.write_text("x,y\n1,2\n"), "has changed since"),
    ],
)
def test_a_recording_that_changed_after_the_scan_is_named(
    machines: Path, change: Callable[[Path], None], message: str
) -> None:
    loader = opened(machines)
    change(machines / "ok" / "04.csv")

    with pytest.raises(GenbaError, match=rf"04.csv.* {message}"):
        loader.split_at((2, 64))


def test_the_fingerprint_covers_content_class_group_and_cut(machines: Path) -> None:
    fingerprints = {
        opened(machines).fingerprint,
        opened(machines, length=32).fingerprint,
        opened(machines, step=32).fingerprint,
        opened(machines, group=r"(\w+/\d\d)").fingerprint,
    }
    assert opened(machines, seed=5).fingerprint in fingerprints
    write_csv(machines / "ok" / "04.csv", 999)
    fingerprints.add(opened(machines).fingerprint)
    (machines / "ok" / "04.csv").rename(machines / "bearing" / "04b.csv")
    fingerprints.add(opened(machines).fingerprint)

    assert len(fingerprints) == 6


def test_recordings_need_a_length(machines: Path) -> None:
    with pytest.raises(UsageError, match="say how many samples a window has"):
        read_data(machines)


def test_too_few_windows_are_refused(machines: Path) -> None:
    for file in (machines / "ok").iterdir():
        if file.name > "03.csv":
            file.unlink()

    with pytest.raises(UsageError, match=r'class "ok" of .* has 4 usable windows: at least 5'):
        opened(machines, length=400)


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(40, 2, 128))
    np.savez(tmp_path / "all.npz", inputs=inputs, labels=np.arange(40) % 2)
    return tmp_path


def test_arrays_are_windows_with_labels(arrays: Path) -> None:
    loader = opened(arrays, length=None)
    inputs = np.load(arrays / "all.npz")["inputs"].astype(np.float32)

    split = loader.split_at((2, 128))

    assert loader.classes == ("0", "1")
    assert (len(split.train), len(split.validation), len(split.test)) == (24, 8, 8)
    rows = [item.row for item in loader.parts["test"]]
    assert np.array_equal(split.test.inputs, inputs[rows])
    assert split.test.labels.tolist() == [row % 2 for row in rows if row is not None]
    assert loader.parts["test"][0].path.startswith("all.npz[")
    assert opened(arrays / "all.npz", length=None).fingerprint == loader.fingerprint


def test_long_arrays_are_cut_and_their_windows_stay_together(arrays: Path) -> None:
    loader = opened(arrays, length=64)

    assert loader.class_counts() == {"0": 40, "1": 40}
    assert len(loader.split_at((2, 64)).test) == 16


def test_files_of_arrays_say_the_parts_and_names_of_classes_and_groups(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, count in (("train", 20), ("val", 6), ("test", 6)):
        np.savez(
            tmp_path / f"{name}.npz",
            inputs=rng.normal(size=(count, 50)),
            labels=np.arange(count) % 2,
            classes=np.array(["ok", "worn"]),
            groups=np.array([f"{name}{n // 4}" for n in range(count)]),
        )

    loader = opened(tmp_path, length=None)

    assert loader.classes == ("ok", "worn")
    assert loader.channels == 1
    assert {s: len(items) for s, items in loader.parts.items()} == {
        "train": 20,
        "validation": 6,
        "test": 6,
    }
    assert loader.parts["test"][0].group == "test0"


def test_each_file_of_arrays_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = np.random.default_rng(0).normal(size=(2, 2, 1, 20))
    np.savez(tmp_path / "one.npz", inputs=inputs[0], labels=np.array(["worn", "ok"]))
    np.savez(tmp_path / "two.npz", inputs=inputs[1], labels=np.array(["broken", "ok"]))
    read: list[str] = []
    read_bytes = Path.read_bytes

    def noted(path: Path) -> bytes:
        read.append(path.name)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", noted)

    folder = read_data(tmp_path)

    assert read == ["one.npz", "two.npz"]
    assert isinstance(folder, SignalFolder)
    assert folder.windows == Windows(20, 20)
    assert folder.classes == ("broken", "ok", "worn")
    assert {item.path: folder.classes[item.label] for item in folder.items} == {
        "one.npz[0]": "worn",
        "one.npz[1]": "ok",
        "two.npz[0]": "broken",
        "two.npz[1]": "ok",
    }


def test_rows_of_arrays_that_are_not_finite_are_named(arrays: Path) -> None:
    stored = dict(np.load(arrays / "all.npz"))
    stored["inputs"][7, 1, 3] = np.nan
    np.savez(arrays / "all.npz", **stored)

    loader = opened(arrays, length=None)

    assert [(f.path, f.reason) for f in loader.excluded] == [
        ("all.npz[7]", 'sample 4 of channel "2" is not a finite number')
    ]


def test_arrays_that_changed_after_the_scan_are_named(arrays: Path) -> None:
    loader = opened(arrays, length=None)
    np.savez(arrays / "all.npz", inputs=np.zeros((3, 2, 128)), labels=np.zeros(3, int))

    with pytest.raises(GenbaError, match=r"all.npz.* has changed since"):
        loader.split_at((2, 128))


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"inputs": np.zeros((4, 2, 9))}, 'has no array "labels"'),
        ({"inputs": np.zeros((4, 2, 9)), "labels": np.zeros(3, int)}, "another number of labels"),
        ({"inputs": np.zeros((4, 9, 2)), "labels": np.zeros(4, int)}, "9 channels by 2 samples"),
        ({"inputs": np.zeros(4), "labels": np.zeros(4, int)}, "in 1 dimensions"),
        ({"inputs": np.zeros((4, 2, 9)), "labels": np.zeros(4)}, "labels of float64"),
        (
            {"inputs": np.zeros((1, 2, 9)), "labels": np.array([2]), "classes": np.array(["a"])},
            "stand for none of its 1 classes",
        ),
        (
            {"inputs": np.zeros((2, 2, 9)), "labels": np.zeros(2, int), "groups": np.zeros(3)},
            "another number of labels or groups",
        ),
    ],
)
def test_arrays_that_do_not_fit_each_other_are_refused(
    tmp_path: Path, stored: dict[str, np.ndarray], message: str
) -> None:
    np.savez(tmp_path / "all.npz", **stored)  # type: ignore[arg-type]

    with pytest.raises(UsageError, match=message):
        read_data(tmp_path)


def test_arrays_name_their_groups_themselves(arrays: Path) -> None:
    with pytest.raises(UsageError, match="name groups in an array `groups`"):
        read_data(arrays, group=r"(\d+)")


def test_the_kind_of_a_folder_of_recordings_is_found(machines: Path) -> None:
    assert isinstance(read_data(machines, length=64), SignalFolder)
