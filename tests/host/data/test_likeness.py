"""Pictures that look alike are found, and pictures that merely show the same product are not."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from host.data.likeness import MOST_LISTED, Likeness, alike, look_of


def scene(seed: int, *, background: int = 0, side: int = 96) -> Image.Image:
    """Blobs of this seed on a strong pattern that all pictures share."""
    fixed = np.random.default_rng(background).normal(0, 40, (12, 12))
    own = np.random.default_rng(1000 + seed).normal(0, 12, (12, 12))
    small = Image.fromarray(np.clip(128 + fixed + own, 0, 255).astype(np.uint8))
    return small.resize((side, side), Image.Resampling.BICUBIC)


def saved_as_jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=40)
    return Image.open(buffer)


def found(images: list[Image.Image], parts: list[int]) -> list[tuple[int, int]]:
    looks = [look_of(image) for image in images]
    return [(pair.first, pair.second) for pair in alike(looks, parts, [0] * len(looks)).pairs]


@pytest.mark.parametrize(
    "change",
    [
        saved_as_jpeg,
        lambda image: image.resize((48, 48)),
        lambda image: image.convert("RGB"),
        lambda image: ImageEnhance.Brightness(image).enhance(1.05),
    ],
    ids=["JPEG", "half the size", "in colour", "brighter"],
)
def test_a_picture_saved_anew_is_found_in_another_part(
    change: Callable[[Image.Image], Image.Image],
) -> None:
    images = [scene(seed) for seed in range(40)]

    assert found([*images, change(images[7])], [0] * 40 + [1]) == [(7, 40)]


def test_pictures_of_one_fixture_are_not_alike_for_that() -> None:
    assert found([scene(seed) for seed in range(60)], [n % 3 for n in range(60)]) == []


def test_pairs_within_a_part_are_nobodys_concern() -> None:
    images = [scene(seed) for seed in range(20)]

    assert found([*images, saved_as_jpeg(images[3])], [0] * 21) == []


def test_more_pictures_than_are_compared_at_a_time_are_all_compared() -> None:
    rng = np.random.default_rng(0)
    looks = [row.tobytes() for row in rng.integers(0, 256, (5000, 256)).astype(np.uint8)]
    looks[4990], looks[4999], looks[4500] = looks[3], looks[4001], looks[2501]

    likeness = alike(looks, [n % 2 for n in range(5000)], [0] * 5000)

    found = {(pair.first, pair.second) for pair in likeness.pairs}
    assert found == {(3, 4990), (2501, 4500)}
    assert likeness.count == 2


def test_of_too_many_pairs_the_most_alike_are_listed_and_all_are_counted() -> None:
    """200 near copies in either part, a tenth of them labelled otherwise, and one exact copy."""
    rng = np.random.default_rng(0)
    base, other = rng.integers(20, 236, (2, 256))
    rows = [base + rng.integers(-4, 5, 256) for _ in range(400)]
    rows += [other + rng.integers(-90, 91, 256) for _ in range(400)]
    rows[399] = rows[0]
    looks = [np.clip(row, 0, 255).astype(np.uint8).tobytes() for row in rows]
    parts = [n // 200 % 2 for n in range(800)]
    labels = [int(n < 20) for n in range(800)]

    likeness = alike(looks, parts, labels)

    contrary = [pair for pair in likeness.pairs if pair.first < 20]
    assert (likeness.count, likeness.contrary) == (200 * 200, 20 * 200)
    assert (len(likeness.pairs), len(contrary)) == (2 * MOST_LISTED, MOST_LISTED)
    assert (likeness.pairs[0].first, likeness.pairs[0].second) == (0, 399)
    values = [pair.correlation for pair in likeness.pairs]
    assert values == sorted(values, reverse=True)


def test_flat_pictures_look_like_nothing() -> None:
    assert found([Image.new("L", (20, 20), 90)] * 6, [0, 1, 2, 0, 1, 2]) == []


def test_none_and_one_have_no_pairs() -> None:
    assert alike([], [], []) == Likeness((), 0, 0)
    assert found([scene(1)], [0]) == []


def test_a_part_for_each_picture_is_needed() -> None:
    with pytest.raises(ValueError, match="1 looks do not fit 2 parts"):
        alike([look_of(scene(1))], [0, 1], [0])
