"""`genba serve` for these tests: `quick_gateway.py WORKSPACE`.

Only times differ: leases end and silent links are given up within seconds. The seconds in the file
`clock-offset` of the workspace are added to its clock.
"""

import asyncio
import logging
import signal
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from host.gateway import server
from host.gateway.server import Listen, Pace, make_gateway
from host.workspace import Workspace

LEASE_SECONDS = 2.0
_QUICK = {
    "grpc.http2.min_ping_interval_without_data_ms": 300,
    "grpc.keepalive_time_ms": 1000,
    "grpc.keepalive_timeout_ms": 1000,
}
PACE = Pace(poll_seconds=0.05, lease_seconds=LEASE_SECONDS, grace_seconds=1.0)


def main(root: Path) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    options = tuple((name, _QUICK.get(name, value)) for name, value in server._OPTIONS)
    setattr(server, "_OPTIONS", options)  # noqa: B010 - of another length than its type says
    workspace = Workspace.open(root)

    def now() -> datetime:
        with suppress(FileNotFoundError, ValueError):
            offset = float((root / "clock-offset").read_text(encoding="ascii"))
            return datetime.now(UTC) + timedelta(seconds=offset)
        return datetime.now(UTC)

    async def serve() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        with workspace.open_store(now) as store:
            gateway = make_gateway(workspace, store, Listen.of(workspace), PACE)
            await gateway.run(stop, lambda: print("serving", flush=True))

    with workspace.gateway_lock():
        asyncio.run(serve())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
