"""Disks that are full, read-only or forget what they were given, and a store that is locked."""

import contextlib
import os
import resource
import sqlite3
import subprocess
import time
from dataclasses import replace

import psutil
import pytest

from host.measurement import MeasurementFailure
from host.workspace import STORE_FILE
from tests.faults.plant import wait_until
from tests.faults.quick_agent import UNARY_SECONDS

MIB = 1 << 20


def mount(*arguments):
    return subprocess.run(
        ["mount", *map(str, arguments)], check=False, capture_output=True, text=True
    )


@pytest.fixture
def small_disk(tmp_path):
    """A folder that is a disk of 12 MiB."""
    folder = tmp_path / "card"
    folder.mkdir()
    made = mount("-t", "tmpfs", "-o", "size=12m,mode=0700", "tmpfs", folder)
    if made.returncode != 0:
        pytest.skip(f"no disk can be made here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def cramped(plant, small_disk):
    """A device whose agent lives on the small disk."""
    panel = plant.equip(*plant.device(f"cramped-{os.urandom(4).hex()}"), small_disk / "home")
    panel.log = small_disk.with_suffix(".log")
    plant.panels[panel.device.name] = panel
    panel.start()
    yield panel
    panel.heal()
    plant.settle()
    panel.stop()
    del plant.panels[panel.device.name]


@pytest.fixture
def fill(small_disk):
    """Fills the disk to the last byte; gives a way to make room again."""
    filler = small_disk / "filler"

    def filled():
        with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        return filler.unlink

    return filled


def again(plant, job, purpose):
    """The same model once more, as `--again` asks for it."""
    return plant.store.jobs.submit(job.device_id, job.spec, purpose=purpose)


def test_a_model_that_the_disk_cannot_take_is_refused_with_the_reason_and_passes_later(
    plant, cramped, fill
):
    plant.measured(plant.ask(cramped.device))
    make_room = fill()
    (job,) = plant.ask(cramped.device, size_bytes=2 * MIB)

    (outcome,) = plant.wait_for([job])
    make_room()

    assert isinstance(outcome, MeasurementFailure)
    assert outcome.kind == "resource"
    assert "cannot be kept on this device" in outcome.message
    plant.measured([again(plant, job, "room")])


def test_a_disk_that_fills_up_while_a_device_measures_loses_no_measurement(plant, cramped, fill):
    (job,) = plant.ask(cramped.device, hold_seconds=1.0)
    wait_until(cramped.workers, "the worker")

    make_room = fill()
    wait_until(lambda: not cramped.workers(), "the end of the worker")
    time.sleep(0.5)
    make_room()
    cramped.heal()

    plant.measured([job])


def test_an_agent_on_a_read_only_disk_says_so_and_works_once_it_can_write(
    plant, cramped, small_disk
):
    plant.measured(plant.ask(cramped.device))
    cramped.stop()
    (job,) = plant.ask(cramped.device)
    assert mount("-o", "remount,ro", small_disk).returncode == 0

    status = cramped.start().wait()

    assert mount("-o", "remount,rw", small_disk).returncode == 0
    last_words = cramped.log.read_text().splitlines()[-1]
    assert status != 0
    assert "Traceback" not in cramped.log.read_text()
    assert last_words.startswith("genba-agent: ")
    assert "read-only" in last_words.lower().replace("readonly", "read-only")
    cramped.start()
    plant.measured([job])


def test_a_cached_model_that_lost_a_bit_is_pulled_again(plant, panel):
    (job,) = plant.ask(panel.device)
    plant.measured([job])
    cached = panel.cached(job.spec.run.model_sha256)
    data = bytearray(cached.read_bytes())
    data[len(data) // 2] ^= 1
    cached.chmod(0o600)
    cached.write_bytes(data)

    plant.measured([again(plant, job, "after the lost bit")])


@pytest.mark.parametrize("length", [0, 100])
def test_a_cached_model_that_was_cut_is_pulled_again(plant, panel, length):
    (job,) = plant.ask(panel.device)
    plant.measured([job])
    cached = panel.cached(job.spec.run.model_sha256)
    cached.chmod(0o600)
    os.truncate(cached, length)

    plant.measured([again(plant, job, f"cut at {length}")])


def test_a_cached_model_that_became_something_else_is_pulled_again(plant, panel):
    (job,) = plant.ask(panel.device)
    plant.measured([job])
    cached = panel.cached(job.spec.run.model_sha256)
    secret = plant.root / "secret"
    secret.write_text("not a model")
    cached.unlink()
    cached.symlink_to(secret)

    plant.measured([again(plant, job, "after the link")])
    assert secret.read_text() == "not a model"


def test_a_half_pulled_model_whose_bytes_are_bad_is_pulled_from_the_start(plant, panel):
    panel.stop()
    (job,) = plant.ask(panel.device, size_bytes=MIB)
    panel.home.cache.mkdir(exist_ok=True)
    part = panel.home.cache / f"{job.spec.run.model_sha256}.part"
    part.write_bytes(os.urandom(300_000))

    panel.start()

    plant.measured([job])
    assert not panel.parts()


def test_an_outbox_that_is_no_database_is_told_and_costs_no_job(plant, panel):
    panel.link.hold(panel.link.up)
    panel.kill()
    panel.home.outbox.write_bytes(os.urandom(8192))
    panel.link.cut()
    panel.link.heal()
    (job,) = plant.ask(panel.device)

    panel.start()

    plant.measured([job])
    assert "Traceback" not in panel.log.read_text()
    assert panel.said("outbox") > 0


@pytest.mark.parametrize("damage", ["truncated", "flipped", "gone"])
def test_a_damaged_file_of_the_host_never_reaches_a_runtime(plant, panel, damage):
    panel.stop()
    (job,) = plant.ask(panel.device, size_bytes=MIB)
    blob = plant.store.blobs.path(job.spec.run.model_sha256)
    whole = blob.read_bytes()
    blob.unlink()
    if damage == "truncated":
        blob.write_bytes(whole[:300_000])
    elif damage == "flipped":
        blob.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    (after,) = plant.ask(panel.device)

    panel.start()
    plant.wait_for([after])
    if damage == "gone":
        # Nobody can say yet what will become of it; it goes on when the file is there.
        blob.write_bytes(whole)
    (outcome,) = plant.wait_for([job])
    blob.unlink()
    blob.write_bytes(whole)

    if damage != "gone":
        assert isinstance(outcome, MeasurementFailure)
        assert "is not what was announced" in outcome.message
    plant.measured([after, again(plant, job, "mended")])


def test_a_store_that_another_process_locks_for_seconds_only_delays(plant, panel):
    measured = panel.measured()
    jobs = plant.ask(panel.device, 2, hold_seconds=0.3)
    wait_until(panel.workers, "the worker")

    database = plant.workspace.root / STORE_FILE
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        time.sleep(UNARY_SECONDS + 1.0)
        connection.execute("ROLLBACK")

    plant.measured(jobs)
    assert panel.measured() == measured + 2


def test_a_host_whose_disk_is_full_takes_the_report_when_it_has_room(plant, panel, gateway):
    measured = panel.measured()
    (job,) = plant.ask(panel.device, hold_seconds=0.5)
    wait_until(panel.workers, "the worker")
    # No file of the gateway may grow: writes fail as on a full disk, though with another number.
    psutil.Process(gateway.pid).rlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))

    wait_until(panel.letters, "the outcome in the outbox")
    time.sleep(1.0)
    assert plant.outcomes([job]) == [None]
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    psutil.Process(gateway.pid).rlimit(resource.RLIMIT_FSIZE, unlimited)

    plant.measured([job])
    assert panel.measured() == measured + 1
    assert plant.gateway is not None
    assert plant.gateway.runs


def test_a_job_that_tells_a_wrong_size_fails_and_holds_up_nothing(plant, panel):
    (good,) = plant.ask(panel.device)
    spec = plant.spec(plant.model())
    wrong = plant.store.jobs.submit(
        panel.device.id, replace(spec, run=replace(spec.run, model_size_bytes=5))
    )
    (after,) = plant.ask(panel.device)

    plant.measured([good, after])
    (outcome,) = plant.wait_for([wrong])
    assert isinstance(outcome, MeasurementFailure)
