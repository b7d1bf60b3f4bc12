"""Servers that meters are read from: real ones where they can run, else ones that answer with what
the makers document.
"""

import asyncio
import contextlib
import hashlib
import http.server
import json
import os
import re
import shutil
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

import pytest

from host.device import MeterBinding

T = TypeVar("T")
WAIT_SECONDS = 10.0
PASSWORD = "correct horse battery"
APC_POWER_OID = "1.3.6.1.4.1.318.1.1.26.4.3.1.5.1"


def wait_until(condition: Callable[[], bool], seconds: float = WAIT_SECONDS) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.01)


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    return False


@dataclass
class Bench:
    """A meter on the bench: how to open it, what makes it say a power, and what ends it."""

    url: str
    set_watts: Callable[[float], None]
    stop: Callable[[], None]
    options: dict[str, str] = field(default_factory=dict)
    watts: tuple[float, float] = (12.5, 41.0)

    @property
    def binding(self) -> MeterBinding:
        return self.bound()

    def bound(self, **more: str) -> MeterBinding:
        return MeterBinding(self.url, {"timeout_seconds": "0.5", **self.options, **more})


class Loop:
    """An event loop in a thread, for servers that want one."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(WAIT_SECONDS)

    def close(self) -> None:
        self.run(self._end_tasks())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    async def _end_tasks(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


class WebDevice:
    """A small device with a web server: documents by path, and what it asks to be let in."""

    def __init__(self) -> None:
        self.documents: dict[str, Any] = {}
        self.raw: dict[str, bytes] = {}
        self.digest_password: str | None = None
        self.basic: str | None = None
        self.requests: list[str] = []
        handler = type("Handler", (_WebHandler,), {"device": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()


class _WebHandler(http.server.BaseHTTPRequestHandler):
    device: WebDevice

    def do_GET(self) -> None:
        device = self.device
        device.requests.append(self.path)
        if self.path != "/shelly" and not self._let_in():
            return
        path = unquote(self.path)
        if path in device.raw:
            self._answer(200, device.raw[path])
        elif path in device.documents:
            self._answer(200, json.dumps(device.documents[path]).encode())
        else:
            self._answer(404, b"Not Found")

    def _let_in(self) -> bool:
        given = self.headers.get("Authorization", "")
        if self.device.basic is not None and given != self.device.basic:
            self._answer(401, b"401 Unauthorized")
            return False
        password = self.device.digest_password
        if password is None or _digest_fits(given, password, self.path):
            return True
        challenge = (
            'Digest qop="auth", realm="shellyplugsg3-x", nonce="60dc2c69", algorithm=SHA-256'
        )
        self._answer(401, b"", {"WWW-Authenticate": challenge})
        return False

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - named by its base
        """Says nothing."""


def _digest_fits(authorization: str, password: str, uri: str) -> bool:
    """RFC 7616, section 3.4, with SHA-256 and qop=auth."""
    found = {
        key: a or b for key, a, b in re.findall(r'(\w+)=(?:"([^"]*)"|([^\s,]+))', authorization)
    }
    if not authorization.startswith("Digest ") or found.get("uri") != uri:
        return False

    def sha(*parts: str) -> str:
        return hashlib.sha256(":".join(parts).encode()).hexdigest()

    first = sha(found["username"], found["realm"], password)
    wanted = sha(first, found["nonce"], found["nc"], found["cnonce"], found["qop"], sha("GET", uri))
    return (found["username"], found["response"]) == ("admin", wanted)


@pytest.fixture
def web() -> Iterator[WebDevice]:
    device = WebDevice()
    yield device
    device.stop()


@pytest.fixture
def shelly_bench(web: WebDevice) -> Bench:
    """A Shelly Plug S of generation 3, with the answers of the maker's API documentation."""
    web.documents["/shelly"] = {
        "name": None,
        "id": "shellyplugsg3-8cbfea9fd4f8",
        "mac": "8CBFEA9FD4F8",
        "slot": 0,
        "model": "S3PL-00112EU",
        "gen": 3,
        "fw_id": "20250508-110823/1.6.2-gc8a76e2",
        "ver": "1.6.2",
        "app": "PlugSG3",
        "auth_en": False,
        "auth_domain": None,
    }

    def set_watts(watts: float) -> None:
        web.documents["/rpc/Switch.GetStatus?id=0"] = {
            "id": 0,
            "source": "init",
            "output": True,
            "apower": watts,
            "voltage": 230.1,
            "freq": 50.0,
            "current": 0.081,
            "aenergy": {
                "total": 6.532,
                "by_minute": [45.199, 47.141, 88.397],
                "minute_ts": 1626935779,
            },
            "ret_aenergy": {"total": 0.0, "by_minute": [0.0, 0.0, 0.0], "minute_ts": 1626935779},
            "temperature": {"tC": 35.3, "tF": 95.5},
        }

    set_watts(12.5)
    return Bench(f"shelly://127.0.0.1:{web.port}", set_watts, web.stop)


