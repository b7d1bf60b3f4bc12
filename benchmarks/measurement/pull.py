"""A device that only pulls: takes each waiting job and times how fast its model arrives.

    python -m benchmarks.measurement.pull AGENT_HOME

A process of its own, as an agent is. Prints a JSON list of megabytes (of 1,000,000 bytes) a second.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from device_agent import VERSION
from device_agent.cache import Cache
from device_agent.link import Link
from device_agent.state import Home
from device_agent.system import read_facts
from device_agent.work import MeasureSpec


def rates(home: Home, folder: Path) -> list[float]:
    """Over mTLS, hashed and written, as the agent does it."""
    link = Link(home.identity())
    session = os.urandom(8).hex()
    link.hello(session, VERSION, read_facts())
    cache = Cache(folder)

    def pull(sha256: str, offset: int) -> Iterator[tuple[int, bytes]]:
        yield from link.read_blob(sha256, offset)

    found = []
    while (lease := link.claim(session)) is not None:
        if not isinstance(lease.spec, MeasureSpec):
            raise TypeError(f"only measure jobs wait here, not {lease.spec}")
        run = lease.spec.run
        started = time.perf_counter()
        cache.fetch(run.model_sha256, run.model_size_bytes, pull)
        found.append(run.model_size_bytes / 1e6 / (time.perf_counter() - started))
    link.close()
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(rates(Home(Path(sys.argv[1])), Path(name))))
