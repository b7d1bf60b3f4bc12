"""`genba-agent run` with the worker of fixed_clock_worker.py: `fixed_clock_agent.py --home DIR`."""

from __future__ import annotations

import sys
from pathlib import Path

from device_agent.__main__ import main

WORKER = Path(__file__).resolve().with_name("fixed_clock_worker.py")

if __name__ == "__main__":
    command = [sys.executable, "-B", str(WORKER)]
    sys.exit(main(["run", *sys.argv[1:]], worker_command=command))
