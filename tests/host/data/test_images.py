"""Image folders: what is read, what is refused, and how it is divided."""

import io
import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from host.data.images import (
    ImageFolder,
    ImageItem,
    ImageLoader,
    preprocessing_of,
    scan_folder,
    split_items,
)
from host.errors import GenbaError, UsageError
from host.preprocessing import Preprocessing, UnreadableImageError, decode, is_grey, pixels_of


def picture(seed: int, *, mode: str = "L", size: tuple[int, int] = (12, 10)) -> Image.Image:
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], *channels))
    return Image.fromarray(values.astype(np.uint8), mode)


def write_class(folder: Path, count: int, *, start: int = 0, mode: str = "L") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        picture(start + index, mode=mode).save(folder / f"{index:03}.png")
    return folder


@pytest.fixture
def two_classes(tmp_path: Path) -> Path:
    write_class(tmp_path / "bad", 20)
    write_class(tmp_path / "good", 10, start=100)
    return tmp_path


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_classes_are_the_sub_folders_in_order_of_their_names(two_classes: Path) -> None:
    write_class(two_classes / "傷" / "2026" / "line 1", 6, start=200)

    folder = scan_folder(two_classes)

    assert folder.classes == ("bad", "good", "傷")
    assert folder.class_counts() == {"bad": 20, "good": 10, "傷": 6}
    assert folder.items[-1].path == "傷/2026/line 1/005.png"
    assert folder.excluded == ()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no image folder .*nowhere: check the path"):
        scan_folder(tmp_path / "nowhere")


def test_a_file_instead_of_a_folder_is_refused(two_classes: Path) -> None:
    with pytest.raises(UsageError, match="there is no image folder"):
        scan_folder(two_classes / "bad" / "000.png")


def test_images_without_class_folders_are_refused(two_classes: Path) -> None:
    with pytest.raises(UsageError, match="has no class folders: put the images"):
        scan_folder(two_classes / "bad")


def test_one_class_only_is_refused(tmp_path: Path) -> None:
    write_class(tmp_path / "good", 10)

    with pytest.raises(UsageError, match='only one class, "good"'):
        scan_folder(tmp_path)


def test_a_class_with_too_few_images_is_named_with_what_was_left_out(two_classes: Path) -> None:
    few = write_class(two_classes / "few", 4, start=200)
    (few / "broken.jpg").write_bytes(b"not a picture")

    with pytest.raises(
        UsageError,
        match=r'"few" of .* has 4 usable images \(left out: few/broken.jpg: cannot identify image '
        r"file\): at least 5",
    ):
        scan_folder(two_classes)


def test_unreadable_files_are_named_with_the_reason_and_the_rest_goes_on(two_classes: Path) -> None:
    bad = two_classes / "bad"
    (bad / "empty.png").write_bytes(b"")
    (bad / "truncated.png").write_bytes((bad / "000.png").read_bytes()[:80])
    (bad / "link.png").symlink_to(bad / "nowhere.png")
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(bad / "deep.png")

    folder = scan_folder(two_classes)

    reasons = {file.path: file.reason for file in folder.excluded}
    assert folder.class_counts() == {"bad": 20, "good": 10}
    assert set(reasons) == {f"bad/{n}.png" for n in ("empty", "truncated", "link", "deep")}
    assert reasons["bad/empty.png"] == "cannot identify image file"
    assert reasons["bad/deep.png"] == "it has more than 8 bits a channel; save it with 8 bits"
    assert reasons["bad/link.png"] == "No such file or directory"
    assert "BytesIO" not in "".join(reasons.values())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_excluded(two_classes: Path) -> None:
    (two_classes / "bad" / "000.png").chmod(0)

    folder = scan_folder(two_classes)

    assert [file.path for file in folder.excluded] == ["bad/000.png"]


def test_hidden_files_and_other_files_are_passed_over(two_classes: Path) -> None:
    (two_classes / "bad" / "._000.png").write_bytes(b"junk of a file manager")
    (two_classes / "bad" / "Thumbs.db").write_bytes(b"junk of another")
    (two_classes / ".cache").mkdir()

    folder = scan_folder(two_classes)

    assert folder.excluded == ()
    assert len(folder.items) == 30


def test_a_picture_with_two_labels_is_excluded_from_both(two_classes: Path) -> None:
    (two_classes / "good" / "copy.png").write_bytes((two_classes / "bad/003.png").read_bytes())

    folder = scan_folder(two_classes)

    assert [file.path for file in folder.excluded] == ["bad/003.png", "good/copy.png"]
    assert folder.excluded[0].reason == 'the same picture stands in "bad" and "good"'


def test_the_fingerprint_changes_with_a_name_and_with_a_content(two_classes: Path) -> None:
    first = scan_folder(two_classes).fingerprint
    assert scan_folder(two_classes).fingerprint == first
    (two_classes / "bad" / "000.png").rename(two_classes / "bad" / "x.png")

    renamed = scan_folder(two_classes).fingerprint
    picture(999).save(two_classes / "bad" / "x.png")
    changed = scan_folder(two_classes).fingerprint

    assert len({first, renamed, changed}) == 3


