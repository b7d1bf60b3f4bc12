"""Trains a network on the CPU; a killed training goes on where it was and ends the same."""

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from host.data.split import Split
from host.preprocessing import Inputs
from host.training.augment import augment
from host.training.averaging import WeightAverage
from host.training.checkpoint import identity_of, read_checkpoint, write_checkpoint
from host.training.distillation import Teacher
from host.training.errors import DivergedError, TrainingError
from host.training.history import EpochRecord, TrainResult
from host.training.inference import limited_threads, logits_of_module
from host.training.metrics import auroc, balanced_accuracy, confusion_matrix
from host.training.recipe import TrainConfig, learning_rate_at, small_size

__all__ = [
    "EpochRecord",
    "TrainConfig",
    "TrainResult",
    "TrainingError",
    "logits_of_module",
    "train",
]


def train(
    module: nn.Module,
    data: Split,
    config: TrainConfig,
    *,
    checkpoint: Path,
    until: int | None = None,
    teacher: Teacher | None = None,
    on_epoch: Callable[[EpochRecord], None] = lambda _record: None,
    clock: Callable[[], float] = time.perf_counter,
) -> TrainResult:
    """Train the module in place and leave it in evaluation mode with its best weights.

    AdamW with a linear warm-up and a cosine to zero, a loss in which every class has the same
    weight, an average of the weights that is evaluated and kept, early stopping on the validation
    part; the test part is not looked at. After each epoch the checkpoint is replaced as a whole,
    then `on_epoch` is called, which may raise to stop. Called again with the same arguments (and a
    module with the same first weights) it goes on after the last finished epoch and ends as if it
    had never stopped: all randomness is a function of the seed and the epoch. With `until` it does
    not go beyond that epoch of the same training, and a later call with a later one continues.
    Uses `config.threads` threads; the global random state is left alone.

    Raises DivergedError where the loss is not finite, and TrainingError where the checkpoint is
    damaged or belongs to another training.
    """
    with limited_threads(config.threads):
        run = _Run(module, data, config, checkpoint, teacher, clock)
        run.resume()
        while not run.finished(config.epochs if until is None else until):
            record = run.epoch()
            run.save()
            on_epoch(record)
        return run.result()


