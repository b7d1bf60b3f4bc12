"""A workspace with this machine as its device: `genba` and `genba-agent` as processes."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

DEVICE = "this-pc"
BIN = Path(sys.executable).parent
_STOP_SECONDS = 15.0


class PlantError(Exception):
    """A command or a process of the plant failed."""


def genba(workspace: Path, *words: str) -> str:
    """What a command printed; messages go to standard error. Raises PlantError."""
    command = [str(BIN / "genba"), *words, "--workspace", str(workspace)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise PlantError(f"{' '.join(command)} ended with {done.returncode}")
    return done.stdout


@contextmanager
def running_plant(workspace: Path) -> Iterator[None]:
    """The gateway and the agent of the workspace, which is made where there is none."""
    home = workspace / "agent"
    if not (workspace / "genba.toml").is_file():
        _make(workspace)
    with ExitStack() as stack:
        serve = [str(BIN / "genba"), "serve", "--workspace", str(workspace)]
        stack.enter_context(_background(serve, workspace / "gateway.log"))
        if not (home / "config.json").is_file():
            made = json.loads(genba(workspace, "device", "enroll", DEVICE, "--json"))
            agent = str(BIN / "genba-agent")
            enrol = [agent, "enroll", "--token", made["token"], "--home", str(home)]
            subprocess.run(enrol, check=True, stdout=sys.stderr)
        run = [str(BIN / "genba-agent"), "run", "--home", str(home)]
        stack.enter_context(_background(run, workspace / "agent.log"))
        yield


def measured_afresh(workspace: Path, model: Path, threads: int) -> dict[str, Any]:
    """The record of a new measurement of a file on this machine."""
    lines = genba(
        workspace,
        "measure", str(model), "--device", DEVICE, "--threads", str(threads), "--again", "--json",
    )  # fmt: skip
    record: dict[str, Any] = json.loads(lines.splitlines()[-1])
    return record


def _make(workspace: Path) -> None:
    gateway, enrolment = _free_ports(2)
    command = [str(BIN / "genba"), "init", str(workspace), "--address", "127.0.0.1"]
    ports = ["--gateway-port", str(gateway), "--enrolment-port", str(enrolment)]
    subprocess.run([*command, "--bind", "127.0.0.1", *ports], check=True, stdout=sys.stderr)


@contextmanager
def _background(command: list[str], log: Path) -> Iterator[None]:
    with log.open("a") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        time.sleep(1.0)
        if process.poll() is not None:
            raise PlantError(f"{command[0]} ended at once, see {log}")
        yield
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for opened in sockets:
            opened.bind(("127.0.0.1", 0))
        return [opened.getsockname()[1] for opened in sockets]
    finally:
        for opened in sockets:
            opened.close()
