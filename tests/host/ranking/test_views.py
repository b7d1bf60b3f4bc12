"""What proxies look at."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from host.data.images import scan_folder
from host.errors import UsageError
from host.ranking.views import made_views, views_of_folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of ten colour images."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name in ("bad", "good"):
        (root / name).mkdir()
        for number in range(10):
            pixels = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def test_made_images_have_the_shape_that_a_network_reads_unless_a_side_is_given() -> None:
    (own,) = made_views(None, 4, 1, seed=0, resolution=None)
    (small,) = made_views(None, 4, 1, seed=0, resolution=16)

    assert own.batch((3, 64, 48)).images.shape == (4, 3, 64, 48)
    assert small.batch((3, 64, 48)).images.shape == (4, 3, 16, 16)
    assert small.batch((6, 1, 512)).images.shape == (4, 6, 1, 16)


def test_networks_of_one_input_share_one_batch() -> None:
    (view,) = made_views("gaussian", 4, 1, seed=0, resolution=8)

    assert view.batch((3, 64, 64)) is view.batch((3, 32, 32))


def test_each_draw_has_other_images_and_another_seed() -> None:
    first, second = made_views("natural", 4, 2, seed=7, resolution=None)

    assert (first.seed, second.seed) == (7, 8)
    assert first.batch((3, 8, 8)).key != second.batch((3, 8, 8)).key
    assert first.batch((3, 8, 8)).key.startswith("natural 4x3x8x8 #")


def test_a_draw_is_the_first_of_its_own_seed() -> None:
    _, second = made_views("natural", 4, 2, seed=7, resolution=None)
    (same,) = made_views("natural", 4, 1, seed=8, resolution=None)

    assert second.batch((3, 8, 8)).key == same.batch((3, 8, 8)).key


def test_images_of_a_folder_come_with_their_classes(photos: Path) -> None:
    folder = scan_folder(photos)

    (view,) = views_of_folder(folder, 8, 1, seed=0, resolution=None)
    colour, grey = view.batch((3, 16, 16)), view.batch((1, 16, 16))

    assert colour.images.shape == (8, 3, 16, 16)
    assert grey.images.shape == (8, 1, 16, 16)
    assert colour.labels is not None
    assert set(colour.labels.tolist()) == {0, 1}
    assert colour.images.dtype == np.float32


def test_each_draw_takes_other_images_of_the_folder(photos: Path) -> None:
    first, second = views_of_folder(scan_folder(photos), 6, 2, seed=0, resolution=None)

    assert first.batch((3, 16, 16)).key != second.batch((3, 16, 16)).key


def test_what_is_no_image_asks_for_noise(photos: Path) -> None:
    (folder,) = views_of_folder(scan_folder(photos), 8, 1, seed=0, resolution=None)
    (natural,) = made_views("natural", 8, 1, seed=0, resolution=None)
    (free,) = made_views(None, 8, 1, seed=0, resolution=16)

    for shape in ((6, 32, 32), (10, 64)):
        with pytest.raises(UsageError, match="--images gaussian"):
            folder.batch(shape)
    with pytest.raises(UsageError, match="10x64, which is no image"):
        natural.batch((10, 64))
    assert free.batch((10, 64)).images.shape == (8, 10, 64)
    assert free.batch((10, 64)).source == "gaussian"
