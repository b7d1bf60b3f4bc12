"""What only PostgreSQL does: deadlocks, a server that restarts, and one that is not there."""

import secrets
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, select, text

from host.device import DeviceFacts
from host.job import Lease
from host.measurement import Measurement
from host.store import ConflictError, PredictionRow, Store, StoredScore, StoreError
from host.store.database import Database, retried
from host.store.tables import StudyRow

if TYPE_CHECKING:
    from tests.host.conftest import FakeClock, Fleet
    from tests.host.postgresql import Server

THREADS = 8


@pytest.fixture
def dialect() -> str:
    """Only this one."""
    return "postgresql"


@pytest.fixture
def other(store_place: str | Path, tmp_path: Path, clock: "FakeClock") -> Iterator[Store]:
    """The same store as another host has it open."""
    with Store.open(store_place, blobs_folder=tmp_path / "other", now=clock) as opened:
        yield opened


def at_once(*acts: Callable[[], object]) -> None:
    """Do all that in threads; raises what they raise."""
    with ThreadPoolExecutor(len(acts)) as pool:
        for future in [pool.submit(act) for act in acts]:
            future.result()


def setting(store: Store, name: str) -> str:
    with store._database.read() as session:
        return str(session.execute(text(f"SHOW {name}")).scalar())


def reach(url: str, patience_seconds: float = 2) -> None:
    database = Database(url, patience_seconds)
    try:
        with database.read() as session:
            session.execute(text("SELECT * FROM studies"))
    finally:
        database.close()


def test_a_connection_is_set_up_for_power_cuts_and_vanished_hosts(store: Store) -> None:
    assert setting(store, "fsync") == "on"
    assert setting(store, "synchronous_commit") == "on"
    assert setting(store, "lock_timeout") == "30s"
    assert setting(store, "transaction_isolation") == "repeatable read"
    with store._database.write() as session:
        assert session.execute(text("SHOW transaction_isolation")).scalar() == "read committed"


def test_an_address_without_a_driver_means_the_one_that_genba_installs(
    store_place: str, tmp_path: Path
) -> None:
    plain = store_place.replace("postgresql+psycopg", "postgresql")

    with Store.open(plain, blobs_folder=tmp_path) as store:
        assert store.devices.all() == []


def test_a_transaction_that_reads_sees_one_moment(store: Store, other: Store) -> None:
    count = select(func.count()).select_from(StudyRow)
    with store._database.read() as session:
        before = session.scalar(count)
        other.studies.create("one", "{}", 1)

        assert session.scalar(count) == before == 0
    assert len(store.studies.all()) == 1


def test_a_circle_of_transactions_is_a_conflict_and_gets_on_when_begun_anew(
    store: Store, other: Store
) -> None:
    one, two = (store.studies.create(name, "{}", 1).id for name in ("one", "two"))
    meeting = threading.Barrier(2)
    conflicts: list[str] = []

    @retried
    def act(where: Store, first: int, second: int) -> None:
        try:
            with where._database.write() as session:
                session.get(StudyRow, first, with_for_update=True)
                if not conflicts:
                    meeting.wait(20)
                session.get(StudyRow, second, with_for_update=True)
        except ConflictError as error:
            conflicts.append(str(error))
            raise

    at_once(partial(act, store, one, two), partial(act, other, two, one))

    assert conflicts
    assert "too busy: run this again" in conflicts[0]


def test_the_same_rows_in_any_order_from_many_threads_are_kept(
    store: Store, other: Store, fleet: "Fleet"
) -> None:
    device = fleet.device()
    study = store.studies.create("one", "{}", 1)
    keys = [f"{number:03}" for number in range(60)]
    for key in keys:
        store.candidates.add(key, "mobile", "t", 1, 1)

    def act(number: int) -> None:
        where = (store, other)[number % 2]
        order = keys if number % 3 else keys[::-1]
        rows = [
            PredictionRow(key, device.id, "latency_seconds", number, 0, 9, 0.9, None)
            for key in order
        ]
        for _ in range(2):
            where.studies.add_predictions(study.id, rows)
            where.candidates.add_scores(StoredScore(key, "p", "1", "in", 1.0) for key in order)
            where.studies.add_front(study.id, order[: 30 + number])

    at_once(*[partial(act, number) for number in range(THREADS)])

    kept = store.studies.predictions(study.id)
    front = store.studies.front(study.id)
    assert len(kept) == 60
    assert len({row.value for row in kept}) == 1
    assert front in (keys[: len(front)], keys[::-1][: len(front)])


