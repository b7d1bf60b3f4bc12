"""A folder of tiny images that can be learned from."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from host.data.images import ImageLoader, scan_folder
from host.data.split import Samples, Split
from host.preprocessing import Preprocessing


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Noise with and without a bright spot somewhere, 16x16."""
    root = tmp_path_factory.mktemp("spots")
    rng = np.random.default_rng(0)
    for name, count in (("clean", 40), ("spot", 25)):
        (root / name).mkdir()
        for index in range(count):
            pixels = rng.integers(0, 120, (16, 16)).astype(np.uint8)
            if name == "spot":
                y, x = rng.integers(1, 12, 2)
                pixels[y : y + 4, x : x + 4] = 250
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    return ImageLoader(scan_folder(root), seed=0).split(16, 16)


@pytest.fixture(scope="session")
def large_data(data: Split) -> Split:
    """The same, each pixel as 4x4: large enough to be read smaller."""

    def enlarged(samples: Samples) -> Samples:
        return replace(samples, inputs=samples.inputs.repeat(4, axis=2).repeat(4, axis=3))

    assert isinstance(data.preprocessing, Preprocessing)
    return replace(
        data,
        train=enlarged(data.train),
        validation=enlarged(data.validation),
        test=enlarged(data.test),
        preprocessing=replace(data.preprocessing, height=64, width=64),
        fingerprint="enlarged",
    )
