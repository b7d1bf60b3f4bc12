"""A user's own weights as the start: what matches is taken, and the rest is said."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from host.data.split import Split
from host.errors import UsageError
from host.training.start import start_from
from host.training.train import TrainConfig, train


def module(seed: int, classes: int = 2, extra: bool = False) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, classes),
        ]
        if extra:
            layers.append(nn.Linear(classes, classes))
        return nn.Sequential(*layers)


def state_of(each: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in each.state_dict().items()}


def save(path: Path, state: dict[str, torch.Tensor]) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.pth"])
def test_all_of_a_file_that_fits_is_taken(tmp_path: Path, name: str) -> None:
    other, own = module(1), module(2)
    path = save(tmp_path / name, state_of(other))

    start = start_from(own, path)

    assert set(start.taken) == set(own.state_dict())
    assert start.sentence() == f"{len(own.state_dict())} tensors taken"
    for key, value in other.state_dict().items():
        assert torch.equal(own.state_dict()[key], value)


def test_what_does_not_fit_is_said_and_starts_fresh(tmp_path: Path) -> None:
    own = module(2, extra=True)
    before = state_of(own)
    state = state_of(module(1, classes=5))
    state["head.weight"] = torch.zeros(3)
    path = save(tmp_path / "w.safetensors", state)

    start = start_from(own, path)

    assert start.other_shape == ("4.weight", "4.bias")
    assert start.missing == ("5.weight", "5.bias")
    assert start.unknown == ("head.weight",)
    assert start.sentence() == (
        "7 tensors taken; 2 start fresh because the file has none of that name "
        "(5.weight, 5.bias); 2 start fresh because the file has another shape "
        "(4.weight, 4.bias); 1 of the file have no place here (head.weight)"
    )
    for name in (*start.other_shape, *start.missing):
        assert torch.equal(own.state_dict()[name], before[name])
    assert torch.equal(own.state_dict()["0.weight"], state["0.weight"])


@pytest.mark.parametrize("inside", ["state_dict", "model"])
def test_weights_inside_a_training_program_s_file_are_found(tmp_path: Path, inside: str) -> None:
    other, own = module(1), module(2)
    torch.save({"epoch": 3, inside: other.state_dict()}, tmp_path / "w.pt")

    start_from(own, tmp_path / "w.pt")

    assert torch.equal(own.state_dict()["0.weight"], other.state_dict()["0.weight"])


def test_a_checkpoint_of_genba_gives_its_best_weights(data: Split, tmp_path: Path) -> None:
    trained, own = module(1), module(2)
    config = TrainConfig(epochs=2, threads=1)
    train(trained, data, config, checkpoint=tmp_path / "c.pt")

    start_from(own, tmp_path / "c.pt")

    for name, value in trained.state_dict().items():
        assert torch.equal(own.state_dict()[name], value)


def test_half_precision_is_widened(tmp_path: Path) -> None:
    own = module(2)
    state = {name: value.half() for name, value in module(1).state_dict().items()}

    start_from(own, save(tmp_path / "w.safetensors", state))

    assert own.state_dict()["0.weight"].dtype == torch.float32
    assert torch.equal(own.state_dict()["0.weight"], state["0.weight"].float())


class Harmful:
    """Unpickling it would run a program."""

    def __reduce__(self) -> tuple[object, ...]:
        import os

        return os.mkdir, ("harmed",)


def broken_files(folder: Path) -> dict[str, Path]:
    whole = save(folder / "whole.pt", state_of(module(1))).read_bytes()
    tensors = save(folder / "whole.safetensors", state_of(module(1))).read_bytes()
    contents = {
        "cut.pt": whole[:500],
        "empty.pt": b"",
        "cut.safetensors": tensors[:100],
        "text.safetensors": b"these are no tensors",
        "huge.safetensors": b"\xff" * 64,
        "w.onnx": whole,
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    torch.save({"weights": Harmful()}, folder / "harmful.pt")
    torch.save([1, 2], folder / "list.pt")
    torch.save({"state_dict": {"a": 1}}, folder / "numbers.pt")
    save(folder / "other.pt", {"x": torch.zeros(2)})
    save(folder / "nan.pt", {"0.weight": torch.full((4, 1, 3, 3), torch.nan)})
    (folder / "folder.pt").mkdir()
    return {path.name: path for path in folder.iterdir()} | {"absent.pt": folder / "absent.pt"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cut.pt", "cannot be read as a PyTorch file"),
        ("empty.pt", "cannot be read as a PyTorch file"),
        ("cut.safetensors", "cannot be read as safetensors"),
        ("text.safetensors", "cannot be read as safetensors"),
        ("huge.safetensors", "cannot be read as safetensors"),
        ("harmful.pt", "holds more than weights"),
        ("list.pt", "holds no weights by name"),
        ("numbers.pt", "holds no weights by name"),
        ("other.pt", "no tensor of .* has the name and the shape"),
        ("nan.pt", "not finite in 0.weight"),
        ("w.onnx", "ends in .safetensors or .pt"),
        ("folder.pt", "there is no file of weights"),
        ("absent.pt", "there is no file of weights"),
    ],
)
def test_a_file_of_no_use_is_one_sentence_and_changes_nothing(
    tmp_path: Path, name: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = module(2)
    before = state_of(own)

    with pytest.raises(UsageError, match=message):
        start_from(own, broken_files(tmp_path)[name])

    assert not (tmp_path / "harmed").exists()
    for key, value in own.state_dict().items():
        assert torch.equal(value, before[key])


def test_a_training_that_starts_from_other_weights_is_another_training(
    data: Split, tmp_path: Path
) -> None:
    config = TrainConfig(epochs=1, threads=1)
    fresh, started = module(2), module(2)
    start_from(started, save(tmp_path / "w.pt", state_of(module(1))))

    train(fresh, data, config, checkpoint=tmp_path / "a.pt")
    train(started, data, config, checkpoint=tmp_path / "b.pt")

    identities = {
        torch.load(tmp_path / name, weights_only=True)["identity"] for name in ("a.pt", "b.pt")
    }
    assert len(identities) == 2
