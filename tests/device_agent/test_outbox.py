from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from device_agent.errors import DamagedStateError
from device_agent.outbox import Outbox, SafeOutbox
from device_agent.work import (
    Failure,
    FailureKind,
    Lease,
    MeasuredSamples,
    MeasureSpec,
    OperatorTime,
    Preflight,
    ProbeResult,
    Profile,
    ReferenceRun,
    Thermal,
    VerifiedOutputs,
)

BOOT = "2f0d3a52"


@pytest.fixture
def lease(spec: MeasureSpec) -> Any:
    return Lease("lease-1", "job-1", 2, 60.0, spec)


@pytest.fixture
def path(tmp_path: Path) -> Any:
    return tmp_path / "outbox.sqlite"


def test_what_was_put_waits_also_for_the_next_process(
    path: Any, lease: Lease, samples: MeasuredSamples
) -> None:
    with contextlib.closing(Outbox(path)) as outbox:
        outbox.put(lease, samples, BOOT)

    with contextlib.closing(Outbox(path)) as outbox:
        (letter,) = outbox.pending()

    assert (letter.idempotency_key, letter.job_id, letter.attempt) == ("job-1:2", "job-1", 2)
    assert (letter.lease_id, letter.boot_id) == ("lease-1", BOOT)
    assert letter.outcome == samples


PREFLIGHT = Preflight(0.0, 0, 1, None, (), 0.003, 0.0)


@pytest.mark.parametrize(
    "outcome",
    [
        Failure(FailureKind.NOT_READY, "busy"),
        VerifiedOutputs("onnx", "onnxruntime", "1", (), "0" * 64, 5, 2, Path("/spool/outputs")),
        Profile("onnx", "onnxruntime", "1", 1, (), 5, 0.1, (OperatorTime("y", "Conv", 0.1),)),
        ProbeResult(
            PREFLIGHT, (ReferenceRun("onnx", "x", "1", (), (), (), "why"),), Thermal(), None
        ),
    ],
    ids=lambda outcome: type(outcome).__name__,
)
def test_every_kind_of_outcome_is_kept(path: Any, lease: Lease, outcome: Any) -> None:
    with contextlib.closing(Outbox(path)) as outbox:
        outbox.put(lease, outcome, BOOT)

        assert [letter.outcome for letter in outbox.pending()] == [outcome]


def test_a_letter_that_cannot_be_read_is_set_aside_and_the_others_go_on(
    path: Any, lease: Lease, samples: MeasuredSamples
) -> None:
    with contextlib.closing(Outbox(path)) as outbox:
        outbox.put(lease, samples, BOOT)
        outbox.put(dataclasses.replace(lease, attempt=3), samples, BOOT)
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE letters SET outcome = '{}' WHERE attempt = 2")

        assert [letter.attempt for letter in outbox.pending()] == [3]
        assert outbox.counts() == (1, 1)


def test_what_was_acknowledged_is_gone(path: Any, lease: Lease, samples: MeasuredSamples) -> None:
    with contextlib.closing(Outbox(path)) as outbox:
        outbox.remove(outbox.put(lease, samples, BOOT))

        assert outbox.pending() == []
        assert outbox.counts() == (0, 0)


def test_one_attempt_has_one_outcome(path: Any, lease: Lease, samples: MeasuredSamples) -> None:
    failure = Failure(FailureKind.TIMEOUT, "too slow")
    with contextlib.closing(Outbox(path)) as outbox:
        outbox.put(lease, samples, BOOT)
        outbox.put(lease, failure, BOOT)

        assert [letter.outcome for letter in outbox.pending()] == [failure]


def test_what_the_host_never_takes_is_kept_but_not_offered(
    path: Any, lease: Lease, samples: MeasuredSamples
) -> None:
    with contextlib.closing(Outbox(path)) as outbox:
        outbox.set_aside(outbox.put(lease, samples, BOOT), "unknown job")

        assert outbox.pending() == []
        assert outbox.counts() == (0, 1)


def test_a_process_killed_after_put_has_lost_nothing(path: Any, samples: MeasuredSamples) -> None:
    script = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from device_agent.outbox import Outbox\n"
        "from device_agent.work import Failure, FailureKind, Lease\n"
        "outbox = Outbox(Path(sys.argv[1]))\n"
        "outbox.put(Lease('l', 'j', 1, 60.0, None), Failure(FailureKind.TIMEOUT, 'slow'), 'b')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )

    subprocess.run([sys.executable, "-c", script, str(path)], check=False)

    with contextlib.closing(Outbox(path)) as outbox:
        assert [letter.idempotency_key for letter in outbox.pending()] == ["j:1"]


def test_a_file_that_is_no_outbox_is_one_sentence(path: Any) -> None:
    path.write_bytes(b"this is not a database" * 100)

    with pytest.raises(DamagedStateError, match="move it away"):
        Outbox(path)


@pytest.fixture
def said() -> list[str]:
    return []


def pages_of_zeros(path: Path) -> None:
    """As a card leaves them that lost them in a power cut."""
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(path.stat().st_size - 4096))


def other_bytes(path: Path) -> None:
    path.write_bytes(b"this is not a database" * 100)


