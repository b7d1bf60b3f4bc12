"""The audit log: it only grows, and whatever was changed behind its back is found."""

import multiprocessing
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from host.store import AuditEntry, Store, StoredValueError, StoreError
from host.store.audit import (
    GENESIS_SHA256,
    Action,
    check_chain,
    current_actor,
    details_to_json,
    entry_from_row,
    entry_sha256,
)
from host.store.tables import AuditRow
from host.workspace import Workspace

if TYPE_CHECKING:
    from tests.host.conftest import FakeClock, Fleet

Change = Callable[[list[AuditRow]], object]
ANY_TEXT = st.text(st.characters(), max_size=40)  # lone surrogates and NUL among it


def note_some(store: Store, count: int = 5) -> list[AuditEntry]:
    for number in range(count):
        store.audit.note("job", f"device {number}", {"kind": "measure", "n": str(number)})
    return list(store.audit.entries())


def execute(store: Store, *statements: str) -> None:
    with store._database.write() as session:
        for statement in statements:
            session.execute(text(statement))


def drop_triggers(store: Store, dialect: str) -> None:
    """What somebody does who may change the file or the tables and knows how."""
    if dialect == "sqlite":
        with store._database.read() as session:
            names = session.scalars(
                text("SELECT name FROM sqlite_master WHERE type = 'trigger'")
            ).all()
        execute(store, *(f"DROP TRIGGER {name}" for name in names))
    else:
        execute(store, "ALTER TABLE audit_log DISABLE TRIGGER ALL")


@pytest.fixture
def unguarded(store: Store, dialect: str) -> Store:
    """A store whose log could be changed, until the end of the test."""
    note_some(store)
    drop_triggers(store, dialect)
    return store


def test_an_entry_says_who_did_what_and_when(store: Store, clock: "FakeClock") -> None:
    store.audit.note("deploy", "検査機-3", {"bundle": "b" * 64, "注": "夜間"}, actor="user ada")

    [entry] = store.audit.entries()

    assert (entry.number, entry.at, entry.actor) == (1, clock(), "user ada")
    assert (entry.action, entry.subject) == ("deploy", "検査機-3")
    assert entry.details == {"bundle": "b" * 64, "注": "夜間"}
    assert entry.previous_sha256 == GENESIS_SHA256


def test_whoever_runs_the_program_is_the_actor(store: Store) -> None:
    store.audit.note("login", "web", {})

    [entry] = store.audit.entries()

    assert entry.actor == current_actor()
    assert "@" in entry.actor


def test_an_empty_log_holds(store: Store) -> None:
    check = store.audit.verify()

    assert (check.entries, check.head_sha256, check.problem) == (0, GENESIS_SHA256, None)


def test_the_head_is_the_hash_of_the_last_entry(store: Store) -> None:
    entries = note_some(store)

    check = store.audit.verify()

    assert (check.entries, check.problem) == (5, None)
    assert check.head_sha256 == entries[-1].sha256
    assert [entry.previous_sha256 for entry in entries[1:]] == [e.sha256 for e in entries[:-1]]


def test_entries_are_found_by_what_was_done_to_whom(store: Store) -> None:
    note_some(store, 3)
    store.audit.note("cancel", "device 1", {})

    def numbers(action: Action | None, subject: str | None, after: int = 0) -> list[int]:
        return [e.number for e in store.audit.entries(after=after, action=action, subject=subject)]

    assert numbers("job", None) == [1, 2, 3]
    assert numbers(None, "device 1") == [2, 4]
    assert numbers("cancel", "device 1") == [4]
    assert numbers(None, None, after=2) == [3, 4]


def test_more_entries_than_are_read_at_once_hold(store: Store) -> None:
    with store._database.write() as session:
        for number in range(2003):
            store.audit.note_in(session, "job", "press", {"n": str(number)})

    numbers = [entry.number for entry in store.audit.entries()]
    check = store.audit.verify()

    assert numbers == list(range(1, 2004))
    assert (check.entries, check.problem) == (2003, None)


def test_an_entry_goes_with_what_it_is_about(store: Store) -> None:
    def act() -> None:
        with store._database.write() as session:
            store.audit.note_in(session, "job", "press", {})
            session.execute(text("SELECT nothing"))

    with pytest.raises(StoreError):
        act()

    assert list(store.audit.entries()) == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_log SET actor = 'nobody' WHERE number = 2",
        "DELETE FROM audit_log WHERE number = 5",
        "DELETE FROM audit_log",
    ],
)
def test_the_database_refuses_to_change_the_log(store: Store, statement: str) -> None:
    before = note_some(store)

    with pytest.raises(StoreError, match="only grows"):
        execute(store, statement)

    assert list(store.audit.entries()) == before


def test_postgresql_refuses_to_empty_the_log(store: Store, dialect: str) -> None:
    if dialect == "sqlite":
        pytest.skip("SQLite has no TRUNCATE")
    before = note_some(store)

    with pytest.raises(StoreError, match="only grows"):
        execute(store, "TRUNCATE audit_log")

    assert list(store.audit.entries()) == before


