"""`genba device probe` and `genba device meter`."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from host.__main__ import main
from host.device import Device, MeterBinding
from host.job import Job
from host.measurement import (
    Measurement,
    MeasurementFailure,
    ProbeResult,
    ProbeSpec,
    ReferenceRun,
    Thermal,
)
from host.store import Store
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