def half_a_file(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [pages_of_zeros, other_bytes, half_a_file])
def test_a_damaged_file_is_set_aside_with_a_sentence_and_a_new_one_begun(
    path: Any, lease: Lease, samples: MeasuredSamples, said: list[str], damage: Any
) -> None:
    with contextlib.closing(SafeOutbox(path, said.append)) as outbox:
        for attempt in range(20):
            outbox.put(dataclasses.replace(lease, attempt=attempt), samples, BOOT)
    damage(path)
    bytes_then = path.read_bytes()

    with contextlib.closing(SafeOutbox(path, said.append)) as outbox:
        letter = outbox.put(lease, samples, BOOT)

        assert outbox.pending() == [letter]
    aside = path.with_name("outbox.sqlite.damaged-1")
    assert aside.read_bytes() == bytes_then
    assert len(said) == 1
    assert f"lies in {aside} now" in said[0]


def test_a_second_damaged_file_does_not_replace_the_first(path: Any, said: list[str]) -> None:
    for _ in range(2):
        other_bytes(path)
        SafeOutbox(path, said.append).close()

    assert path.with_name("outbox.sqlite.damaged-1").exists()
    assert path.with_name("outbox.sqlite.damaged-2").exists()


def test_a_file_that_is_damaged_while_the_agent_runs_loses_nothing_of_what_comes(
    path: Any, lease: Lease, samples: MeasuredSamples, said: list[str]
) -> None:
    with contextlib.closing(SafeOutbox(path, said.append)) as outbox:
        for attempt in range(20):
            outbox.put(dataclasses.replace(lease, attempt=attempt), samples, BOOT)
        other_bytes(path)

        letter = outbox.put(lease, samples, BOOT)

        assert letter in outbox.pending()
        assert not outbox.owes
    with contextlib.closing(Outbox(path)) as on_disk:
        assert letter in on_disk.pending()
    assert "was damaged" in said[0]


def test_a_write_that_a_power_cut_interrupted_is_undone(
    path: Any, lease: Lease, samples: MeasuredSamples, said: list[str]
) -> None:
    """SQLite's rollback journal is on the disk before the database is touched."""
    with contextlib.closing(Outbox(path)) as outbox:
        letter = outbox.put(lease, samples, BOOT)
    script = (
        "import os, signal, sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('PRAGMA cache_size = 1')\n"
        "c.execute('BEGIN IMMEDIATE')\n"
        "for n in range(200):\n"
        "    c.execute('INSERT INTO letters VALUES (?,?,1,?,?,?,NULL)',"
        " (str(n), 'j', 'l', 'b', 'x' * 4000))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert path.with_name("outbox.sqlite-journal").exists()

    with contextlib.closing(SafeOutbox(path, said.append)) as outbox:
        assert outbox.pending() == [letter]
    assert said == []


def test_the_journal_goes_aside_with_its_database(path: Any, said: list[str]) -> None:
    other_bytes(path)
    journal = path.with_name("outbox.sqlite-journal")
    journal.write_bytes(b"what SQLite would undo")

    SafeOutbox(path, said.append).close()

    assert path.with_name("outbox.sqlite.damaged-1").exists()
    assert not journal.exists()


def test_an_outcome_that_the_full_disk_does_not_take_is_held_and_put_again(
    small_disk: Any,
) -> None:
    lines = small_disk.run(
        """
from device_agent.outbox import Outbox, SafeOutbox
from device_agent.work import Failure, FailureKind, Lease
outbox = SafeOutbox(DISK / "outbox.sqlite", lambda text: print("said", text))
lease = Lease("l", "j", 1, 60.0, None)
kept = outbox.put(lease, Failure(FailureKind.TIMEOUT, "x" * 20_000), "b")
with (DISK / "filler").open("wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(4096))
    except OSError:
        pass
outcome = Failure(FailureKind.TIMEOUT, "y" * 20_000)
letter = outbox.put(Lease("l", "j", 2, 60.0, None), outcome, "b")
print(outbox.owes, outbox.pending() == [kept, letter])
outbox.remove(kept)
print(outbox.pending() == [letter])
(DISK / "filler").unlink()
outbox.settle()
print(outbox.owes, Outbox(DISK / "outbox.sqlite").pending() == [letter])
"""
    )

    said, *rest = lines
    assert "disk is full" in said
    assert "held in memory until then, and no other job is taken" in said
    assert rest == ["True True", "True", "False True"]


def test_a_refused_outcome_that_the_disk_does_not_take_is_kept_once_it_does(
    path: Any, lease: Lease, samples: MeasuredSamples, said: list[str]
) -> None:
    with contextlib.closing(SafeOutbox(path, said.append)) as outbox:
        with contextlib.closing(sqlite3.connect(path)) as other, other:
            other.execute("BEGIN EXCLUSIVE")
            outbox_at_once(outbox)
            letter = outbox.put(lease, samples, BOOT)
            outbox.set_aside(letter, "unknown job")

            owed_while_locked = outbox.owes
            assert outbox.pending() == []
        outbox.settle()

        assert (owed_while_locked, outbox.owes) == (True, False)
    assert "locked" in said[0]
    with contextlib.closing(Outbox(path)) as on_disk:
        assert on_disk.counts() == (0, 1)


def outbox_at_once(outbox: SafeOutbox) -> None:
    """Wait for no lock."""
    outbox._disk()._connection.execute("PRAGMA busy_timeout = 0")
