"""The one table of what runs on which old machine, and how it is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from protos import machines as module
from protos.machines import (
    PACKAGES,
    RUNTIMES,
    BadTableError,
    Clash,
    Row,
    Text,
    machines,
    read_machines,
)

TABLE = machines()
TEXT = Path(module.__file__).with_name("machines.json").read_text(encoding="utf-8")
WHY = Text("", "")


def row_id(row: Row) -> str:
    return f"{row.architecture}-{row.python}-{'-'.join(row.cpus)}"


def changed(**changes: Any) -> str:
    return json.dumps({**json.loads(TEXT), **changes})


@pytest.mark.parametrize("row", TABLE.rows, ids=row_id)
def test_every_row_says_of_each_package_and_runtime_where_it_comes_from(row: Row) -> None:
    sources = {**row.packages, **row.runtimes}

    assert set(sources) == {*PACKAGES, *RUNTIMES}
    assert row.python in TABLE.systems
    assert set(row.cpus) <= {level.name for level in TABLE.levels(row.architecture)}
    for source in sources.values():
        assert [bool(source.pins), source.debian is not None, source.because is not None].count(
            True
        ) == 1
    assert all(source.exists for source in row.packages.values())
    assert row.existing_runtimes(), "an agent that measures nothing is no row"
    assert {trial.how for trial in row.ran} <= {"emulated", "native"}


def test_a_machine_stands_in_one_row_or_is_refused_but_not_both() -> None:
    rows = [(row.architecture, row.python, cpu) for row in TABLE.rows for cpu in row.cpus]
    refused = [
        (refusal.architecture, python, cpu)
        for refusal in TABLE.refused
        for python in refusal.pythons
        for cpu in refusal.cpus
    ]

    everything = rows + refused
    assert len(everything) == len(set(everything))


def test_every_reason_is_said_in_both_languages() -> None:
    texts = [refusal.because for refusal in TABLE.refused]
    texts += [clash.because for clash in TABLE.clashes]
    texts += [level.label for level in TABLE.cpus]
    texts += [architecture.label for architecture in TABLE.architectures.values()]
    texts += [
        source.because
        for row in TABLE.rows
        for source in row.runtimes.values()
        if source.because is not None
    ]

    assert all(text.en and text.ja for text in texts)


def test_no_cell_of_the_file_is_left_unused() -> None:
    value = json.loads(TEXT)
    used = {name for row in value["rows"] for name in row["packages"].values()}
    used |= {name for row in value["rows"] for name in row["runtimes"].values()}

    assert used == set(value["cells"])


@pytest.mark.parametrize(
    ("machine", "bits", "architecture"),
    [
        ("x86_64", 64, "x86_64"),
        ("x86_64", 32, "i686"),
        ("i586", 32, "i686"),
        ("aarch64", 64, "aarch64"),
        ("aarch64", 32, "armv7l"),
        ("armv8l", 32, "armv7l"),
        ("armv6l", 32, "armv6l"),
        ("riscv64", 64, None),
    ],
)
def test_the_pointer_decides_and_not_the_kernel(
    machine: str, bits: int, architecture: str | None
) -> None:
    assert TABLE.architecture_of(machine, bits) == architecture


@pytest.mark.parametrize(
    ("architecture", "features", "level"),
    [
        ("armv7l", "half thumb vfp neon vfpv3 tls vfpd32", "no-vfpv4"),
        ("armv7l", "half thumb vfp neon vfpv3 vfpv4", "vfpv4"),
        ("armv7l", "fp asimd evtstrm crc32", "vfpv4"),
        ("x86_64", "fpu sse sse2 ssse3", "no-sse4.1"),
        ("x86_64", "fpu sse2 sse4_1", "sse4.1"),
        ("x86_64", "", "sse4.1"),
        ("i686", "fpu mmx sse", "no-sse2"),
        ("i686", "fpu sse sse2", "sse2"),
    ],
)
def test_the_features_of_a_cpu_tell_its_level(architecture: str, features: str, level: str) -> None:
    assert TABLE.level_of(architecture, frozenset(features.split())).name == level


@pytest.mark.parametrize(
    ("installed", "features", "clashing"),
    [
        ({"numpy": "2.4.0"}, {"sse4_1"}, ["numpy"]),
        ({"numpy": "2.4.0rc1"}, {"sse4_2", "sse4_1"}, []),
        ({"numpy": "2.3.5"}, {"sse4_1"}, []),
        ({"numpy": "2.4.0"}, set(), []),
        ({"numpy": "2.0.2", "tflite-runtime": "2.14.0"}, {"sse4_2", "sse4_1"}, ["numpy"]),
        ({"numpy": "1.26.4", "tflite-runtime": "2.14.0"}, {"sse4_2", "sse4_1"}, []),
        ({"numpy": "2.0.2", "onnxruntime": "1.15.1"}, {"sse4_2"}, ["onnxruntime"]),
        ({"numpy": "2.0.2", "onnxruntime": "1.16.0"}, {"sse4_2"}, []),
        ({"ai-edge-litert": "2.3.0"}, {"sse2"}, ["ai-edge-litert"]),
    ],
)
def test_versions_that_are_known_to_fail_are_found(
    installed: dict[str, str], features: set[str], clashing: list[str]
) -> None:
    found = [
        clash.package
        for clash in TABLE.clashes
        if clash.happens(installed, "x86_64", frozenset(features))
    ]

    assert found == clashing


def test_a_version_is_compared_by_its_numbers() -> None:
    clash = Clash("a", WHY, at_least="1.9", below="2", beside="b")

    def happens(version: str) -> bool:
        return clash.happens({"a": version, "b": "1"}, "x86_64", frozenset())

    assert happens("1.10+dfsg1")
    assert happens("1.9.0")
    assert not happens("1.8.99")
    assert not happens("2.0")
    assert not happens("unknown")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        changed(format="genba-machines/9"),
        changed(cells={}),
        changed(cells={"empty": {}}),
        changed(clashes=[{"package": "numpy"}]),
        changed(systems={"3.11": {"name": "Debian 12", "glibc": 36, "moon": "full"}}),
    ],
)
def test_a_damaged_table_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(BadTableError, match=r"the table of machines|has neither"):
        read_machines(text)
