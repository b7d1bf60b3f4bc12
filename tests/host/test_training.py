"""Training on tiny synthetic folders: it learns, stops, resumes, and answers for its failures."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from host.data.images import load_split, scan_folder
from host.data.split import Samples, Split
from host.errors import UsageError
from host.training.augment import Augmentation, augment
from host.training.metrics import evaluate
from host.training.train import (
    EpochRecord,
    TrainConfig,
    TrainingError,
    TrainResult,
    learning_rate_at,
    logits_of_module,
    train,
)

FAST = TrainConfig(epochs=4, batch_size=8, learning_rate=0.01, patience=10, threads=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Noise with and without a bright spot somewhere."""
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
    return load_split(scan_folder(root), height=16, width=16, seed=0)


def small_module(seed: int = 0, *, classes: int = 2, dropout: float = 0.1) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(4),
            nn.Dropout(dropout),
            nn.Flatten(),
            nn.Linear(8 * 16, classes),
        )


class Killed(Exception):  # noqa: N818  it stands for a signal
    """Stands for the end of the process."""


def kill_after(epoch: int) -> Callable[[EpochRecord], None]:
    def stop(record: EpochRecord) -> None:
        if record.epoch == epoch:
            raise Killed

    return stop


def ticks() -> Callable[[], float]:
    return itertools.count().__next__


def test_it_learns_what_can_be_learnt_and_keeps_the_best_weights(
    data: Split, tmp_path: Path
) -> None:
    module = small_module()
    config = replace(FAST, epochs=15)

    result = train(module, data, config, checkpoint=tmp_path / "c.pt")

    found = evaluate(
        data.test.labels,
        logits_of_module(module, data.test.inputs, data.preprocessing),
        majority_class=data.majority_class,
    )
    assert found.auroc is not None
    assert found.auroc.value > 0.9
    assert found.accuracy.value > found.majority_accuracy
    assert not module.training
    assert result.best.merit == max(record.merit for record in result.history)
    validation = logits_of_module(module, data.validation.inputs, data.preprocessing)
    again = evaluate(data.validation.labels, validation, majority_class=0)
    assert again.auroc is not None
    assert again.auroc.value == result.best.validation_auroc == result.best.monitored


@pytest.mark.parametrize("killed_in", [1, 3])
def test_a_killed_training_ends_as_if_it_had_never_stopped(
    data: Split, tmp_path: Path, killed_in: int
) -> None:
    undisturbed, resumed = small_module(), small_module()
    whole = train(undisturbed, data, FAST, checkpoint=tmp_path / "a.pt", clock=ticks())
    with pytest.raises(Killed):
        train(
            resumed,
            data,
            FAST,
            checkpoint=tmp_path / "b.pt",
            on_epoch=kill_after(killed_in),
            clock=ticks(),
        )
    resumed = small_module()
    torch.manual_seed(12345)
    seen: list[int] = []

    result = train(
        resumed,
        data,
        FAST,
        checkpoint=tmp_path / "b.pt",
        on_epoch=lambda record: seen.append(record.epoch),
        clock=ticks(),
    )

    assert result == whole
    assert seen == list(range(killed_in + 1, 5))
    for name, value in undisturbed.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])


def test_a_finished_training_called_again_only_loads(data: Split, tmp_path: Path) -> None:
    first = train(small_module(), data, FAST, checkpoint=tmp_path / "c.pt")
    module = small_module()

    again = train(module, data, FAST, checkpoint=tmp_path / "c.pt", on_epoch=kill_after(1))

    assert again == first
    assert not torch.equal(module.state_dict()["0.weight"], small_module().state_dict()["0.weight"])


def test_two_trainings_of_one_seed_are_one_and_another_seed_is_another(
    data: Split, tmp_path: Path
) -> None:
    def losses(name: str, seed: int) -> list[float]:
        config = replace(FAST, epochs=2, seed=seed)
        result = train(small_module(), data, config, checkpoint=tmp_path / name)
        return [record.train_loss for record in result.history]

    assert losses("a", 1) == losses("b", 1)
    assert losses("c", 2) != losses("d", 1)


def test_the_global_random_state_and_the_thread_count_are_left_alone(
    data: Split, tmp_path: Path
) -> None:
    before, threads = torch.get_rng_state(), torch.get_num_threads()

    train(small_module(), data, replace(FAST, epochs=1, threads=1), checkpoint=tmp_path / "c.pt")

    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_it_stops_when_nothing_gets_better(data: Split, tmp_path: Path) -> None:
    config = replace(FAST, epochs=50, patience=2, learning_rate=1e-12, weight_decay=0.0)
    module = small_module(dropout=0.0)
    nn.init.zeros_(module.get_parameter("6.weight"))
    nn.init.zeros_(module.get_parameter("6.bias"))
    module.get_parameter("6.weight").requires_grad_(False)
    module.get_parameter("6.bias").requires_grad_(False)

    result = train(module, data, config, checkpoint=tmp_path / "c.pt")

    assert result.best_epoch == 1
    assert len(result.history) == 3
    assert result.best.monitored == 0.5
    assert result.best.validation_loss == pytest.approx(math.log(2))


def test_the_test_part_is_not_looked_at(data: Split, tmp_path: Path) -> None:
    poisoned = replace(data, test=replace(data.test, pixels=np.zeros((0, 0), np.uint8)))

    result = train(small_module(), poisoned, FAST, checkpoint=tmp_path / "c.pt", clock=ticks())

    assert result == train(small_module(), data, FAST, checkpoint=tmp_path / "d", clock=ticks())


