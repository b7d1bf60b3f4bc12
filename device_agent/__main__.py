"""Command line of the agent. Only this file prints and decides how the process ends."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agent import VERSION
from device_agent.errors import AgentError
from device_agent.processes import default_worker_command
from device_agent.service.manager import ServiceManager
from device_agent.service.standing import Interpreter, act_as_owner_of
from device_agent.service.unit import DEFAULT_USER, SERVICE_HOME, UNIT_DIR
from device_agent.state import DEFAULT_HOME, Home

if TYPE_CHECKING:
    from device_agent.doctor import Check

_INTERRUPTED = 130  # 128 + SIGINT, as shells say


class _Arguments(argparse.Namespace):
    command: str
    home: Path
    token: str
    force: bool
    once: bool
    json: bool
    user: str
    print: bool
    unit_dir: Path


def main(argv: Sequence[str] | None = None, worker_command: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code. `worker_command` starts a worker of another make;
    its paths must be absolute.
    """
    # Read by gRPC when it is first imported, which is below: workers are started by exec alone,
    # and what the core library has to say reaches people through our own sentences.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    arguments = _parser().parse_args(argv, _Arguments())
    command = default_worker_command() if worker_command is None else list(worker_command)
    # A service manager stops with SIGTERM what a person stops with Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if arguments.command not in _OF_THE_SYSTEM:
            act_as_owner_of(Home(arguments.home).path, Interpreter.running())
        return _COMMANDS[arguments.command](arguments, command)
    except AgentError as error:
        print(f"genba-agent: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("genba-agent: stopped", file=sys.stderr, flush=True)
        sys.stdout.flush()
        # Past the interpreter's own end, which waits for threads of gRPC. The worker is dead, and
        # the outbox has on the disk what it said it has.
        os._exit(0 if arguments.command == "run" else _INTERRUPTED)
    except BrokenPipeError:
        # The reader went away; nobody is left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _enrol(arguments: _Arguments, worker_command: Sequence[str]) -> int:
    from device_agent.enrol import enrol, parse_token
    from device_agent.identity import make_key_pair

    home = Home(arguments.home)
    identity = enrol(
        home,
        parse_token(arguments.token),
        _facts(home, worker_command),
        make_key_pair=make_key_pair,
        force=arguments.force,
    )
    print(
        f"enrolled as {identity.device_name} ({identity.device_id}) with the host at"
        f" {identity.address}; start work with `genba-agent run`,"
        " or restart it where it runs"
    )
    return 0


def _leave_openssl_out() -> None:
    """Keep the system's OpenSSL from being loaded: 4 MiB that a running agent never uses.

    gRPC brings TLS of its own; asyncio, which it imports, and hashlib do without where the
    interpreter was built without OpenSSL, and this makes it look so.
    """
    if any(importlib.util.find_spec(name) for name in ("_sha2", "_sha256")):
        for name in ("_ssl", "_hashlib"):
            # None in this table makes an import of that name fail (importlib's documentation).
            sys.modules.setdefault(name, None)  # type: ignore[arg-type]


def _run(arguments: _Arguments, worker_command: Sequence[str]) -> int:
    _leave_openssl_out()
    from device_agent.session import run_agent

    run_agent(
        Home(arguments.home),
        once=arguments.once,
        worker_command=worker_command,
        say=lambda text: print(text, flush=True),
        service=ServiceManager.from_environment(),
    )
    return 0


def _install(arguments: _Arguments, _: Sequence[str]) -> int:
    from device_agent.service.setup import Manager, install, planned_unit, write_unit

    only_text = arguments.print or arguments.unit_dir != UNIT_DIR
    manager = Manager(arguments.unit_dir) if only_text else Manager.of_this_machine("install")
    unit = planned_unit(Home(arguments.home).path, arguments.user, Interpreter.running())
    if arguments.print:
        print(unit.text(), end="")
    elif only_text:
        write_unit(unit, manager.unit_path)
        print(f"{manager.unit_path} is written, and nothing else is changed")
    else:
        install(unit, manager, print)
    return 0


def _uninstall(_: _Arguments, __: Sequence[str]) -> int:
    from device_agent.service.setup import Manager, uninstall

    uninstall(Manager.of_this_machine("uninstall"), print)
    return 0


def _status(arguments: _Arguments, worker_command: Sequence[str]) -> int:
    report = _report(Home(arguments.home), worker_command)
    if arguments.json:
        print(json.dumps(report, indent=2, ensure_ascii=False))
        return 0
    for name, value in _lines(report):
        print(f"{name:<28} {value}")
    return 0


def _doctor(arguments: _Arguments, worker_command: Sequence[str]) -> int:
    from device_agent.doctor import Patient, State, examine, usable_settings
    from device_agent.probing import probe_guards, probe_runtimes
    from device_agent.sensors.power import power_source_facts, power_sources

    home = Home(arguments.home)
    checks = examine(
        Patient(
            home,
            probe_runtimes(worker_command),
            power_source_facts(power_sources(usable_settings(home))),
            guards=probe_guards(worker_command),
        )
    )
    if arguments.json:
        entries = [{**dataclasses.asdict(check), "state": check.state.value} for check in checks]
        print(json.dumps(entries, indent=2, ensure_ascii=False))
    else:
        print(os.linesep.join(line for check in checks for line in _check_lines(check)))
    return 1 if any(check.state is State.FAIL for check in checks) else 0


def _check_lines(check: Check) -> Iterator[str]:
    yield f"{check.state.value:<5} {check.name:<16} {check.found}"
    if check.meaning:
        yield f"{'':<22} means: {check.meaning}"
    if check.mend:
        yield f"{'':<22} mend:  {check.mend}"


def _report(home: Home, worker_command: Sequence[str]) -> dict[str, Any]:
    from device_agent.outbox import Outbox

    report: dict[str, Any] = {"home": str(home.path), "identity": None, "outbox": None}
    if home.is_enrolled():
        identity = home.identity()
        report["identity"] = {
            "device_id": identity.device_id,
            "device_name": identity.device_name,
            "host": identity.address,
        }
    if home.outbox.exists():
        with contextlib.closing(Outbox(home.outbox)) as outbox:
            waiting, set_aside = outbox.counts()
        report["outbox"] = {"waiting": waiting, "set_aside": set_aside}
    report["facts"] = dataclasses.asdict(_facts(home, worker_command))
    return report


def _facts(home: Home, worker_command: Sequence[str]) -> Any:
    from device_agent.probing import probe_guards, probe_runtimes
    from device_agent.sensors.power import power_source_facts, power_sources
    from device_agent.system import read_facts

    return read_facts(
        runtimes=probe_runtimes(worker_command),
        power_sources=power_source_facts(power_sources(home.power_settings())),
        guards=probe_guards(worker_command),
    )


def _lines(report: dict[str, Any]) -> list[tuple[str, str]]:
    identity, outbox = report["identity"], report["outbox"]
    lines = [("home", report["home"])]
    if identity is None:
        lines.append(("identity", "not enrolled: run `genba-agent enroll --token TOKEN`"))
    else:
        lines += [(name, str(value)) for name, value in identity.items()]
    if outbox is not None:
        lines.append(("outbox", f"{outbox['waiting']} waiting, {outbox['set_aside']} set aside"))
    facts = dict(report["facts"])
    for runtime in facts.pop("runtimes"):
        state = runtime["version"] if runtime["works"] else f"not usable: {runtime['why_not']}"
        lines.append((f"runtime {runtime['name']}", f"{runtime['library']} {state}"))
    for source in facts.pop("power_sources"):
        state = "works" if source["works"] else f"not usable: {source['why_not']}"
        lines.append((f"power {source['name']}", state))
    for guard in facts.pop("guards"):
        state = guard["how"] if guard["works"] else f"missing: {guard['why_not']}"
        lines.append((f"guard {guard['name']}", state))
    flags = facts.pop("cpu_flags")
    lines += [(name, "unknown" if value is None else str(value)) for name, value in facts.items()]
    return [*lines, ("cpu_flags", " ".join(flags))]


_COMMANDS = {
    "enroll": _enrol,
    "run": _run,
    "status": _status,
    "doctor": _doctor,
    "install": _install,
    "uninstall": _uninstall,
}
_OF_THE_SYSTEM = ("install", "uninstall")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="genba-agent", description="Measures models on this device for a genba host."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    enrol = commands.add_parser("enroll", help="introduce this device to a host, once")
    enrol.add_argument(
        "--token", required=True, help="what `genba device enroll NAME` printed on the host"
    )
    enrol.add_argument("--force", action="store_true", help="replace an identity that is there")
    run = commands.add_parser("run", help="work for the host until stopped")
    run.add_argument("--once", action="store_true", help="end when no job waits")
    status = commands.add_parser("status", help="say what this device is and what waits here")
    doctor = commands.add_parser(
        "doctor", help="say what is missing here for good figures, and what mends it"
    )
    for command in (status, doctor):
        command.add_argument("--json", action="store_true", help="as JSON")
    for command in (enrol, run, status, doctor):
        command.add_argument(
            "--home", type=Path, default=DEFAULT_HOME, help="the agent's folder (%(default)s)"
        )
    _add_service_commands(commands)
    return parser


def _add_service_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    install = commands.add_parser("install", help="have systemd run the agent, from now on")
    install.add_argument(
        "--home", type=Path, default=SERVICE_HOME, help="the agent's folder (%(default)s)"
    )
    install.add_argument(
        "--user", default=DEFAULT_USER, help="as whom it runs; made if missing (%(default)s)"
    )
    install.add_argument("--print", action="store_true", help="only print the unit file")
    install.add_argument(
        "--unit-dir",
        type=Path,
        default=UNIT_DIR,
        help="where units lie (%(default)s); in another folder the unit is only written",
    )
    commands.add_parser("uninstall", help="stop the service and remove its unit")


if __name__ == "__main__":
    sys.exit(main())
