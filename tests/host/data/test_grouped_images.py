"""Images in groups and from tables: no leak, and a fingerprint of all that matters."""

import hashlib
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from host.data.dataset import open_data, read_data
from host.data.images import ImageFolder, ImageLoader, scan_folder, split_items
from host.data.loading import KeptSplits, require_memory
from host.data.split import Split
from host.errors import GenbaError, UsageError
from host.preprocessing import UnreadableImageError, decode, pixels_of


def picture(seed: int, side: int = 12) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (side, side))
    return Image.fromarray(values.astype(np.uint8))


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    """Twelve parts a class, three shots of each."""
    for label, name in enumerate(("bad", "good")):
        (tmp_path / name).mkdir()
        for part in range(12):
            for shot in range(3):
                seed = 1000 * label + 10 * part + shot
                picture(seed).save(tmp_path / name / f"p{label}{part:02}_{shot}.png")
    return tmp_path


def opened(folder: Path, **options: object) -> ImageLoader:
    data = open_data(folder, seed=0, **options)  # type: ignore[arg-type]
    assert isinstance(data, ImageLoader)
    return data


def table_of(folder: Path, *rows: str) -> Path:
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder / "labels.csv"


def test_shots_of_one_part_never_stand_in_two_parts_of_the_split(shots: Path) -> None:
    loader = opened(shots, group=r"(p\d+)_")

    found = {s: {item.group for item in items} for s, items in loader.parts.items()}

    assert sum(map(len, found.values())) == len(set.union(*found.values())) == 24
    for subset, share in (("test", 0.2), ("validation", 0.2), ("train", 0.6)):
        labels = [item.label for item in loader.parts[subset]]  # type: ignore[index]
        assert labels.count(0) == pytest.approx(36 * share, abs=3)
        assert labels.count(1) == pytest.approx(36 * share, abs=3)
    assert all({item.label for item in items} == {0, 1} for items in loader.parts.values())


def test_without_groups_the_fingerprint_and_the_division_are_those_of_plain_folders(
    shots: Path,
) -> None:
    plain = scan_folder(shots)

    loader = opened(shots)

    assert loader.folder == plain
    assert loader.parts == split_items(plain, seed=0)
    lines = ["class bad\n", "class good\n", *(f"{i.sha256} {i.path}\n" for i in plain.items)]
    assert plain.fingerprint == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_the_fingerprint_covers_groups_labels_and_given_parts(shots: Path) -> None:
    def with_row(row: str) -> str:
        paths = [p.relative_to(shots).as_posix() for p in sorted(shots.rglob("*.png"))]
        rows = [f"{path},{path[:3]},{path[-8:-6]}," for path in paths[:-1]]
        table = table_of(shots, "path,label,group,split", *rows, f"{paths[-1]},{row}")
        return opened(shots, table=table).fingerprint

    fingerprints = {
        opened(shots).fingerprint,
        opened(shots, group=r"(p\d+)_").fingerprint,
        opened(shots, group=r"p\d(\d+)_").fingerprint,
        with_row("goo,11,"),
        with_row("bad,11,"),
        with_row("goo,12,"),
        with_row("goo,12,train"),
    }

    assert len(fingerprints) == 7


def test_a_table_may_put_images_of_one_folder_into_classes_and_parts(shots: Path) -> None:
    paths = [p.relative_to(shots).as_posix() for p in sorted(shots.rglob("*.png"))]
    rows = [
        f"{path},{'NG' if n % 2 else 'OK'},{'test' if n < 20 else ''}"
        for n, path in enumerate(paths)
    ]
    table = table_of(shots, "path,label,split", *rows)

    loader = opened(shots / "anywhere", table=table)

    assert loader.classes == ("NG", "OK")
    assert sorted(item.path for item in loader.parts["test"]) == paths[:20]
    assert len(loader.parts["validation"]) == 10
    assert loader.split_at((1, 8, 8)).train.inputs.shape == (42, 1, 8, 8)


def test_a_file_that_the_table_names_and_that_is_not_there_is_left_out(shots: Path) -> None:
    paths = [p.relative_to(shots).as_posix() for p in sorted(shots.rglob("*.png"))]
    rows = [f"{path},{path[:3]}" for path in [*paths, "goo/gone.png"]]

    loader = opened(shots, table=table_of(shots, "path,label", *rows[:-1], "gone.png,bad"))

    assert [(f.path, f.reason) for f in loader.excluded] == [
        ("gone.png", "No such file or directory")
    ]


