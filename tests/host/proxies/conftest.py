"""Each test of a proxy's value runs on both implementations, with one thread."""

from collections.abc import Iterator

import pytest
import torch

from tests.host.proxies.implementations import Scored, engine, naive


@pytest.fixture(params=[naive, engine], ids=["naive", "engine"])
def scored(request: pytest.FixtureRequest) -> Scored:
    request.getfixturevalue("one_thread")
    implementation: Scored = request.param
    return implementation


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
