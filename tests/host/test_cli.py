"""The command line: what it prints, and how it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import onnx
import pytest
import typer
from onnx import TensorProto, helper

from host.__main__ import main
from host.cli.app import app, run
from host.pki import Token
from host.store import Store
from host.workspace import GatewaySettings, Workspace
from protos import genba_agent_pb2 as pb

if TYPE_CHECKING:
    from tests.host.conftest import Fleet, ScriptedAgent

HEAVY = ("torch", "onnxruntime", "matplotlib", "pymoo", "grpc", "sqlalchemy", "onnx", "pydantic")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
        assert isinstance(port, int)
        return port


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    settings = GatewaySettings(
        address="127.0.0.1",
        bind="127.0.0.1",
        gateway_port=_free_port(),
        enrolment_port=_free_port(),
    )
    made = Workspace.create(tmp_path / "plant", settings)
    monkeypatch.delenv("GENBA_WORKSPACE", raising=False)
    monkeypatch.chdir(made.root)
    return made


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return _save_model(tmp_path / "model.onnx")


def _save_model(path: Path) -> Path:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4]) for n in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


class AgentThread:
    """Enrols as soon as a gateway answers, and works until it has done `jobs`."""

    def __init__(
        self, agent: "ScriptedAgent", token: Token, work: Callable[[pb.Lease], pb.ReportRequest]
    ) -> None:
        self._agent, self._token, self._work = agent, token, work
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        stub = None
        while not self._stop.wait(0.05):
            try:
                if stub is None:
                    stub = self._agent.fleet(self._agent.enrol(self._token).gateway_port)
                    self._agent.hello(stub)
                reply = self._agent.claim(stub)
                if reply.HasField("lease"):
                    self._agent.read(stub, reply.lease.measure.run.model_sha256)
                    stub.Report(self._work(reply.lease), timeout=5)
            except (OSError, grpc.RpcError):
                continue


@pytest.fixture
def start_agent(
    workspace: Workspace, make_agent: Callable[[], "ScriptedAgent"]
) -> Iterator[Callable[[Callable[[pb.Lease], pb.ReportRequest]], None]]:
    running: list[AgentThread] = []

    def start(work: Callable[[pb.Lease], pb.ReportRequest]) -> None:
        gateway = workspace.settings.gateway
        token = Token.make("127.0.0.1", gateway.enrolment_port, workspace.authority().fingerprint)
        with workspace.open_store() as store:
            expires_at = datetime.now(UTC) + timedelta(hours=1)
            store.devices.add_token("kiosk", token.secret_sha256, expires_at)
        running.append(AgentThread(make_agent(), token, work))

    yield start
    for agent in running:
        agent.close()


@pytest.fixture
def real_store(workspace: Workspace) -> Iterator[Store]:
    with workspace.open_store() as store:
        yield store


@pytest.mark.parametrize("module", ["host.cli.app", "host.__main__"])
def test_importing_the_command_line_loads_nothing_heavy(module: str) -> None:
    script = f"import sys, {module}; print(*sorted({set(HEAVY)!r} & set(sys.modules)))"

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == []


def test_an_old_python_is_told_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Path(sys.modules[main.__module__].__file__ or "").read_text()
    monkeypatch.setattr(sys, "version_info", (3, 9, 18, "final", 0))
    module: dict[str, Any] = {"__name__": "old"}
    exec(compile(source, "__main__.py", "exec"), module)

    code = module["main"]()

    assert code == 2
    assert "needs Python 3.11 or newer, and this is 3.9" in capsys.readouterr().err


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert main(["-V"]) == 0

    assert capsys.readouterr().out == "genba 0.1.0\n" * 2


@pytest.mark.parametrize(
    "arguments",
    [["nosuch"], ["device", "list", "--nosuch"], ["measure"], ["device", "enroll", "a", "b"]],
    ids=" ".join,
)
def test_a_wrong_command_line_ends_with_2_and_one_sentence(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(arguments)

    error = capsys.readouterr().err
    assert code == 2
    assert error.startswith("genba: ")
    assert error.count("\n") == 1


def test_init_makes_a_workspace_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "new"

    codes = [main(["init", str(folder), "--address", "host.plant"]) for _ in range(2)]

    assert codes == [0, 2]
    assert Workspace.open(folder).settings.gateway.address == "host.plant"
    assert "nothing was changed" in capsys.readouterr().err


def test_init_refuses_an_address_with_a_port(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["init", str(tmp_path / "new"), "--address", "host:8443"])

    assert code == 2
    assert "address" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "arguments",
    [["device", "list"], ["device", "show", "kiosk"], ["device", "enroll", "kiosk"], ["serve"]],
    ids=" ".join,
)
def test_outside_a_workspace_commands_say_how_to_get_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
) -> None:
    monkeypatch.delenv("GENBA_WORKSPACE", raising=False)
    monkeypatch.chdir(tmp_path)

    code = main(arguments)

    assert code == 2
    assert "genba init DIR" in capsys.readouterr().err


def test_enroll_prints_a_token_that_enrols(
    workspace: Workspace, real_store: Store, capsys: pytest.CaptureFixture[str], fleet: "Fleet"
) -> None:
    facts = fleet.device("other").facts
    assert facts is not None

    code = main(["device", "enroll", "kiosk", "--expires", "5", "--json"])

    assert code == 0
    printed = json.loads(capsys.readouterr().out)
    token = Token.parse(printed["token"])
    assert token.ca_fingerprint == workspace.authority().fingerprint
    assert token.enrolment_port == workspace.settings.gateway.enrolment_port
    assert real_store.devices.enrol(token.secret_sha256, "key", facts).name == "kiosk"


def test_enroll_says_what_to_type_on_the_device(
    workspace: Workspace, fleet: "Fleet", capsys: pytest.CaptureFixture[str]
) -> None:
    fleet.device("kiosk")

    main(["device", "enroll", "kiosk", "-w", str(workspace.root)])

    output = capsys.readouterr().out
    assert "genba-agent enroll --token genba1/127.0.0.1:" in output
    assert "replaces its key" in output


def test_a_bad_device_name_ends_with_2(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["device", "enroll", "two words"]) == 2
    assert "cannot be a device's name" in capsys.readouterr().err


def test_list_tells_the_state_and_the_queue(
    workspace: Workspace,
    real_store: Store,
    fleet: "Fleet",
    capsys: pytest.CaptureFixture[str],
) -> None:
    kiosk = fleet.device("kiosk")
    fleet.device("press")
    real_store.devices.seen(kiosk.id)
    real_store.jobs.submit(kiosk.id, fleet.spec())

    assert main(["device", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert main(["device", "list"]) == 0

    assert [(d["name"], d["state"], d["waiting_jobs"]) for d in listed] == [
        ("kiosk", "idle", 1),
        ("press", "never connected", 0),
    ]
    assert listed[0]["runtimes"] == ["onnxruntime 1.23.2"]
    table = capsys.readouterr().out
    assert "kiosk" in table
    assert "idle" in table


def test_list_without_devices_says_how_to_enrol(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["device", "list"]) == 0
    assert "genba device enroll NAME" in capsys.readouterr().out

    assert main(["device", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_show_tells_all_facts(
    workspace: Workspace, fleet: "Fleet", capsys: pytest.CaptureFixture[str]
) -> None:
    fleet.device("kiosk")

    assert main(["device", "show", "kiosk", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)["facts"]
    assert main(["device", "show", "kiosk"]) == 0

    assert facts["cpu_cores_physical"] is None
    assert facts["ram_bytes"] == 4_000_000_000
    text = capsys.readouterr().out
    assert "tflite-runtime" in text
    assert "not installed" in text
    assert "no powercap zone" in text


@pytest.mark.parametrize("command", ["show", "remove"])
def test_an_unknown_device_ends_with_2(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert main(["device", command, "kiosk"]) == 2
    assert "no device is named 'kiosk'" in capsys.readouterr().err


def test_remove_shuts_a_device_out(workspace: Workspace, real_store: Store, fleet: "Fleet") -> None:
    fleet.device("kiosk")

    assert main(["device", "remove", "kiosk"]) == 0

    assert real_store.devices.all() == []


def test_measure_prints_what_the_device_found(
    workspace: Workspace,
    model: Path,
    start_agent: Callable[[Callable[[pb.Lease], pb.ReportRequest]], None],
    report_of: Callable[[pb.Lease], pb.ReportRequest],
    capsys: pytest.CaptureFixture[str],
) -> None:
    start_agent(report_of)
    _serve_until_enrolled(workspace)

    assert main(["measure", str(model), "--device", "kiosk", "--json"]) == 0
    first = capsys.readouterr()
    assert main(["measure", str(model), "--device", "kiosk"]) == 0

    values = json.loads(first.out)
    assert values["latency_seconds"] == pytest.approx(0.01)
    assert values["latency_low_seconds"] <= values["latency_seconds"]
    assert values["latency_high_seconds"] >= values["latency_seconds"]
    assert values["energy_absent_because"] == "no powercap zone"
    assert values["sample_count"] == 30
    second = capsys.readouterr()
    assert "10.00 ms, 95 % interval" in second.out
    assert "none: no powercap zone" in second.out
    assert "peak 70.0 MB" in second.out
    assert "onnxruntime 1.23.2" in second.out
    assert "--again" in second.err


def _serve_until_enrolled(workspace: Workspace) -> None:
    from host.gateway.server import ensure_gateway

    with workspace.open_store() as store, ensure_gateway(workspace, store):
        deadline = time.monotonic() + 10
        while not store.devices.all():
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_measure_on_an_unknown_device_ends_with_2(
    workspace: Workspace, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["measure", str(model), "--device", "kiosk"]) == 2
    assert "no device is named 'kiosk'" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_ends_cleanly(workspace: Workspace, number: signal.Signals) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-m", "host", "serve"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    line = process.stdout.readline()

    second = main(["serve"])
    process.send_signal(number)
    output, errors = process.communicate(timeout=20)

    assert f"devices on port {workspace.settings.gateway.gateway_port}" in line
    assert second == 1
    assert process.returncode == 0, errors
    assert output == "Stopped\n"


def test_without_the_hosts_packages_the_command_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['typer'] = None; from host.__main__ import main; "
        "sys.exit(main(['--version']))"
    )

    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )

    assert ran.returncode == 2
    assert "typer is missing" in ran.stderr
    assert "Traceback" not in ran.stderr


def commands_of(group, path=()):
    """The path of every command below a group."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands_of(command, (*path, name))
        else:
            yield (*path, name)


@pytest.mark.parametrize("path", sorted(commands_of(typer.main.get_command(app))), ids=" ".join)
def test_every_command_tells_what_it_does(path, capsys):
    code = run([*path, "--help"])

    assert code == 0
    assert "Usage: genba" in capsys.readouterr().out
