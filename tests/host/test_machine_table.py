"""What the table of machines says elsewhere: in the README, and in the extras of pyproject.toml."""

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from host.agent_bundle.readme_table import NoMarkersError, readme_table, with_table
from protos.machines import Pin, Row, machines

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements(row: Row, extra: str = "") -> list[Requirement]:
    """Those of the agent, or of an extra, that count on this machine."""
    listed = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    environment = {
        "python_version": row.python,
        "platform_machine": row.architecture,
        "sys_platform": "linux",
    }
    found = [Requirement(text) for text in listed]
    return [one for one in found if one.marker is None or one.marker.evaluate(environment)]


def wanted() -> Iterator[tuple[Row, str]]:
    for row in machines().rows:
        yield row, ""
        for runtime in row.existing_runtimes():
            yield row, runtime


@pytest.mark.parametrize(
    ("row", "extra"),
    list(wanted()),
    ids=lambda value: (
        "-".join([value.architecture, value.python, *value.cpus])
        if isinstance(value, Row)
        else value or "agent"
    ),
)
def test_every_pin_of_the_table_is_one_that_the_extras_allow(row: Row, extra: str) -> None:
    sources = row.needed([extra] if extra else []).values()
    pins: dict[str, Pin] = {pin.name: pin for source in sources for pin in source.pins}
    debian = {source.debian.name for source in sources if source.debian is not None}

    needs = requirements(row, extra)

    assert needs
    for need in needs:
        if need.name in pins:
            assert need.specifier.contains(pins[need.name].version), need
        else:
            assert f"python3-{need.name}" in debian, need


def test_the_readme_shows_the_table_as_it_is() -> None:
    text = README.read_text(encoding="utf-8")

    assert with_table(text) == text, "python -m host.agent_bundle.readme_table README.md"


def test_the_readme_names_every_architecture_and_every_runtime() -> None:
    table = readme_table()

    for architecture in machines().architectures.values():
        assert architecture.label.en in table
    for title in ("ONNX", "TFLite", "ncnn", "not supported", "ran emulated"):
        assert title in table


@pytest.mark.parametrize("text", ["", "<!-- machines: end -->", "no table here"])
def test_a_text_without_markers_is_refused(text: str) -> None:
    with pytest.raises(NoMarkersError, match="there are no lines"):
        with_table(text)
