"""A comparison for programs: SI units, in the names; absent is None."""

from dataclasses import asdict
from typing import Any

from host.evaluation.entries import Comparison, Entry, Place

Record = dict[str, Any]


def comparison_record(comparison: Comparison) -> Record:
    """All entries by kind, what dominates what, and which limits are missed."""
    return {
        "study": comparison.study,
        "devices": [asdict(place) for place in comparison.places],
        "entries": [_entry_record(entry, comparison.places) for entry in comparison.entries],
        "dominances": [asdict(one) for one in comparison.dominances],
        "missed_limits": [
            {
                "label": one.label,
                "device": one.limit.device,
                "quantity": one.limit.quantity,
                "maximum": one.limit.maximum,
                "value": one.value,
            }
            for one in comparison.missed
        ],
        "notes": list(comparison.notes),
    }


def _entry_record(entry: Entry, places: tuple[Place, ...]) -> Record:
    quality = entry.quality
    return {
        "kind": entry.kind,
        "label": entry.label,
        "name": entry.name,
        "size_bytes": entry.size_bytes,
        "score": entry.score,
        "accuracy": None if entry.accuracy is None else entry.accuracy.model_dump(),
        "quality": None
        if quality is None
        else {"measure": quality.measure, **quality.score.model_dump()},
        "no_quality_because": entry.no_quality_because or None,
        "devices": [_place_record(entry, place.name) for place in places],
    }


def _place_record(entry: Entry, place: str) -> Record:
    found, told = entry.on.get(place), entry.predicted.get(place)
    before = told
    if before is None and found is not None:
        before = found.predicted_latency_seconds
    predicted = None if before is None else before.model_dump()
    record: Record = {"device": place, "predicted_latency_seconds": predicted}
    if found is None:
        return record | {"measured": None, "absent_because": entry.absent.get(place)}
    figures = found.model_dump(exclude={"device", "predicted_latency_seconds"})
    return record | {"measured": figures, "absent_because": None}