def test_one_bundle_noted_by_many_threads_has_one_row(store: Store, other: Store) -> None:
    study = store.studies.create("one", "{}", 1)

    at_once(*[partial(where.bundles.add, study.id, "/b", "c" * 64) for where in (store, other) * 4])

    assert len(store.bundles.of_study(study.id)) == 1
    assert len(list(store.audit.entries(action="export"))) == THREADS


def test_many_threads_doing_everything_lose_nothing_and_see_no_error(
    store: Store,
    other: Store,
    fleet: "Fleet",
    device_facts: DeviceFacts,
    make_measurement: Callable[..., Measurement],
) -> None:
    devices = [fleet.device(f"d{number}") for number in range(4)]
    specs = [fleet.spec(bytes([number])) for number in range(6)]
    attempts: list[tuple[str, int]] = []

    def submit(where: Store) -> None:
        for spec in specs:
            for device in devices:
                where.jobs.submit(device.id, spec)

    def work(where: Store, device_id: str) -> None:
        where.devices.open_session(device_id, "s", agent_version="1", facts=device_facts)
        idle = 0
        while idle < 5:
            lease = where.jobs.claim(device_id, "s", 60)
            where.devices.seen(*[device.id for device in devices])
            if lease is None:
                idle += 1
                continue
            attempts.append((lease.job.id, lease.attempt))
            report(where, lease)

    def report(where: Store, lease: Lease) -> None:
        assert not where.jobs.renew(lease.job.device_id, lease.lease_id)
        outcome = make_measurement(lease.job.device_id, lease.job.spec.run.model_sha256)  # type: ignore[union-attr]
        key = f"{lease.job.id}:{lease.attempt}"
        assert where.jobs.report(lease.job.device_id, lease.job.id, lease.attempt, key, outcome)

    at_once(
        partial(submit, store),
        partial(submit, other),
        *[
            partial(work, where, device.id)
            for where, device in zip((store, other, store, other), devices, strict=True)
        ],
    )
    for where, device in zip((store, other, store, other), devices, strict=True):
        work(where, device.id)

    assert len(attempts) == len(set(attempts)) == 24
    assert all(len(store.measurements.of_device(device.id)) == 6 for device in devices)
    assert store.audit.verify().problem is None
    assert len(list(store.audit.entries(action="job"))) == 24


def test_a_server_that_was_restarted_is_survived(store: Store, postgresql_server: "Server") -> None:
    store.studies.create("one", "{}", 1)
    postgresql_server.stop()
    postgresql_server.start()

    store.studies.create("two", "{}", 1)

    assert [study.name for study in store.studies.all()] == ["one", "two"]


def test_what_was_kept_survives_a_crash_of_the_server(
    store: Store, postgresql_server: "Server"
) -> None:
    for number in range(20):
        store.audit.note("job", "press", {"n": str(number)})
    postgresql_server.stop(signal.SIGQUIT)
    postgresql_server.start()

    check = store.audit.verify()

    assert (check.entries, check.problem) == (20, None)


def test_a_connection_lost_in_the_middle_is_told_and_leaves_nothing(
    store: Store, postgresql_server: "Server"
) -> None:
    def act() -> None:
        with store._database.write() as session:
            store.audit.note_in(session, "job", "press", {})
            postgresql_server.stop(signal.SIGQUIT)
            postgresql_server.start()
            session.execute(text("SELECT 1"))

    with pytest.raises(StoreError, match="the connection was lost; see that its server runs"):
        act()

    assert store.audit.verify().entries == 0


