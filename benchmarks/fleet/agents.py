"""Many simulated agents in one process: real clients with keys of their own, fake measurements.

    python -m benchmarks.fleet.agents SETUP.json

Reads commands line by line: "connect", "figures", "stop"; answers each with a line of JSON.
Everything else the agents do by themselves, as an agent does: they claim when they are told to,
report, and try again with full jitter until they are answered.
"""

import asyncio
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from benchmarks.fleet.samples import measured_samples
from host.pki import SERVER_NAME
from protos import genba_agent_pb2 as pb

AT_ONCE = 50  # connections that one process makes at the same time
RPC_SECONDS = 20.0
MAX_BACKOFF_SECONDS = 4.0
_SERVICE = "/genba.v1.Fleet/"
_OPTIONS = (
    ("grpc.ssl_target_name_override", SERVER_NAME),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.initial_reconnect_backoff_ms", 200),
)
_Unary = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
_Stream = grpc.aio.UnaryStreamMultiCallable[bytes, bytes]
FACTS = pb.DeviceFacts(
    hostname="line",
    machine="x86_64",
    pointer_bits=64,
    cpu_model="Intel(R) Core(TM)2 Duo CPU     E8400  @ 3.00GHz",
    cpu_flags=["fpu", "sse", "sse2", "ssse3", "sse4_1"],
    cpu_cores_physical=2,
    cpu_cores_logical=2,
    ram_bytes=4_000_000_000,
    os_name="Debian GNU/Linux 12 (bookworm)",
    kernel="6.1.0",
    python_version="3.11.2",
    governor="performance",
    runtimes=[pb.RuntimeFacts(name="onnx", library="onnxruntime", version="1.23.2", works=True)],
    power_sources=[pb.PowerSourceFacts(name="rapl", why_not="no powercap zone")],
)


class Figures:
    """What the agents of this process saw."""

    def __init__(self) -> None:
        self.leased_at: dict[str, float] = {}  # CLOCK_MONOTONIC, by job
        self.stored: Counter[str] = Counter()  # how often the host said that it kept it, by job
        self.failed_calls: Counter[str] = Counter()

    def as_json(self) -> dict[str, Any]:
        spent = os.times()
        return {
            "leased_at": self.leased_at,
            "stored": self.stored,
            "failed_calls": self.failed_calls,
            "cpu_seconds": spent.user + spent.system,
        }


