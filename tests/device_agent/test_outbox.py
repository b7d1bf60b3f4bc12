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
from device_agent.outbox import Outbox
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
