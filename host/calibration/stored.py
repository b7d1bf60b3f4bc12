"""Calibrated cost models in the store: each with the networks that it was fitted on."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Generic, TypeVar

from cost_models.base import ModelFormatError
from cost_models.nonnegative import NonNegativeModel
from host.calibration.setting import Setting
from host.store.cost_models import StoredCostModel
from host.store.store import Store

CALIBRATION = "calibration"

M = TypeVar("M", bound=NonNegativeModel)


@dataclass(frozen=True)
class Example:
    """A network that a cost model was fitted on; `measurement` is the number of its measurement,
    None where it was measured in another workspace.
    """

    name: str
    model_sha256: str
    measurement: int | None


@dataclass(frozen=True)
class Calibrated(Generic[M]):
    """A fitted model of a device in a setting; one example for each of the model's rows.

    `origin` is CALIBRATION, or "study NAME" where a study fitted it on candidates of its space.
    `source` is what measured the power behind a model of power or energy.
    """

    model: M
    examples: tuple[Example, ...]
    created_at: datetime
    origin: str = CALIBRATION
    source: str = ""


def keep(
    store: Store,
    device_id: str,
    setting: Setting,
    model: NonNegativeModel,
    examples: Sequence[Example],
    origin: str = CALIBRATION,
    source: str = "",
) -> int:
    """Store a fitted model as the newest of its quantity in that setting; returns its id.

    Raises ValueError unless there is one example for each row of the model.
    """
    text = _text(model, examples, origin, source)
    return store.cost_models.add(device_id, setting.target(model.quantity), text, model.n)


def load(store: Store, device_id: str, setting: Setting, kind: type[M]) -> Calibrated[M] | None:
    """The newest model of that kind, None where there is none.

    Raises ModelFormatError where it was written by another version of genba or is damaged.
    """
    found = store.cost_models.latest(device_id, setting.target(kind.quantity))
    return None if found is None else _read(found, kind)


def keep_of_study(
    store: Store,
    device_id: str,
    setting: Setting,
    model: NonNegativeModel,
    examples: Sequence[Example],
    study: str,
) -> int | None:
    """Store what a study fitted, unless the device has a calibration in that setting.

    A calibration knows every kind of kernel, a study only those of its space: the study's model
    would be the narrower one, whatever it was fitted on. So it takes the place of none or of
    another study's only. Returns its id, None where nothing was stored.
    """
    target = setting.target(model.quantity)
    latest = store.cost_models.latest(device_id, target)
    if latest is not None and _origin(latest) == CALIBRATION:
        return None
    text = _text(model, examples, f"study {study}")
    if latest is not None and latest.model_json == text:
        return latest.id
    return store.cost_models.add(device_id, target, text, model.n)


def models_elsewhere(
    store: Store, device_id: str, setting: Setting, kind: type[M], limit: int = 20
) -> list[M]:
    """Models of that kind of other devices with the same library and threads, one a device, the
    newest first; those of other versions of genba are left out.
    """
    target = setting.target(kind.quantity)
    library = target.index(f" {setting.version} threads=") + 1
    rows = store.cost_models.newest_of_all(target[:library], f" threads={setting.threads}")
    found: dict[str, M] = {}
    for row in rows:
        if row.device_id == device_id or row.device_id in found:
            continue
        with suppress(ModelFormatError):
            found[row.device_id] = _read(row, kind).model
        if len(found) == limit:
            break
    return list(found.values())


def _text(
    model: NonNegativeModel, examples: Sequence[Example], origin: str, source: str = ""
) -> str:
    if len(examples) != model.n:
        raise ValueError(f"{len(examples)} examples for {model.n} rows")
    return json.dumps(
        {
            "model": json.loads(model.to_json()),
            "examples": [asdict(one) for one in examples],
            "origin": origin,
            "source": source,
        }
    )


def _read(found: StoredCostModel, kind: type[M]) -> Calibrated[M]:
    try:
        stored = json.loads(found.model_json)
        model = kind.from_json(json.dumps(stored["model"]))
        examples = tuple(Example(**one) for one in stored["examples"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ModelFormatError(f"the stored cost model is damaged: {error!r}") from error
    return Calibrated(
        model,
        examples,
        found.created_at,
        stored.get("origin", CALIBRATION),
        stored.get("source", ""),
    )


def _origin(found: StoredCostModel) -> str:
    """Where a stored model comes from; what cannot be read is worth nothing and no calibration."""
    try:
        stored = json.loads(found.model_json)
        return str(stored.get("origin", CALIBRATION)) if "examples" in stored else ""
    except (json.JSONDecodeError, AttributeError, TypeError):
        return ""
