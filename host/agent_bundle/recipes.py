"""Which versions make an agent on which machine: the pins that were seen to run there."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

from host.errors import UsageError

NO_RUNTIME = "none"
RUNTIMES = ("onnx", "tflite")


class UnknownCombinationError(UsageError):
    """No agent is known for this machine with what was asked for."""


@dataclass(frozen=True)
class Pin:
    """One exact version of a package."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"


@dataclass(frozen=True)
class Machine:
    """`glibc` is the minor version of the oldest C library 2.x that a device with this Python has;
    `bits` is the width of a pointer there.
    """

    architecture: str
    python: str
    glibc: int

    @property
    def bits(self) -> int:
        return 64 if self.architecture in _64_BIT else 32


@dataclass(frozen=True)
class Recipe:
    """What goes into a bundle. `apt` are packages of Debian for which no wheel exists, by the
    module that proves each one.
    """

    machine: Machine
    runtimes: tuple[str, ...]
    pins: tuple[Pin, ...]
    apt: MappingProxyType[str, str]


# Starts the installation: a Debian without its package python3-venv has none.
PIP = Pin("pip", "25.3")
_CORE = (Pin("grpcio", "1.80.1"), Pin("protobuf", "6.33.6"), Pin("typing-extensions", "4.15.0"))
_64_BIT = ("x86_64", "aarch64")
_PSUTIL = {
    "x86_64": Pin("psutil", "7.2.2"),
    "aarch64": Pin("psutil", "7.2.2"),
    "i686": Pin("psutil", "7.1.1"),  # the last with a wheel for it
}
_DEBIAN_MODULES = {"psutil": "python3-psutil", "numpy": "python3-numpy"}
# Debian 11, Ubuntu 22.04, Debian 12, Ubuntu 24.04, Debian 13.
_GLIBC = {"3.9": 31, "3.10": 35, "3.11": 36, "3.12": 39, "3.13": 41}

_FLATBUFFERS = Pin("flatbuffers", "25.9.23")
_PACKAGING = Pin("packaging", "25.0")
_ORT_1_19 = (Pin("onnxruntime", "1.19.2"), _FLATBUFFERS, _PACKAGING)
_ORT_1_23 = (Pin("onnxruntime", "1.23.2"), _FLATBUFFERS, _PACKAGING)
_TFLITE_2_13 = (Pin("tflite-runtime", "2.13.0"),)
_TFLITE_2_14 = (Pin("tflite-runtime", "2.14.0"),)  # wants numpy below 2, ends with Python 3.11
_LITERT_2_1 = (Pin("ai-edge-litert", "2.1.0"),)  # needs a CPU with SSE4.1, or aarch64
# numpy 2.4 and later do not start on a CPU without SSE4.2.
_NUMPY = {
    "3.9": Pin("numpy", "1.24.4"),
    "3.10": Pin("numpy", "1.26.4"),
    "3.11": Pin("numpy", "1.26.4"),
    "3.12": Pin("numpy", "2.2.6"),
    "3.13": Pin("numpy", "2.2.6"),
}
_ON_64_BIT = {
    "3.9": {"onnx": _ORT_1_19, "tflite": _TFLITE_2_13},
    "3.10": {"onnx": _ORT_1_23, "tflite": _TFLITE_2_14},
    "3.11": {"onnx": _ORT_1_23, "tflite": _TFLITE_2_14},
    "3.12": {"onnx": _ORT_1_23, "tflite": _LITERT_2_1},
    "3.13": {"onnx": _ORT_1_23, "tflite": _LITERT_2_1},
}
# Not Python 3.9 (Debian 11): grpcio's wheels for armv7l need a newer C library.
_ON_ARMV7L: dict[str, dict[str, tuple[Pin, ...]]] = {"3.11": {"tflite": _TFLITE_2_14}, "3.13": {}}
_ON_I686: dict[str, dict[str, tuple[Pin, ...]]] = {python: {} for python in _GLIBC}
_TABLE = {
    "armv7l": _ON_ARMV7L,
    "aarch64": _ON_64_BIT,
    "x86_64": _ON_64_BIT,
    "i686": _ON_I686,
}
ARCHITECTURES = tuple(_TABLE)


def recipe_for(architecture: str, python: str, runtimes: Sequence[str] = ()) -> Recipe:
    """The recipe with these runtimes, or with all that run there where none is named; "none" alone
    makes an agent without any.

    Raises UnknownCombinationError with what there is instead.
    """
    known = _known_runtimes(architecture, python)
    chosen = _chosen(architecture, python, runtimes, known)
    apt = {}
    pins = [*_CORE]
    if architecture in _PSUTIL:
        pins.append(_PSUTIL[architecture])
    else:
        apt["psutil"] = _DEBIAN_MODULES["psutil"]
    if chosen and architecture in _64_BIT:
        pins.append(_NUMPY[python])
    elif chosen:
        apt["numpy"] = _DEBIAN_MODULES["numpy"]
    for name in chosen:
        pins += known[name]
    machine = Machine(architecture, python, _GLIBC[python])
    return Recipe(machine, chosen, tuple(dict.fromkeys(pins)), MappingProxyType(apt))


def _known_runtimes(architecture: str, python: str) -> dict[str, tuple[Pin, ...]]:
    if architecture not in _TABLE:
        raise UnknownCombinationError(
            f"no agent is known for {architecture}: the architectures are {_list(ARCHITECTURES)}"
            " (`uname -m` may name the kernel's; what counts is that of the device's Python)"
        )
    pythons = _TABLE[architecture]
    if python not in pythons:
        raise UnknownCombinationError(
            f"no agent is known for {architecture} with Python {python}: there is one for"
            f" {_list(list(pythons))} (`python3 --version` on the device says which it has)"
        )
    return pythons[python]


def _chosen(
    architecture: str, python: str, runtimes: Sequence[str], known: dict[str, tuple[Pin, ...]]
) -> tuple[str, ...]:
    if not runtimes:
        return tuple(known)
    if NO_RUNTIME in runtimes:
        if set(runtimes) != {NO_RUNTIME}:
            raise UnknownCombinationError("--runtime none stands alone: leave the others out")
        return ()
    for name in runtimes:
        if name not in RUNTIMES:
            raise UnknownCombinationError(
                f"there is no runtime {name!r}: the runtimes are {_list([*RUNTIMES, NO_RUNTIME])}"
            )
        if name not in known:
            raise UnknownCombinationError(_instead(architecture, python, name, list(known)))
    return tuple(name for name in RUNTIMES if name in runtimes)


def _instead(architecture: str, python: str, missing: str, known: Sequence[str]) -> str:
    start = f"the runtime {missing} does not exist for {architecture} with Python {python}: "
    if known:
        return f"{start}use --runtime {known[0]}"
    others = [other for other, runtimes in _TABLE[architecture].items() if missing in runtimes]
    if others:
        return f"{start}a system with Python {_list(others)} has it"
    other = next((name for other in _TABLE[architecture].values() for name in other), None)
    if other is not None:
        return f"{start}use --runtime {other} on a system with Python " + _list(
            [version for version, names in _TABLE[architecture].items() if other in names]
        )
    return (
        f"{start}no runtime of genba is built for it; --runtime none makes an agent that attaches"
        " and tells what the device is, but measures no model"
    )


def _list(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
