"""Training on windows of signals goes the same way as on images."""

from pathlib import Path

import numpy as np
import pytest

from host.data.split import Samples, Split
from host.network.torch_module import build_module
from host.preprocessing import SignalPreprocessing
from host.spaces.base import Task
from host.spaces.catalogue import space_by_name
from host.training.train import TrainConfig, logits_of_module, train

TEXT = "l256 c8 k15 s4 stride head0 | plain k3 d1 | plain k3 d1 | residual k3 d1 | separable k3 d1"


@pytest.fixture(scope="module")
def signals() -> Split:
    """Noise of two sensors, with and without a tone in the second one, as images of height 1."""
    rng = np.random.default_rng(0)

    def samples(count: int) -> Samples:
        labels = np.arange(count, dtype=np.int64) % 2
        inputs = rng.normal(20.0, 5.0, (count, 2, 1, 256))
        phase = rng.uniform(0, 6.28, (count, 1))
        inputs[:, 1, 0] += labels[:, None] * 5.0 * np.sin(0.4 * np.arange(256) + phase)
        return Samples(inputs.astype(np.float32), labels)

    train_part = samples(80)
    preprocessing = SignalPreprocessing(channels=2, length=256, mean=(20.0, 20.0), std=(5.0, 6.0))
    return Split(("noise", "tone"), train_part, samples(40), samples(40), preprocessing, "made", 0)


def test_a_network_for_signals_learns_to_hear_a_tone(signals: Split, tmp_path: Path) -> None:
    space = space_by_name("conv1d")
    module = build_module(space.build(space.parse(TEXT), Task(2, 2)), seed=0)
    config = TrainConfig(epochs=8, batch_size=16)

    result = train(module, signals, config, checkpoint=tmp_path / "c.pt")

    answers = logits_of_module(module, signals.test.inputs, signals.preprocessing).argmax(1)
    assert result.best.quality > 0.9
    assert np.mean(answers == signals.test.labels) > 0.8


def test_a_training_on_signals_resumes_to_the_same_end(signals: Split, tmp_path: Path) -> None:
    space = space_by_name("conv1d")
    network = space.build(space.parse(TEXT), Task(2, 2))
    config = TrainConfig(epochs=3, batch_size=16)
    whole = train(build_module(network, seed=0), signals, config, checkpoint=tmp_path / "a")
    train(build_module(network, seed=0), signals, config, checkpoint=tmp_path / "b", until=1)

    resumed = train(build_module(network, seed=0), signals, config, checkpoint=tmp_path / "b")

    assert [record.merit for record in resumed.history] == [r.merit for r in whole.history]
