"""Back-pressure, group commits and callers in memory, without a network."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from host.device import Device
from host.gateway.callers import FRESH_SECONDS, Callers
from host.gateway.gate import Bounds, BusyError, Gate
from host.gateway.ledger import MAX_ACTS, Ledger
from host.gateway.refusals import NotEnrolledError, address_of
from host.job import Lease
from host.pki import read_csr, spki_sha256
from host.store import (
    Act,
    Answer,
    Caller,
    Claim,
    Renewal,
    SessionSupersededError,
    Store,
    StoreError,
)
from host.workspace import Workspace

if TYPE_CHECKING:
    from tests.host.conftest import Fleet

TWO = Bounds(inside=2, waiting=3, waiting_bytes=100, of_one=2)


async def settled() -> None:
    """Let every task go as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


class Line:
    """Callers at a gate, each inside until it is let go."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._go: dict[str, asyncio.Event] = {}
        self.inside: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def comes(self, name: str, caller: str | None = None, size_bytes: int = 0) -> None:
        self._go[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._pass(name, caller or name, size_bytes))
        await settled()

    async def goes(self, name: str) -> None:
        self._go[name].set()
        await settled()

    async def _pass(self, name: str, caller: str, size_bytes: int) -> None:
        async with self._gate.pass_through(caller, size_bytes):
            self.inside.append(name)
            await self._go[name].wait()


def test_so_many_are_inside_and_the_others_come_in_order() -> None:
    async def run() -> list[str]:
        line = Line(Gate("reports", TWO))
        for name in "abcde":
            await line.comes(name)
        assert line.inside == ["a", "b"]
        for name in "ba":
            await line.goes(name)
        return line.inside

    assert asyncio.run(run()) == ["a", "b", "c", "d"]


def test_where_the_line_is_full_nobody_waits() -> None:
    async def run() -> None:
        line = Line(Gate("reports", TWO))
        for name in "abcde":
            await line.comes(name)

        with pytest.raises(BusyError, match="3 reports wait already; try again later"):
            async with line._gate.pass_through("f"):
                pass

        line.tasks["c"].cancel()  # it waited no longer
        await settled()
        await line.comes("f")
        assert not line.tasks["f"].done()

    asyncio.run(run())


def test_those_that_wait_have_so_many_bytes_in_their_hands() -> None:
    async def run() -> None:
        line = Line(Gate("reports", TWO))
        await line.comes("a", size_bytes=1000)  # goes straight through
        await line.comes("b", size_bytes=1000)
        await line.comes("c", size_bytes=60)
        with pytest.raises(BusyError):
            async with line._gate.pass_through("d", 41):
                pass
        await line.comes("e", size_bytes=40)
        assert not line.tasks["e"].done()

    asyncio.run(run())


def test_one_caller_does_not_fill_the_house() -> None:
    async def run() -> None:
        line = Line(Gate("transfers of files", TWO))
        await line.comes("a", caller="kiosk")
        await line.comes("b", caller="kiosk")
        with pytest.raises(BusyError, match="2 transfers of files under way"):
            async with line._gate.pass_through("kiosk"):
                pass
        await line.goes("a")
        await line.comes("c", caller="kiosk")
        assert line.inside == ["a", "b", "c"]

    asyncio.run(run())


class CountedStore:
    """A store whose transactions are counted, and held up until they are let go."""

    def __init__(self, store: Store) -> None:
        self.jobs = self
        self.transactions: list[list[Act]] = []
        self.begun = threading.Event()
        self.go = threading.Event()
        self.trouble: StoreError | None = None
        self._settle = store.jobs.settle

    def settle(self, acts: Sequence[Act]) -> list[Answer]:
        self.transactions.append(list(acts))
        self.begun.set()
        assert self.go.wait(10)
        if self.trouble is not None:
            raise self.trouble
        return self._settle(acts)


@pytest.fixture
def counted(store: Store) -> Iterator[CountedStore]:
    made = CountedStore(store)
    yield made
    made.go.set()


def test_acts_that_come_while_the_disk_is_busy_share_the_next_transaction(
    counted: CountedStore, fleet: "Fleet", store: Store
) -> None:
    devices = [fleet.device(f"d{n}") for n in range(6)]
    for device in devices[:5]:
        store.jobs.submit(device.id, fleet.spec())
    facts = devices[4].facts
    assert facts is not None
    store.devices.open_session(devices[4].id, "other", agent_version="1", facts=facts)

    async def run() -> list[Any]:
        ledger = Ledger(counted)  # type: ignore[arg-type]
        first = asyncio.create_task(ledger.claim(Claim(devices[0].id, "s", 60.0)))
        await asyncio.to_thread(counted.begun.wait, 10)
        rest = [asyncio.create_task(ledger.claim(Claim(d.id, "s", 60.0))) for d in devices[1:]]
        rest.append(asyncio.create_task(ledger.renew(Renewal(devices[0].id, "none"))))  # type: ignore[arg-type]
        await settled()
        counted.go.set()
        answers = await asyncio.gather(first, *rest, return_exceptions=True)
        ledger.close()
        return list(answers)

    answers = asyncio.run(run())

    assert [len(acts) for acts in counted.transactions] == [1, 6]
    assert [a.job.device_id for a in answers[:4]] == [d.id for d in devices[:4]]
    assert isinstance(answers[4], SessionSupersededError)
    assert answers[5:] == [None, True]


def test_no_transaction_grows_without_bound(counted: CountedStore) -> None:
    counted.go.set()

    async def run() -> None:
        ledger = Ledger(counted)  # type: ignore[arg-type]
        renewals = [ledger.renew(Renewal("d", "none")) for _ in range(MAX_ACTS + 5)]
        assert await asyncio.gather(*renewals) == [True] * len(renewals)
        ledger.close()

    asyncio.run(run())

    assert [len(acts) for acts in counted.transactions] == [MAX_ACTS, 5]


def test_trouble_of_the_store_is_told_to_all_and_passes(counted: CountedStore) -> None:
    counted.go.set()
    counted.trouble = StoreError("the disk is full")

    async def run() -> list[Any]:
        ledger = Ledger(counted)  # type: ignore[arg-type]
        renewals = (ledger.renew(Renewal("d", str(n))) for n in range(3))
        told = await asyncio.gather(*renewals, return_exceptions=True)
        counted.trouble = None
        told.append(await ledger.renew(Renewal("d", "3")))
        ledger.close()
        return told

    told = asyncio.run(run())

    assert [str(error) for error in told[:3]] == ["the disk is full"] * 3
    assert told[3] is True


def test_whoever_stops_waiting_harms_nobody(
    counted: CountedStore, fleet: "Fleet", store: Store
) -> None:
    kiosk, press = fleet.device("kiosk"), fleet.device("press")
    for device in (kiosk, press):
        store.jobs.submit(device.id, fleet.spec())

    async def run() -> Lease | None:
        ledger = Ledger(counted)  # type: ignore[arg-type]
        one = asyncio.create_task(ledger.claim(Claim(kiosk.id, "s", 60.0)))
        other = asyncio.create_task(ledger.claim(Claim(press.id, "s", 60.0)))
        await asyncio.to_thread(counted.begun.wait, 10)
        one.cancel()
        await settled()
        counted.go.set()
        lease = await other
        ledger.close()
        return lease

    lease = asyncio.run(run())

    assert lease is not None
    assert store.jobs.waiting(kiosk.id) == 0, "it has its lease, and gets it when it asks again"


class FakeContext:
    """A call that came with a certificate."""

    def __init__(self, pem: bytes | None, peer: str = "ipv4:10.0.0.7:4711") -> None:
        self._pem, self._peer = pem, peer

    def auth_context(self) -> dict[str, list[bytes]]:
        return {} if self._pem is None else {"x509_pem_cert": [self._pem]}

    def peer(self) -> str:
        return self._peer

    async def abort(self, *_: object) -> Any:
        raise AssertionError


class Register:
    """A store of devices that counts how often it is asked."""

    def __init__(self, *devices: Device) -> None:
        self.by_key = {device.spki_sha256: device for device in devices}
        self.asked = 0
        self.seconds = 0.0
        self.callers = Callers(self._find, lambda: self.seconds)

    def compare(self, read_at: float) -> None:
        known = {d.id: Caller(d.spki_sha256, None) for d in self.by_key.values()}
        self.callers.compare(known, read_at)

    async def _find(self, spki_sha256: str) -> Device | None:
        self.asked += 1
        return self.by_key.get(spki_sha256)


@pytest.fixture
def certificate(workspace: Workspace) -> Callable[[], tuple[bytes, str]]:
    def make() -> tuple[bytes, str]:
        key = ec.generate_private_key(ec.SECP256R1())
        empty = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        csr = read_csr(empty.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
        return workspace.authority().sign_device(csr, "any"), spki_sha256(csr)

    return make


def test_the_store_is_asked_once_for_a_caller_while_the_list_is_fresh(
    fleet: "Fleet", certificate: Callable[[], tuple[bytes, str]]
) -> None:
    pem, key = certificate()
    register = Register(fleet.device("kiosk", key))

    async def run() -> None:
        register.compare(read_at=0.0)
        for _ in range(3):
            assert (await register.callers.device(FakeContext(pem))).name == "kiosk"
        assert register.asked == 1
        register.seconds = FRESH_SECONDS + 0.1
        await register.callers.device(FakeContext(pem))
        assert register.asked == 2, "nobody has compared the list for too long"

    asyncio.run(run())


def test_a_caller_that_is_off_the_list_is_refused_from_the_next_comparison_on(
    fleet: "Fleet", certificate: Callable[[], tuple[bytes, str]]
) -> None:
    pem, key = certificate()
    register = Register(fleet.device("kiosk", key))

    async def run() -> None:
        register.compare(read_at=0.0)
        await register.callers.device(FakeContext(pem))
        register.by_key.clear()
        await register.callers.device(FakeContext(pem))
        register.compare(read_at=0.1)

        with pytest.raises(NotEnrolledError, match="genba device enroll NAME"):
            await register.callers.device(FakeContext(pem))

    asyncio.run(run())


def test_a_device_with_a_new_key_is_refused_with_its_old_one(
    fleet: "Fleet", certificate: Callable[[], tuple[bytes, str]]
) -> None:
    old_pem, old_key = certificate()
    new_pem, new_key = certificate()
    register = Register(fleet.device("kiosk", old_key))

    async def run() -> None:
        register.compare(read_at=0.0)
        await register.callers.device(FakeContext(old_pem))
        again = fleet.device("kiosk", new_key)
        register.by_key = {new_key: again}
        assert (await register.callers.device(FakeContext(new_pem))).id == again.id
        register.compare(read_at=0.1)

        with pytest.raises(NotEnrolledError):
            await register.callers.device(FakeContext(old_pem))

    asyncio.run(run())


def test_a_call_without_a_certificate_is_refused() -> None:
    register = Register()

    with pytest.raises(NotEnrolledError, match="no client certificate"):
        asyncio.run(register.callers.device(FakeContext(None)))


@pytest.mark.parametrize(
    ("peer", "shown"),
    [
        ("ipv4:10.0.0.7:4711", "10.0.0.7:4711"),
        ("ipv6:%5Bfe80::1%5D:4711", "[fe80::1]:4711"),
        ("unix:", "unix:"),
    ],
)
def test_where_a_call_came_from_is_shown_for_people(peer: str, shown: str) -> None:
    assert address_of(FakeContext(None, peer)) == shown
