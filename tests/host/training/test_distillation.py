"""A small network learns from a larger one's answers besides the labels."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from host.data.split import Split
from host.errors import UsageError
from host.training.distillation import Teacher
from host.training.train import TrainConfig, TrainingError, logits_of_module, train

FAST = TrainConfig(epochs=3, batch_size=8, learning_rate=0.01, threads=1)


def module(seed: int, channels: int = 4) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, channels, 3, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            nn.Linear(channels, 2),
        )


def ticks() -> Callable[[], float]:
    return itertools.count().__next__


@pytest.fixture
def teacher(data: Split) -> Teacher:
    return Teacher(module(7, channels=16), data.preprocessing)


def test_the_loss_is_that_of_the_two_answers_in_their_shares() -> None:
    teacher = Teacher(module(0), preprocessing=None, temperature=3.0, share=0.25)  # type: ignore[arg-type]
    logits = torch.tensor([[1.0, -2.0], [0.5, 0.0]])
    taught = torch.tensor([[2.0, 1.0], [-1.0, 3.0]])

    loss = teacher.loss(logits, taught, torch.tensor(0.8))

    wanted = [math.exp(value / 3) for value in (2.0, 1.0)], [math.exp(v / 3) for v in (-1.0, 3.0)]
    given = [math.exp(value / 3) for value in (1.0, -2.0)], [math.exp(v / 3) for v in (0.5, 0.0)]
    divergence = 0.0
    for p, q in zip(wanted, given, strict=True):
        for a, b in zip(p, q, strict=True):
            divergence += a / sum(p) * math.log((a / sum(p)) / (b / sum(q))) / 2
    assert float(loss) == pytest.approx(0.75 * 0.8 + 0.25 * 9 * divergence, rel=1e-5)


def test_a_learner_without_labels_comes_near_the_teacher_s_answers(
    data: Split, tmp_path: Path, teacher: Teacher
) -> None:
    config = replace(FAST, epochs=12, learning_rate=0.03, label_smoothing=0.0)
    train(teacher.module, data, config, checkpoint=tmp_path / "teacher.pt")
    only = replace(teacher, share=1.0)
    scrambled = replace(
        data, train=replace(data.train, labels=np.arange(len(data.train), dtype=np.int64) % 2)
    )
    learner = module(1, channels=16)
    before = agreement(learner, teacher.module, data)

    train(learner, scrambled, config, checkpoint=tmp_path / "c.pt", teacher=only)

    assert agreement(learner, teacher.module, data) > max(0.85, before)


def agreement(learner: nn.Module, teacher: nn.Module, data: Split) -> float:
    answers = [
        logits_of_module(each, data.test.inputs, data.preprocessing).argmax(1)
        for each in (learner, teacher)
    ]
    return float(np.mean(answers[0] == answers[1]))


def test_the_teacher_is_left_as_it_was_and_sees_what_the_learner_sees(
    data: Split, tmp_path: Path, teacher: Teacher
) -> None:
    teacher.module.train()
    before = {name: value.clone() for name, value in teacher.module.state_dict().items()}
    seen: list[torch.Tensor] = []
    learner = module(1)
    for each in (learner, teacher.module):
        each.register_forward_pre_hook(
            lambda _layer, inputs: seen.append(inputs[0].detach().clone())
        )
    config = replace(FAST, epochs=1)

    train(learner, data, config, checkpoint=tmp_path / "c.pt", teacher=teacher)

    steps = -(-len(data.train) // 8)
    assert teacher.module.training
    for name, value in teacher.module.state_dict().items():
        assert torch.equal(value, before[name])
    for step in range(steps):
        assert torch.equal(seen[2 * step], seen[2 * step + 1])


def test_a_teacher_of_another_size_reads_the_same_images_at_its_own(
    data: Split, teacher: Teacher
) -> None:
    larger = replace(teacher, size=(24, 24))
    samples = data.train.inputs[:4]

    answers = larger.logits(samples)

    resized = functional.interpolate(
        torch.from_numpy(data.preprocessing.normalise(samples)),
        (24, 24),
        mode="bilinear",
        antialias=True,
    )
    teacher.module.eval()
    assert torch.allclose(answers, teacher.module(resized).detach())
    assert not answers.requires_grad


def test_a_taught_training_resumes_to_the_same_end(
    data: Split, tmp_path: Path, teacher: Teacher
) -> None:
    modules = module(1), module(1)
    whole = train(modules[0], data, FAST, checkpoint=tmp_path / "a", teacher=teacher, clock=ticks())
    train(module(1), data, FAST, checkpoint=tmp_path / "b", until=2, teacher=teacher, clock=ticks())

    result = train(
        modules[1], data, FAST, checkpoint=tmp_path / "b", teacher=teacher, clock=ticks()
    )

    assert result == whole
    for name, value in modules[0].state_dict().items():
        assert torch.equal(value, modules[1].state_dict()[name])


def test_the_checkpoint_of_another_teacher_is_refused(
    data: Split, tmp_path: Path, teacher: Teacher
) -> None:
    config = replace(FAST, epochs=1)
    train(module(1), data, config, checkpoint=tmp_path / "c", teacher=teacher)

    for other in (None, replace(teacher, share=0.1), replace(teacher, module=module(8))):
        with pytest.raises(TrainingError, match="belongs to another training"):
            train(module(1), data, config, checkpoint=tmp_path / "c", teacher=other)


@pytest.mark.parametrize(
    "values", [{"temperature": 0.0}, {"temperature": math.inf}, {"share": 0.0}, {"share": 1.1}]
)
def test_a_distillation_that_cannot_be_is_refused(
    values: dict[str, float], teacher: Teacher
) -> None:
    with pytest.raises(UsageError, match="distillation needs a temperature above 0"):
        replace(teacher, **values)  # type: ignore[arg-type]
