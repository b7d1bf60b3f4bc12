"""Devices, files, candidates, studies: what the store keeps, and what it refuses."""

import math
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_mock_engine, text

import host.store.migrations
from host.store import (
    AccuracyRow,
    DeviceNameError,
    ExpiredTokenError,
    KeyInUseError,
    PredictionRow,
    Store,
    StoredScore,
    StoreError,
    StoreUrlError,
    StudyCandidate,
    StudyExistsError,
    UnknownBlobError,
    UnknownCandidateError,
    UnknownDeviceError,
    UnknownStudyError,
    UnknownTokenError,
    UsedTokenError,
)
from host.store.tables import Base, UtcDateTime
from host.workspace import Workspace

if TYPE_CHECKING:
    from tests.host.conftest import FakeClock, Fleet

MIGRATIONS = Path(host.store.migrations.__file__).parent


def scores(input_key: str = "in", **values: float) -> list[StoredScore]:
    return [StoredScore(key, "naswot", "1", input_key, value) for key, value in values.items()]


def test_the_migrations_make_the_schema_of_the_tables(store: Store) -> None:
    with store._database.read() as session:
        context = MigrationContext.configure(session.connection(), opts={"compare_type": True})

        assert compare_metadata(context, Base.metadata) == []


def test_the_newest_migration_is_the_version_of_the_program() -> None:
    scripts = ScriptDirectory(str(MIGRATIONS))

    assert scripts.get_current_head() == host.store.migrations.HEAD


def test_a_store_of_a_newer_program_is_refused(empty_place: str | Path, tmp_path: Path) -> None:
    with (
        Store.open(empty_place, blobs_folder=tmp_path) as store,
        store._database.write() as session,
    ):
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    with pytest.raises(StoreError, match="newer genba"):
        Store.open(empty_place, blobs_folder=tmp_path)


@pytest.mark.parametrize("time", range(4))
def test_threads_that_open_a_new_store_at_once_all_get_it(
    empty_place: str | Path, tmp_path: Path, time: int
) -> None:
    errors: list[Exception] = []

    def open_it() -> None:
        try:
            with Store.open(empty_place, blobs_folder=tmp_path) as store:
                store.devices.all()
        except StoreError as error:
            errors.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []


@pytest.mark.parametrize(
    ("url", "because"),
    [("no url", "not a URL"), ("mysql://a/b", "mysql"), ("postgresql+nosuch://a/b", "driver")],
)
def test_a_wrong_address_is_refused(tmp_path: Path, url: str, because: str) -> None:
    with pytest.raises(StoreUrlError, match=because):
        Store.open(url, blobs_folder=tmp_path)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "genba.db").write_bytes(b"not a database at all" * 100)

    with pytest.raises(StoreError, match="cannot be used"):
        Store.open(tmp_path / "genba.db", blobs_folder=tmp_path)


def test_sqlite_is_set_up_for_several_processes_and_power_cuts(workspace: Workspace) -> None:
    with workspace.open_store() as store, store._database.read() as session:
        values = [
            session.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        ]

    assert values == ["wal", 2, 1, 30_000]


def test_times_come_back_aware_and_in_utc() -> None:
    column = UtcDateTime()
    dialect = create_mock_engine("postgresql://", lambda *_: None).dialect
    tokyo = datetime(2026, 11, 24, 17, 0, tzinfo=timezone(timedelta(hours=9)))

    kept = column.process_bind_param(tokyo, dialect)
    assert kept is not None
    given_back = column.process_result_value(kept.replace(tzinfo=None), dialect)

    assert given_back == tokyo
    assert given_back.tzinfo is UTC


def test_a_file_is_kept_under_its_hash(store: Store, workspace: object, tmp_path: Path) -> None:
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "abc").write_bytes(b"abc")

    blobs = [store.blobs.put(b"abc"), store.blobs.put_file(tmp_path / "abc")]

    assert {(blob.sha256, blob.size_bytes) for blob in blobs} == {(sha256, 3)}
    path = store.blobs.path(sha256)
    assert path == tmp_path / "plant" / "blobs" / "ba" / sha256
    assert store.blobs.get(sha256) == b"abc"
    assert [entry.name for entry in path.parent.iterdir()] == [sha256]


def test_a_damaged_file_is_replaced_when_it_comes_again(store: Store) -> None:
    blob = store.blobs.put(b"whole")
    path = store.blobs.path(blob.sha256)
    path.unlink()
    path.write_bytes(b"wh")

    store.blobs.put(b"whole")

    assert store.blobs.get(blob.sha256) == b"whole"


def test_an_unknown_file_is_named(store: Store) -> None:
    with pytest.raises(UnknownBlobError, match="f" * 64):
        store.blobs.get("f" * 64)


