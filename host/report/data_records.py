"""A check of data for programs."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from host.data.check import DataCheck, ImageFacts
from host.report.data_advice import advice, remarks

Record = dict[str, Any]


def check_record(check: DataCheck, picture: Path | None = None) -> Record:
    """Everything that was found; what does not apply is None."""
    return {
        "kind": check.kind,
        "root": str(check.root),
        "table": None if check.table is None else str(check.table),
        "seed": check.seed,
        "fingerprint": check.fingerprint,
        "trainable": not check.problems,
        "problems": list(check.problems),
        "warnings": advice(check),
        "notes": remarks(check),
        "counts": dict(check.counts),
        "parts": {subset: dict(counts) for subset, counts in check.parts.items()},
        "given_parts": list(check.given),
        "imbalance": _imbalance(check),
        "groups": None if check.groups is None else asdict(check.groups),
        "left_out": [
            {"path": file.path, "reason": file.reason, "why": file.why} for file in check.excluded
        ],
        "copies": [list(same) for same in check.copies],
        "not_in_table": check.unlisted,
        "images": None if check.images is None else _image_record(check.images),
        "signals": None if check.signals is None else asdict(check.signals),
        "picture": None if picture is None else str(picture),
    }


def _imbalance(check: DataCheck) -> float | None:
    """Largest class : smallest class; None where one is empty."""
    counts = check.counts.values()
    return max(counts) / min(counts) if counts and min(counts) else None


def _image_record(facts: ImageFacts) -> Record:
    return {
        "sizes": {
            name: [
                {"width": width, "height": height, "count": count}
                for (width, height), count in sizes.most_common()
            ]
            for name, sizes in facts.sizes.items()
        },
        "grey": dict(facts.grey),
        "modes": dict(facts.modes),
        "alike": [asdict(pair) for pair in facts.alike],
        "alike_count": facts.alike_count,
        "alike_of_two_classes": facts.alike_contrary,
    }
