"""`make demo`: from nothing to a measured, exported network, with real photos and a real agent.

Starts a gateway and an agent as processes of their own that talk over mutual TLS on loopback, then
runs the study of this folder. All that it makes is in demo-workspace/; a second run goes on there.
"""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import prepare

HERE = Path(__file__).resolve().parent
WORKSPACE = HERE.parent.parent / "demo-workspace"
AGENT_HOME = WORKSPACE / "agent"
DEVICE = "this-pc"
BIN = Path(sys.executable).parent
STOP_SECONDS = 15


def main() -> int:
    started = time.monotonic()
    step("photos of solar cells, from the package elpv-dataset")
    photos = prepare.prepare(HERE / "images")
    print(f"{photos.counts['functional']} functional, {photos.counts['defective']} defective")
    print(prepare.LICENCE)
    if (WORKSPACE / "genba.toml").is_file():
        step(f"workspace: going on in {WORKSPACE} (make clean starts anew)")
    else:
        step(f"workspace in {WORKSPACE}")
        gateway_port, enrolment_port = free_ports(2)
        genba(
            "init", str(WORKSPACE), "--address", "127.0.0.1", "--bind", "127.0.0.1",
            "--gateway-port", str(gateway_port), "--enrolment-port", str(enrolment_port),
        )  # fmt: skip
    with background("gateway", str(BIN / "genba"), "serve", "--workspace", str(WORKSPACE)):
        enrol()
        agent = [str(BIN / "genba-agent"), "run", "--home", str(AGENT_HOME)]
        with background("agent", *agent):
            code = search()
    print(f"== demo: done in {time.monotonic() - started:.0f} s")
    return code


def enrol() -> None:
    """Enrol this machine, once."""
    if (AGENT_HOME / "config.json").is_file():
        return
    step(f"enrolment of this machine as {DEVICE}")
    made = genba("device", "enroll", DEVICE, "--json", "--workspace", str(WORKSPACE), quiet=True)
    token = json.loads(made)["token"]
    subprocess.run(
        [str(BIN / "genba-agent"), "enroll", "--token", token, "--home", str(AGENT_HOME)],
        check=True,
    )


def search() -> int:
    """Run the study, then show devices and check the bundles."""
    step(f"study: genba search run {HERE / 'study.toml'}")
    command = [str(BIN / "genba"), "search", "run", str(HERE / "study.toml")]
    running = subprocess.Popen([*command, "--workspace", str(WORKSPACE)])
    try:
        code = running.wait()
    except KeyboardInterrupt:
        # Ctrl-C went to it as well: let it say how to go on.
        await_end(running)
        raise
    if code != 0:
        return code
    step("devices")
    genba("device", "list", "--workspace", str(WORKSPACE))
    step("bundles")
    for bundle in sorted((WORKSPACE / "studies" / "elpv" / "bundles").glob("*.zip")):
        genba("bundle", "verify", str(bundle), "--workspace", str(WORKSPACE))
    step("report")
    genba("report", "elpv", "--workspace", str(WORKSPACE))
    return 0


def genba(*arguments: str, quiet: bool = False) -> str:
    """Run a genba command and return what it printed; a failure ends the demo with its message."""
    done = subprocess.run(
        [str(BIN / "genba"), *arguments], stdout=subprocess.PIPE, text=True, check=False
    )
    if not quiet:
        print(done.stdout, end="")
    if done.returncode != 0:
        sys.exit(done.returncode)
    return done.stdout


@contextmanager
def background(name: str, *command: str) -> Iterator[None]:
    """A process that runs meanwhile, with its output in the workspace's `NAME.log`."""
    log = WORKSPACE / f"{name}.log"
    step(f"{name}: {' '.join(command)} (log: {log})")
    with log.open("a") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        time.sleep(1.0)
        if process.poll() is not None:
            sys.exit(f"the {name} ended at once; its log:\n{log.read_text()}")
        yield
    finally:
        process.terminate()
        await_end(process)


def await_end(process: "subprocess.Popen[bytes]") -> None:
    """Wait for a process that was told to stop, and end it where it does not."""
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody uses now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for opened in sockets:
            opened.bind(("127.0.0.1", 0))
        return [opened.getsockname()[1] for opened in sockets]
    finally:
        for opened in sockets:
            opened.close()


def step(text: str) -> None:
    print(f"== {text}", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("== demo: stopped; `make demo` goes on from here")