class _Run:
    """The state of one training between two epochs."""

    def __init__(
        self,
        module: nn.Module,
        data: Split,
        config: TrainConfig,
        checkpoint: Path,
        teacher: Teacher | None,
        clock: Callable[[], float],
    ) -> None:
        self._module = module
        self._data = data
        self._config = config
        self._path = checkpoint
        self._teacher = teacher
        self._clock = clock
        self._identity = identity_of(module, data, config, teacher)
        if config.channels_last:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimizer = torch.optim.AdamW(
            _parameter_groups(module, config.weight_decay), lr=config.learning_rate, fused=True
        )
        self._class_weights = _class_weights(data)
        self._steps = len(_batches(torch.arange(len(data.train)), config.batch_size))
        self._average = (
            WeightAverage(module, max(1.0, config.averaging_epochs * self._steps))
            if config.averaging_epochs > 0.0
            else None
        )
        self._small = _small_size(data, config)
        self._history: list[EpochRecord] = []
        self._best_epoch = 0
        self._best = _copy_of(module)

    def finished(self, until: int) -> bool:
        """Whether nothing is left to do up to that epoch."""
        done = len(self._history)
        return (
            done >= min(until, self._config.epochs)
            or done - self._best_epoch >= self._config.patience
        )

    def epoch(self) -> EpochRecord:
        """Train for one epoch, look at the validation part, and keep the weights if better."""
        start = self._clock()
        number = len(self._history) + 1
        rate, train_loss = self._train_epoch(number)
        answering = self._module if self._average is None else self._average.module
        logits = logits_of_module(
            answering,
            self._data.validation.inputs,
            self._data.preprocessing,
            threads=self._config.threads,
        )
        record = self._record(number, rate, train_loss, logits, start)
        if not math.isfinite(record.train_loss) or not math.isfinite(record.validation_loss):
            raise DivergedError(
                f"training diverged in epoch {number}: the loss is not finite; lower the "
                f"learning rate of {self._config.learning_rate}"
            )
        self._history.append(record)
        if self._best_epoch == 0 or record.merit > self._history[self._best_epoch - 1].merit:
            self._best_epoch = number
            self._best = _copy_of(answering)
        return record

    def result(self) -> TrainResult:
        """Load the best weights and say how it went."""
        self._module.load_state_dict(self._best)
        self._module.eval()
        seconds = sum(record.seconds for record in self._history)
        return TrainResult(tuple(self._history), self._best_epoch, seconds)

    def save(self) -> None:
        state = {
            "module": self._module.state_dict(),
            "average": None if self._average is None else self._average.state(),
            "optimizer": self._optimizer.state_dict(),
            "best": self._best,
            "best_epoch": self._best_epoch,
            "history": [astuple(record) for record in self._history],
        }
        write_checkpoint(self._path, self._identity, state)

    def resume(self) -> None:
        """Take up the state of the checkpoint if there is one."""
        state = read_checkpoint(self._path, self._identity)
        if state is None:
            return
        self._module.load_state_dict(state["module"])
        if self._average is not None:
            self._average.load(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._best = state["best"]
        self._best_epoch = state["best_epoch"]
        self._history = [EpochRecord(*values) for values in state["history"]]

    def _train_epoch(self, number: int) -> tuple[float, float]:
        """The rate of the last step and the mean loss over the samples of the epoch."""
        config, samples = self._config, self._data.train
        generator = torch.Generator().manual_seed(_epoch_seed(config.seed, number))
        batches = _batches(torch.randperm(len(samples), generator=generator), config.batch_size)
        inputs, labels = torch.from_numpy(samples.inputs), torch.from_numpy(samples.labels)
        small_steps = self._small_steps(number, generator)
        self._module.train()
        rate, total = 0.0, 0.0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_epoch_seed(config.seed, number))
            for index, chosen in enumerate(batches):
                step = (number - 1) * self._steps + index
                rate = learning_rate_at(step, self._steps * config.epochs, config)
                changed = augment(inputs[chosen], config.augmentation, generator).numpy()
                size = self._small if small_steps[index] else None
                total += self._step(changed, labels[chosen], rate, size) * len(chosen)
                if self._average is not None:
                    self._average.update(step)
        return rate, total / len(samples)

    def _small_steps(self, number: int, generator: torch.Generator) -> list[bool]:
        """Which steps of that epoch read the images smaller."""
        drawn = torch.rand(self._steps, generator=generator)
        small = self._config.small_inputs
        if small is None or number > small.until * self._config.epochs:
            return [False] * self._steps
        return [bool(value) for value in drawn < small.steps]

    def _step(
        self,
        samples: Inputs,
        labels: torch.Tensor,
        rate: float,
        size: tuple[int, int] | None,
    ) -> float:
        inputs = torch.from_numpy(self._data.preprocessing.normalise(samples))
        if size is not None:
            inputs = functional.interpolate(
                inputs, size, mode="bilinear", antialias=True, align_corners=False
            )
        if self._config.channels_last and inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        logits = self._module(inputs)
        loss = functional.cross_entropy(
            logits,
            labels,
            weight=self._class_weights,
            label_smoothing=self._config.label_smoothing,
        )
        if self._teacher is not None:
            loss = self._teacher.loss(logits, self._teacher.logits(samples), loss)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return float(loss.detach())

    def _record(
        self,
        number: int,
        rate: float,
        train_loss: float,
        logits: npt.NDArray[np.float32],
        start: float,
    ) -> EpochRecord:
        labels = self._data.validation.labels
        classes = len(self._data.classes)
        answers = logits.argmax(axis=1)
        area = auroc(labels, logits[:, 1] - logits[:, 0]) if classes == 2 else None
        loss = functional.cross_entropy(
            torch.from_numpy(logits), torch.from_numpy(labels), weight=self._class_weights
        )
        return EpochRecord(
            epoch=number,
            learning_rate=rate,
            train_loss=train_loss,
            validation_loss=float(loss),
            validation_auroc=None if area is None else area.value,
            validation_accuracy=float(np.mean(labels == answers)),
            validation_balanced_accuracy=balanced_accuracy(
                confusion_matrix(labels, answers, classes=classes)
            ),
            seconds=self._clock() - start,
        )


def _small_size(data: Split, config: TrainConfig) -> tuple[int, int] | None:
    """None for signals, and for images that are read at full size alone."""
    shape = data.train.inputs.shape
    if config.small_inputs is None or len(shape) != 4:
        return None
    return small_size(shape[2], shape[3], config.small_inputs)


def _batches(order: torch.Tensor, size: int) -> list[torch.Tensor]:
    batches = list(torch.split(order, size))
    # A normalisation over 1x1 maps has no statistics of a single image.
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _class_weights(data: Split) -> torch.Tensor:
    """Weights inverse to the classes' frequencies, one on average over the samples."""
    counts = np.bincount(data.train.labels, minlength=len(data.classes))
    return torch.from_numpy(len(data.train) / (len(counts) * counts)).float()


def _parameter_groups(module: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Weights decay; biases, and scales and shifts of normalisations, do not."""
    parameters = list(module.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _copy_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _epoch_seed(seed: int, epoch: int) -> int:
    digest = hashlib.blake2b(f"{seed}:{epoch}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1
