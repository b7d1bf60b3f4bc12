"""A disk that is full or read-only, a damaged or locked file: a sentence that says what to do."""

import contextlib
import os
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC
from pathlib import Path

import pytest
from sqlalchemy import event, text

from host.store import ConflictError, Store, StoreError
from host.store.database import Database, retried
from host.store.store import utc_now

MiB = 2**20


def fill(store: Store, bytes_at_once: int = 100_000) -> None:
    """Write until the store takes no more."""
    for number in range(10_000):
        store.audit.note("job", "press", {"n": str(number), "filler": "x" * bytes_at_once})


@pytest.fixture
def small_disk(tmp_path: Path, mount_disk: Callable[[Path, int], Path]) -> Path:
    """A file system of 3 MiB."""
    return mount_disk(tmp_path / "disk", 3 * MiB)


def test_a_full_disk_is_told_and_loses_nothing(small_disk: Path) -> None:
    with Store.open(small_disk / "genba.db", blobs_folder=small_disk / "blobs") as store:
        with pytest.raises(StoreError, match=r"its disk is full; free some space") as told:
            fill(store)
        kept = store.audit.verify()
        with contextlib.suppress(StoreError):
            store.audit.note("job", "press", {"filler": "x" * MiB})

        assert len(str(told.value).splitlines()) == 1
        assert kept.problem is None
        assert kept.entries > 3
        assert store.audit.verify() == kept


