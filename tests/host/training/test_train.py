"""Training on tiny synthetic images: it learns, stops, resumes, and answers for its failures."""

import itertools
import math
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from host.data.split import Samples, Split
from host.training.errors import DivergedError
from host.training.metrics import evaluate
from host.training.recipe import SmallInputs
from host.training.train import (
    EpochRecord,
    TrainConfig,
    TrainingError,
    TrainResult,
    logits_of_module,
    train,
)

FAST = TrainConfig(epochs=4, batch_size=8, learning_rate=0.01, patience=10, threads=1)


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


def pooled_module(seed: int = 0) -> nn.Module:
    """Takes images of any size."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 8, 5, stride=4, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 2),
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


def test_a_training_is_stopped_at_an_epoch_and_goes_on_to_the_same_end(
    data: Split, tmp_path: Path
) -> None:
    whole = train(small_module(), data, FAST, checkpoint=tmp_path / "a.pt", clock=ticks())
    path = tmp_path / "b.pt"

    part = train(small_module(), data, FAST, checkpoint=path, until=2, clock=ticks())
    again = train(small_module(), data, FAST, checkpoint=path, until=1, clock=ticks())
    module = small_module()
    rest = train(module, data, FAST, checkpoint=path, until=9, clock=ticks())

    assert part == again
    assert part.history == whole.history[:2]
    assert rest == whole
    assert [whole.best_until(n) for n in (1, 4)] == [whole.history[0], whole.best]


def test_what_is_kept_is_the_average_of_the_weights_and_it_is_what_was_evaluated(
    data: Split, tmp_path: Path
) -> None:
    last, average = small_module(), small_module()
    config = replace(FAST, epochs=2, patience=9, label_smoothing=0.0)

    train(last, data, replace(config, averaging_epochs=0.0), checkpoint=tmp_path / "a.pt")
    result = train(average, data, config, checkpoint=tmp_path / "b.pt")

    state = torch.load(tmp_path / "b.pt", weights_only=True)
    assert torch.equal(state["average"]["0.weight"], state["best"]["0.weight"])
    assert not torch.equal(state["module"]["0.weight"], state["best"]["0.weight"])
    assert not torch.equal(state["module"]["1.running_var"], state["best"]["1.running_var"])
    assert result.best_epoch == 2
    # The average changes what is kept, never what is trained.
    plain = torch.load(tmp_path / "a.pt", weights_only=True)
    assert torch.equal(plain["module"]["0.weight"], state["module"]["0.weight"])
    logits = logits_of_module(average, data.validation.inputs, data.preprocessing)
    loss = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits),
        torch.from_numpy(data.validation.labels),
        weight=torch.tensor(
            [len(data.train) / (2 * np.sum(data.train.labels == label)) for label in (0, 1)]
        ).float(),
    )
    assert float(loss) == pytest.approx(result.best.validation_loss, rel=1e-6)


def test_some_steps_of_the_first_epochs_read_the_images_smaller(
    large_data: Split, tmp_path: Path
) -> None:
    module, sides = pooled_module(), []
    module.register_forward_pre_hook(
        lambda layer, inputs: sides.append(inputs[0].shape[2:]) if layer.training else None
    )
    config = replace(FAST, epochs=4, small_inputs=SmallInputs(side=0.75, steps=0.6, until=0.5))

    train(module, large_data, config, checkpoint=tmp_path / "c.pt")

    half = len(sides) // 2
    assert set(sides[:half]) == {(48, 48), (64, 64)}
    assert set(sides[half:]) == {(64, 64)}


def test_a_training_that_mixes_sizes_resumes_to_the_same_end(
    large_data: Split, tmp_path: Path
) -> None:
    modules = pooled_module(), pooled_module()
    whole = train(modules[0], large_data, FAST, checkpoint=tmp_path / "a.pt", clock=ticks())
    train(pooled_module(), large_data, FAST, checkpoint=tmp_path / "b.pt", until=2, clock=ticks())

    result = train(modules[1], large_data, FAST, checkpoint=tmp_path / "b.pt", clock=ticks())

    assert result == whole
    for name, value in modules[0].state_dict().items():
        assert torch.equal(value, modules[1].state_dict()[name])


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
    poisoned = replace(data, test=replace(data.test, inputs=np.zeros((0, 0), np.uint8)))

    result = train(small_module(), poisoned, FAST, checkpoint=tmp_path / "c.pt", clock=ticks())

    assert result == train(small_module(), data, FAST, checkpoint=tmp_path / "d", clock=ticks())


@pytest.mark.parametrize(
    "other",
    [
        lambda data: (small_module(seed=1), data, FAST),
        lambda data: (small_module(), data, replace(FAST, epochs=9)),
        lambda data: (small_module(), data, replace(FAST, averaging_epochs=2.0)),
        lambda data: (small_module(), replace(data, fingerprint="another"), FAST),
    ],
    ids=["weights", "settings", "average", "images"],
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


@pytest.mark.parametrize(
    "content",
    [b"\x80\x02.", b"\x80\x02h\x05.", b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R."],
    ids=["an index", "a key", "arguments"],
)
def test_a_checkpoint_that_lacks_what_it_refers_to_is_damaged(
    data: Split, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "c.pt"
    path.write_bytes(content)

    with pytest.raises(TrainingError, match=r"c.pt is damaged: remove it"):
        train(small_module(), data, replace(FAST, epochs=1), checkpoint=path)


def test_no_half_checkpoint_is_left_behind(data: Split, tmp_path: Path) -> None:
    train(small_module(), data, replace(FAST, epochs=2), checkpoint=tmp_path / "deep" / "c.pt")

    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["c.pt"]


def test_a_full_disk_is_a_sentence_and_keeps_the_last_checkpoint(
    data: Split, tmp_path: Path
) -> None:
    path = tmp_path / "c.pt"
    train(small_module(), data, FAST, checkpoint=path, until=1)
    content = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))

    try:
        with pytest.raises(TrainingError, match=r"c.pt cannot be written \(.*\): make room"):
            train(small_module(), data, FAST, checkpoint=path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert path.read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == ["c.pt"]


def test_a_loss_that_is_not_finite_is_a_sentence(data: Split, tmp_path: Path) -> None:
    module = small_module()
    nn.init.constant_(module.get_parameter("6.weight"), math.inf)

    with pytest.raises(DivergedError, match=r"diverged in epoch 1: .*lower the learning rate"):
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
    assert result.best.quality == result.best.validation_accuracy


def test_a_last_batch_of_one_image_joins_the_one_before(data: Split, tmp_path: Path) -> None:
    module = nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(1, 2)
    )
    config = replace(FAST, epochs=1, batch_size=len(data.train) - 1)

    result = train(module, data, config, checkpoint=tmp_path / "c.pt")

    assert len(result.history) == 1


def test_the_seconds_of_a_training_are_those_of_its_epochs(data: Split, tmp_path: Path) -> None:
    result: TrainResult = train(
        small_module(), data, FAST, checkpoint=tmp_path / "c.pt", clock=ticks()
    )

    assert result.seconds == len(result.history)