def test_grey_pictures_stored_in_colour_count_as_grey(two_classes: Path) -> None:
    picture(500).convert("RGB").save(two_classes / "bad" / "as_rgb.png")
    grey = scan_folder(two_classes)
    picture(501, mode="RGB").save(two_classes / "bad" / "colour.png")

    colour = scan_folder(two_classes)

    assert grey.channels == 1
    assert colour.channels == 3
    assert ImageLoader(colour, seed=0).split(4, 6).train.inputs.shape[1:] == (3, 4, 6)
    assert ImageLoader(grey, seed=0).split(4, 6, 3).train.inputs.shape[1] == 3


def test_parts_that_the_folder_has_are_kept(tmp_path: Path) -> None:
    for number, part in enumerate(("train", "val", "test")):
        write_class(tmp_path / part / "a", 6, start=100 * number)
        write_class(tmp_path / part / "b", 5, start=100 * number + 50)

    parts = split_items(scan_folder(tmp_path), seed=3)

    for subset, name in (("train", "train"), ("validation", "val"), ("test", "test")):
        assert {item.path.split("/")[0] for item in parts[subset]} == {name}  # type: ignore[index]
        assert len(parts[subset]) == 11  # type: ignore[index]


def test_a_part_that_the_folder_lacks_is_cut_from_training(tmp_path: Path) -> None:
    write_class(tmp_path / "train" / "a", 20)
    write_class(tmp_path / "train" / "b", 20, start=100)
    write_class(tmp_path / "test" / "a", 3, start=200)
    write_class(tmp_path / "test" / "b", 3, start=300)

    parts = split_items(scan_folder(tmp_path), seed=3)

    assert {subset: len(items) for subset, items in parts.items()} == {
        "train": 32,
        "validation": 8,
        "test": 6,
    }


def test_a_training_copy_of_a_test_picture_is_excluded(tmp_path: Path) -> None:
    for part, start in (("train", 0), ("test", 300)):
        write_class(tmp_path / part / "a", 10, start=start)
        write_class(tmp_path / part / "b", 10, start=start + 100)
    (tmp_path / "train/a/copy.png").write_bytes((tmp_path / "test/a/001.png").read_bytes())

    folder = scan_folder(tmp_path)

    assert [(f.path, f.reason) for f in folder.excluded] == [
        ("train/a/copy.png", "the same picture stands in test")
    ]


def test_a_class_missing_from_a_given_part_is_named(tmp_path: Path) -> None:
    write_class(tmp_path / "train" / "a", 10)
    write_class(tmp_path / "train" / "b", 10, start=100)
    write_class(tmp_path / "test" / "a", 3, start=200)

    with pytest.raises(UsageError, match=r'class "b" of .* has no image for test'):
        split_items(scan_folder(tmp_path), seed=0)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    write_class(tmp_path / "train", 6)
    write_class(tmp_path / "ship", 6, start=100)

    assert scan_folder(tmp_path).classes == ("ship", "train")


def folder_of(counts: list[int], copies: dict[int, int] | None = None) -> ImageFolder:
    items = []
    for label, count in enumerate(counts):
        for index in range(count):
            content = (copies or {}).get(index, index)
            items.append(ImageItem(f"{label}/{index}.png", label, f"{label}-{content}", grey=True))
    return ImageFolder(Path("photos"), tuple(str(i) for i in range(len(counts))), tuple(items))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(5, 60), min_size=2, max_size=4), st.integers(0, 2**32))
def test_a_split_is_stratified_disjoint_and_complete(counts: list[int], seed: int) -> None:
    folder = folder_of(counts)

    parts = split_items(folder, seed=seed)

    paths = [item.path for items in parts.values() for item in items]
    assert sorted(paths) == sorted(item.path for item in folder.items)
    for label, count in enumerate(counts):
        test = sum(item.label == label for item in parts["test"])
        validation = sum(item.label == label for item in parts["validation"])
        assert test == validation == max(1, round(0.2 * count))
    assert split_items(folder, seed=seed) == parts


def test_a_split_depends_on_contents_and_seed_but_not_on_names() -> None:
    folder = folder_of([40, 40])
    renamed = ImageFolder(
        folder.root,
        folder.classes,
        tuple(
            ImageItem(f"{i.label}/z{99 - n}.png", i.label, i.sha256, i.grey)
            for n, i in enumerate(folder.items)
        ),
    )

    def test_part(f: ImageFolder, seed: int) -> set[str]:
        return {item.sha256 for item in split_items(f, seed=seed)["test"]}

    assert test_part(renamed, 1) == test_part(folder, 1)
    assert test_part(folder, 2) != test_part(folder, 1)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000))
