"""`genba device`: the fleet at a glance, revocation, `probe` and `meter`."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest

from host.__main__ import main
from host.device import Device, DeviceFacts, Guard, MeterBinding
from host.job import Job
from host.measurement import (
    Measurement,
    MeasurementFailure,
    MeasureSpec,
    ModelRun,
    ProbeResult,
    ProbeSpec,
    ReferenceRun,
    Thermal,
)
from host.store import Store, TokenError
from host.workspace import Workspace

if TYPE_CHECKING:
    from tests.host.cli.conftest import Answer, MadeUpDevice

NO_TFLITE = ReferenceRun(
    "tflite", "ai-edge-litert", "2.1.0", (), (), (), failed_because="SIGILL: no AVX on this CPU"
)


def reference(seconds: float) -> ReferenceRun:
    return ReferenceRun(
        "onnx", "onnxruntime", "1.23.2", (seconds,) * 9, (seconds,) * 9, (0.005,) * 3
    )


def connect(store: Store, device: Device, *, agent_version: str = "0.1.0") -> None:
    """The agent of the device connects, and says what `device` holds of it."""
    assert device.facts is not None
    store.devices.open_session(
        device.id, "session", agent_version=agent_version, facts=device.facts
    )


@pytest.fixture
def probes(make_measurement: Callable[..., Measurement]) -> "Callable[..., Answer]":
    """Answers probe jobs one after the other with these reference runs."""
    preflight = make_measurement("d", "0" * 64).preflight
    assert preflight is not None

    def answers(*rounds: tuple[ReferenceRun, ...], throttled: tuple[str, ...] = ()) -> "Answer":
        left = list(rounds)

        def answer(job: Job) -> ProbeResult:
            return ProbeResult(
                device_id=job.device_id,
                preflight=replace(preflight, throttled=throttled),
                references=left.pop(0),
                thermal=Thermal(),
                governor="ondemand",
                probed_at=datetime(2026, 11, 24, 9, 0, tzinfo=UTC),
            )

        return answer

    return answers


def test_a_probe_prints_the_device_as_it_is_and_becomes_the_baseline(
    start_device: "Callable[[str, Answer], MadeUpDevice]",
    probes: "Callable[..., Answer]",
    plant_store: Store,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, second = (reference(0.0010), NO_TFLITE), (reference(0.0012), NO_TFLITE)
    device = start_device("kiosk", probes(first, second))

    assert main(["device", "probe", "kiosk", "--on-busy", "flag", "--wait-quiet", "3"]) == 0
    told = capsys.readouterr()
    assert main(["device", "probe", "kiosk"]) == 0
    again = capsys.readouterr()

    spec = device.done[0].spec
    assert isinstance(spec, ProbeSpec)
    assert (spec.readiness.measure_when_busy, spec.readiness.wait_seconds) == (True, 3.0)
    assert "Probe of kiosk" in told.out
    assert "throttled: no" in told.out
    assert "canary loop 5.000 ms, governor ondemand" in told.out
    assert "there was none" in told.out
    assert "SIGILL: no AVX on this CPU" in told.out
    assert "this is the new baseline of kiosk" in told.err
    assert "+20.0% (of 2026-11-24" in again.out
    latest = plant_store.probes.latest(plant_store.devices.by_name("kiosk").id)
    assert latest is not None
    assert latest.references == second


def test_a_probe_of_a_disturbed_device_sets_no_baseline(
    start_device: "Callable[[str, Answer], MadeUpDevice]",
    probes: "Callable[..., Answer]",
    plant_store: Store,
    capsys: pytest.CaptureFixture[str],
) -> None:
    start_device("kiosk", probes((reference(0.001),), throttled=("undervoltage",)))

    assert main(["device", "probe", "kiosk"]) == 0

    told = capsys.readouterr()
    assert "throttled: undervoltage" in told.out
    assert "sets no baseline" in told.err
    device = plant_store.devices.by_name("kiosk")
    assert plant_store.measurements.baseline(device.id, "onnx", "onnxruntime", "1.23.2") is None


def test_a_probe_in_json_keeps_the_samples(
    start_device: "Callable[[str, Answer], MadeUpDevice]",
    probes: "Callable[..., Answer]",
    capsys: pytest.CaptureFixture[str],
) -> None:
    start_device("kiosk", probes((reference(0.001),), throttled=("undervoltage",)))

    main(["device", "probe", "kiosk", "--json"])

    record = json.loads(capsys.readouterr().out)
    assert record["kind"] == "probe"
    assert record["device"] == "kiosk"
    assert record["references"][0]["latency_seconds"] == [0.001] * 9
    assert record["preflight"]["throttled"] == ["undervoltage"]


def test_a_probe_without_any_reference_run_is_no_baseline(
    start_device: "Callable[[str, Answer], MadeUpDevice]",
    probes: "Callable[..., Answer]",
    capsys: pytest.CaptureFixture[str],
) -> None:
    start_device("kiosk", probes((NO_TFLITE,)))

    code = main(["device", "probe", "kiosk"])

    assert code == 1
    assert "no reference model ran on kiosk" in capsys.readouterr().err


def test_a_probe_that_fails_says_why(
    start_device: "Callable[[str, Answer], MadeUpDevice]", capsys: pytest.CaptureFixture[str]
) -> None:
    start_device(
        "kiosk",
        lambda job: MeasurementFailure(
            job.device_id, None, "timeout", "it took more than 300 s", job.created_at
        ),
    )

    code = main(["device", "probe", "kiosk"])

    assert code == 1
    assert "kiosk failed at probing: timeout: it took more than" in capsys.readouterr().err


@dataclass
class Plug:
    """A Tasmota plug; without `energy` it answers as one without a meter."""

    url: str
    energy: dict[str, float] | None


@pytest.fixture
def plug() -> Iterator[Plug]:
    told = Plug("", {"Total": 1.5, "Power": 12.5})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sensors = {} if told.energy is None else {"ENERGY": told.energy}
            body = json.dumps({"StatusSNS": sensors}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    told.url = f"tasmota://127.0.0.1:{server.server_address[1]}"
    yield told
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_meter_is_bound_read_shown_and_forgotten(
    workspace: Workspace,
    enrol: Callable[[str], Device],
    plant_store: Store,
    plug: Plug,
    capsys: pytest.CaptureFixture[str],
) -> None:
    device = enrol("kiosk")
    options = ["--set", "user=meter", "--set", "password=s3cret"]

    assert main(["device", "meter", "kiosk", plug.url, *options]) == 0
    bound = capsys.readouterr().out
    assert main(["device", "meter", "kiosk", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert main(["device", "meter", "kiosk", "--test", "--json"]) == 0
    tested = json.loads(capsys.readouterr().out)
    kept = plant_store.meters.of_device(device.id)
    codes = [main(["device", "meter", "kiosk", "--remove"]) for _ in range(2)]
    removed = capsys.readouterr().out

    assert kept == MeterBinding(plug.url, {"user": "meter", "password": "s3cret"})
    assert "kiosk is measured by tasmota 127.0.0.1:" in bound
    assert "12.50 W" in bound
    assert "s3cret" not in bound + json.dumps(shown) + json.dumps(tested)
    assert shown["options"]["user"] == "meter"
    assert shown["reading"] is None
    assert tested["reading"]["power_watts"] == 12.5
    assert tested["facts"]["scope"] == "wall"
    assert codes == [0, 0]
    assert removed == "kiosk has no meter any more\nkiosk had no meter\n"
    assert plant_store.meters.of_device(device.id) is None


def test_a_meter_that_does_not_answer_now_is_bound_and_that_is_told(
    workspace: Workspace,
    enrol: Callable[[str], Device],
    plant_store: Store,
    plug: Plug,
    capsys: pytest.CaptureFixture[str],
) -> None:
    device = enrol("kiosk")
    plug.energy = None

    code = main(["device", "meter", "kiosk", plug.url])
    testing = main(["device", "meter", "kiosk", "--test"])

    assert code == 0
    assert testing == 1
    assert "it is bound, though it cannot be read now" in capsys.readouterr().err
    assert plant_store.meters.of_device(device.id) is not None


def test_a_url_is_tested_without_binding_it(
    workspace: Workspace,
    enrol: Callable[[str], Device],
    plant_store: Store,
    plug: Plug,
    capsys: pytest.CaptureFixture[str],
) -> None:
    device = enrol("kiosk")

    code = main(["device", "meter", "kiosk", plug.url, "--test"])

    assert code == 0
    assert "12.50 W" in capsys.readouterr().out
    assert plant_store.meters.of_device(device.id) is None


@pytest.mark.parametrize(
    ("arguments", "because"),
    [
        (["--test"], "kiosk has no meter"),
        (["--show"], "kiosk has no meter"),
        (["--show", "--remove"], "choose one of them"),
        (["shelly://10.0.0.7", "--remove"], "choose one of them"),
        (["--set", "user=a"], "name that too"),
        (["gopher://10.0.0.7"], "begins with one of modbus://"),
        (["tasmota://10.0.0.7", "--set", "colour=red"], "no option colour"),
        (["tasmota://10.0.0.7", "--set", "password"], "write it as key=value"),
        (["tasmota://10.0.0.7", "--set", "user=a", "--set", "user=b"], "'user' twice"),
        (["tasmota://me:pw@10.0.0.7"], "holds no password"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_meter_ends_with_2_and_is_not_bound(
    workspace: Workspace,
    enrol: Callable[[str], Device],
    plant_store: Store,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    because: str,
) -> None:
    device = enrol("kiosk")

    code = main(["device", "meter", "kiosk", *arguments])

    error = capsys.readouterr().err
    assert code == 2
    assert because in error
    assert error.count("\n") == 1
    assert plant_store.meters.of_device(device.id) is None


def listed(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    assert main(["device", "list", "--json"]) == 0
    return {record["name"]: record for record in json.loads(capsys.readouterr().out)}


def table_at(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """What `genba device list` prints on a terminal of that width."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert main(["device", "list"]) == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)