@pytest.mark.parametrize(
    "other",
    [
        lambda data: (small_module(seed=1), data, FAST),
        lambda data: (small_module(), data, replace(FAST, epochs=9)),
        lambda data: (small_module(), replace(data, fingerprint="another"), FAST),
    ],
    ids=["weights", "settings", "images"],
)
def test_the_checkpoint_of_another_training_is_refused_and_kept(
    data: Split,
    tmp_path: Path,
    other: Callable[[Split], tuple[nn.Module, Split, TrainConfig]],
) -> None:
    path = tmp_path / "c.pt"
    train(small_module(), data, replace(FAST, epochs=1), checkpoint=path)
    content = path.read_bytes()

    with pytest.raises(TrainingError, match="belongs to another training"):
        train(*other(data), checkpoint=path)

    assert path.read_bytes() == content


@pytest.mark.parametrize("keep", [0, 100, 4000])
def test_a_damaged_checkpoint_is_named(data: Split, tmp_path: Path, keep: int) -> None:
    path = tmp_path / "c.pt"
    train(small_module(), data, replace(FAST, epochs=1), checkpoint=path)
    path.write_bytes(path.read_bytes()[:keep])

    with pytest.raises(TrainingError, match=r"c.pt is damaged: remove it"):
        train(small_module(), data, replace(FAST, epochs=1), checkpoint=path)


def test_no_half_checkpoint_is_left_behind(data: Split, tmp_path: Path) -> None:
    train(small_module(), data, replace(FAST, epochs=2), checkpoint=tmp_path / "deep" / "c.pt")

    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["c.pt"]


def test_a_loss_that_is_not_finite_is_a_sentence(data: Split, tmp_path: Path) -> None:
    module = small_module()
    nn.init.constant_(module.get_parameter("6.weight"), math.inf)

    with pytest.raises(TrainingError, match=r"diverged in epoch 1: .*lower the learning rate"):
        train(module, data, FAST, checkpoint=tmp_path / "c.pt")

    assert not (tmp_path / "c.pt").exists()


def test_three_classes_are_judged_by_balanced_accuracy(data: Split, tmp_path: Path) -> None:
    def relabelled(images: Samples) -> Samples:
        return replace(images, labels=np.arange(len(images)) % 3)

    three = replace(
        data,
        classes=("a", "b", "c"),
        train=relabelled(data.train),
        validation=relabelled(data.validation),
    )

    result = train(small_module(classes=3), three, FAST, checkpoint=tmp_path / "c.pt")

    assert result.best.validation_auroc is None
    assert result.best.monitored == result.best.validation_balanced_accuracy


def test_a_last_batch_of_one_image_joins_the_one_before(data: Split, tmp_path: Path) -> None:
    module = nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(1, 2)
    )
    config = replace(FAST, epochs=1, batch_size=len(data.train) - 1)

    result = train(module, data, config, checkpoint=tmp_path / "c.pt")

    assert len(result.history) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs of 1 or more, got 0"),
        ({"batch_size": -1}, "batch_size of 1 or more"),
        ({"learning_rate": 0.0}, "learning_rate above 0"),
        ({"learning_rate": math.nan}, "learning_rate above 0"),
        ({"warmup_fraction": 1.0}, "warmup_fraction"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrainConfig(**changes)  # type: ignore[arg-type]


def test_the_learning_rate_warms_up_and_falls_to_zero() -> None:
    config = TrainConfig(learning_rate=1.0, warmup_fraction=0.25)

    rates = [learning_rate_at(step, 100, config) for step in range(101)]

    assert rates[0] == pytest.approx(0.1)
    assert rates[25] == 1.0
    assert rates[:26] == sorted(rates[:26])
    assert rates[25:] == sorted(rates[25:], reverse=True)
    assert rates[100] == pytest.approx(0.0)
    assert learning_rate_at(0, 100, replace(config, warmup_fraction=0.0)) == 1.0


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_flips_and_turns_only_move_pixels(generator: torch.Generator) -> None:
    images = torch.arange(6 * 2 * 5 * 5).reshape(6, 2, 5, 5)

    changed = augment(images, Augmentation(shift_fraction=0.0), generator)

    assert not torch.equal(changed, images)
    for before, after in zip(images, changed, strict=True):
        assert torch.equal(before.flatten(1).sort().values, after.flatten(1).sort().values)
    assert torch.equal(images, torch.arange(300).reshape(6, 2, 5, 5))


def test_images_that_are_not_square_are_not_turned(generator: torch.Generator) -> None:
    images = torch.arange(8 * 3 * 6).reshape(8, 1, 3, 6)

    changed = augment(images, Augmentation(flips=False, shift_fraction=0.0), generator)

    assert torch.equal(changed, images)


def test_a_shift_repeats_the_border(generator: torch.Generator) -> None:
    images = torch.arange(20).reshape(1, 1, 1, 20).expand(50, 1, 10, 20)
    augmentation = Augmentation(flips=False, quarter_turns=False, shift_fraction=0.1)

    changed = augment(images, augmentation, generator)

    shifts = {int(row[0, 0, 5]) - 5 for row in changed}
    assert shifts == {-2, -1, 0, 1, 2}
    for row in changed:
        shift = int(row[0, 0, 5]) - 5
        expected = [min(19, max(0, place + shift)) for place in range(20)]
        assert row[0].tolist() == [expected] * 10


def test_all_changes_off_change_nothing(generator: torch.Generator) -> None:
    images = torch.rand(4, 3, 8, 8)
    off = Augmentation(flips=False, quarter_turns=False, shift_fraction=0.0)

    assert torch.equal(augment(images, off, generator), images)


def test_the_seconds_of_a_training_are_those_of_its_epochs(data: Split, tmp_path: Path) -> None:
    result: TrainResult = train(
        small_module(), data, FAST, checkpoint=tmp_path / "c.pt", clock=ticks()
    )

    assert result.seconds == len(result.history)
