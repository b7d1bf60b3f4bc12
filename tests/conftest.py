"""Which tests nothing else may run beside, and how examples are tried."""

from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes depends on what else the machine does.
settings.register_profile("genba", deadline=None)
settings.load_profile("genba")

_HERE = Path(__file__).resolve().parent
_ALONE = (
    "end_to_end",
    "faults",
    "device_agent/test_agent_over_mtls.py",
    "device_agent/test_clocks.py",
    "device_agent/test_faults.py",
    "device_agent/test_link.py",
    "device_agent/test_measuring.py",
    "device_agent/test_preflight.py",
    "device_agent/test_renewal.py",
    "host/api",
    "host/test_gateway_restart.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """They wait for processes against the clock, or look at what else the machine does."""
    folders = [_HERE / name for name in _ALONE]
    for item in items:
        if any(folder == item.path or folder in item.path.parents for folder in folders):
            item.add_marker(pytest.mark.alone)
