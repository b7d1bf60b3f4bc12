"""Stored cost models for the terminal and for programs: what they know, and how sure they are."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from host.calibration.catalogue import calibrate_command, is_current
from host.calibration.prediction import Predictor
from host.calibration.setting import Setting
from host.calibration.stored import CALIBRATION, Calibrated
from host.device import NoRuntimeError
from host.report.calibration import held_out_error, model_lines, model_record, subjects_table
from host.report.calibration_texts import TEXTS as CALIBRATION_TEXTS
from host.report.cost import plain
from host.report.cost_texts import TEXTS
from host.report.measurement_lines import ABSENT, figures, percent
from host.report.measurement_texts import Language

Record = dict[str, Any]
Words = Mapping[str, str]


def settings_table(predictors: Sequence[Predictor], language: Language = "en") -> RenderableType:
    """A row for each model of a device."""
    words = TEXTS[language]
    device = predictors[0].device
    title = words["settings"].format(device=device.name)
    table = plain()
    level = next(iter(predictors[0].models.values())).model.level
    table.add_column(words["setting"], overflow="fold")
    table.add_column(words["quantity"], no_wrap=True)
    table.add_column(words["n"], justify="right", no_wrap=True)
    table.add_column(words["created"], no_wrap=True)
    table.add_column(words["error"], justify="right", no_wrap=True)
    table.add_column(words["interval"].format(level=percent(level)), justify="right", no_wrap=True)
    table.add_column(words["from"], overflow="fold")
    notes = []
    for predictor in predictors:
        for place, (quantity, found) in enumerate(predictor.models.items()):
            model = found.model
            table.add_row(
                "" if place else str(predictor.setting),
                words[quantity],
                str(model.n),
                _date(found),
                _share(held_out_error(model, 0.5)),
                ABSENT if math.isinf(model.half_width) else f"×/÷ {math.exp(model.half_width):.2f}",
                Text(_origin(found, words)),
            )
        notes += list(_stale(predictor, words))
        notes += predictor.notes
    return Group(Text(title, style="bold"), table, *map(Text, notes))


def models_block(predictor: Predictor, language: Language = "en") -> RenderableType:
    """All that is known of the models of one setting."""
    words = TEXTS[language]
    subjects: list[tuple[str, Iterable[str]]] = [
        (words[quantity], _lines(found, words, language))
        for quantity, found in predictor.models.items()
    ]
    subjects += [
        (words[quantity], [f"{ABSENT} ({absent.because})"])
        for quantity, absent in predictor.absent.items()
    ]
    title = words["title"].format(device=predictor.device.name, setting=predictor.setting)
    notes = [*_stale(predictor, words), *predictor.notes]
    return Group(Text(title, style="bold"), subjects_table(subjects), *map(Text, notes))


def models_record(predictor: Predictor) -> Record:
    """SI units; coefficients by feature."""
    setting, scale = predictor.setting, predictor.scales.get("latency_seconds")
    return {
        "device": predictor.device.name,
        "runtime": setting.runtime,
        "runtime_library": setting.library,
        "runtime_version": setting.version,
        "threads": setting.threads,
        "is_current": is_current(setting, predictor.device),
        "models": {quantity: _record(found) for quantity, found in predictor.models.items()},
        "absent": {quantity: absent.because for quantity, absent in predictor.absent.items()},
        "drift_ratio": None if scale is None else scale.ratio,
        "notes": predictor.notes,
    }


def _record(found: Calibrated[Any]) -> Record:
    model = found.model
    return {
        **model_record(model),
        "created_at": found.created_at.isoformat(),
        "origin": found.origin,
        "source": found.source or None,
        "networks": [
            {
                "name": example.name,
                "model_sha256": example.model_sha256,
                "measurement": example.measurement,
                "measured": value,
            }
            for example, value in zip(found.examples, model.measured_values.tolist(), strict=True)
        ],
    }


def _lines(found: Calibrated[Any], words: Words, language: Language) -> Iterator[str]:
    model = found.model
    yield words["what"].format(n=model.n, created=_date(found), origin=_origin(found, words))
    yield from model_lines(model, CALIBRATION_TEXTS[language], language)


def _stale(predictor: Predictor, words: Words) -> Iterator[str]:
    """What to do where the device has another version of the runtime now."""
    device, setting = predictor.device, predictor.setting
    if is_current(setting, device):
        return
    try:
        now = Setting.of_device(device, setting.runtime, setting.threads)
    except NoRuntimeError:
        yield words["gone"].format(device=device.name, library=setting.library)
        return
    yield words["stale"].format(
        device=device.name, now=now, command=calibrate_command(device, setting)
    )


def _origin(found: Calibrated[Any], words: Words) -> str:
    origin = words["origin.calibration"] if found.origin == CALIBRATION else found.origin
    if all(example.measurement is None for example in found.examples):
        return words["elsewhere"].format(origin=origin)
    return origin


def _date(found: Calibrated[Any]) -> str:
    return f"{found.created_at.astimezone():%Y-%m-%d %H:%M}"


def _share(share: float | None) -> str:
    return ABSENT if share is None else f"{figures(100 * share, 2)} %"