def test_copies_of_a_picture_stay_in_one_part(seed: int) -> None:
    copies = {index: index // 3 for index in range(60)}

    parts = split_items(folder_of([60, 60], copies), seed=seed)

    contents = [{item.sha256 for item in items} for items in parts.values()]
    assert not contents[0] & contents[1]
    assert not contents[0] & contents[2]
    assert not contents[1] & contents[2]


def test_training_pixels_are_normalised_by_their_own_mean_and_deviation(two_classes: Path) -> None:
    split = ImageLoader(scan_folder(two_classes), seed=0).split(10, 12)

    normalised = split.preprocessing.normalise(split.train.inputs)

    assert normalised.dtype == np.float32
    assert normalised.mean() == pytest.approx(0.0, abs=1e-5)
    assert normalised.std() == pytest.approx(1.0, abs=1e-5)
    assert isinstance(split.preprocessing, Preprocessing)
    assert split.preprocessing.colour_order == "grey"
    assert split.majority_class == 0


def test_images_of_one_flat_tone_can_be_normalised() -> None:
    pixels = np.full((3, 1, 4, 4), 7, np.uint8)

    normalised = preprocessing_of(pixels).normalise(pixels)

    assert np.abs(normalised).max() < 1e-5


def test_a_size_is_decoded_once(two_classes: Path) -> None:
    loader = ImageLoader(scan_folder(two_classes), seed=0)
    first = loader.split(8, 8)
    for file in two_classes.rglob("*.png"):
        file.unlink()

    assert loader.split(8, 8) is first


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda file: file.unlink(), "can no longer be read"),
        (lambda file: picture(77).save(file), "has changed since"),
    ],
)
def test_a_file_that_changed_after_the_scan_is_named(
    two_classes: Path, spoil: Callable[[Path], None], message: str
) -> None:
    folder = scan_folder(two_classes)
    spoil(two_classes / "bad" / "004.png")

    with pytest.raises(GenbaError, match=f"004.png.* {message}"):
        ImageLoader(folder, seed=0).split(8, 8)


def test_the_batch_for_proxies_comes_from_the_training_part_only(two_classes: Path) -> None:
    loader = ImageLoader(scan_folder(two_classes), seed=0)

    batch, labels = loader.labelled_batch(8, 10, 12)

    assert batch.shape == (8, 1, 10, 12)
    assert labels.shape == (8,)
    assert np.array_equal(batch, loader.labelled_batch(8, 10, 12)[0])
    assert len(loader.labelled_batch(1000, 10, 12)[0]) == len(loader.parts["train"])
    held_back = loader.split(10, 12)
    shapes = {hash(np.argsort(image.ravel()).tobytes()) for image in batch}
    for images in (held_back.validation, held_back.test):
        assert not shapes & {hash(np.argsort(i.ravel()).tobytes()) for i in images.inputs}


def test_an_image_is_turned_upright() -> None:
    image = picture(1, size=(6, 4))
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=exif)

    assert decode(buffer.getvalue()).size == (4, 6)


def test_palettes_and_transparency_become_their_colours() -> None:
    image = picture(1, mode="RGBA").quantize(16)
    image.info["transparency"] = bytes(range(16))

    pixels = pixels_of(decode(png(image)), 10, 12, 3)

    assert pixels.shape == (3, 10, 12)
    assert np.array_equal(pixels[:, 0, 0], image.convert("RGBA").getpixel((0, 0))[:3])  # type: ignore[index]


def test_colour_keeps_its_order() -> None:
    pixels = pixels_of(Image.new("RGB", (4, 4), (10, 20, 30)), 2, 2, 3)

    assert pixels[:, 0, 0].tolist() == [10, 20, 30]
    assert not is_grey(Image.new("RGB", (4, 4), (10, 20, 30)))


def test_normalisation_follows_its_formula() -> None:
    preprocessing = Preprocessing(1, 1, 3, (0.1, 0.2, 0.3), (0.5, 1.0, 2.0))

    normalised = preprocessing.normalise(np.array([[[51]], [[102]], [[255]]], np.uint8))

    assert normalised.ravel() == pytest.approx([0.2, 0.2, 0.35])


@pytest.mark.filterwarnings("ignore")  # Pillow warns of odd metadata on its way to an error
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "PPM", "WEBP"])
def test_damaged_bytes_are_an_image_or_a_reason_and_nothing_else(kind: str) -> None:
    buffer = io.BytesIO()
    picture(3, mode="RGB").save(buffer, kind)
    content = buffer.getvalue()
    rng = random.Random(1)
    reasons = []

    for _ in range(150):
        damaged = bytearray(content[: rng.randint(1, len(content))])
        for _ in range(rng.randint(0, 8)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        try:
            pixels_of(decode(bytes(damaged)), 4, 4, 3)
        except UnreadableImageError as error:
            reasons.append(str(error))

    assert reasons
    assert all(reasons)
