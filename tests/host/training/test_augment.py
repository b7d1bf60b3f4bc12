"""Changes to samples: what they do, and what they leave alone."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from host.training.augment import Augmentation, augment

STILL = Augmentation(
    flips=False,
    quarter_turns=False,
    shift_fraction=0.0,
    brightness=0.0,
    contrast=0.0,
    amplitude=0.0,
    noise=0.0,
)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_flips_and_turns_only_move_pixels(generator: torch.Generator) -> None:
    images = torch.arange(6 * 2 * 5 * 5).reshape(6, 2, 5, 5)

    changed = augment(images, replace(STILL, flips=True, quarter_turns=True), generator)

    assert not torch.equal(changed, images)
    for before, after in zip(images, changed, strict=True):
        assert torch.equal(before.flatten(1).sort().values, after.flatten(1).sort().values)
    assert torch.equal(images, torch.arange(300).reshape(6, 2, 5, 5))


@pytest.mark.parametrize(
    ("flips", "quarter_turns", "wanted"),
    [(True, False, "flips"), (False, True, "turns"), (True, True, "both")],
)
def test_flips_and_turns_are_those_of_torch_and_each_is_as_likely(
    generator: torch.Generator, flips: bool, quarter_turns: bool, wanted: str
) -> None:
    image = torch.arange(2 * 4 * 4).reshape(1, 2, 4, 4)
    turned = [image.rot90(turn, (2, 3)) for turn in range(4)]
    flipped = [image, image.flip(2), image.flip(3), image.flip(2, 3)]
    allowed = {
        "flips": flipped,
        "turns": turned,
        "both": [*turned, *(each.flip(3) for each in turned)],
    }[wanted]

    changed = augment(
        image.expand(4000, -1, -1, -1),
        replace(STILL, flips=flips, quarter_turns=quarter_turns),
        generator,
    )

    counts = [int((changed == each).flatten(1).all(dim=1).sum()) for each in allowed]
    assert sum(counts) == 4000
    assert min(counts) > 0.8 * 4000 / len(allowed)


def test_images_that_are_not_square_are_not_turned(generator: torch.Generator) -> None:
    images = torch.arange(8 * 3 * 6).reshape(8, 1, 3, 6)

    changed = augment(images, replace(STILL, quarter_turns=True), generator)

    assert torch.equal(changed, images)


def test_images_that_are_not_square_are_flipped(generator: torch.Generator) -> None:
    images = torch.arange(3 * 6).reshape(1, 1, 3, 6).expand(50, -1, -1, -1)

    changed = augment(images, replace(STILL, flips=True), generator)

    assert {tuple(each.flatten().tolist()) for each in changed} == {
        tuple(each.flatten().tolist())
        for each in (images[0], images[0].flip(1), images[0].flip(2), images[0].flip(1, 2))
    }


def test_a_shift_repeats_the_border(generator: torch.Generator) -> None:
    images = torch.arange(20).reshape(1, 1, 1, 20).expand(50, 1, 10, 20)

    changed = augment(images, replace(STILL, shift_fraction=0.1), generator)

    shifts = {int(row[0, 0, 5]) - 5 for row in changed}
    assert shifts == {-2, -1, 0, 1, 2}
    for row in changed:
        shift = int(row[0, 0, 5]) - 5
        expected = [min(19, max(0, place + shift)) for place in range(20)]
        assert row[0].tolist() == [expected] * 10


def test_all_changes_off_change_nothing(generator: torch.Generator) -> None:
    images, signals = torch.arange(4 * 3 * 8 * 8).reshape(4, 3, 8, 8) % 256, torch.rand(4, 2, 50)

    assert torch.equal(augment(images, STILL, generator), images)
    assert torch.equal(augment(signals, STILL, generator), signals)


def test_brightness_moves_all_tones_by_one_step(generator: torch.Generator) -> None:
    images = torch.randint(60, 200, (200, 1, 4, 4), generator=generator, dtype=torch.uint8)

    changed = augment(images, replace(STILL, brightness=0.1), generator)

    moved = (changed.float() - images.float()).flatten(1)
    assert changed.dtype == torch.uint8
    assert torch.equal(moved.amin(1), moved.amax(1))
    assert 20 < moved.max() <= 26
    assert -26 <= moved.min() < -20


def test_contrast_stretches_tones_about_the_mean(generator: torch.Generator) -> None:
    images = torch.randint(60, 190, (200, 1, 8, 8), generator=generator, dtype=torch.uint8)

    changed = augment(images, replace(STILL, contrast=0.2), generator).float().flatten(1)

    before = images.float().flatten(1)
    gain = changed.std(1) / before.std(1)
    assert (changed.mean(1) - before.mean(1)).abs().max() < 0.6
    assert 0.78 < gain.min() < 0.85
    assert 1.15 < gain.max() < 1.22


def test_tones_stay_within_eight_bits(generator: torch.Generator) -> None:
    images = torch.tensor([0, 255], dtype=torch.uint8).repeat(100, 1, 8, 4)

    changed = augment(images, replace(STILL, brightness=0.5, contrast=0.5), generator)

    assert bool((changed[..., 1].int() > changed[..., 0].int()).all())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 3), st.integers(4, 20), st.integers(4, 20))
def test_changes_of_images_are_a_function_of_the_generator_and_keep_type_and_shape(
    seed: int, channels: int, height: int, width: int
) -> None:
    images = torch.randint(0, 256, (5, channels, height, width), dtype=torch.uint8)

    first, second = (
        augment(images, Augmentation(), torch.Generator().manual_seed(seed)) for _ in range(2)
    )

    assert torch.equal(first, second)
    assert (first.dtype, first.shape) == (images.dtype, images.shape)


def test_a_signal_is_never_turned_round(generator: torch.Generator) -> None:
    rising = torch.linspace(-1, 1, 200).expand(300, 1, -1)

    changed = augment(rising, Augmentation(), generator)

    middle = changed[:, 0, 50:150]
    assert bool((middle[:, -20:].mean(1) > middle[:, :20].mean(1)).all())


def test_a_shift_mirrors_a_signal_at_its_ends(generator: torch.Generator) -> None:
    signals = torch.arange(40.0).expand(80, 2, 40)

    changed = augment(signals, replace(STILL, shift_fraction=0.05), generator)

    assert {int(each[0, 10]) - 10 for each in changed} == {-2, -1, 0, 1, 2}
    for each in changed:
        shift = int(each[0, 10]) - 10
        places = [abs(place + shift) for place in range(40)]
        expected = [39 - abs(39 - place) for place in places]
        assert each.tolist() == [expected] * 2


def test_the_amplitude_of_all_sensors_of_a_window_changes_alike(
    generator: torch.Generator,
) -> None:
    signals = torch.randn(300, 3, 20, generator=generator)

    gain = augment(signals, replace(STILL, amplitude=0.1), generator) / signals

    assert (gain - gain[:, :1, :1]).abs().max() < 1e-4
    assert 0.9 <= gain.min() < 0.92
    assert 1.08 < gain.max() <= 1.1001


def test_noise_is_a_share_of_the_deviation_of_each_sensor(generator: torch.Generator) -> None:
    scale = torch.tensor([1.0, 1000.0])[None, :, None]
    signals = 5.0 + scale * torch.randn(50, 2, 2000, generator=generator)

    changed = augment(signals, replace(STILL, noise=0.05), generator)

    share = (changed - signals).std(dim=2) / signals.std(dim=2)
    assert changed.dtype == torch.float32
    assert 0.045 < share.min() < share.max() < 0.055


def test_a_signal_that_stands_still_stays_still(generator: torch.Generator) -> None:
    flat = torch.full((4, 1, 32), 7.0)

    changed = augment(flat, replace(STILL, noise=0.5, shift_fraction=0.1), generator)

    assert torch.equal(changed, flat)


def test_a_signal_as_an_image_of_height_one_is_changed_as_a_signal() -> None:
    signals = torch.randn(6, 2, 40)

    flat, high = (
        augment(each, Augmentation(), torch.Generator().manual_seed(0))
        for each in (signals, signals[:, :, None, :])
    )

    assert torch.equal(high, flat[:, :, None, :])