class Agent:
    """One device: a connection, a session, a job at a time."""

    def __init__(self, setup: dict[str, str], common: dict[str, Any], figures: Figures) -> None:
        self._figures = figures
        self._rng = random.Random(setup["device_id"])  # noqa: S311 - jitter, not a secret
        credentials = grpc.ssl_channel_credentials(
            root_certificates=common["ca_pem"].encode(),
            private_key=setup["key_pem"].encode(),
            certificate_chain=setup["certificate_pem"].encode(),
        )
        self._channel = grpc.aio.secure_channel(
            f"127.0.0.1:{common['port']}", credentials, options=_OPTIONS
        )
        self._session = f"{setup['device_id']}-{os.getpid()}"
        self._claim_request = pb.ClaimRequest(session_id=self._session).SerializeToString()
        self._samples: bytes = common["samples"]
        self._models: set[str] = set()
        self._hello_call: _Unary = self._channel.unary_unary(_SERVICE + "Hello")
        self._claim_call: _Unary = self._channel.unary_unary(_SERVICE + "Claim")
        self._report_call: _Unary = self._channel.unary_unary(_SERVICE + "Report")
        self._watch_call: _Stream = self._channel.unary_stream(_SERVICE + "Watch")
        self._read_call: _Stream = self._channel.unary_stream(_SERVICE + "ReadBlob")
        self._told = asyncio.Event()
        self._letter: tuple[str, bytes] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def connect(self) -> None:
        """Say hello; then watch and work until `close`."""
        await self._retried(self._hello)
        self._tasks = [asyncio.create_task(self._watch()), asyncio.create_task(self._work())]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._channel.close()

    async def _hello(self) -> None:
        request = pb.HelloRequest(
            protocol_min=2,
            protocol_max=3,
            agent_version="0.1.0",
            session_id=self._session,
            facts=FACTS,
        )
        await self._hello_call(request.SerializeToString(), timeout=RPC_SECONDS)

    async def _watch(self) -> None:
        request = pb.WatchRequest(session_id=self._session).SerializeToString()
        while True:
            try:
                async for event in self._watch_call(request):
                    if pb.Event.FromString(event).kind == pb.Event.KIND_JOB_READY:
                        self._told.set()
            except grpc.aio.AioRpcError as error:
                self._count("Watch", error)
            await asyncio.sleep(self._rng.uniform(0, 1))
            await self._retried(self._hello)
            self._told.set()

    async def _work(self) -> None:
        while True:
            await self._told.wait()
            self._told.clear()
            while await self._retried(self._one_job):
                pass

    async def _one_job(self) -> bool:
        """Claim, measure and report; whether there was a job."""
        if self._letter is None:
            answer = await self._claim_call(self._claim_request, timeout=RPC_SECONDS)
            reply = pb.ClaimReply.FromString(answer)
            if not reply.HasField("signed"):
                return False
            lease = pb.Lease.FromString(reply.signed.lease)
            self._figures.leased_at.setdefault(lease.job_id, time.monotonic())
            await self._pull(lease.measure.run.model_sha256)
            head = pb.ReportRequest(
                job_id=lease.job_id,
                attempt=lease.attempt,
                idempotency_key=f"{lease.job_id}:{lease.attempt}",
            )
            # Fields of a message may come in any order and in pieces.
            self._letter = lease.job_id, head.SerializeToString() + self._samples
        job_id, letter = self._letter
        answer = await self._report_call(letter, timeout=RPC_SECONDS)
        self._letter = None
        if pb.ReportReply.FromString(answer).stored:
            self._figures.stored[job_id] += 1
        return True

    async def _pull(self, sha256: str) -> None:
        """The model, once: an agent keeps it."""
        if sha256 in self._models:
            return
        request = pb.BlobRequest(sha256=sha256).SerializeToString()
        async for _ in self._read_call(request, timeout=RPC_SECONDS):
            pass
        self._models.add(sha256)

    async def _retried(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """The answer of a call, tried again with full jitter until there is one."""
        most = 0.5
        while True:
            try:
                return await call()
            except grpc.aio.AioRpcError as error:
                self._count(call.__name__, error)
            await asyncio.sleep(self._rng.uniform(0, most))
            most = min(2 * most, MAX_BACKOFF_SECONDS)

    def _count(self, call: str, error: grpc.aio.AioRpcError) -> None:
        self._figures.failed_calls[f"{call.strip('_')}: {error.code().name}"] += 1


async def _connect(agents: list[Agent]) -> dict[str, Any]:
    few = asyncio.Semaphore(AT_ONCE)

    async def one(agent: Agent) -> None:
        async with few:
            await agent.connect()

    started = time.monotonic()
    await asyncio.gather(*(one(agent) for agent in agents))
    return {"connected": len(agents), "started": started, "ended": time.monotonic()}


async def _main(setup: dict[str, Any]) -> None:
    figures = Figures()
    samples = pb.ReportRequest(measured=measured_samples(seed=1)).SerializeToString()
    common = {"ca_pem": setup["ca_pem"], "port": setup["port"], "samples": samples}
    agents = [Agent(agent, common, figures) for agent in setup["agents"]]
    loop = asyncio.get_running_loop()
    while (command := (await loop.run_in_executor(None, sys.stdin.readline)).strip()) != "stop":
        answer = await _connect(agents) if command == "connect" else figures.as_json()
        print(json.dumps(answer), flush=True)
    await asyncio.gather(*(agent.close() for agent in agents))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(_main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
