"""Which settings of a device have calibrated cost models."""

import re
from typing import Literal, get_args

from host.calibration.setting import Setting
from host.device import Device
from host.store.store import Store

Quantity = Literal["latency_seconds", "peak_rss_bytes", "energy_joules", "power_watts"]
"""What cost models predict."""
QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)

_TARGET = re.compile(
    rf"(?:{'|'.join(QUANTITIES)}) (\S+) (.+) threads=(\d+)"
)  # as `Setting.target` writes it
_RUNTIME_OF_LIBRARY = {
    "onnxruntime": "onnx",
    "ncnn": "ncnn",
    "ai-edge-litert": "tflite",
    "tflite-runtime": "tflite",
    "tensorflow": "tflite",
}


def settings_of(store: Store, device: Device) -> list[Setting]:
    """Every setting of the device for which the store has models, by library, version, threads.

    The runtime's name is no part of a target: it is that of the device's runtime with the same
    library, or of the libraries that are known. Other targets are left out.
    """
    facts = device.facts
    runtimes = _RUNTIME_OF_LIBRARY | {r.library: r.name for r in (facts.runtimes if facts else ())}
    matches = (_TARGET.fullmatch(row.target) for row in store.cost_models.newest(device.id))
    found = {
        Setting(runtimes[match[1]], match[1], match[2], int(match[3]))
        for match in matches
        if match is not None and match[1] in runtimes
    }
    return sorted(found, key=lambda s: (s.library, s.version, s.threads))


def is_current(setting: Setting, device: Device) -> bool:
    """Whether the device still has that library in that version."""
    if device.facts is None:
        return True
    found = device.facts.runtime(setting.runtime)
    return found is not None and (found.library, found.version) == (
        setting.library,
        setting.version,
    )


def calibrate_command(device: Device, setting: Setting) -> str:
    """What to type to calibrate the device in that setting."""
    options = "" if setting.runtime == "onnx" else f" --runtime {setting.runtime}"
    if setting.threads != 1:
        options += f" --threads {setting.threads}"
    return f"genba device calibrate {device.name}{options}"
