"""A model's answers to real inputs: an .npz with examples in, an .npz with outputs out."""

from __future__ import annotations

import errno
import resource
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from device_agent.errors import ModelRejectedError, ResourceError
from device_agent.runtimes.base import LoadedModel, ModelInput
from device_agent.runtimes.inputs import described


@dataclass(frozen=True)
class _Batches:
    """Arrays cut into what one run takes: `sizes` examples of each input, `runs` times."""

    arrays: Mapping[str, Any]
    sizes: Mapping[str, int]
    runs: int

    def of(self, run: int) -> Mapping[str, Any]:
        """The arrays of one run."""
        return {
            name: array[run * self.sizes[name] : (run + 1) * self.sizes[name]]
            for name, array in self.arrays.items()
        }


def verify(model: LoadedModel, inputs_path: Path, outputs_path: Path) -> int:
    """Run `model` on every example of an .npz and write the outputs as another, by name.

    The input has one array for each input of the model, with examples along axis 0. An example is
    a batch of one; a model with a fixed batch takes as many examples at a time. Outputs whose
    axis 0 is that batch are joined along it, any other is stacked, one entry for each run.
    Returns the number of examples.

    Raises ModelRejectedError where the arrays do not fit the model or its outputs change their
    shape from run to run, and ResourceError where the outputs outgrow memory or the largest file
    that this process may write.
    """
    batches = _cut(model.inputs, _read(inputs_path))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    collected: dict[str, list[Any]] = {}
    for run in range(batches.runs):
        model.set_inputs(batches.of(run))
        model.run()
        outputs = model.outputs()
        # Told at the first run, not after hours.
        if not collected and limit != resource.RLIM_INFINITY:
            _check_size(sum(each.nbytes for each in outputs.values()) * batches.runs, limit)
        for name, output in outputs.items():
            collected.setdefault(name, []).append(output)
    batch = next(iter(batches.sizes.values()))
    _write(outputs_path, {name: _joined(name, all_, batch) for name, all_ in collected.items()})
    return batch * batches.runs


def _read(path: Path) -> dict[str, Any]:
    try:
        # Opened here: numpy leaves a damaged file open.
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise _unreadable("it is a single array")
            arrays = {name: archive[name] for name in archive.files}
    except (
        EOFError,
        KeyError,
        NotImplementedError,
        OSError,
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise _unreadable(str(error)) from error
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise _unreadable("it holds what is no array")
    return arrays


def _unreadable(why: str) -> ModelRejectedError:
    return ModelRejectedError(
        f"the inputs cannot be read: write them with numpy.savez, without objects ({why})"
    )


def _cut(inputs: Sequence[ModelInput], arrays: Mapping[str, Any]) -> _Batches:
    if not inputs:
        raise ModelRejectedError("the model has no input, so there is nothing to verify it on")
    if set(arrays) != {each.name for each in inputs}:
        raise ModelRejectedError(
            f"the model needs {described(inputs)}, and the file has"
            f" {', '.join(sorted(arrays)) or 'no array'}"
        )
    runs: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for each in inputs:
        if not each.sizes or arrays[each.name].ndim == 0:
            raise ModelRejectedError(f"input {each.name} has no axis along which examples lie")
        sizes[each.name] = each.sizes[0] or 1
        runs[each.name], rest = divmod(len(arrays[each.name]), sizes[each.name])
        if rest or not runs[each.name]:
            raise ModelRejectedError(
                f"input {each.name} takes {sizes[each.name]} examples at a time, and"
                f" {len(arrays[each.name])} are no multiple of it"
            )
    if len(set(runs.values())) > 1:
        counts = ", ".join(f"{name} {len(arrays[name])}" for name in runs)
        raise ModelRejectedError(f"the inputs hold different numbers of examples: {counts}")
    return _Batches(arrays, sizes, next(iter(runs.values())))


def _joined(name: str, outputs: Sequence[Any], batch: int) -> Any:
    shapes = {output.shape for output in outputs}
    if len(shapes) > 1:
        first, second = sorted(shapes)[:2]
        raise ModelRejectedError(
            f"output {name} changes its shape from example to example, {list(first)} and"
            f" {list(second)}: it cannot be compared"
        )
    if outputs[0].ndim and outputs[0].shape[0] == batch:
        return np.concatenate(outputs)
    return np.stack(outputs)


def _write(path: Path, arrays: Mapping[str, Any]) -> None:
    """As numpy.savez, which gives paths and some names meanings of their own."""
    format_: Any = np.lib.format
    try:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    format_.write_array(entry, np.asarray(array), allow_pickle=False)
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise ResourceError(f"the outputs cannot be written: {error}") from error
        raise _too_large(resource.getrlimit(resource.RLIMIT_FSIZE)[0]) from error
    except ValueError as error:
        raise ModelRejectedError(f"the outputs cannot be written: {error}") from error


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise _too_large(limit)


def _too_large(limit: int) -> ResourceError:
    return ResourceError(f"the outputs are larger than {limit} bytes: send fewer examples")
