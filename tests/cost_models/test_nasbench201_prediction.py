"""The few-shot cost models on published measurements of NAS-Bench-201."""

import os
from pathlib import Path

import pytest

from benchmarks.cost_models.__main__ import TABLE
from benchmarks.cost_models.protocols import few_shot, help_columns, help_protocol
from benchmarks.cost_models.tables import Table, number_columns, read_table
from benchmarks.cost_models.targets import (
    EDGEGPU,
    EDGEGPU_BAR,
    HELP_EVERY,
    HELP_TRIMMED,
    RASPI4,
    RASPI4_BAR,
)

FILE = Path(os.environ.get("GENBA_DATA", Path(__file__).parents[2] / "../shared/data")) / TABLE

pytestmark = pytest.mark.skipif(
    not FILE.is_file(), reason=f"{FILE} is not there; GENBA_DATA names its folder"
)


@pytest.fixture(scope="module")
def table() -> Table:
    return read_table(FILE, [*help_columns(number_columns(FILE)).values(), EDGEGPU])


def test_ten_measurements_of_one_device_beat_published_ones_with_nine_more_devices(
    table: Table,
) -> None:
    (found,) = help_protocol(table, help_columns([*table.values]), [10], 2, "d-optimal")

    assert found.mean_every >= HELP_EVERY
    assert found.mean_trimmed >= HELP_TRIMMED


def test_a_raspberry_pi_is_ranked_after_twenty_measurements(table: Table) -> None:
    (found,) = few_shot(table, RASPI4, [20], 2, "d-optimal")

    assert found.rho is not None
    assert found.rho >= RASPI4_BAR


def test_a_parallel_device_is_ranked_after_a_hundred_measurements(table: Table) -> None:
    (found,) = few_shot(table, EDGEGPU, [100], 2, "d-optimal")

    assert found.rho is not None
    assert found.rho >= EDGEGPU_BAR
    assert found.kinds == ("parallel", "parallel")


def test_341_cells_have_no_path_and_do_not_count(table: Table) -> None:
    assert len(table.cells) == 15_625
    assert table.left_out(RASPI4)["disconnected"] == 341
