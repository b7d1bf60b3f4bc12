"""The README's table "Will it run on my machine?", made of protos/machines.json.

python -m host.agent_bundle.readme_table README.md    writes it anew between its two markers
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from host.errors import UsageError
from protos.machines import RUNTIMES, Refusal, Row, Source, machines

BEGIN = "<!-- machines: begin, by python -m host.agent_bundle.readme_table README.md -->"
END = "<!-- machines: end -->"
_HEAD = "| machine | Python (system) | ONNX | TFLite | ncnn | note |\n|---|---|---|---|---|---|\n"
_RAN = {"emulated": "ran emulated", "native": "ran natively"}
_TITLES = {"onnx": "ONNX", "tflite": "TFLite", "ncnn": "ncnn"}


class NoMarkersError(UsageError):
    """The file has no place for the table."""


@dataclass(frozen=True)
class _Line:
    """What the table says of one machine; lines that differ in Python alone become one."""

    architecture: str
    cpus: tuple[str, ...]
    runtimes: tuple[str, ...]
    notes: tuple[str, ...]


def readme_table() -> str:
    """The whole table, in Markdown."""
    return _HEAD + "".join(f"| {' | '.join(cells)} |\n" for cells in [*_rows(), *_refusals()])


def with_table(text: str) -> str:
    """The text with a fresh table between its markers. Raises NoMarkersError."""
    before, begin, rest = text.partition(BEGIN)
    _old, end, after = rest.partition(END)
    if not begin or not end:
        raise NoMarkersError(f"there are no lines {BEGIN!r} and {END!r} for the table")
    return f"{before}{BEGIN}\n{readme_table()}{END}{after}"


def main(arguments: Sequence[str]) -> None:
    """Write the table into the file that the argument names."""
    path = Path(arguments[0])
    path.write_text(with_table(path.read_text(encoding="utf-8")), encoding="utf-8")


def _rows() -> Iterator[tuple[str, ...]]:
    for line, group in groupby(machines().rows, key=_line):
        rows = list(group)
        notes = [*line.notes, *_trials(rows)]
        yield (
            _machine(line.architecture, line.cpus),
            _pythons([row.python for row in rows]),
            *line.runtimes,
            "; ".join(notes),
        )


def _refusals() -> Iterator[tuple[str, ...]]:
    for refusal in machines().refused:
        yield (
            _machine(refusal.architecture, refusal.cpus),
            _refused_pythons(refusal),
            *("no" for _ in RUNTIMES),
            f"**not supported**: {refusal.because.en}",
        )


def _line(row: Row) -> _Line:
    return _Line(
        row.architecture,
        row.cpus,
        tuple(_version(row.runtimes[name]) for name in RUNTIMES),
        tuple(_notes(row)),
    )


def _machine(architecture: str, cpus: Sequence[str]) -> str:
    label = machines().architectures[architecture].label.en
    levels = machines().levels(architecture)
    if len(levels) > 1 and len(cpus) == len(levels):
        return f"{label}, any CPU"
    return ", ".join([label, *(level.label.en for level in levels if level.name in cpus)])


def _pythons(pythons: Sequence[str]) -> str:
    return ", ".join(f"{python} ({machines().systems[python].name})" for python in pythons)


def _refused_pythons(refusal: Refusal) -> str:
    return "any" if set(refusal.pythons) == set(machines().systems) else _pythons(refusal.pythons)


def _version(source: Source) -> str:
    if source.debian is not None:
        return f"Debian's {source.debian.version}"
    return f"{source.pins[0].name} {source.pins[0].version}" if source.pins else "no"


def _notes(row: Row) -> Iterator[str]:
    reasons: dict[str, list[str]] = {}
    for name, source in row.runtimes.items():
        if source.because is not None:
            reasons.setdefault(source.because.en, []).append(_TITLES[name])
    for because, names in reasons.items():
        yield f"no {', '.join(names)}: {because}"
    sources = row.needed(row.existing_runtimes()).values()
    debian = [source.debian.name for source in sources if source.debian is not None]
    if debian:
        yield f"`apt install {' '.join(debian)}`"


def _trials(rows: Sequence[Row]) -> Iterator[str]:
    """What was seen to run, and where no more is known than that the versions exist."""
    for row in rows:
        for how, trials in groupby(row.ran, key=lambda trial: trial.how):
            cpus = ", ".join(trial.cpu for trial in trials)
            yield f"{_RAN[how]} with {row.python}: {cpus}"
    unseen = [row.python for row in rows if not row.ran]
    if unseen:
        yield f"{', '.join(unseen)}: not run, the versions exist"


if __name__ == "__main__":
    main(sys.argv[1:])
