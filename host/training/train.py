"""Trains a network on the CPU; a killed training goes on where it was and ends the same."""

import contextlib
import hashlib
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from host.data.split import Split
from host.errors import GenbaError, UsageError
from host.preprocessing import Pixels, Preprocessing
from host.training.augment import Augmentation, augment
from host.training.metrics import auroc, balanced_accuracy, confusion_matrix

_CHECKPOINT_FORMAT = 1
_EVALUATION_BATCH = 64


class TrainingError(GenbaError):
    """A training cannot go on."""


@dataclass(frozen=True)
class TrainConfig:
    """How to train. `patience` is how many epochs may pass without a better validation result.

    Raises UsageError for values that cannot be.
    """

    epochs: int = 30
    batch_size: int = 32
    learning_rate: float = 4e-3
    weight_decay: float = 1e-2
    warmup_fraction: float = 0.2
    patience: int = 10
    seed: int = 0
    threads: int = 2
    channels_last: bool = True
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "patience", "threads"):
            if getattr(self, name) < 1:
                raise UsageError(f"training needs {name} of 1 or more, got {getattr(self, name)}")
        if not (0.0 < self.learning_rate < math.inf and 0.0 <= self.warmup_fraction < 1.0):
            raise UsageError(
                "training needs a learning_rate above 0 and a warmup_fraction from 0 to below 1, "
                f"got {self.learning_rate} and {self.warmup_fraction}"
            )


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch cost and gave. `learning_rate` is that of its last step."""

    epoch: int
    learning_rate: float
    train_loss: float
    validation_loss: float
    validation_auroc: float | None
    validation_balanced_accuracy: float
    seconds: float

    @property
    def monitored(self) -> float:
        """What stops the training: AUROC for two classes, else balanced accuracy."""
        if self.validation_auroc is not None:
            return self.validation_auroc
        return self.validation_balanced_accuracy

    @property
    def merit(self) -> tuple[float, float]:
        """Epochs in order of merit: the monitored figure, then the smaller validation loss."""
        return self.monitored, -self.validation_loss


@dataclass(frozen=True)
class TrainResult:
    """The whole history; `best_epoch` (from 1) is the one whose weights the module now has."""

    history: tuple[EpochRecord, ...]
    best_epoch: int
    seconds: float

    @property
    def best(self) -> EpochRecord:
        return self.history[self.best_epoch - 1]


def train(
    module: nn.Module,
    data: Split,
    config: TrainConfig,
    *,
    checkpoint: Path,
    on_epoch: Callable[[EpochRecord], None] = lambda _record: None,
    clock: Callable[[], float] = time.perf_counter,
) -> TrainResult:
    """Train the module in place and leave it in evaluation mode with its best weights.

    AdamW with a linear warm-up and a cosine to zero, a loss in which every class has the same
    weight, early stopping on the validation part; the test part is not looked at. After each epoch
    the checkpoint is replaced as a whole, then `on_epoch` is called, which may raise to stop.
    Called again with the same arguments (and a module with the same first weights) it goes on
    after the last finished epoch and ends as if it had never stopped: all randomness is a function
    of the seed and the epoch. Uses `config.threads` threads; the global random state is left alone.

    Raises TrainingError where the loss is not finite, and where the checkpoint is damaged or
    belongs to another training.
    """
    with _threads(config.threads):
        run = _Run(module, data, config, checkpoint, clock)
        run.resume()
        while not run.finished:
            record = run.epoch()
            run.save()
            on_epoch(record)
        return run.result()


def logits_of_module(
    module: nn.Module, pixels: Pixels, preprocessing: Preprocessing, *, threads: int = 2
) -> npt.NDArray[np.float32]:
    """The logits (N, classes) of uint8 images (N, C, H, W), in evaluation mode."""
    was_training = {layer: layer.training for layer in module.modules()}
    module.eval()
    try:
        with _threads(threads), torch.inference_mode():
            parts = [
                module(torch.from_numpy(preprocessing.normalise(pixels[i : i + _EVALUATION_BATCH])))
                for i in range(0, len(pixels), _EVALUATION_BATCH)
            ]
            logits: npt.NDArray[np.float32] = torch.cat(parts).numpy()
            return logits
    finally:
        for layer, training in was_training.items():
            layer.training = training


def learning_rate_at(step: int, steps: int, config: TrainConfig) -> float:
    """Linear from a tenth up to the full rate, then half a cosine down to zero.

    A function of the step alone, so that a resumed training needs no state of a scheduler.
    """
    warmup = int(config.warmup_fraction * steps)
    if step < warmup:
        return config.learning_rate * (0.1 + 0.9 * step / warmup)
    progress = (step - warmup) / max(1, steps - warmup)
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))


class _Run:
    """The state of one training between two epochs."""

    def __init__(
        self,
        module: nn.Module,
        data: Split,
        config: TrainConfig,
        checkpoint: Path,
        clock: Callable[[], float],
    ) -> None:
        self._module = module
        self._data = data
        self._config = config
        self._path = checkpoint
        self._clock = clock
        self._identity = _identity(module, data, config)
        if config.channels_last:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimizer = torch.optim.AdamW(
            _parameter_groups(module, config.weight_decay), lr=config.learning_rate
        )
        self._loss = nn.CrossEntropyLoss(weight=_class_weights(data))
        self._history: list[EpochRecord] = []
        self._best_epoch = 0
        self._best = _copy_of(module)

    @property
    def finished(self) -> bool:
        done = len(self._history)
        return done >= self._config.epochs or done - self._best_epoch >= self._config.patience

    def epoch(self) -> EpochRecord:
        """Train for one epoch, look at the validation part, and keep the weights if better."""
        start = self._clock()
        number = len(self._history) + 1
        rate, train_loss = self._train_epoch(number)
        logits = logits_of_module(
            self._module,
            self._data.validation.inputs,
            self._data.preprocessing,
            threads=self._config.threads,
        )
        record = self._record(number, rate, train_loss, logits, start)
        if not math.isfinite(record.train_loss) or not math.isfinite(record.validation_loss):
            raise TrainingError(
                f"training diverged in epoch {number}: the loss is not finite; lower the "
                f"learning rate of {self._config.learning_rate}"
            )
        self._history.append(record)
        if self._best_epoch == 0 or record.merit > self._history[self._best_epoch - 1].merit:
            self._best_epoch = number
            self._best = _copy_of(self._module)
        return record

    def result(self) -> TrainResult:
        """Load the best weights and say how it went."""
        self._module.load_state_dict(self._best)
        self._module.eval()
        seconds = sum(record.seconds for record in self._history)
        return TrainResult(tuple(self._history), self._best_epoch, seconds)

    def save(self) -> None:
        """Replace the checkpoint as a whole: a kill leaves the old one or the new one."""
        state = {
            "format": _CHECKPOINT_FORMAT,
            "identity": self._identity,
            "module": self._module.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "best": self._best,
            "best_epoch": self._best_epoch,
            "history": [astuple(record) for record in self._history],
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self._path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def resume(self) -> None:
        """Take up the state of the checkpoint if there is one."""
        if not self._path.exists():
            return
        state = self._load()
        if state.get("identity") != self._identity or state.get("format") != _CHECKPOINT_FORMAT:
            raise TrainingError(
                f"the checkpoint {self._path} belongs to another training (other network, images "
                "or settings): remove it or name another file"
            )
        self._module.load_state_dict(state["module"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._best = state["best"]
        self._best_epoch = state["best_epoch"]
        self._history = [EpochRecord(*values) for values in state["history"]]

    def _load(self) -> dict[str, Any]:
        import pickle  # noqa: TID251  only for the type of an error that torch.load raises

        try:
            state = torch.load(self._path, weights_only=True)
        except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
            raise TrainingError(
                f"the checkpoint {self._path} is damaged: remove it to start that training again"
            ) from error
        return state if isinstance(state, dict) else {}

    def _train_epoch(self, number: int) -> tuple[float, float]:
        """The rate of the last step and the mean loss over the images of the epoch."""
        config, images = self._config, self._data.train
        generator = torch.Generator().manual_seed(_epoch_seed(config.seed, number))
        order = torch.randperm(len(images), generator=generator)
        batches = _batches(order, config.batch_size)
        steps = len(batches) * config.epochs
        pixels, labels = torch.from_numpy(images.inputs), torch.from_numpy(images.labels)
        self._module.train()
        rate, total = 0.0, 0.0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_epoch_seed(config.seed, number))
            for index, chosen in enumerate(batches):
                rate = learning_rate_at((number - 1) * len(batches) + index, steps, config)
                changed = augment(pixels[chosen], config.augmentation, generator)
                total += self._step(changed, labels[chosen], rate) * len(chosen)
        return rate, total / len(images)

    def _step(self, pixels: torch.Tensor, labels: torch.Tensor, rate: float) -> float:
        inputs = torch.from_numpy(self._data.preprocessing.normalise(pixels.numpy()))
        if self._config.channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._loss(self._module(inputs), labels)
        loss.backward()
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
        confusion = confusion_matrix(labels, logits.argmax(axis=1), classes=classes)
        area = auroc(labels, logits[:, 1] - logits[:, 0]) if classes == 2 else None
        loss = self._loss(torch.from_numpy(logits), torch.from_numpy(labels))
        return EpochRecord(
            epoch=number,
            learning_rate=rate,
            train_loss=train_loss,
            validation_loss=float(loss),
            validation_auroc=None if area is None else area.value,
            validation_balanced_accuracy=balanced_accuracy(confusion),
            seconds=self._clock() - start,
        )


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _batches(order: torch.Tensor, size: int) -> list[torch.Tensor]:
    batches = list(torch.split(order, size))
    # A normalisation over 1x1 maps has no statistics of a single image.
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _class_weights(data: Split) -> torch.Tensor:
    """Weights inverse to the classes' frequencies, one on average over the images."""
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


def _identity(module: nn.Module, data: Split, config: TrainConfig) -> str:
    """A hash of what the training is a function of: first weights, images, settings."""
    digest = hashlib.sha256(json.dumps(asdict(config), sort_keys=True).encode())
    digest.update(json.dumps([data.fingerprint, data.seed, asdict(data.preprocessing)]).encode())
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()
