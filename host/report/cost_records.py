"""Predictions of cost models for programs: SI units, in the names; absent is None."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from cost_models.base import Prediction
from host.calibration.catalogue import QUANTITIES, Quantity
from host.calibration.explanation import Explanation
from host.calibration.prediction import Absent, Forecast
from host.report.cost import PredictedModel

Record = dict[str, Any]

CSV_COLUMNS = (
    "model",
    "device",
    "runtime",
    "runtime_library",
    "runtime_version",
    "threads",
    "kind",
    "macs",
    "weight_bytes",
    "kernels",
    *(
        f"{quantity}{end}"
        for quantity in QUANTITIES
        for end in ("", "_low", "_high", "_level", "_n", "_flagged", "_absent_because")
    ),
    "drift_ratio",
)


def prediction_record(row: PredictedModel, explanation: Explanation | None = None) -> Record:
    """One model on one device; an interval that is open above has no `high`."""
    setting, scale = row.predictor.setting, row.predictor.scales.get("latency_seconds")
    record: Record = {
        "model": row.model,
        "device": row.predictor.device.name,
        "runtime": setting.runtime,
        "runtime_library": setting.library,
        "runtime_version": setting.version,
        "threads": setting.threads,
        "kind": "predicted",
        "macs": row.graph.macs,
        "weight_bytes": row.graph.weight_bytes,
        "kernels": len(row.graph.kernels),
        **_forecast_fields(row.forecasts),
        "drift_ratio": None if scale is None else scale.ratio,
        "notes": row.predictor.notes,
    }
    if explanation is not None:
        record["explanation"] = explanation_record(explanation)
    return record


def csv_fields(record: Record) -> list[str]:
    """The fields of CSV_COLUMNS, empty where there is nothing to say."""
    flat = dict(record)
    for quantity in QUANTITIES:
        found = record[quantity]
        flat[quantity] = None
        if found is not None:
            flat |= {
                f"{quantity}{'' if name == 'value' else '_' + name}": value
                for name, value in found.items()
            }
    return [_csv(flat.get(column)) for column in CSV_COLUMNS]


def forecast_record(forecast: Forecast) -> Record | None:
    """Value, interval, level, the number of measurements behind it, and what is flagged."""
    if isinstance(forecast, Absent):
        return None
    return {
        "value": forecast.value,
        "low": forecast.low,
        "high": finite(forecast.high),
        "level": forecast.level,
        "n": forecast.n,
        "flagged": list(forecast.flagged),
    }


def explanation_record(explanation: Explanation) -> Record:
    """The sum over the kernels, all of them in the order of execution."""
    total = explanation.sum_seconds
    return {
        "constant_seconds": explanation.constant_seconds,
        "whole_seconds": explanation.whole_seconds,
        "sum_seconds": total,
        "factor": explanation.factor,
        "kernels": [
            {**asdict(kernel), "share": kernel.seconds / total if total > 0 else 0.0}
            for kernel in explanation.kernels
        ],
    }


def finite(value: float) -> float | None:
    """JSON has no infinity: no bound is null."""
    return value if math.isfinite(value) else None


def _forecast_fields(forecasts: Mapping[Quantity, Forecast]) -> Record:
    fields: Record = {}
    for quantity in QUANTITIES:
        forecast = forecasts[quantity]
        fields[quantity] = forecast_record(forecast)
        absent = None if isinstance(forecast, Prediction) else forecast.because
        fields[f"{quantity}_absent_because"] = absent
    return fields


def _csv(value: object) -> str:
    if value is None:
        return ""
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)