@pytest.mark.parametrize("column", ["number", "sha256", "previous_sha256"])
def test_sqlite_replaces_no_entry(store: Store, dialect: str, column: str) -> None:
    if dialect == "postgresql":
        pytest.skip("PostgreSQL has no INSERT OR REPLACE")
    before = note_some(store)
    values = {
        "number": "9",
        "at": "'2026-11-24 08:00:00.000000'",
        "actor": "'mallory'",
        "action": "'job'",
        "subject": "''",
        "details_json": "'{}'",
        "previous_sha256": f"'{'e' * 64}'",
        "sha256": f"'{'f' * 64}'",
    }
    values[column] = repr(getattr(before[1], column))

    with pytest.raises(StoreError, match="only grows"):
        execute(
            store,
            f"INSERT OR REPLACE INTO audit_log ({', '.join(values)})"
            f" VALUES ({', '.join(values.values())})",
        )

    assert list(store.audit.entries()) == before


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("actor", "'nobody'"),
        ("action", "'deploy'"),
        ("subject", "'device 9'"),
        ("details_json", '\'{"n": "9"}\''),
        ("at", "'2026-11-24 08:00:00.000001+00:00'"),
        ("sha256", f"'{'a' * 64}'"),
    ],
)
def test_a_changed_entry_is_found(unguarded: Store, dialect: str, column: str, value: str) -> None:
    plain = value.replace("+00:00", "") if dialect == "sqlite" else value
    execute(unguarded, f"UPDATE audit_log SET {column} = {plain} WHERE number = 3")

    check = unguarded.audit.verify()

    assert (check.entries, check.problem) == (2, "entry 3 was changed")


def test_a_change_with_a_new_hash_is_found_at_the_next_entry(unguarded: Store) -> None:
    with unguarded._database.write() as session:
        row = session.get_one(AuditRow, 3)
        row.actor = "nobody"
        row.sha256 = entry_sha256(row)

    check = unguarded.audit.verify()

    assert (check.entries, check.problem) == (3, "entry 4 does not follow the one before")


def test_a_removed_entry_is_found(unguarded: Store) -> None:
    execute(unguarded, "DELETE FROM audit_log WHERE number = 2")

    check = unguarded.audit.verify()

    assert (check.entries, check.problem) == (1, "entry 2 is missing")


def test_a_removed_entry_is_found_although_the_others_close_the_gap(unguarded: Store) -> None:
    execute(
        unguarded,
        "DELETE FROM audit_log WHERE number = 2",
        "UPDATE audit_log SET number = number - 1 WHERE number = 3",
        "UPDATE audit_log SET number = number - 1 WHERE number = 4",
        "UPDATE audit_log SET number = number - 1 WHERE number = 5",
    )

    check = unguarded.audit.verify()

    assert (check.entries, check.problem) == (1, "entry 2 does not follow the one before")


def test_entries_cut_off_at_the_end_show_in_the_head(unguarded: Store) -> None:
    noted = unguarded.audit.verify().head_sha256
    execute(unguarded, "DELETE FROM audit_log WHERE number > 3")

    check = unguarded.audit.verify()

    assert (check.entries, check.problem) == (3, None)
    assert check.head_sha256 != noted


def test_an_entry_that_cannot_be_read_any_more_is_found(unguarded: Store, dialect: str) -> None:
    if dialect == "postgresql":
        pytest.skip("PostgreSQL keeps only times in a column of times")
    execute(unguarded, "UPDATE audit_log SET at = 'noon' WHERE number = 3")

    check = unguarded.audit.verify()

    assert check.problem is not None
    assert "damaged" in check.problem
    with pytest.raises(StoredValueError, match="damaged"):
        list(unguarded.audit.entries())


def test_details_that_are_none_any_more_are_told(unguarded: Store) -> None:
    execute(unguarded, "UPDATE audit_log SET details_json = 'none' WHERE number = 3")

    with pytest.raises(StoredValueError, match=r"entry 3 .* damaged"):
        list(unguarded.audit.entries())


def test_a_blob_in_the_place_of_details_is_found(unguarded: Store, dialect: str) -> None:
    if dialect == "postgresql":
        pytest.skip("PostgreSQL keeps only text in a column of text")
    execute(unguarded, "UPDATE audit_log SET details_json = x'00' WHERE number = 3")

    assert unguarded.audit.verify().problem == "entry 3 was changed"


@pytest.mark.parametrize("microsecond", [0, 1, 999_999, 500_000])
def test_times_keep_their_microseconds(store: Store, clock: "FakeClock", microsecond: int) -> None:
    clock.moment = datetime(2099, 12, 31, 23, 59, 59, microsecond, tzinfo=UTC)
    store.audit.note("login", "web", {})

    [entry] = store.audit.entries()

    assert entry.at == clock.moment
    assert store.audit.verify().problem is None


