"""Several trainings at once, each in a process and a thread of its own.

A training step of a small network is a few milliseconds of hundreds of short operations, which two
threads share badly and, beside other work on the same CPU, far worse than one does alone. Two
trainings in two processes lose nothing.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from torch import nn

from host.data.split import Samples, Split
from host.errors import GenbaError
from host.helper import Helper, HelperEndedError
from host.training.errors import DivergedError, TrainingError
from host.training.history import EpochRecord, TrainResult
from host.training.recipe import TrainConfig
from host.training.train import train

OnEpoch = Callable[[str, EpochRecord], None]


@dataclass(frozen=True, eq=False)
class Training:
    """The arguments of `train` but for the data, under a key.

    To go to another process `build`, which gives the module with its first weights, must be
    picklable: a function that a module defines, or a functools.partial of one.
    """

    key: str
    build: Callable[[], nn.Module]
    config: TrainConfig
    checkpoint: Path
    until: int


@dataclass(frozen=True, slots=True)
class Diverged:
    """What a training ended with whose loss was not finite."""

    sentence: str


Outcome = TrainResult | Diverged


class Trainers:
    """Processes that train, started when they are needed; one alone is this process.

    What is told and returned does not depend on their number, but for the order in which it comes.
    """

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._helpers: list[_Helper] = []

    def run(
        self, trainings: Iterable[tuple[Training, Split]], on_epoch: OnEpoch
    ) -> Iterator[tuple[str, Outcome]]:
        """Each training's key and outcome as they come; `on_epoch` may raise to stop them all.

        Raises TrainingError for a damaged or foreign checkpoint, a full disk, and a process that
        ended.
        """
        if self._processes <= 1:
            for training, data in trainings:
                yield training.key, _outcome(training, data, on_epoch)
            return
        yield from self._run_elsewhere(iter(trainings), on_epoch)

    def close(self) -> None:
        """End the processes: their checkpoints hold every finished epoch."""
        for helper in self._helpers:
            helper.end()
        self._helpers.clear()

    def _run_elsewhere(
        self, waiting: Iterator[tuple[Training, Split]], on_epoch: OnEpoch
    ) -> Iterator[tuple[str, Outcome]]:
        busy: dict[object, _Helper] = {}
        for place, (training, data) in enumerate(islice(waiting, self._processes)):
            if place == len(self._helpers):
                self._helpers.append(_Helper())
            self._helpers[place].send(training, data)
            busy[self._helpers[place].connection] = self._helpers[place]
        try:
            while busy:
                for connection in wait([helper.connection for helper in busy.values()]):
                    message = busy[connection].receive()
                    if isinstance(message, EpochRecord):
                        on_epoch(busy[connection].key, message)
                        continue
                    helper = busy.pop(connection)
                    key = helper.key
                    for training, data in islice(waiting, 1):
                        helper.send(training, data)
                        busy[connection] = helper
                    yield key, message
        finally:
            if busy:  # whoever trains still would answer the next run
                self.close()


@contextmanager
def trainers(processes: int) -> Iterator[Trainers]:
    """So many trainers, ended in the end whatever they are doing."""
    made = Trainers(processes)
    try:
        yield made
    finally:
        made.close()


def _outcome(training: Training, data: Split, on_epoch: OnEpoch) -> Outcome:
    try:
        return train(
            training.build(),
            data,
            training.config,
            checkpoint=training.checkpoint,
            until=training.until,
            on_epoch=lambda record: on_epoch(training.key, record),
        )
    except DivergedError as error:
        return Diverged(str(error))


@dataclass(frozen=True, slots=True)
class _Failed:
    """Why a training has no outcome, as it travels between processes."""

    sentence: str


class _Helper:
    """A process that trains, and remembers the data that it was sent last."""

    def __init__(self) -> None:
        self.key = ""
        self._process = Helper(_serve)
        self._data: Split | None = None

    @property
    def connection(self) -> Connection:
        return self._process.connection

    def send(self, training: Training, data: Split) -> None:
        """Raises TrainingError where nobody is there any more."""
        self.key = training.key
        try:
            self._process.send((training, None if data is self._data else _without_test(data)))
        except HelperEndedError as error:
            raise TrainingError(self._ended(error)) from error
        self._data = data

    def receive(self) -> EpochRecord | Outcome:
        """Raises TrainingError."""
        try:
            message: EpochRecord | Outcome | _Failed = self._process.receive()
        except HelperEndedError as error:
            raise TrainingError(self._ended(error)) from error
        if isinstance(message, _Failed):
            raise TrainingError(message.sentence)
        return message

    def end(self) -> None:
        self._process.end()

    def _ended(self, how: HelperEndedError) -> str:
        return (
            f"a process ended while it trained {self.key} ({how}): if memory ran out, use fewer "
            "processes or a smaller batch_size; the same command goes on"
        )


def _without_test(data: Split) -> Split:
    """What training needs."""
    test = Samples(data.test.inputs[:0], data.test.labels[:0])
    return replace(data, test=test)


def _serve(connection: Connection) -> None:
    """Train until the pipe ends: with the trainers, or with whoever had them."""
    data: Any = None  # comes with the first training
    with suppress(EOFError, ConnectionError):
        while True:
            training, fresh = connection.recv()
            data = fresh or data
            connection.send(_answer(training, data, connection))


def _answer(training: Training, data: Split, connection: Connection) -> Outcome | _Failed:
    try:
        return _outcome(training, data, lambda _key, record: connection.send(record))
    except GenbaError as error:
        return _Failed(str(error))
