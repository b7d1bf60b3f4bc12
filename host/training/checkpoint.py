"""The file that a training goes on from, and what tells one training from another."""

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from host.data.split import Split
from host.training.distillation import Teacher
from host.training.errors import TrainingError
from host.training.recipe import TrainConfig

_FORMAT = 2
_DAMAGES = (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError)
"""What torch raises on files that it did not write like that."""


def write_checkpoint(path: Path, identity: str, state: Mapping[str, Any]) -> None:
    """Replace the file as a whole: a kill leaves the old one or the new one.

    Raises TrainingError where there is no room for it, or no permission.
    """
    content = io.BytesIO()
    torch.save({"format": _FORMAT, "identity": identity, **state}, content)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, content.getbuffer())
    except OSError as error:
        raise TrainingError(
            f"the checkpoint {path} cannot be written ({error.strerror or error}): make room for "
            "it, and the same command goes on"
        ) from error


def _replace(path: Path, content: memoryview) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_checkpoint(path: Path, identity: str) -> dict[str, Any] | None:
    """What was written for the training of that identity; None where there is no file.

    Raises TrainingError where it is damaged or of another training.
    """
    import pickle  # noqa: TID251  only for the type of an error that torch.load raises

    if not path.exists():
        return None
    try:
        state = torch.load(path, weights_only=True)
    except (*_DAMAGES, pickle.UnpicklingError) as error:
        raise TrainingError(
            f"the checkpoint {path} is damaged: remove it to start that training again"
        ) from error
    if not isinstance(state, dict) or (state.get("format"), state.get("identity")) != (
        _FORMAT,
        identity,
    ):
        raise TrainingError(
            f"the checkpoint {path} belongs to another training (other network, data or "
            "settings): remove it or name another file"
        )
    return state


def identity_of(
    module: nn.Module, data: Split, config: TrainConfig, teacher: Teacher | None
) -> str:
    """A hash of what a training is a function of: first weights, data, settings, teacher."""
    digest = hashlib.sha256(json.dumps(asdict(config), sort_keys=True).encode())
    digest.update(json.dumps([data.fingerprint, data.seed, asdict(data.preprocessing)]).encode())
    _add_weights(digest, module)
    if teacher is not None:
        settings = [teacher.temperature, teacher.share, teacher.size]
        digest.update(json.dumps([settings, asdict(teacher.preprocessing)]).encode())
        _add_weights(digest, teacher.module)
    return digest.hexdigest()


def _add_weights(digest: "hashlib._Hash", module: nn.Module) -> None:
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().contiguous().numpy().tobytes())