def test_a_clock_that_jumps_breaks_no_chain(store: Store, clock: "FakeClock") -> None:
    for moment in (datetime(2099, 1, 1, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC)):
        clock.moment = moment
        store.audit.note("login", "web", {})

    assert [entry.at.year for entry in store.audit.entries()] == [2099, 1970]
    assert store.audit.verify().problem is None


def test_any_text_is_kept(store: Store) -> None:
    odd = 'a\x00b\udc80c"\\\n\u202e日本語 😀'

    store.audit.note("export", odd, {odd: odd}, actor=odd)

    [entry] = store.audit.entries()
    assert entry.details == {odd: odd}
    assert entry.subject == 'a\\x00b\\udc80c"\\\n\u202e日本語 😀'
    assert entry.actor == entry.subject
    assert store.audit.verify().problem is None


def test_threads_append_one_chain(store: Store) -> None:
    def append(name: int) -> None:
        for number in range(10):
            store.audit.note("job", f"thread {name}", {"n": str(number)})

    threads = [threading.Thread(target=append, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    check = store.audit.verify()
    assert (check.entries, check.problem) == (80, None)


def append_in_process(place: str | Path, folder: Path, name: int, count: int) -> None:
    with Store.open(place, blobs_folder=folder) as store:
        for number in range(count):
            store.audit.note("job", f"process {name}", {"n": str(number)})


def test_processes_append_one_chain(
    store: Store, store_place: str | Path, workspace: Workspace
) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(3, mp_context=context) as pool:
        running = [
            pool.submit(append_in_process, store_place, workspace.blobs_folder, name, 20)
            for name in range(3)
        ]
        for future in running:
            future.result()

    check = store.audit.verify()
    assert (check.entries, check.problem) == (60, None)
    for name in range(3):
        of_one = store.audit.entries(subject=f"process {name}")
        assert [entry.details["n"] for entry in of_one] == [str(n) for n in range(20)]


def test_acts_and_their_entries_of_many_threads_agree(store: Store, fleet: "Fleet") -> None:
    facts = fleet.device("first").facts
    assert facts is not None
    expires_at = store.now() + timedelta(hours=1)

    def enrol(number: int) -> None:
        store.devices.add_token(f"d{number}", f"hash {number}", expires_at)
        store.devices.enrol(f"hash {number}", f"key {number}", facts)
        store.devices.revoke(f"d{number}")

    threads = [threading.Thread(target=enrol, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert store.audit.verify().problem is None
    for number in range(8):
        acts = [entry.action for entry in store.audit.entries(subject=f"d{number}")]
        assert acts == ["token", "enrol", "revoke"]


def a_chain(texts: Sequence[tuple[str, str, dict[str, str]]]) -> list[AuditRow]:
    rows: list[AuditRow] = []
    for number, (actor, subject, details) in enumerate(texts, start=1):
        row = AuditRow(
            number=number,
            at=datetime(2026, 11, 24, 8, 0, number % 60, 7, tzinfo=UTC),
            actor=actor,
            action="job",
            subject=subject,
            details_json=details_to_json(details),
            previous_sha256=rows[-1].sha256 if rows else GENESIS_SHA256,
        )
        row.sha256 = entry_sha256(row)
        rows.append(row)
    return rows


CHAINS = st.lists(
    st.tuples(ANY_TEXT, ANY_TEXT, st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=3)),
    min_size=2,
    max_size=12,
).map(a_chain)


@settings(deadline=None)
@given(chain=CHAINS)
def test_every_chain_holds_and_gives_its_details_back(chain: list[AuditRow]) -> None:
    check = check_chain(chain)

    assert (check.entries, check.problem) == (len(chain), None)
    assert check.head_sha256 == chain[-1].sha256
    assert [details_to_json(entry_from_row(row).details) for row in chain] == [
        row.details_json for row in chain
    ]


@settings(deadline=None)
@given(chain=CHAINS, data=st.data())
def test_every_change_of_a_chain_is_found(chain: list[AuditRow], data: st.DataObject) -> None:
    column = data.draw(st.sampled_from(["number", "at", "actor", "action", "subject", "sha256"]))
    row = chain[data.draw(st.integers(0, len(chain) - 1))]
    before = getattr(row, column)
    changed: dict[str, st.SearchStrategy[object]] = {
        "number": st.integers(-5, 20),
        "at": st.datetimes(timezones=st.just(UTC)),
    }
    setattr(row, column, data.draw(changed.get(column, ANY_TEXT).filter(lambda new: new != before)))

    assert check_chain(chain).problem is not None


@settings(deadline=None)
@given(chain=CHAINS, data=st.data())
def test_every_removal_and_every_exchange_is_found(
    chain: list[AuditRow], data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, len(chain) - 2))
    second = data.draw(st.integers(first + 1, len(chain) - 1))
    exchanged = list(chain)
    exchanged[first], exchanged[second] = exchanged[second], exchanged[first]
    without = [*chain[:first], *chain[first + 1 :]]
    twice = [*chain[:second], chain[first], *chain[second:]]

    assert check_chain(exchanged).problem is not None
    assert check_chain(without).problem is not None
    assert check_chain(twice).problem is not None
