"""`genba job`: what waits, what runs, and how to withdraw it."""

import json
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from host.__main__ import main
from host.device import Device
from host.job import Lease
from host.measurement import (
    Measurement,
    MeasurementFailure,
    MeasureSpec,
    ModelRun,
    ProbeSpec,
)
from host.store import Store
from host.workspace import Workspace

Ask = Callable[..., str]


@pytest.fixture
def ask(plant_store: Store) -> Ask:
    """Queues a measurement of a model of that name; gives the job's id."""

    def asked(device: Device, model: str, study: str | None = None) -> str:
        blob = plant_store.blobs.put(model.encode())
        spec = MeasureSpec(ModelRun(blob.sha256, blob.size_bytes))
        study_id = None if study is None else plant_store.studies.by_name(study).id
        return plant_store.jobs.submit(device.id, spec, study_id=study_id, label=model).id

    return asked


def claim(store: Store, device: Device, lease_seconds: float = 60.0) -> Lease:
    lease = store.jobs.claim(device.id, "session", lease_seconds)
    assert lease is not None
    return lease


def fail(store: Store, lease: Lease, kind: Any, message: str) -> None:
    device_id = lease.job.device_id
    outcome = MeasurementFailure(device_id, None, kind, message, store.now())
    store.jobs.report(device_id, lease.job.id, lease.attempt, lease.lease_id, outcome)


def listed(capsys: pytest.CaptureFixture[str], *options: str) -> list[dict[str, Any]]:
    assert main(["job", "list", "--json", *options]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


@pytest.fixture
def busy(plant_store: Store, enrol: Callable[[str], Device], ask: Ask) -> dict[str, str]:
    """Two devices and a job in each state; job ids by the name of their model."""
    for study in ("cells", "line"):
        plant_store.studies.create(study, "{}", 1)
    kiosk, press = enrol("kiosk"), enrol("press")
    ids = {"failed": ask(kiosk, "failed", "cells")}
    fail(plant_store, claim(plant_store, kiosk), "worker_crashed", "it died with SIGSEGV")
    ids["withdrawn"] = ask(kiosk, "withdrawn")
    plant_store.jobs.cancel([ids["withdrawn"]])
    ids["running"] = ask(kiosk, "running", "cells")
    claim(plant_store, kiosk)
    ids["waits"] = ask(kiosk, "waits", "line")
    ids["elsewhere"] = ask(press, "elsewhere", "line")
    return ids


def test_open_jobs_are_listed_by_device_with_the_running_one_first(
    busy: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    found = listed(capsys)
    main(["job", "list"])

    table = capsys.readouterr().out
    assert [(job["device"], job["label"], job["state"]) for job in found] == [
        ("kiosk", "running", "running"),
        ("kiosk", "waits", "queued"),
        ("press", "elsewhere", "queued"),
    ]
    assert found[0]["device_answers"] is True
    assert found[1]["device_answers"] is None
    assert re.search(r"running for [0-9]+ s", table)
    assert busy["waits"][:12] in table
    assert "failed" not in table


def test_jobs_are_chosen_by_state_device_and_study(
    busy: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    models = {
        "--state all": ["elsewhere", "waits", "running", "withdrawn", "failed"],
        "--state queued": ["waits", "elsewhere"],
        "--state running": ["running"],
        "--state failed": ["failed"],
        "--state cancelled": ["withdrawn"],
        "--state done": [],
        "--device press": ["elsewhere"],
        "--study line": ["waits", "elsewhere"],
        "--study cells --state all": ["running", "failed"],
        "--study line --device kiosk": ["waits"],
        "--limit 1": ["running"],
    }

    found = {options: listed(capsys, *options.split()) for options in models}

    assert {options: [job["label"] for job in jobs] for options, jobs in found.items()} == models


def test_jobs_that_are_left_out_are_mentioned(
    busy: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["job", "list", "--limit", "2"])
    cut = capsys.readouterr().out
    main(["job", "list", "--limit", "3"])

    assert "There are more jobs" in cut
    assert "There are more jobs" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "told"), [([], "No job is open"), (["--state", "done"], "No job fits")]
)
def test_an_empty_list_says_so(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], options: list[str], told: str
) -> None:
    assert main(["job", "list", *options]) == 0
    assert told in capsys.readouterr().out


