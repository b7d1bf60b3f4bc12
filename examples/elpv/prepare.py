"""Writes the solar-cell photos of the package elpv-dataset as a folder with one folder a class.

    python examples/elpv/prepare.py TARGET

Each photo carries the probability with which its annotator calls the cell defective: 0 and 1/3
become `functional`, 2/3 and 1 `defective`. A second run writes only what is missing.
"""

import argparse
import hashlib
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

LICENCE = (
    "The photos (Deitsch et al., ELPV dataset) are licensed CC BY-NC-SA 4.0: name the authors, "
    "no commercial use, share alike."
)
CLASSES = ("functional", "defective")


@dataclass(frozen=True)
class Prepared:
    """How many photos each class has, and how many of all were written by this call."""

    counts: dict[str, int]
    written: int


def prepare(target: Path) -> Prepared:
    """Copy the photos into `target/functional` and `target/defective`.

    Raises FileNotFoundError where the package is not installed.
    """
    source = _source()
    counts = dict.fromkeys(CLASSES, 0)
    written = 0
    for line in (source / "labels.csv").read_text().splitlines():
        name, probability, _ = line.split()
        label = CLASSES[float(probability) > 0.5]
        counts[label] += 1
        written += _copy(source / name, target / label / Path(name).name)
    return Prepared(counts, written)


def _source() -> Path:
    spec = find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("elpv-dataset is not installed: pip install 'genba[demo]'")
    return Path(spec.origin).parent / "data"


def _copy(source: Path, target: Path) -> bool:
    content = source.read_bytes()
    if target.exists() and _digest(target.read_bytes()) == _digest(content):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    # A stop in the middle leaves no half photo under its final name.
    partial = target.with_suffix(".partial")
    partial.write_bytes(content)
    partial.replace(target)
    return True


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def main() -> int:
    """The command line: prepare, and say what is there."""
    parser = argparse.ArgumentParser(description="Write the ELPV photos as an image folder.")
    parser.add_argument("target", type=Path, help="folder to write into")
    target = parser.parse_args().target
    try:
        prepared = prepare(target)
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(LICENCE)
    counts = ", ".join(f"{count} {name}" for name, count in prepared.counts.items())
    print(f"{target}: {counts}; {prepared.written} written now.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