def test_the_store_goes_on_once_there_is_space_again(small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(bytes(MiB))
    with Store.open(small_disk / "genba.db", blobs_folder=small_disk / "blobs") as store:
        with pytest.raises(StoreError, match="full"):
            fill(store)
        before = store.audit.verify().entries
        (small_disk / "ballast").unlink()

        store.audit.note("job", "press", {"filler": "x" * 1000})

        assert (store.audit.verify().entries, store.audit.verify().problem) == (before + 1, None)


def receive(store: Store, mib: int) -> None:
    with store.blobs.incoming() as incoming:
        for _ in range(mib):
            incoming.write(os.urandom(MiB))


def test_a_file_that_does_not_fit_is_told_and_leaves_nothing_behind(small_disk: Path) -> None:
    with Store.open(small_disk / "genba.db", blobs_folder=small_disk / "blobs") as store:
        with pytest.raises(StoreError, match=r"a file cannot be kept in .*: No space left on"):
            store.blobs.put(os.urandom(5 * MiB))
        with pytest.raises(StoreError, match=r"a file cannot be kept in .*: No space left on"):
            receive(store, 5)

        left = [path for path in (small_disk / "blobs").rglob("*") if path.is_file()]
        assert left == []
        assert store.blobs.get(store.blobs.put(b"small").sha256) == b"small"


def test_a_full_database_is_told(tmp_path: Path) -> None:
    database = Database(tmp_path / "genba.db")
    with Store.open(tmp_path / "genba.db", blobs_folder=tmp_path):
        pass

    @event.listens_for(database.engine, "connect")
    def _small(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA max_page_count = 300")

    with (
        Store(database, tmp_path) as store,
        pytest.raises(StoreError, match="its disk is full"),
    ):
        fill(store)


def test_a_limit_of_the_size_of_files_is_told(tmp_path: Path) -> None:
    code = f"""
import resource, signal, sys
from pathlib import Path
from host.store import Store, StoreError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder = Path({str(tmp_path)!r})
with Store.open(folder / "genba.db", blobs_folder=folder) as store:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    try:
        for number in range(1000):
            store.audit.note("job", "press", {{"filler": "x" * 100_000}})
    except StoreError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )

    assert re.search(
        r"cannot be used: its disk .*full.*; mend that and run this again", done.stdout
    )
    assert done.stderr == ""


def test_a_disk_that_is_mounted_read_only_is_told(small_disk: Path) -> None:
    with Store.open(small_disk / "genba.db", blobs_folder=small_disk / "blobs") as store:
        store.blobs.put(b"kept")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)

    with pytest.raises(StoreError, match=r"cannot be used: it cannot be (written|opened); make"):
        Store.open(small_disk / "genba.db", blobs_folder=small_disk / "blobs")


def test_a_file_that_may_only_be_read_is_told_at_the_first_change(tmp_path: Path) -> None:
    path = tmp_path / "genba.db"
    with Store.open(path, blobs_folder=tmp_path):  # whoever only reads needs one that may write
        database = Database(f"sqlite:///file:{path}?mode=ro&uri=true")
        with Store(database, tmp_path) as store:
            assert store.devices.all() == []

            with pytest.raises(StoreError, match="it cannot be written; make the file and its"):
                store.audit.note("login", "web", {})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)

    with pytest.raises(StoreError, match="it cannot be opened; make sure that its folder"):
        Store.open(tmp_path / "genba.db", blobs_folder=tmp_path)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="it cannot be opened; make sure that its folder is there"):
        Store.open(tmp_path / "nowhere" / "genba.db", blobs_folder=tmp_path)


def garble(path: Path, start: int, count: int = 4096) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"\xa5" * count)


def use(path: Path) -> None:
    with Store.open(path, blobs_folder=path.parent) as store:
        store.audit.note("job", "press", {})
        list(store.audit.entries())
        store.devices.all()
        store.studies.create("one", "{}", 1)


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "genba.db"
    with Store.open(path, blobs_folder=tmp_path) as store:
        for number in range(100):
            store.audit.note("job", "press", {"filler": "x" * 2000, "n": str(number)})
    for page in range(1, path.stat().st_size // 4096):
        garble(path, page * 4096)

    with pytest.raises(StoreError, match=r"it is damaged; restore a copy of the file"):
        use(path)


def test_a_file_with_a_damaged_head_is_told(tmp_path: Path) -> None:
    path = tmp_path / "genba.db"
    Store.open(path, blobs_folder=tmp_path).close()
    garble(path, 0, 100)

    with pytest.raises(StoreError, match="it is no database or damaged; restore a copy"):
        Store.open(path, blobs_folder=tmp_path)


def test_a_file_cut_short_is_told(tmp_path: Path) -> None:
    path = tmp_path / "genba.db"
    Store.open(path, blobs_folder=tmp_path).close()
    os.truncate(path, path.stat().st_size // 2)

    with pytest.raises(StoreError, match="it is damaged"):
        use(path)


LOCKER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE" if sys.argv[2] == "all" else "BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def lock() -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """Has another process lock a file until its standard input ends."""
    with contextlib.ExitStack() as stack:

        def locked(path: Path) -> subprocess.Popen[str]:
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", LOCKER, str(path), "writes"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            assert process.stdout is not None
            assert process.stdout.readline() == "locked\n"
            return process

        yield locked


def test_a_file_that_another_process_keeps_locked_is_told(
    tmp_path: Path, lock: Callable[[Path], "subprocess.Popen[str]"]
) -> None:
    path = tmp_path / "genba.db"
    Store.open(path, blobs_folder=tmp_path).close()
    lock(path)

    with Store(Database(path, patience_seconds=0.2), tmp_path) as store:
        with pytest.raises(StoreError, match="another process keeps it locked; run this again"):
            store.audit.note("job", "press", {})

        assert store.devices.all() == []  # who only reads is not in the way


def test_whoever_waits_for_a_lock_gets_on_once_it_ends(
    tmp_path: Path, lock: Callable[[Path], "subprocess.Popen[str]"]
) -> None:
    path = tmp_path / "genba.db"
    Store.open(path, blobs_folder=tmp_path).close()
    process = lock(path)
    assert process.stdin is not None
    with Store(Database(path), tmp_path) as store:
        writing = threading.Thread(target=lambda: store.audit.note("job", "press", {}))
        writing.start()

        process.stdin.close()
        writing.join(20)

        assert store.audit.verify().entries == 1


def test_a_process_killed_in_a_transaction_leaves_nothing_of_it(
    tmp_path: Path, lock: Callable[[Path], "subprocess.Popen[str]"]
) -> None:
    path = tmp_path / "genba.db"
    Store.open(path, blobs_folder=tmp_path).close()
    process = lock(path)
    process.kill()
    process.wait(10)

    with Store(Database(path, patience_seconds=5), tmp_path) as store:
        store.audit.note("job", "press", {})

        assert store.audit.verify().problem is None


def test_more_threads_than_connections_wait_their_turn(store: Store) -> None:
    errors: list[StoreError] = []

    def work(number: int) -> None:
        try:
            store.studies.create(str(number), "{}", number)
            store.studies.by_name(str(number))
        except StoreError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert len(store.studies.all()) == 40


def test_a_transaction_that_was_in_the_way_is_begun_anew() -> None:
    tries = []

    @retried
    def act(name: str) -> str:
        tries.append(name)
        if len(tries) < 4:
            raise ConflictError("in the way")
        return name

    assert act("a") == "a"
    assert tries == ["a"] * 4


def test_a_transaction_that_is_always_in_the_way_is_told() -> None:
    tries = []

    @retried
    def act() -> None:
        tries.append(1)
        raise ConflictError("in the way")

    with pytest.raises(ConflictError, match="in the way"):
        act()
    assert len(tries) == 10


def test_the_password_of_a_store_is_not_shown() -> None:
    pytest.importorskip("psycopg")
    database = Database("postgresql://genba:hunter2@/nowhere?host=/nonexistent", 1)

    with pytest.raises(StoreError, match="cannot be used") as told, database.read() as session:
        session.execute(text("SELECT 1"))

    assert "hunter2" not in str(told.value)
    assert len(str(told.value).splitlines()) == 1


def test_now_is_in_utc() -> None:
    assert utc_now().tzinfo is UTC