@pytest.fixture
def shelly_1_bench(web: WebDevice) -> Bench:
    """A Shelly Plug S of generation 1."""
    web.documents["/shelly"] = {
        "type": "SHPLG-S",
        "mac": "5ECF7F1632E8",
        "auth": False,
        "fw": "20230913-113421/v1.14.0-gcb84623",
        "discoverable": True,
        "num_outputs": 1,
        "num_meters": 1,
    }

    def set_watts(watts: float) -> None:
        web.documents["/meter/0"] = {
            "power": watts,
            "overpower": 0.0,
            "is_valid": True,
            "timestamp": 1568888666,
            "counters": [0.000, 0.000, 0.000],
            "total": 120,
        }

    set_watts(12.5)
    return Bench(f"shelly://127.0.0.1:{web.port}", set_watts, web.stop)


@pytest.fixture
def tasmota_bench(web: WebDevice) -> Bench:
    def set_watts(watts: float) -> None:
        web.documents["/cm?cmnd=Status+8"] = web.documents["/cm?cmnd=Status 8"] = {
            "StatusSNS": {
                "Time": "2026-11-24T10:41:02",
                "ENERGY": {
                    "TotalStartTime": "2026-01-09T15:02:11",
                    "Total": 3.185,
                    "Yesterday": 0.104,
                    "Today": 0.061,
                    "Power": watts,
                    "ApparentPower": 20,
                    "ReactivePower": 16,
                    "Factor": 0.61,
                    "Voltage": 231,
                    "Current": 0.086,
                },
            }
        }

    set_watts(12.0)
    return Bench(f"tasmota://127.0.0.1:{web.port}", set_watts, web.stop, watts=(12.0, 41.0))


@dataclass
class Registers:
    """A Modbus server of pymodbus: what it keeps in its tables for unit 3, by address."""

    port: int
    holding: dict[int, list[int]]
    input: dict[int, list[int]]
    stop: Callable[[], None]
    connections: list[bool]


@pytest.fixture
def registers(loop: Loop) -> Iterator[Registers]:
    from pymodbus.constants import ExcCodes
    from pymodbus.server import ModbusTcpServer
    from pymodbus.simulator import DataType, SimData, SimDevice

    tables: dict[int, dict[int, list[int]]] = {3: {}, 4: {}}
    connections: list[bool] = []

    async def look_up(
        function: int, start: int, address: int, count: int, current: list[int], values: object
    ) -> ExcCodes | None:
        known = tables[function].get(address)
        if known is None:
            return ExcCodes.ILLEGAL_ADDRESS
        current[address - start : address - start + count] = known[:count]
        return None

    def zeros() -> list[SimData]:
        return [SimData(0, count=0xFFFF, values=0, datatype=DataType.REGISTERS)]

    bits = [SimData(0, count=16, values=False, datatype=DataType.BITS)]
    device = SimDevice(3, simdata=(bits, bits, zeros(), zeros()), action=look_up)
    port = free_port()

    async def serve() -> ModbusTcpServer:
        server = ModbusTcpServer(
            device, address=("127.0.0.1", port), trace_connect=connections.append
        )
        await server.serve_forever(background=True)
        return server

    server = loop.run(serve())
    stopped = threading.Event()

    def stop() -> None:
        if not stopped.is_set():
            stopped.set()
            loop.run(server.shutdown())

    yield Registers(port, tables[3], tables[4], stop, connections)
    stop()


def words(kind: str, value: float) -> list[int]:
    """The registers of a value, the most significant first."""
    import struct

    content = struct.pack(f">{kind}", value)
    return [int.from_bytes(content[i : i + 2], "big") for i in range(0, len(content), 2)]


@pytest.fixture
def modbus_bench(registers: Registers) -> Bench:
    """An Eastron SDM120 as unit 3."""

    def set_watts(watts: float) -> None:
        registers.input[0x000C] = words("f", watts)

    set_watts(12.5)
    registers.input[0x0048] = words("f", 1.25)
    return Bench(
        f"modbus://127.0.0.1:{registers.port}/3", set_watts, registers.stop, {"model": "sdm120"}
    )