def test_a_job_that_was_put_off_says_why(
    plant_store: Store,
    enrol: Callable[[str], Device],
    ask: Ask,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kiosk = enrol("kiosk")
    ask(kiosk, "model.onnx")
    fail(plant_store, claim(plant_store, kiosk), "not_ready", "busy: 40 % of the CPU")

    main(["job", "list"])

    assert "put off: busy: 40 % of the CPU" in " ".join(capsys.readouterr().out.split())


def test_a_running_job_whose_device_went_away_says_so(
    plant_store: Store,
    enrol: Callable[[str], Device],
    ask: Ask,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kiosk = enrol("kiosk")
    job_id = ask(kiosk, "model.onnx")
    claim(plant_store, kiosk, lease_seconds=0.0)

    main(["job", "show", job_id])

    assert "but its device does not answer" in capsys.readouterr().out
    assert listed(capsys)[0]["device_answers"] is False


def test_a_failed_job_is_shown_with_what_it_failed_of(
    busy: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["job", "show", busy["failed"][:10].upper()]) == 0
    text = capsys.readouterr().out
    assert main(["job", "show", busy["failed"], "--json"]) == 0
    record = json.loads(capsys.readouterr().out)

    assert "failed: worker_crashed" in text
    assert "worker_crashed: it died with SIGSEGV" in text
    assert record["study"] == "cells"
    assert record["spec"]["run"]["model_sha256"] == record["model_sha256"]


def test_a_measured_job_names_its_measurement(
    plant_store: Store,
    enrol: Callable[[str], Device],
    ask: Ask,
    make_measurement: Callable[..., Measurement],
    capsys: pytest.CaptureFixture[str],
) -> None:
    kiosk = enrol("kiosk")
    job_id = ask(kiosk, "model.onnx")
    lease = claim(plant_store, kiosk)
    sha256 = plant_store.blobs.put(b"model.onnx").sha256
    measurement = make_measurement(kiosk.id, sha256)
    plant_store.jobs.report(kiosk.id, job_id, lease.attempt, "key", measurement)

    main(["job", "show", job_id])

    number = plant_store.measurements.list(limit=1)[0].number
    assert f"genba measurements show {number}" in capsys.readouterr().out


def test_a_probe_has_no_model_to_show(
    plant_store: Store, enrol: Callable[[str], Device], capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = plant_store.jobs.submit(enrol("kiosk").id, ProbeSpec(), purpose="probe 1").id

    assert main(["job", "show", job_id]) == 0
    assert "model SHA-256  –" in capsys.readouterr().out


def test_jobs_are_cancelled_by_the_start_of_their_ids(
    busy: dict[str, str], plant_store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["job", "cancel", busy["waits"][:12], busy["running"], busy["failed"]])

    told = capsys.readouterr().out
    states = plant_store.jobs.progress(busy.values())
    assert code == 0
    assert "Cancelled 2 jobs" in told
    assert "1 of them ran" in told
    assert "1 had ended before" in told
    assert {model for model, job_id in busy.items() if states[job_id].state == "cancelled"} == {
        "waits",
        "running",
        "withdrawn",
    }


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (["--device", "kiosk"], ["elsewhere"]),
        (["--study", "line"], ["running"]),
        (["--device", "kiosk", "--study", "line"], ["running", "elsewhere"]),
    ],
    ids=["device", "study", "both"],
)
def test_all_open_jobs_of_a_device_or_a_study_are_cancelled(
    busy: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    left: list[str],
) -> None:
    assert main(["job", "cancel", *options]) == 0
    capsys.readouterr()

    assert [job["label"] for job in listed(capsys)] == left


def test_a_cancelled_job_stands_in_the_audit_log(busy: dict[str, str], plant_store: Store) -> None:
    main(["job", "cancel", busy["waits"]])

    entry = plant_store.queue_view.audit(action="cancel")[-1]
    assert busy["waits"] in json.dumps(dict(entry.details))


@pytest.mark.parametrize(
    ("arguments", "because"),
    [
        (["show", "0000"], "no job has an id that begins with 0000"),
        (["show", "%"], "is no id of a job"),
        (["show", "0" * 33], "is no id of a job"),
        (["cancel"], "say which jobs"),
        (["cancel", "abcd", "--device", "kiosk"], "say which jobs"),
        (["cancel", "--device", "nobody"], "no device is named 'nobody'"),
        (["cancel", "--study", "nothing"], "no study is named 'nothing'"),
        (["list", "--device", "nobody"], "no device is named 'nobody'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_choice_ends_with_2_and_one_sentence(
    workspace: Workspace,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    because: str,
) -> None:
    code = main(["job", *arguments])

    error = capsys.readouterr().err
    assert code == 2
    assert because in error
    assert error.count("\n") == 1


def test_a_start_that_fits_several_jobs_is_refused(
    enrol: Callable[[str], Device], ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    kiosk = enrol("kiosk")
    ids = [ask(kiosk, f"model {number}") for number in range(17)]
    # Of 17 ids two at least begin with the same of the 16 digits.
    (digit, _), *_ = Counter(job_id[0] for job_id in ids).most_common()

    code = main(["job", "show", digit])

    assert code == 2
    assert "several jobs have an id that begins with" in capsys.readouterr().err
