"""Errors of the libraries, which share no base but Exception, as errors of the agent."""

from __future__ import annotations

import re
from importlib import metadata

from device_agent.errors import ModelRejectedError, NoRuntimeError, ResourceError

_OUT_OF_MEMORY = ("bad_alloc", "bad allocation", "allocate memory", "out of memory")
_LONGEST_REASON = 400


def refusal(what: str, error: Exception) -> ModelRejectedError | ResourceError:
    """`error` as the device's fault where memory ran out, and as the model's otherwise."""
    text = str(error).lower()
    if isinstance(error, MemoryError) or any(words in text for words in _OUT_OF_MEMORY):
        return ResourceError(f"the model needs more memory than it may have: {brief(error)}")
    return ModelRejectedError(f"{what}: {brief(error)}")


def brief(error: BaseException) -> str:
    """The first line of an error's text, or its name where it has none."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:_LONGEST_REASON]


def refuse_numpy_clash(library: str, first_for_numpy_2: tuple[int, int]) -> None:
    """Look at installed versions before anything is imported: a library that was built for
    numpy 1 crashes on numpy 2, or fails at its first model.

    Raises NoRuntimeError where `library` is older than the version that first takes numpy 2 and
    numpy 2 is installed.
    """
    version, numpy_version = _installed_version(library), _installed_version("numpy")
    if not version or not numpy_version:
        return
    if _numbers(version) < first_for_numpy_2 and _numbers(numpy_version) >= (2, 0):
        raise NoRuntimeError(
            f"{library} {version} needs numpy < 2, and numpy {numpy_version} is installed:"
            " run `pip install 'numpy<2'` where the agent is installed"
        )


def _installed_version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
