"""Cost models as a JSON file: from one workspace to another, from a device to its twin."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Self, cast

import numpy as np

from cost_models.base import ModelFormatError
from cost_models.nonnegative import NonNegativeModel
from host.calibration.catalogue import Quantity, is_current
from host.calibration.prediction import KINDS, Predictor
from host.calibration.setting import Setting
from host.calibration.stored import Calibrated, Example, keep
from host.device import Device
from host.errors import UsageError
from host.store.store import Store

FORMAT = "genba-cost-models"
VERSION = 1
MAX_BYTES = 64_000_000
"""Of a file that is read: a model of a thousand networks needs less than 1 MB."""

_LONGEST_TARGET = 64  # characters, as the store keeps it
_MOST_THREADS = 1024
_LARGEST_ERROR = np.log(3.0)  # median, of a model on its own measurements
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[\x21-\x7e]+")


class ExchangeError(UsageError):
    """The file holds no cost models that this program can use."""


class OtherRuntimeError(UsageError):
    """The models are of another runtime than the device has."""


@dataclass(frozen=True)
class Origin:
    """The device on which the networks were measured."""

    device: str
    cpu_model: str
    machine: str

    @classmethod
    def of(cls, device: Device) -> Self:
        """That device, as far as it has said."""
        facts = device.facts
        return cls(
            device.name,
            "" if facts is None else facts.cpu_model,
            "" if not facts else facts.machine,
        )


@dataclass(frozen=True)
class Package:
    """The models of a device in a setting."""

    origin: Origin
    setting: Setting
    models: Mapping[Quantity, Calibrated[Any]]
    exported_at: datetime


@dataclass(frozen=True)
class Imported:
    """A model as it was stored, and when the one was made whose place it takes."""

    quantity: Quantity
    id: int
    n: int
    supersedes: datetime | None


def package_of(store: Store, device: Device, setting: Setting) -> Package:
    """All models of a device in a setting. Raises NotCalibratedError where it has none."""
    predictor = Predictor.of(store, device, setting)
    return Package(Origin.of(device), setting, predictor.models, store.now())


def to_json(package: Package) -> str:
    """The package as text, with all that the models were fitted on."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "exported_at": package.exported_at.isoformat(),
        "device": asdict(package.origin),
        "setting": asdict(package.setting),
        "models": {
            quantity: {
                "created_at": found.created_at.isoformat(),
                "origin": found.origin,
                "source": found.source,
                "model": json.loads(found.model.to_json()),
                "examples": [
                    {"name": one.name, "model_sha256": one.model_sha256} for one in found.examples
                ],
            }
            for quantity, found in package.models.items()
        },
    }
    return json.dumps(content, ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def from_json(text: str) -> Package:
    """The package that `to_json` wrote. Raises ExchangeError for any other text, and for numbers
    that cannot be measurements.
    """
    content = _loaded(text)
    if content.get("format") != FORMAT:
        raise ExchangeError("it is no file of cost models: `genba cost export` writes one")
    if content.get("version") != VERSION:
        raise ExchangeError(
            f"it has version {content.get('version')!r} of the format and this program reads"
            f" {VERSION}: export it again with this version of genba"
        )
    try:
        origin = Origin(**{name: _text(content["device"], name) for name in Origin.__annotations__})
        setting = _setting(content["setting"])
        models = {
            _quantity(name): _model(name, found, setting)
            for name, found in content["models"].items()
        }
        exported_at = datetime.fromisoformat(content["exported_at"])
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise ExchangeError(f"it is damaged: {_reason(error)}") from error
    if not models:
        raise ExchangeError("it holds no model")
    return Package(origin, setting, models, exported_at)


def warnings(package: Package, device: Device) -> list[str]:
    """What speaks against using the models for that device."""
    found = []
    here = Origin.of(device)
    if package.origin.cpu_model != here.cpu_model:
        found.append(
            f"they were measured on another CPU ({package.origin.cpu_model or 'not known'};"
            f" {device.name} has {here.cpu_model or 'one that is not known'}): check them with"
            f" `genba cost validate {device.name}`"
        )
    return found


def setting_on(package: Package, device: Device, *, force: bool) -> Setting:
    """The setting for which a device takes the models over.

    Raises NoRuntimeError, and OtherRuntimeError where the device has another library or version,
    unless `force` takes the models over as if they were of that one.
    """
    here = Setting.of_device(device, package.setting.runtime, package.setting.threads)
    if not is_current(package.setting, device) and not force:
        raise OtherRuntimeError(
            f"the models are of {package.setting} and {device.name} has {here}, on which other"
            " times are to be expected: calibrate it, or say --force to use them all the same"
        )
    return here


def take_over(store: Store, device: Device, setting: Setting, package: Package) -> list[Imported]:
    """Store the models as the newest of the device; those before are kept."""
    imported = []
    for quantity, found in package.models.items():
        before = store.cost_models.latest(device.id, setting.target(quantity))
        number = keep(
            store,
            device.id,
            setting,
            found.model,
            found.examples,
            found.origin,
            found.source,
        )
        made = None if before is None else before.created_at
        imported.append(Imported(quantity, number, found.model.n, made))
    return imported


def _loaded(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ExchangeError(f"it is no JSON, or damaged: {_reason(error)}") from error
    if not isinstance(content, dict):
        raise ExchangeError("it is no file of cost models: `genba cost export` writes one")
    return content


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values[name]
    if not isinstance(value, str) or len(value) > 1000 or not value.isprintable():
        raise ExchangeError(f"it is damaged: {name} is not a line of text")
    return value


def _setting(values: Mapping[str, Any]) -> Setting:
    threads = values["threads"]
    if type(threads) is not int or not 1 <= threads <= _MOST_THREADS:
        raise ExchangeError(f"it is damaged: {threads!r} is no number of threads")
    setting = Setting(
        _text(values, "runtime"), _text(values, "library"), _text(values, "version"), threads
    )
    parts = (setting.runtime, setting.library, setting.version)
    if not all(map(_NAME.fullmatch, parts)) or any(
        len(setting.target(quantity)) > _LONGEST_TARGET for quantity in KINDS
    ):
        raise ExchangeError(f"it is damaged: {setting} names no runtime")
    return setting


def _quantity(name: str) -> Quantity:
    if name not in KINDS:
        raise ExchangeError(
            f"it has a model of {name!r}, which this program does not know: use a newer genba"
        )
    return cast("Quantity", name)


def _model(name: str, values: Mapping[str, Any], setting: Setting) -> Calibrated[Any]:
    quantity = _quantity(name)
    try:
        model = KINDS[quantity].from_json(json.dumps(values["model"]))
    except ModelFormatError as error:
        raise ExchangeError(f"its model of {name} cannot be used: {error}") from error
    threads = getattr(model, "threads", setting.threads)
    if threads != setting.threads:
        raise ExchangeError(f"it is damaged: its model of {name} is of {threads} threads")
    if not _knows_its_measurements(model):
        raise ExchangeError(
            f"it is damaged: its model of {name} does not predict what it was fitted on"
        )
    examples = tuple(
        Example(_text(one, "name"), _sha256(one["model_sha256"]), None)
        for one in values["examples"]
    )
    if len(examples) != model.n:
        raise ExchangeError(
            f"it is damaged: {len(examples)} networks for {model.n} measurements of {name}"
        )
    return Calibrated(
        model,
        examples,
        datetime.fromisoformat(values["created_at"]),
        _text(values, "origin"),
        _text(values, "source"),
    )


def _knows_its_measurements(model: NonNegativeModel) -> bool:
    """Whether rates and measurements belong together."""
    predicted = np.array([found.value for found in model.predict_rows(model.measured_rows)])
    errors = np.abs(np.log(predicted / model.measured_values))
    return bool(np.median(errors) <= _LARGEST_ERROR)


def _sha256(value: Any) -> str:
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise ExchangeError(f"it is damaged: {value!r} is no SHA-256")
    return value
