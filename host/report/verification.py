"""What came of a verification, for the terminal and for programs."""

import math
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from host.measurement import VerifiedOutputs
from host.measurement.verification import Verification
from host.report.records import plain


@dataclass(frozen=True)
class NamedOutputs:
    """What a device answered, with the words that people know it by; `source` is where the
    expected outputs come from.
    """

    answer: VerifiedOutputs
    model: str
    device: str
    source: str


def verification_block(found: Verification, named: NamedOutputs) -> RenderableType:
    """The sentence that decides, and a row for every output."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("output", overflow="fold")
    for name in ("max error", "max relative\nerror", "within", "cosine", "top-1\nagrees"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("worst\nexample", justify="right")
    for output in found.outputs:
        table.add_row(
            Text(output.name),
            f"{output.max_absolute_error:.3g}",
            f"{output.max_relative_error:.3g}",
            f"{output.within_tolerance:.2%}",
            "–" if output.cosine is None else f"{output.cosine:.6f}",
            "–" if output.top1_agreement is None else f"{output.top1_agreement:.1%}",
            str(output.worst_example),
        )
    title = (
        f"{named.model} on {named.device}: {named.answer.examples} examples,"
        f" {named.answer.runtime_library} {named.answer.runtime_version} against {named.source}"
    )
    word = Text("PASSED", "green") if found.passed else Text("FAILED", "bold red")
    sentence = Text.assemble("  ", word, ": ", found.sentence)
    return Group(Text(title, style="bold"), sentence, *([table] if found.outputs else []))


def verification_record(found: Verification, named: NamedOutputs) -> dict[str, Any]:
    """Everything; errors that are not finite are None and counted as `is_finite` false."""
    outputs = []
    for output in found.outputs:
        record = plain(output)
        errors = ("max_absolute_error", "max_relative_error")
        record["is_finite"] = all(math.isfinite(record[name]) for name in errors)
        for name in errors:
            record[name] = record[name] if math.isfinite(record[name]) else None
        outputs.append(record)
    return {
        "kind": "verification",
        "model": named.model,
        "device": named.device,
        "passed": found.passed,
        "sentence": found.sentence,
        "relative_tolerance": found.relative_tolerance,
        "absolute_tolerance": found.absolute_tolerance,
        "top1_agreement": found.top1_agreement,
        "expected_from": named.source,
        "outputs": outputs,
        "answer": plain(named.answer),
    }