def test_a_server_that_does_not_run_is_told(store: Store, postgresql_server: "Server") -> None:
    postgresql_server.stop()
    try:
        with pytest.raises(StoreError, match="its server cannot be reached; see that it") as told:
            store.devices.all()
    finally:
        postgresql_server.start()

    assert len(str(told.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("right", "wrong", "because"),
    [
        ("/genba_common", "/nowhere", 'database "nowhere" does not exist'),
        ("genba@", "mallory@", 'role "mallory" does not exist'),
    ],
)
def test_a_wrong_address_is_told_with_what_is_wrong(
    store_place: str, right: str, wrong: str, because: str
) -> None:
    with pytest.raises(StoreError, match=f"are right in its address.*{because}"):
        reach(store_place.replace(right, wrong))


def test_a_user_who_may_not_read_is_told(postgresql_url: str, postgresql_server: "Server") -> None:
    postgresql_server.execute("postgres", "CREATE ROLE guest LOGIN")
    try:
        with pytest.raises(StoreError, match="make the user the owner of the database"):
            reach(postgresql_url.replace("genba@", "guest@"))
    finally:
        postgresql_server.execute("postgres", "DROP ROLE guest")


def test_a_server_that_takes_no_changes_is_told(
    postgresql_url: str, postgresql_server: "Server", tmp_path: Path
) -> None:
    name = postgresql_url.partition("@/")[2].partition("?")[0]
    postgresql_server.execute(name, f"ALTER DATABASE {name} SET default_transaction_read_only = on")

    with Store.open(postgresql_url, blobs_folder=tmp_path) as store:
        assert store.devices.all() == []
        with pytest.raises(StoreError, match="use the address of the primary server"):
            store.audit.note("login", "web", {})


def test_an_administrator_who_wants_serialisable_transactions_breaks_nothing(
    postgresql_url: str, postgresql_server: "Server", tmp_path: Path
) -> None:
    name = postgresql_url.partition("@/")[2].partition("?")[0]
    postgresql_server.execute(
        name, f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'"
    )

    with Store.open(postgresql_url, blobs_folder=tmp_path) as store:
        at_once(*[partial(store.audit.note, "login", "web", {})] * THREADS)

        check = store.audit.verify()
        assert (check.entries, check.problem) == (THREADS, None)


def test_a_lock_that_is_held_for_long_is_told(
    store: Store, store_place: str, tmp_path: Path
) -> None:
    with (
        Store(Database(store_place, patience_seconds=0.2), tmp_path) as hasty,
        store._database.write() as session,
    ):
        store.audit.note_in(session, "job", "press", {})

        with pytest.raises(StoreError, match="another process keeps it locked; run this again"):
            hasty.audit.note("job", "press", {})


HOLDER = """
import sys, time
from pathlib import Path
from host.store import Store
with Store.open(sys.argv[1], blobs_folder=Path(sys.argv[2])) as store:
    with store._database.write() as session:
        store.audit.note_in(session, "job", "press", {})
        print("locked", flush=True)
        time.sleep(60)
"""


def test_a_process_killed_in_a_transaction_leaves_neither_a_lock_nor_rows(
    store: Store, store_place: str, tmp_path: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, store_place, str(tmp_path)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        process.kill()

    store.audit.note("job", "oven", {})

    assert [entry.subject for entry in store.audit.entries()] == ["oven"]


def fill(store: Store) -> None:
    for _ in range(1000):  # what is random cannot be compressed
        store.audit.note("job", "press", {"filler": secrets.token_hex(50_000)})


def test_a_full_disk_of_the_server_is_told(
    mount_disk: Callable[[Path, int], Path], postgresql_server: "Server", tmp_path: Path
) -> None:
    place = mount_disk(postgresql_server.folder / "small", 16 * 2**20)
    shutil.chown(place, postgresql_server.folder.owner())
    postgresql_server.execute("postgres", f"CREATE TABLESPACE small LOCATION '{place}'")
    reserve = place / "reserve"
    reserve.write_bytes(bytes(2 * 2**20))
    postgresql_server.execute("postgres", "CREATE DATABASE genba_small TABLESPACE small")
    try:
        with Store.open(postgresql_server.url("genba_small"), blobs_folder=tmp_path) as store:
            with pytest.raises(StoreError, match="the disk of its server is full; free some space"):
                fill(store)

            assert store.audit.verify().problem is None
    finally:
        # The server writes what it holds in memory before it drops a database.
        reserve.unlink()
        postgresql_server.drop("genba_small")
        postgresql_server.execute("postgres", "DROP TABLESPACE small")