def test_given_parts_that_leak_a_group_lose_its_images_in_the_earlier_part(shots: Path) -> None:
    """Part 3 of either class has a shot in test, and the others in train."""
    rows = []
    for file in sorted(shots.rglob("*.png")):
        path = file.relative_to(shots).as_posix()
        part, shot = path[6:8] if path[:3] == "bad" else path[7:9], path[-5]
        split = "test" if int(part) < 3 or (part == "03" and shot == "0") else "train"
        rows.append(f"{path},{path[:3]},{path[:3]}{part},{split}")

    loader = opened(shots, table=table_of(shots, "path,label,group,split", *rows))

    assert [(f.path, f.reason, f.why) for f in loader.excluded] == [
        (
            f"{name}/p{label}03_{shot}.png",
            f'its group "{name[:3]}03" stands in test',
            "group in a later part",
        )
        for label, name in enumerate(("bad", "good"))
        for shot in (1, 2)
    ]
    assert not {i.group for i in loader.parts["test"]} & {i.group for i in loader.parts["train"]}


def test_images_without_a_part_follow_their_group_into_the_one_that_is_given(shots: Path) -> None:
    rows = []
    for file in sorted(shots.rglob("*.png")):
        path = file.relative_to(shots).as_posix()
        group = path[:3] + path[-8:-6]
        rows.append(f"{path},{path[:3]},{group},{'test' if path.endswith('_0.png') else ''}")

    folder = read_data(shots, table=table_of(shots, "path,label,group,split", *rows))

    assert {item.subset for item in folder.items} == {"test"}
    assert folder.excluded == ()


def split_by_table(folder: Path, *special: str) -> ImageFolder:
    """Three pictures a, b, c, where b is a copy of a, in rows of their own."""
    for name, seed in (("a", 7000), ("b", 7000), ("c", 7001)):
        picture(seed).save(folder / f"{name}.png")
    return read_data(folder, table=table_of(folder, "path,label,group,split", *special))  # type: ignore[return-value]


def test_a_copy_of_a_picture_follows_its_group_into_test(tmp_path: Path) -> None:
    folder = split_by_table(tmp_path, "a.png,bad,g1,", "b.png,bad,,", "c.png,bad,g1,test")

    assert {item.path: item.subset for item in folder.items} == {
        "a.png": "test",
        "b.png": "test",
        "c.png": "test",
    }


@pytest.mark.parametrize(
    ("rows", "excluded"),
    [
        (
            ("a.png,bad,g1,train", "b.png,bad,,", "c.png,bad,g1,test"),
            {"a.png": 'its group "g1" stands in test'},
        ),
        (
            ("a.png,bad,g1,train", "b.png,bad,,train", "c.png,bad,g1,test"),
            {
                "a.png": 'its group "g1" stands in test',
                "b.png": "copies and groups tie it to a picture of test",
            },
        ),
        (
            ("a.png,bad,g1,train", "b.png,bad,,test", "c.png,bad,g1,train"),
            {
                "a.png": "the same picture stands in test",
                "c.png": "copies and groups tie it to a picture of test",
            },
        ),
        (
            ("a.png,bad,g1,", "b.png,bad,g2,train", "c.png,bad,g1,validation"),
            {"b.png": "the same picture stands in validation"},
        ),
    ],
    ids=["follows", "copy of a group", "group of a copy", "two groups"],
)
def test_what_hangs_together_by_a_copy_and_a_group_never_stands_in_two_parts(
    tmp_path: Path, rows: tuple[str, ...], excluded: dict[str, str]
) -> None:
    folder = split_by_table(tmp_path, *rows)

    assert {file.path: file.reason for file in folder.excluded} == excluded
    assert len({item.subset for item in folder.items}) == 1


def test_a_class_in_two_groups_only_cannot_be_divided_and_says_so(shots: Path) -> None:
    with pytest.raises(
        UsageError,
        match=r'class "bad" of .* stands in one group only: training, validation and test need',
    ):
        opened(shots, group=r"(bad|good)/")


def test_groups_of_several_classes_that_no_division_does_justice_to_are_named(
    tmp_path: Path,
) -> None:
    """Each class is in three groups; a and b force groups 3 and 4 together, c forces them apart."""
    groups = {"a": (1, 2, 3), "b": (1, 2, 4), "c": (1, 3, 4)}
    for label, (name, numbers) in enumerate(groups.items()):
        (tmp_path / name).mkdir()
        for group in numbers:
            for shot in range(2):
                seed = 100 * label + 10 * group + shot
                picture(seed).save(tmp_path / name / f"{group}_{shot}.png")

    with pytest.raises(
        UsageError,
        match=r'class "." of .* has no image for \w+: groups such as "\d" hold "." and ".*" '
        "together, and whole groups cannot be divided so that every part has every class",
    ):
        opened(tmp_path, group=r"/(\d)_")


