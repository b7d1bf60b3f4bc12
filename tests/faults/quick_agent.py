"""`genba-agent run` for these tests: `quick_agent.py PLANT HOME`.

Only times and names differ: it waits for seconds where a plant can wait for minutes, and it does
not share the one turn of the machine with the other agents of the test. Its worker is
quick_worker.py.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

UNARY_SECONDS = 3.0
KEEPALIVE_SECONDS = 1.0

_QUICK: dict[str, dict[str, Any]] = {
    "device_agent.backoff": {"_FIRST_DELAY_SECONDS": 0.1, "_LONGEST_DELAY_SECONDS": 0.5},
    "device_agent.session": {"_REFUSED_SECONDS": 0.5, "_DRAINED_SECONDS": 0.2},
}


def hurry(home: Path) -> None:
    """Shorten the product's waits. Raises AttributeError where one of them is no longer there."""
    turn = f"\0genba-faults-{home}"[:100]
    for name, values in {**_QUICK, "device_agent.turn": {"_NAME": turn}}.items():
        module = importlib.import_module(name)
        for key, value in values.items():
            getattr(module, key)
            setattr(module, key, value)


def run(plant: str, home: Path) -> int:
    from device_agent.__main__ import _leave_openssl_out

    _leave_openssl_out()
    from device_agent.errors import AgentError
    from device_agent.link import Pace
    from device_agent.session import run_agent
    from device_agent.state import Home

    hurry(home)
    worker = Path(__file__).resolve().with_name("quick_worker.py")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run_agent(
            Home(home),
            once=False,
            worker_command=[sys.executable, "-B", str(worker), plant],
            say=lambda text: print(text, flush=True),
            pace=Pace(
                keepalive_seconds=KEEPALIVE_SECONDS,
                keepalive_timeout_seconds=KEEPALIVE_SECONDS,
                unary_seconds=UNARY_SECONDS,
                renew_seconds=1.0,
            ),
        )
    except AgentError as error:
        print(f"genba-agent: {error}", flush=True)
        return error.exit_code
    except KeyboardInterrupt:
        os._exit(0)  # as the product does: gRPC's threads may wait for calls
    return 0


if __name__ == "__main__":
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    sys.exit(run(sys.argv[1], Path(sys.argv[2])))