def test_a_token_enrols_once(store: Store, fleet: "Fleet", clock: "FakeClock") -> None:
    device = fleet.device()
    assert device.facts is not None
    store.devices.add_token("press", "hash", clock() + timedelta(seconds=60))
    store.devices.enrol("hash", "key", device.facts)

    with pytest.raises(UsedTokenError, match="genba device enroll press"):
        store.devices.enrol("hash", "key 2", device.facts)
    with pytest.raises(UnknownTokenError):
        store.devices.enrol("other", "key 2", device.facts)


def test_a_token_expires_at_its_time(store: Store, fleet: "Fleet", clock: "FakeClock") -> None:
    facts = fleet.device().facts
    assert facts is not None
    store.devices.add_token("press", "hash", clock() + timedelta(seconds=60))
    clock.advance(60)

    with pytest.raises(ExpiredTokenError):
        store.devices.enrol("hash", "key", facts)

    with pytest.raises(UnknownDeviceError):
        store.devices.by_name("press")


@pytest.mark.parametrize("name", ["", " ", "a b", "-a", "a/b", "a\n", "x" * 64])
def test_a_name_that_a_device_cannot_have_is_refused(store: Store, name: str) -> None:
    with pytest.raises(DeviceNameError):
        store.devices.add_token(name, "hash", store.now())


def test_a_name_may_be_japanese(store: Store, fleet: "Fleet") -> None:
    assert fleet.device("検査機-3").name == "検査機-3"


def test_facts_come_back_as_they_were(store: Store, fleet: "Fleet") -> None:
    device = fleet.device()

    assert store.devices.by_name("kiosk") == device
    assert store.devices.by_spki(device.spki_sha256) == device
    assert store.devices.by_id(device.id) == device


def test_an_unknown_name_lists_the_known_ones(store: Store, fleet: "Fleet") -> None:
    with pytest.raises(UnknownDeviceError, match="genba device enroll"):
        store.devices.by_name("kiosk")
    fleet.device("press")
    fleet.device("oven")

    with pytest.raises(UnknownDeviceError, match="'kiosk': enrolled are oven, press"):
        store.devices.by_name("kiosk")


def test_a_removed_device_keeps_its_row_and_frees_its_name(store: Store, fleet: "Fleet") -> None:
    old = fleet.device("kiosk", spki_sha256="key")

    store.devices.remove("kiosk")

    assert store.devices.all() == []
    assert store.devices.removed() == [old]
    assert store.devices.by_spki("key") is None
    new = fleet.device("kiosk", spki_sha256="key")
    assert new.id != old.id


def test_one_key_is_one_device(store: Store, fleet: "Fleet") -> None:
    fleet.device("kiosk", spki_sha256="key")

    with pytest.raises(KeyInUseError, match="'kiosk'"):
        fleet.device("press", spki_sha256="key")


def test_a_device_is_online_while_it_was_seen_lately(
    store: Store, fleet: "Fleet", clock: "FakeClock"
) -> None:
    device = fleet.device()
    assert not store.devices.is_online(device)
    store.devices.seen(device.id)

    states = []
    for _ in range(2):
        states.append(store.devices.is_online(store.devices.by_name("kiosk")))
        clock.advance(30)

    assert states == [True, False]
    assert [d.name for d in store.devices.offline([device.id])] == ["kiosk"]


def test_scores_are_kept_even_when_they_are_not_finite(store: Store) -> None:
    for key in ("a", "b", "c"):
        store.candidates.add(key, "mobile", "text", 10, 20)

    store.candidates.add_scores(scores(a=1.5, b=math.nan, c=-math.inf))
    store.candidates.add_scores(scores(a=99.0))

    known = store.candidates.scores("naswot", "1", dict.fromkeys("abcd", "in"))
    assert known == {"a": 1.5, "b": None, "c": None}
    assert store.candidates.scores("naswot", "2", {"a": "in"}) == {}
    assert store.candidates.scores("synflow", "1", {"a": "in"}) == {}


def test_each_candidate_has_scores_of_its_own_input(store: Store) -> None:
    for key in ("a", "b"):
        store.candidates.add(key, "mobile", "text", 10, 20)
    store.candidates.add_scores(scores(a=1.0, b=2.0))
    store.candidates.add_scores(scores("other", a=3.0))

    known = store.candidates.scores("naswot", "1", {"a": "other", "b": "in"})
    assert known == {"a": 3.0, "b": 2.0}
    assert store.candidates.scores("naswot", "1", {"b": "other"}) == {}


def test_scores_of_many_candidates_are_found(store: Store) -> None:
    keys = [f"{i:05}" for i in range(2500)]
    for key in keys[::500]:
        store.candidates.add(key, "mobile", "t", 1, 1)
    store.candidates.add_scores(StoredScore(key, "naswot", "1", "in", 1.0) for key in keys[::500])

    known = store.candidates.scores("naswot", "1", dict.fromkeys(keys, "in"))
    assert set(known) == set(keys[::500])


def test_a_score_needs_its_candidate(store: Store) -> None:
    with pytest.raises(StoreError):
        store.candidates.add_scores(scores(nobody=1.0))