def measure_soon(store: Store, device: Device, label: str, study: str | None = None) -> str:
    blob = store.blobs.put(label.encode())
    study_id = None if study is None else store.studies.by_name(study).id
    spec = MeasureSpec(ModelRun(blob.sha256, blob.size_bytes))
    return store.jobs.submit(device.id, spec, study_id=study_id, label=label).id


def refuse(store: Store, facts: DeviceFacts, secret: str, peer: str) -> None:
    with pytest.raises(TokenError):
        store.devices.enrol(secret, "another key", facts, peer=peer)


def test_the_list_tells_what_each_device_does(
    plant_store: Store,
    enrol: Callable[[str], Device],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kiosk, press, _, stolen = (enrol(name) for name in ("kiosk", "press", "new", "stolen"))
    plant_store.devices.seen(kiosk.id, press.id, stolen.id)
    plant_store.devices.revoke("stolen")
    job_id = measure_soon(plant_store, kiosk, "cell.onnx")
    plant_store.jobs.claim(kiosk.id, "session", 60.0)

    found = listed(capsys)
    table = table_at(100, monkeypatch, capsys)

    assert {name: record["state"] for name, record in found.items()} == {
        "kiosk": "working",
        "new": "never connected",
        "press": "idle",
        "stolen": "revoked",
    }
    assert found["kiosk"]["working_on"]["job_id"] == job_id
    assert found["kiosk"]["waiting_jobs"] == 0
    assert datetime.fromisoformat(found["kiosk"]["last_seen_at"]).tzinfo is not None
    assert found["stolen"]["revoked_at"] is not None
    assert found["new"]["last_seen_at"] is None
    assert "measure cell.onnx," in table
    assert re.search(r"working +[0-9]+ s ago", table)


def test_a_device_that_was_not_seen_for_long_is_offline(
    plant_store: Store, enrol: Callable[[str], Device], capsys: pytest.CaptureFixture[str]
) -> None:
    from host.cli.fleet import fleet_table, statuses

    kiosk = enrol("kiosk")
    plant_store.devices.seen(kiosk.id)
    (status,) = statuses(plant_store, plant_store.devices.all())
    old = replace(status.device, last_seen_at=plant_store.now() - timedelta(minutes=7))

    (offline,) = statuses(plant_store, [old])

    assert (status.state, offline.state) == ("idle", "offline")
    assert fleet_table([offline], plant_store.now()).row_count == 1


def test_what_waits_is_told_by_study_where_there_are_several(
    plant_store: Store,
    enrol: Callable[[str], Device],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kiosk, press = enrol("kiosk"), enrol("press")
    for study in ("cells", "line"):
        plant_store.studies.create(study, "{}", 1)
    for model, study in (("a", "line"), ("b", "line"), ("c", "cells")):
        measure_soon(plant_store, kiosk, model, study)
    measure_soon(plant_store, kiosk, "d")
    measure_soon(plant_store, press, "e", "line")

    found = listed(capsys)
    table = table_at(100, monkeypatch, capsys)

    assert found["kiosk"]["waiting_jobs"] == 4
    assert found["kiosk"]["waiting_by_study"] == [
        {"study": "line", "jobs": 2},
        {"study": "cells", "jobs": 1},
        {"study": None, "jobs": 1},
    ]
    assert "2 line" in table
    assert "1 no study" in table
    assert "1 line" not in table


def test_an_agent_that_is_older_than_the_host_is_to_be_updated(
    plant_store: Store,
    enrol: Callable[[str], Device],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    older = {"0.0.9": True, version("genba"): False, "99.0": False, "0.2.dev1+local": None}
    for number, agent in enumerate(older):
        connect(plant_store, enrol(f"m{number}"), agent_version=agent)

    found = listed(capsys)
    table = table_at(100, monkeypatch, capsys)

    assert {r["agent_version"]: r["agent_is_older"] for r in found.values()} == older
    assert table.count("update") == 1


@pytest.mark.parametrize("emulated", [True, False, None], ids=str)
def test_an_emulated_device_is_told_from_a_real_one(
    plant_store: Store,
    enrol: Callable[[str], Device],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    emulated: bool | None,
) -> None:
    kiosk = enrol("kiosk")
    assert kiosk.facts is not None
    connect(plant_store, replace(kiosk, facts=replace(kiosk.facts, emulated=emulated)))

    record = listed(capsys)["kiosk"]
    table = table_at(100, monkeypatch, capsys)

    assert record["emulated"] is emulated
    assert ("emulated" in table) == bool(emulated)


def test_guards_that_do_not_work_are_a_warning_and_show_tells_why(
    plant_store: Store,
    enrol: Callable[[str], Device],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kiosk = enrol("kiosk")
    assert kiosk.facts is not None
    guards = (
        Guard("network", works=False, how="", why_not="no user namespaces"),
        Guard("files", works=True, how="Landlock", why_not=""),
    )
    connect(plant_store, replace(kiosk, facts=replace(kiosk.facts, guards=guards)))

    record = listed(capsys)["kiosk"]
    table = table_at(100, monkeypatch, capsys)
    main(["device", "show", "kiosk"])

    shown = capsys.readouterr().out
    assert record["missing_guards"] == ["network"]
    assert "no guard: network" in table
    assert "guard network: MISSING: no user namespaces" in shown
    assert "guard files: works, by Landlock" in shown


def test_the_last_probe_is_told_with_its_reasons(
    start_device: "Callable[[str, Answer], MadeUpDevice]",
    enrol: Callable[[str], Device],
    probes: "Callable[..., Answer]",
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start_device("good", probes((reference(0.001), NO_TFLITE)))
    start_device("hot", probes((reference(0.001),), throttled=("undervoltage",)))
    start_device("dead", probes((NO_TFLITE,)))
    enrol("new")
    for name in ("good", "hot", "dead"):
        main(["device", "probe", name])
    capsys.readouterr()

    found = {name: record["probe"] for name, record in listed(capsys).items()}
    table = table_at(100, monkeypatch, capsys)

    assert found["new"] is None
    assert {name: found[name]["level"] for name in ("good", "hot", "dead")} == {
        "good": "OK",
        "hot": "WARN",
        "dead": "FAILED",
    }
    assert found["hot"]["reasons"] == ["throttled: undervoltage"]
    assert found["good"]["reasons"] == ["tflite: SIGILL: no AVX on this CPU"]
    assert "not probed" in table
    assert "THROTTLED" in table


@pytest.mark.parametrize("width", [80, 100, 140])
def test_the_table_keeps_to_the_width_of_the_terminal(
    plant_store: Store,
    enrol: Callable[[str], Device],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    width: int,
) -> None:
    device = enrol("press-hall-3-station-12-left-hand-side")
    connect(plant_store, device, agent_version="0.0.9")
    measure_soon(plant_store, device, "candidate-000017-fp32-with-a-long-name.onnx")
    plant_store.jobs.claim(device.id, "session", 60.0)

    table = table_at(width, monkeypatch, capsys)

    assert max(len(line) for line in table.splitlines()) <= width
    assert "…" not in table
    assert "onnx 1.23.2" in table


def test_a_used_token_that_is_presented_again_stands_below_the_list(
    plant_store: Store,
    enrol: Callable[[str], Device],
    device_facts: DeviceFacts,
    capsys: pytest.CaptureFixture[str],
) -> None:
    enrol("press")
    plant_store.devices.add_token("line-3", "secret", plant_store.now() + timedelta(hours=1))
    plant_store.devices.enrol("secret", "a key", device_facts)
    refuse(plant_store, device_facts, "secret", "ipv4:192.0.2.7:52114")
    refuse(plant_store, device_facts, "made up", "ipv6:%5Bfe80::1%5D:4711")

    main(["device", "list"])

    used, unknown = capsys.readouterr().out.splitlines()[-2:]
    assert used.startswith("a used token for line-3 was presented again from 192.0.2.7 on 2")
    assert used.endswith("genba device revoke line-3")
    assert unknown.startswith("enrolling a device from fe80::1 was refused on ")
    assert unknown.endswith("unknown token")


def test_of_many_refusals_the_first_few_are_told(
    workspace: Workspace, plant_store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(8):
        details = {"reason": "expired token", "peer": f"ipv4:192.0.2.{number}:1"}
        plant_store.audit.note("refuse", f"m{number}", details)
    plant_store.audit.note("refuse", "m7", {"reason": "expired token", "peer": "ipv4:192.0.2.7:2"})

    main(["device", "list"])

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("No device is enrolled yet")
    assert lines[1].startswith("enrolling m7 from 192.0.2.7 was refused on ")
    assert "and before: expired token" in lines[1]
    assert lines[-1] == "and 3 more: genba audit show --action refuse"


def test_a_revoked_device_keeps_its_history_and_comes_back_with_a_new_token(
    plant_store: Store,
    enrol: Callable[[str], Device],
    capsys: pytest.CaptureFixture[str],
) -> None:
    kiosk = enrol("kiosk")
    measure_soon(plant_store, kiosk, "a.onnx")

    code = main(["device", "revoke", "kiosk", "--reason", "lost in hall 3"])
    told = capsys.readouterr().out
    main(["device", "revoke", "kiosk"])
    again = capsys.readouterr().out
    main(["device", "enroll", "kiosk"])
    token = capsys.readouterr().out
    state = listed(capsys)["kiosk"]["state"]
    came_back = enrol("kiosk")

    entry = plant_store.queue_view.audit(action="revoke")[-1]
    assert code == 0
    assert "1 job of it is cancelled" in told
    assert "genba device enroll kiosk" in told
    assert "was revoked already" in again
    assert "lets it connect again" in token
    assert state == "revoked"
    assert entry.details["reason"] == "lost in hall 3"
    assert (came_back.id, came_back.revoked_at) == (kiosk.id, None)


def test_a_device_is_shown_with_its_key_its_session_and_what_was_done_to_it(
    plant_store: Store, enrol: Callable[[str], Device], capsys: pytest.CaptureFixture[str]
) -> None:
    kiosk = enrol("kiosk")
    assert kiosk.facts is not None
    plant_store.devices.open_session(
        kiosk.id, "the session", agent_version="0.0.9", facts=kiosk.facts
    )
    measure_soon(plant_store, kiosk, "a.onnx")

    assert main(["device", "show", "kiosk", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert main(["device", "show", "kiosk"]) == 0

    text = capsys.readouterr().out
    assert record["key_sha256"] == kiosk.spki_sha256
    assert record["session_id"] == "the session"
    assert [entry["action"] for entry in record["audit"]] == ["token", "enrol", "job"]
    assert record["agent_is_older"] is True
    assert "0.0.9, older than this host: update it" in text
    assert "the session" in text
    assert "label a.onnx" in text