@pytest.mark.parametrize("mode", ["CMYK", "LA", "P", "1", "YCbCr"])
def test_images_of_other_colour_models_are_read(tmp_path: Path, mode: str) -> None:
    suffix = "jpg" if mode in {"CMYK", "YCbCr"} else "png"
    picture(1).convert("RGB").convert("L" if mode == "LA" else "RGB").convert(mode).save(
        tmp_path / f"x.{suffix}"
    )

    pixels = pixels_of(decode((tmp_path / f"x.{suffix}").read_bytes()), 6, 6, 3)

    assert pixels.shape == (3, 6, 6)
    assert pixels.std() > 10


def test_images_in_cielab_are_read_in_grey_and_in_colour(tmp_path: Path) -> None:
    from PIL import ImageCms

    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = ImageCms.profileToProfile(picture(1).convert("RGB"), *profiles, outputMode="LAB")
    assert lab is not None
    for name in ("bad", "good"):
        (tmp_path / name).mkdir()
    lab.save(tmp_path / "bad" / "x.tiff")

    folder = read_data(tmp_path)

    assert [item.path for item in folder.items] == ["bad/x.tiff"]
    image = decode((tmp_path / "bad" / "x.tiff").read_bytes())
    assert pixels_of(image, 6, 6, 1).std() > 10
    assert np.abs(pixels_of(image, 12, 12, 3).astype(int) - np.asarray(picture(1))).max() < 12


def png16(colour_type: int, channels: int) -> bytes:
    """A PNG of 4 x 4 with 16 bits a channel, which Pillow cannot write in colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    row = b"\0" + np.full(4 * channels, 40_000, ">u2").tobytes()
    head = struct.pack(">IIBBBBB", 4, 4, 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(row * 4)), chunk(b"IEND", b""))
    )


@pytest.mark.parametrize(
    "content",
    [
        *(png16(*kind) for kind in ((0, 1), (2, 3), (4, 2), (6, 4))),
        b"P6 2 2 65535\n" + b"\x10\x20" * 12,
        b"P5 2 2 65535\n" + b"\x10\x20" * 4,
    ],
    ids=["grey", "colour", "grey with alpha", "colour with alpha", "PPM", "PGM"],
)
def test_images_of_16_bits_are_refused_in_colour_too(content: bytes) -> None:
    with pytest.raises(UnreadableImageError, match="more than 8 bits a channel"):
        decode(content)


@pytest.mark.parametrize("shape", [(2, 8, 8), (1, 512), (3, 1, 8, 8)])
def test_a_shape_that_no_image_has_is_refused(shots: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="images have 1 or 3 channels, and a network here reads"):
        opened(shots).split_at(shape)


def test_a_batch_at_a_shape_is_the_batch_of_that_size(shots: Path) -> None:
    loader = opened(shots)

    inputs, labels = loader.batch_at(6, (3, 8, 10))

    assert inputs.shape == (6, 3, 8, 10)
    assert np.array_equal(inputs, loader.labelled_batch(6, 8, 10, 3)[0])
    assert labels.shape == (6,)
    other = ImageLoader(loader.folder, seed=9)
    assert not np.array_equal(inputs, other.batch_at(6, (3, 8, 10))[0])


def test_splits_beyond_what_may_be_kept_are_loaded_again(shots: Path) -> None:
    loader = opened(shots)
    kept = KeptSplits(most_bytes=72 * 8 * 8 + 72 * 6 * 6)
    loaded: list[int] = []

    def split(side: int) -> Split:
        def load() -> Split:
            loaded.append(side)
            return loader.split_at((1, side, side))

        return kept.get(side, load)

    for side in (8, 6, 8, 4, 8, 6):
        assert split(side).train.inputs.shape[-1] == side

    assert loaded == [8, 6, 4, 6]


def test_what_does_not_fit_into_memory_is_refused_before_it_is_read() -> None:
    with pytest.raises(GenbaError, match=r"100000000 images of 3x224x224 need 15052.8 GB"):
        require_memory(100_000_000, (3, 224, 224), 1, "images")


def test_the_kind_is_found_by_the_files(shots: Path, tmp_path: Path) -> None:
    (shots / "bad" / "notes.csv").write_text("a,b\n1,2\n")

    assert isinstance(read_data(shots), ImageFolder)


def test_a_length_is_for_signals(shots: Path) -> None:
    with pytest.raises(UsageError, match="a length and a step cut signals"):
        read_data(shots, length=100)