@dataclass
class Broker:
    """A mosquitto that lets in everybody, or with a password file only `line` with PASSWORD."""

    port: int
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self, *, password: bool = False) -> None:
        lines = [f"listener {self.port} 127.0.0.1", "persistence false"]
        if password:
            file = self.folder / "passwords"
            file.touch()
            command = ["mosquitto_passwd", "-b", str(file), "line", PASSWORD]
            subprocess.run(command, check=True, capture_output=True)
            file.chmod(0o644)
            lines.append(f"password_file {file}")
        lines.append(f"allow_anonymous {str(not password).lower()}")
        if os.geteuid() == 0:
            lines.append("user root")
        config = self.folder / "mosquitto.conf"
        config.write_text("\n".join(lines) + "\n")
        self.process = subprocess.Popen(
            [_program("mosquitto"), "-c", str(config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda: accepts(self.port))

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(WAIT_SECONDS)
        self.process = None

    def publish(self, topic: str, payload: str, *, retain: bool = False) -> None:
        from paho.mqtt import publish

        publish.single(topic, payload, hostname="127.0.0.1", port=self.port, retain=retain)


def _program(name: str) -> str:
    # Debian keeps the drivers of NUT in /lib/nut, and upsd too: what is in its place in /sbin is a
    # script that wants a configured system.
    found = shutil.which(name, path=f"/lib/nut:/usr/sbin:{os.environ.get('PATH', '')}")
    if found is None:
        pytest.skip(f"{name} is not installed (apt-get install mosquitto nut-server)")
    return found


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    _program("mosquitto")
    broker = Broker(free_port(), tmp_path)
    yield broker
    broker.stop()


@pytest.fixture
def mqtt_bench(broker: Broker) -> Iterator[Bench]:
    """A meter that publishes JSON every 50 ms."""
    from paho.mqtt import client as paho
    from paho.mqtt.enums import CallbackAPIVersion

    broker.start()
    watts = [12.5]
    ended = threading.Event()
    publisher = paho.Client(CallbackAPIVersion.VERSION2)
    publisher.connect("127.0.0.1", broker.port)
    publisher.loop_start()

    def publish() -> None:
        while not ended.wait(0.05):
            document = {"ENERGY": {"Power": [watts[0], 0]}, "Time": "2026-11-24T10:41:02"}
            publisher.publish("line-3/meter", json.dumps(document))

    thread = threading.Thread(target=publish)
    thread.start()

    def set_watts(value: float) -> None:
        watts[0] = value

    def stop() -> None:
        if not ended.is_set():
            ended.set()
            thread.join()
            publisher.disconnect()
            publisher.loop_stop()
        broker.stop()

    yield Bench(
        f"mqtt://127.0.0.1:{broker.port}/line-3/meter",
        set_watts,
        stop,
        {"field": "ENERGY.Power.0", "max_age_seconds": "0.5"},
    )
    stop()


@dataclass
class SnmpAgent:
    """pysnmp's own agent: the objects that it tells, by OID."""

    port: int
    objects: dict[str, Any]
    stop: Callable[[], None]


@pytest.fixture
def snmp_agent(loop: Loop) -> Iterator[SnmpAgent]:
    from pysnmp.carrier.asyncio.dgram import udp  # type: ignore[import-untyped]
    from pysnmp.entity import config, engine  # type: ignore[import-untyped]
    from pysnmp.entity.rfc3413 import cmdrsp, context  # type: ignore[import-untyped]
    from pysnmp.proto import rfc1902, rfc1905  # type: ignore[import-untyped]
    from pysnmp.smi import instrum  # type: ignore[import-untyped]

    objects: dict[str, Any] = {}
    port = free_port(socket.SOCK_DGRAM)

    class Objects(instrum.AbstractMibInstrumController):  # type: ignore[misc]
        def read_variables(self, *var_binds: Any, **context: Any) -> list[Any]:
            def look_up(oid: Any) -> Any:
                value = objects.get(str(oid))
                if value is None:
                    return rfc1905.noSuchInstance
                text = isinstance(value, str)
                return rfc1902.OctetString(value) if text else rfc1902.Integer32(value)

            return [(oid, look_up(oid)) for oid, _ in var_binds]

    async def serve() -> Any:
        snmp = engine.SnmpEngine()
        transport = udp.UdpTransport().open_server_mode(("127.0.0.1", port))
        config.add_transport(snmp, udp.DOMAIN_NAME, transport)
        config.add_v1_system(snmp, "area", "plant")
        config.add_vacm_user(snmp, 2, "area", "noAuthNoPriv", (1, 3, 6), (1, 3, 6))
        config.add_v3_user(
            snmp,
            "line",
            config.USM_AUTH_HMAC192_SHA256,
            PASSWORD,
            config.USM_PRIV_CFB128_AES,
            PASSWORD[::-1],
        )
        config.add_vacm_user(snmp, 3, "line", "authPriv", (1, 3, 6), (1, 3, 6))
        whole = context.SnmpContext(snmp)
        whole.unregister_context_name(b"")
        whole.register_context_name(b"", Objects())
        cmdrsp.GetCommandResponder(snmp, whole)
        return snmp

    async def end(snmp: Any) -> None:
        snmp.close_dispatcher()

    snmp = loop.run(serve())
    stopped = threading.Event()

    def stop() -> None:
        if not stopped.is_set():
            stopped.set()
            loop.run(end(snmp))

    yield SnmpAgent(port, objects, stop)
    stop()


@pytest.fixture
def snmp_bench(snmp_agent: SnmpAgent) -> Bench:
    """An APC rack PDU, which tells its power in hundredths of kilowatts."""

    def set_watts(watts: float) -> None:
        snmp_agent.objects[APC_POWER_OID] = round(watts / 10)

    set_watts(120.0)
    return Bench(
        f"snmp://127.0.0.1:{snmp_agent.port}/{APC_POWER_OID}",
        set_watts,
        snmp_agent.stop,
        {"community": "plant"},
        watts=(120.0, 410.0),
    )


class UpsServer:
    """Answers GET VAR as upsd does (RFC 9271)."""

    def __init__(self) -> None:
        self.variables: dict[str, str] = {}
        self.error = ""
        self.connections: list[socket.socket] = []
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                outer.connections.append(self.connection)
                with contextlib.suppress(OSError):
                    for line in self.rfile:
                        self.wfile.write(outer.answer(line.decode().split()).encode() + b"\n")

        socketserver.ThreadingTCPServer.allow_reuse_address = True
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def answer(self, command: list[str]) -> str:
        if command[0] == "LOGOUT":
            return "OK Goodbye"
        _, _, ups, name = command
        if ups != "rack":
            return "ERR UNKNOWN-UPS"
        if self.error:
            return f"ERR {self.error}"
        value = self.variables.get(name)
        return "ERR VAR-NOT-SUPPORTED" if value is None else f'VAR {ups} {name} "{value}"'

    def hang_up(self) -> None:
        while self.connections:
            with contextlib.suppress(OSError):
                self.connections.pop().shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
        self.hang_up()


@pytest.fixture
def ups_server() -> Iterator[UpsServer]:
    server = UpsServer()
    yield server
    server.stop()


@pytest.fixture
def nut_bench(ups_server: UpsServer) -> Bench:
    def set_watts(watts: float) -> None:
        ups_server.variables["ups.realpower"] = f"{watts:.1f}"

    set_watts(12.5)
    return Bench(f"nut://127.0.0.1:{ups_server.port}/rack", set_watts, ups_server.stop)


@pytest.fixture
def upsd_bench(tmp_path: Path) -> Iterator[Bench]:
    """Debian's upsd with its driver dummy-ups, which reads a file again and again."""
    upsd, driver = _program("upsd"), _program("dummy-ups")
    port = free_port()
    user = ["-u", "root"] if os.geteuid() == 0 else []
    device = tmp_path / "rack.dev"

    def set_watts(watts: float) -> None:
        # Renamed into place: the driver may be reading it.
        fresh = tmp_path / "fresh.dev"
        fresh.write_text(f"ups.status: OL\nups.realpower: {watts:.1f}\nTIMER 1\n")
        fresh.replace(device)

    set_watts(12.5)
    (tmp_path / "ups.conf").write_text(
        f"[rack]\n  driver = dummy-ups\n  port = {device}\n  mode = dummy-loop\n"
        "  pollinterval = 1\n"
    )
    (tmp_path / "upsd.conf").write_text(f"LISTEN 127.0.0.1 {port}\n")
    (tmp_path / "upsd.users").write_text("")
    for file in ("upsd.conf", "upsd.users", "ups.conf"):
        (tmp_path / file).chmod(0o640)
    environment = {
        **os.environ,
        "NUT_CONFPATH": str(tmp_path),
        "NUT_STATEPATH": str(tmp_path),
        "NUT_ALTPIDPATH": str(tmp_path),
        "NUT_PIDPATH": str(tmp_path),
    }
    quiet = subprocess.DEVNULL
    processes: list[subprocess.Popen[bytes]] = []

    def start(*command: str) -> None:
        process = subprocess.Popen([*command, *user], env=environment, stdout=quiet, stderr=quiet)
        processes.append(process)

    def stop() -> None:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(WAIT_SECONDS)

    try:
        start(driver, "-a", "rack", "-D")
        wait_until((tmp_path / "dummy-ups-rack").exists)  # its socket, for upsd
        start(upsd, "-D")
        wait_until(lambda: accepts(port))
        yield Bench(f"nut://127.0.0.1:{port}/rack", set_watts, stop)
    finally:
        stop()