def test_a_candidate_stays_as_it_was_first(store: Store) -> None:
    store.candidates.add("k", "mobile", "one", 1, 2)
    store.candidates.add("k", "mobile", "two", 3, 4)

    assert store.candidates.get("k").text == "one"
    with pytest.raises(UnknownCandidateError):
        store.candidates.get("other")


def test_a_study_remembers_how_far_it_got(store: Store, clock: "FakeClock") -> None:
    study = store.studies.create("one", '{"seed": 7}', 2**40)
    assert (study.stage, study.created_at, study.finished_at) == ("created", clock(), None)

    store.studies.set_stage(study.id, "score")
    store.studies.fail(study.id, "the disk is full")
    failed = store.studies.by_name("one")
    store.studies.set_stage(study.id, "measure")
    store.studies.finish(study.id)

    finished = store.studies.by_name("one")
    assert (failed.stage, failed.failed_because) == ("score", "the disk is full")
    assert (finished.stage, finished.failed_because) == ("measure", None)
    assert finished.finished_at == clock()
    assert finished.seed == 2**40
    assert store.studies.all() == [finished]


def test_studies_have_names_of_their_own(store: Store) -> None:
    store.studies.create("one", "{}", 1)

    with pytest.raises(StudyExistsError, match="resume it"):
        store.studies.create("one", "{}", 1)
    with pytest.raises(UnknownStudyError, match="there are one"):
        store.studies.by_name("two")
    with pytest.raises(UnknownStudyError):
        store.studies.finish(99)


def test_what_a_study_found_is_kept_once(store: Store, fleet: "Fleet") -> None:
    device = fleet.device()
    study = store.studies.create("one", "{}", 1)
    for key in ("a", "b"):
        store.candidates.add(key, "mobile", "t", 1, 1)
    parts = [StudyCandidate("b", 0, "sampled"), StudyCandidate("a", 1, "sampled")]
    model = store.cost_models.add(device.id, "latency_seconds", "{}", 5)
    prediction = PredictionRow("a", device.id, "latency_seconds", 2.0, 1.0, 3.0, 0.9, model)
    better = PredictionRow("a", device.id, "latency_seconds", 2.1, 2.0, 2.2, 0.9, None)

    for _ in range(2):
        store.studies.add_candidates(study.id, parts)
        store.studies.add_accuracy(study.id, AccuracyRow("a", "fp32", {"accuracy": 0.9}, 100))
    store.studies.add_candidates(study.id, [StudyCandidate("a", 0, "finalist")])
    store.studies.add_accuracy(study.id, AccuracyRow("a", "fp32", {"auroc": 0.8}, 120))
    store.studies.add_predictions(study.id, [prediction])
    store.studies.add_predictions(study.id, [better])
    store.studies.add_front(study.id, ["a", "b"])
    store.studies.add_front(study.id, ["b"])

    assert store.studies.candidates(study.id) == [StudyCandidate("a", 0, "finalist"), *parts]
    assert store.studies.accuracies(study.id) == [AccuracyRow("a", "fp32", {"auroc": 0.8}, 120)]
    assert store.studies.predictions(study.id) == [better]
    assert store.studies.front(study.id) == ["b"]


def test_results_of_steps_are_remembered(store: Store) -> None:
    study = store.studies.create("one", "{}", 1)
    assert store.studies.result(study.id, "front") is None

    store.studies.put_result(study.id, "front", "[1]")
    store.studies.put_result(study.id, "front", "[2]")

    assert store.studies.result(study.id, "front") == "[2]"


def test_the_latest_cost_model_is_the_last_one_added(store: Store, fleet: "Fleet") -> None:
    device = fleet.device()
    assert store.cost_models.latest(device.id, "latency_seconds") is None
    store.cost_models.add(device.id, "latency_seconds", "old", 5)
    new = store.cost_models.add(device.id, "latency_seconds", "new", 9)
    store.cost_models.add(device.id, "peak_rss_bytes", "other", 9)

    latest = store.cost_models.latest(device.id, "latency_seconds")

    assert latest is not None
    assert (latest.id, latest.model_json, latest.n) == (new, "new", 9)


def test_a_bundle_written_again_has_one_row(store: Store, tmp_path: Path) -> None:
    study = store.studies.create("one", "{}", 1)

    ids = [store.bundles.add(study.id, tmp_path / "bundle", h * 64) for h in ("a", "b")]

    [bundle] = store.bundles.of_study(study.id)
    assert ids == [bundle.id] * 2
    assert bundle.manifest_sha256 == "b" * 64
    assert bundle.path == str(tmp_path / "bundle")


@settings(max_examples=25, deadline=None)  # the first one makes the schema
@given(content=st.binary(max_size=2000))
def test_any_content_comes_back(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "any-content"
    folder.mkdir(exist_ok=True)

    with Store.open(folder / "genba.db", blobs_folder=folder / "blobs") as store:
        assert store.blobs.get(store.blobs.put(content).sha256) == content
