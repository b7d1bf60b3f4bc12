"""Weights from a file of the user's as the start of a training."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from host.errors import UsageError

_INSIDE = ("best", "state_dict", "model", "model_state_dict")
"""Names under which genba's checkpoints and other training programs keep the weights."""
_MOST_NAMED = 3


@dataclass(frozen=True)
class Start:
    """What became of each tensor, by name: `taken` from the file, `missing` there, of another
    shape there, or `unknown` to the module."""

    taken: tuple[str, ...]
    missing: tuple[str, ...]
    other_shape: tuple[str, ...]
    unknown: tuple[str, ...]

    def sentence(self) -> str:
        """For the person who named the file."""
        parts = [f"{len(self.taken)} tensors taken"]
        for names, text in (
            (self.missing, "start fresh because the file has none of that name"),
            (self.other_shape, "start fresh because the file has another shape"),
            (self.unknown, "of the file have no place here"),
        ):
            if names:
                more = ", …" if len(names) > _MOST_NAMED else ""
                parts.append(f"{len(names)} {text} ({', '.join(names[:_MOST_NAMED])}{more})")
        return "; ".join(parts)


def start_from(module: nn.Module, path: Path) -> Start:
    """Put the weights of a .safetensors or .pt file into the module, where name and shape match.

    A .pt file holds a state_dict, itself or under one of the usual names; it is read without
    running anything that is in it. The module is left as it was where the file is of no use.

    Raises UsageError where the file cannot be read, holds no tensors, holds numbers that are not
    finite, or has nothing that matches.
    """
    found = _tensors(path)
    own = module.state_dict()
    names = [name for name in own if name in found]
    taken = tuple(name for name in names if own[name].shape == found[name].shape)
    if not any(own[name].is_floating_point() for name in taken):
        raise UsageError(
            f"no tensor of {path} has the name and the shape of one of this network: name weights "
            "of the same architecture, or leave the file out"
        )
    for name in taken:
        if not bool(torch.isfinite(found[name]).all()):
            raise UsageError(
                f"{path} holds numbers that are not finite in {name}: name an intact file"
            )
    module.load_state_dict({name: found[name] for name in taken}, strict=False)
    return Start(
        taken=taken,
        missing=tuple(name for name in own if name not in found),
        other_shape=tuple(name for name in names if name not in taken),
        unknown=tuple(name for name in found if name not in own),
    )


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise UsageError(f"there is no file of weights {path}: check the path")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in (".pt", ".pth"):
        return _read_torch(path)
    raise UsageError(f"{path} is no file of weights: name one that ends in .safetensors or .pt")


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as safetensors: {error}") from error


def _read_torch(path: Path) -> dict[str, torch.Tensor]:
    import pickle  # noqa: TID251  only for the type of an error that torch.load raises

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UsageError(
            f"{path} holds more than weights, which genba does not run: save its state_dict alone "
            "by torch.save(model.state_dict(), path)"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError) as error:
        raise UsageError(f"{path} cannot be read as a PyTorch file: it is damaged") from error
    candidates = [content]
    if isinstance(content, Mapping):
        candidates += [content[name] for name in _INSIDE if name in content]
    for candidate in candidates:
        tensors = _only_tensors(candidate)
        if tensors:
            return tensors
    raise UsageError(
        f"{path} holds no weights by name: save them by torch.save(model.state_dict(), path)"
    )


def _only_tensors(content: Any) -> dict[str, torch.Tensor]:
    if not isinstance(content, Mapping):
        return {}
    return {
        name: value
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, torch.Tensor)
    }
