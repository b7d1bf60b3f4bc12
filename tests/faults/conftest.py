"""One plant for all tests of this folder: it is mended before each, and in order after each."""

from collections.abc import Iterator

import pytest

from tests.faults.plant import Panel, Plant, Process


@pytest.fixture(scope="session")
def whole_plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    made = Plant(tmp_path_factory.mktemp("plant"))
    yield made
    made.stop()


@pytest.fixture
def plant(whole_plant: Plant) -> Iterator[Plant]:
    """With a gateway that serves; whatever the test did, all is in order at its end."""
    whole_plant.heal()
    whole_plant.forget()
    yield whole_plant
    whole_plant.heal()
    whole_plant.settle()


@pytest.fixture
def panel(plant: Plant) -> Panel:
    """A device at work."""
    made = plant.panel("panel")
    made.heal()
    return made


@pytest.fixture
def gateway(plant: Plant) -> Process:
    assert plant.gateway is not None
    return plant.gateway
