"""What a hostile worker tries from inside its cage, as real processes on the real kernel."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from device_agent.cage.kernel import abi
from device_agent.codec import to_json
from device_agent.probing import probe_guards
from device_agent.processes import default_worker_command
from device_agent.requests import Confinement
from device_agent.turn import machine_turn

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not abi(), reason="the cage is made of Linux"
)

NOBODY = 65534
SCRIPT = Path(__file__).with_name("caged_process.py")


@dataclass(frozen=True)
class Place:
    """Who runs the worker, and what its kernel has not got."""

    name: str
    user: int | None = None
    refuses: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name

    def has(self, what: str) -> bool:
        return what not in self.refuses


EVERYTHING = Place("as the superuser")
ORDINARY = Place("as an ordinary user", NOBODY)
PLACES = (
    EVERYTHING,
    ORDINARY,
    Place("superuser without user namespaces", None, ("user namespaces",)),
    Place("before mount_setattr", NOBODY, ("mount_setattr", "landlock", "seccomp flags")),
    Place("mounts refused", NOBODY, ("mount",)),
    Place("no namespaces", NOBODY, ("namespaces",)),
    Place("no Landlock", NOBODY, ("landlock",)),
    Place("no seccomp", NOBODY, ("seccomp",)),
)


@dataclass
class Caged:
    """A folder of a user's, and what runs there in the cage."""

    folder: Path
    place: Place
    limits: Confinement

    def command(self, code: str, **limits: Any) -> list[str]:
        confinement = to_json(dataclasses.replace(self.limits, **limits))
        user = "" if self.place.user is None else str(self.place.user)
        refused = ",".join(self.place.refuses)
        return [sys.executable, str(SCRIPT), confinement, refused, user, code]

    def run(self, code: str, **limits: Any) -> subprocess.CompletedProcess[str]:
        """Run it to its end, which must come."""
        return subprocess.run(
            self.command(code, **limits),
            capture_output=True,
            text=True,
            cwd=self.folder,
            check=False,
            timeout=30,
        )

    def told(self, code: str, **limits: Any) -> Any:
        """What the code printed as JSON."""
        done = self.run(code, **limits)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def caged_in(folder: Path, place: Place) -> Caged:
    if place.user is not None:
        if os.getuid() != 0:
            pytest.skip("only the superuser can become another user")
        os.chown(folder, place.user, place.user)
    scratch = folder / "scratch"
    scratch.mkdir()
    scratch.chmod(0o777)
    limits = Confinement(
        address_space_bytes=1 << 30,
        parent_pid=os.getpid(),
        cpus=(),
        max_file_bytes=1 << 20,
        scratch=scratch,
    )
    return Caged(folder, place, limits)


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """One that every user can reach, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="genba-cage-"))
    folder.chmod(0o777)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture(params=PLACES, ids=str)
def caged(request: Any) -> Iterator[Caged]:
    with open_folder() as folder:
        yield caged_in(folder, request.param)


@pytest.fixture(params=[EVERYTHING, ORDINARY], ids=str)
def whole(request: Any) -> Iterator[Caged]:
    """The cage on a kernel that has everything."""
    with open_folder() as folder:
        yield caged_in(folder, request.param)


FILE_ATTACKS = """
os.chdir({folder!r})
attacks = {{
    'write': lambda: open('victim', 'w'),
    'append': lambda: open('victim', 'a'),
    'update': lambda: open('victim', 'r+'),
    'create': lambda: open('new', 'w'),
    'truncate': lambda: os.truncate('victim', 0),
    'truncate while reading': lambda: os.open('victim', os.O_RDONLY | os.O_TRUNC),
    'unlink': lambda: os.unlink('victim'),
    'rename': lambda: os.rename('victim', 'gone'),
    'rename into': lambda: os.rename('victim', 'scratch/gone'),
    'replace': lambda: os.rename('scratch/mine', 'victim'),
    'mkdir': lambda: os.mkdir('folder'),
    'rmdir': lambda: os.rmdir('empty'),
    'symlink': lambda: os.symlink('victim', 'link'),
    'link': lambda: os.link('victim', 'link'),
    'link into': lambda: os.link('victim', 'scratch/link'),
    'fifo': lambda: os.mkfifo('pipe'),
    'through a link': lambda: open('scratch/to-victim', 'w'),
    'chmod': lambda: os.chmod('victim', 0o777),
    'chmod while reading': lambda: os.fchmod(os.open('victim', os.O_RDONLY), 0o777),
    'times': lambda: os.utime('victim', (1, 1)),
    'attribute': lambda: os.setxattr('victim', 'user.x', b'x'),
    'remount': lambda: Kernel().mount(None, '/', None, 0x20 | 0x1000),
    'fresh namespace': lambda: (Kernel().unshare(0x10020000), open('victim', 'w')),
}}
open('scratch/mine', 'w').write('x')
os.symlink('../victim', 'scratch/to-victim')
print(json.dumps({{name: tried(attack) for name, attack in attacks.items()}}))
"""


def test_no_file_outside_its_scratch_folder_is_changed(caged: Caged) -> None:
    victim, empty = caged.folder / "victim", caged.folder / "empty"
    victim.write_text("precious")
    victim.chmod(0o666)
    empty.mkdir()
    if caged.place.user is not None:
        os.chown(victim, caged.place.user, caged.place.user)
        os.chown(empty, caged.place.user, caged.place.user)
    before = sorted(path.name for path in caged.folder.iterdir())

    tried = caged.told(FILE_ATTACKS.format(folder=str(caged.folder)))

    assert [name for name, result in tried.items() if result == "done"] == []
    assert victim.read_text() == "precious"
    assert victim.stat().st_nlink == 1
    assert sorted(path.name for path in caged.folder.iterdir()) == before
    assert (caged.folder / "scratch" / "mine").read_text() == "x"


def test_a_worker_without_a_scratch_folder_writes_nowhere(whole: Caged) -> None:
    code = (
        f"print(json.dumps([tried(lambda path=path: open(path + '/x', 'w')) for path in"
        f" ({str(whole.folder)!r}, {str(whole.folder / 'scratch')!r}, '/tmp', '/dev/shm')]))"
    )

    assert "done" not in whole.told(code, scratch=None)


def test_disks_and_other_devices_are_closed(caged: Caged) -> None:
    code = (
        "paths = ['/dev/vda', '/dev/sda', '/dev/mem', '/dev/kmsg', '/dev/ptmx', '/dev/fuse']\n"
        "opened = [p for p in paths if os.path.exists(p) and"
        " tried(lambda: os.open(p, os.O_RDWR)) == 'done']\n"
        "open('/dev/null', 'w').write('x')\n"
        "print(json.dumps([opened, len(os.urandom(3)), len(open('/dev/urandom', 'rb').read(1))]))"
    )

    assert caged.told(code) == [[], 3, 1]


def test_the_key_of_the_device_cannot_be_read(caged: Caged) -> None:
    home = caged.folder / "home"
    names = ("folder", "file", "behind-a-link")
    for name in names:
        (home / name).mkdir(parents=True)
        (home / name / "key.pem").write_text("secret")
    (home / "model").write_text("model")
    shortcut = caged.folder / "shortcut"
    shortcut.symlink_to(home)
    hidden = (home / "folder", home / "file" / "key.pem", shortcut / "behind-a-link")
    code = (
        "texts = []\n"
        f"for name in {names!r}:\n"
        f"    for way in ({str(home)!r}, {str(shortcut)!r},"
        f" f'/proc/{{os.getppid()}}/root{home}', f'/proc/{{os.getppid()}}/cwd{home}'):\n"
        "        try:\n"
        "            texts.append(open(f'{way}/{name}/key.pem').read())\n"
        "        except OSError:\n"
        "            pass\n"
        f"print(json.dumps([texts, open({str(home)!r} + '/model').read()]))"
    )

    texts, model = caged.told(code, hidden=(*hidden, home / "not-there"))

    assert [text for text in texts if text] == []
    assert model == "model"
    assert [(home / name / "key.pem").read_text() for name in names] == ["secret"] * 3


def test_memory_and_environment_of_the_agent_stay_its_own(whole: Caged) -> None:
    code = (
        "print(json.dumps([tried(lambda name=name: open(f'/proc/{os.getppid()}/{name}', 'rb')"
        ".read(1)) for name in ('environ', 'mem', 'maps')]))"
    )

    assert "done" not in whole.told(code)


NETWORK_ATTACKS = """
def tcp():
    with socket.socket() as s: s.settimeout(2); s.connect(('127.0.0.1', {port}))

def udp():
    with socket.socket(type=socket.SOCK_DGRAM) as s: s.sendto(b'x', ('127.0.0.1', {port}))

def unix(name, kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_UNIX, kind) as s: s.connect(name)

def hold_the_turn():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s: s.connect('\\0genba-agent-job')

def listen():
    with socket.socket() as s: s.bind(('0.0.0.0', 0)); s.listen()

print(json.dumps({{
    'tcp': tried(tcp), 'udp': tried(udp), 'path': tried(lambda: unix({path!r})),
    'abstract': tried(hold_the_turn), 'listen': tried(listen), 'pair': tried(socket.socketpair),
}}))
"""


def test_nobody_is_reached_over_a_network_or_a_socket(caged: Caged) -> None:
    path = str(caged.folder / "service")
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as service,
        machine_turn(time.sleep),
    ):
        service.bind(path)
        service.listen()
        Path(path).chmod(0o777)
        tried = caged.told(NETWORK_ATTACKS.format(port=tcp.getsockname()[1], path=path))

    reached = {name for name, result in tried.items() if result == "done"}
    if caged.place.has("seccomp"):
        assert reached == set()
    else:
        # A socket with a path belongs to the files, not to the network.
        assert reached <= {"path", "pair", "listen"}


PROCESS_ATTACKS = """
parent, me = os.getppid(), os.getpid()

print(json.dumps({
    'signal': tried(lambda: os.kill(parent, 0)),
    'signal to a group': tried(lambda: os.kill(-os.getpgid(parent), 0)),
    'signal to all': tried(lambda: os.kill(-1, 0)),
    'queue': tried(lambda: call('rt_sigqueueinfo', parent, 0, ctypes.create_string_buffer(128))),
    'ptrace': tried(lambda: call('ptrace', 16, parent, 0, 0)),
    'read memory': tried(lambda: call('process_vm_readv', parent, 0, 0, 0, 0, 0)),
    'limits': tried(lambda: resource.prlimit(parent, resource.RLIMIT_NOFILE, (8, 8))),
    'cores': tried(lambda: os.sched_setaffinity(parent, {0})),
    'priority': tried(lambda: os.setpriority(os.PRIO_PROCESS, parent, 19)),
    'fork': tried(os.fork),
    'thread into a process': tried(lambda: call('clone', signal.SIGCHLD, 0, 0, 0, 0)),
    'exec': tried(lambda: os.execv('/bin/true', ['true'])),
    'program': tried(lambda: subprocess.run(['/bin/true'])),
    'session': tried(os.setsid),
    'outlive': tried(lambda: Kernel().prctl(1, 0)),
    'bpf': tried(lambda: call('bpf', 0, 0, 0)),
    'io_uring': tried(lambda: call('io_uring_setup', 1, ctypes.create_string_buffer(256))),
    'keys': tried(lambda: call('keyctl', 0, -3, 0)),
    'namespaces': tried(lambda: Kernel().unshare(0x10000000)),
    'reboot': tried(lambda: call('reboot', 0, 0, 0)),
    'memory file': tried(lambda: os.memfd_create('x')),
    'shared memory': tried(lambda: call('shmget', 0, 4096, 0o1600)),
    'terminal': tried(lambda: fcntl.ioctl(0, 0x5412, b'x')),
}))
"""


def test_no_other_process_is_reached_or_started(whole: Caged) -> None:
    tried = whole.told(PROCESS_ATTACKS)

    assert {name: result for name, result in tried.items() if result != "EPERM"} == {}


def test_what_a_process_does_to_itself_it_still_may(whole: Caged) -> None:
    code = (
        "thread = threading.Thread(target=time.sleep, args=(0.01,))\n"
        "thread.start(); thread.join()\n"
        "os.kill(os.getpid(), 0); os.sched_setaffinity(0, {0}); os.nice(1)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "print(json.dumps([open('/proc/self/statm').read() != '', len(os.listdir('/'))> 1]))"
    )

    assert whole.told(code) == [True, True]


def test_a_worker_that_aborts_still_ends_by_its_signal(whole: Caged) -> None:
    assert whole.run("os.abort()").returncode == -6


def test_calls_by_another_architectures_numbers_end_the_process(whole: Caged) -> None:
    if abi() != "x86_64":
        pytest.skip("only this architecture can call by another one's numbers here")
    # mov eax, 20 (getpid of i386); int 0x80; ret
    code = (
        "page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)\n"
        "page.write(bytes([0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0xc3]))\n"
        "at = ctypes.addressof(ctypes.c_char.from_buffer(page))\n"
        "ctypes.CFUNCTYPE(ctypes.c_int)(at)()\nprint('it went on')"
    )

    done = whole.run(code)

    assert done.returncode == -31  # SIGSYS
    assert done.stdout == ""


def test_where_processes_can_be_started_they_reach_no_further(whole: Caged) -> None:
    place = Place("no seccomp", whole.place.user, ("seccomp",))
    caged = Caged(whole.folder, place, whole.limits)
    (whole.folder / "victim").write_text("precious")
    (whole.folder / "victim").chmod(0o666)
    code = (
        "child = os.fork()\n"
        "if child:\n"
        "    os.waitpid(child, 0)\n"
        "else:\n"
        f"    print(json.dumps([tried(lambda: open({str(whole.folder / 'victim')!r}, 'w')),"
        " tried(lambda: os.kill(limits.parent_pid, 0)),"
        " tried(lambda: os.execv('/bin/true', ['true']))]), flush=True)\n"
        "    os._exit(0)"
    )

    write, kill, execute = caged.told(code)

    assert "done" not in (write, execute)
    # Landlock has scopes for signals since its version 6.
    landlock = int(caged.told("print(json.dumps(guards['files'].how.split()[-1]))"))
    assert (kill == "EPERM") == (landlock >= 6)


def test_threads_without_end_are_stopped(whole: Caged) -> None:
    if whole.place.user is None:
        pytest.skip("the superuser's tasks are not counted by the kernel")
    code = (
        "threading.stack_size(65536); count = 0\n"
        "try:\n"
        "    while count < 2000:\n"
        "        threading.Thread(target=time.sleep, args=(60,), daemon=True).start(); count += 1\n"
        "except RuntimeError:\n"
        "    pass\n"
        "print(json.dumps(count), flush=True)\n"
        "os._exit(0)"
    )

    assert whole.told(code) < 600


def test_memory_without_end_is_refused(whole: Caged) -> None:
    done = whole.run("hoard = []\nwhile True: hoard.append(bytearray(1 << 24))")

    assert done.returncode == 1
    assert "MemoryError" in done.stderr


def test_no_memory_is_locked(whole: Caged) -> None:
    code = (
        "page = mmap.mmap(-1, 1 << 16); libc = ctypes.CDLL(None)\n"
        "at = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(page)))\n"
        "print(json.dumps(libc.mlock(at, ctypes.c_size_t(1 << 16))))"
    )

    assert whole.told(code) == -1


def test_cpu_time_without_end_is_stopped_by_the_kernel(whole: Caged) -> None:
    done = whole.run(
        "signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass", cpu_seconds=1
    )

    assert done.returncode == -9


def test_files_are_no_larger_than_allowed(whole: Caged) -> None:
    code = "open(str(limits.scratch) + '/x', 'w').write('x' * 100000)"

    done = whole.run(code, max_file_bytes=1000)

    assert "File too large" in done.stderr
    assert (whole.folder / "scratch" / "x").stat().st_size <= 1000


def test_a_worker_leaves_no_core_and_goes_first_when_memory_ends(whole: Caged) -> None:
    code = (
        "print(json.dumps([resource.getrlimit(resource.RLIMIT_CORE),"
        " int(open('/proc/self/oom_score_adj').read()), os.environ['OPENBLAS_NUM_THREADS'],"
        " 'NoNewPrivs:\\t1' in open('/proc/self/status').read(),"
        " 'CapEff:\\t0000000000000000' in open('/proc/self/status').read()]))"
    )

    assert whole.told(code) == [[0, 0], 1000, "1", True, True]


def test_every_wall_says_how_it_stands_or_why_not(caged: Caged) -> None:
    told = caged.told(
        "print(json.dumps({name: [g.works, g.how, g.why_not] for name, g in guards.items()}))"
    )

    place = caged.place
    assert list(told) == ["network", "files", "system-calls", "memory"]
    for works, how, why_not in told.values():
        assert works == bool(how) == (not why_not)
    assert told["system-calls"][0] == place.has("seccomp")
    assert ("namespace" in told["network"][1]) == place.has("namespaces")
    assert ("seccomp" in told["network"][1]) == place.has("seccomp")
    assert ("Landlock" in told["files"][1]) == place.has("landlock")
    assert ("mounts" in told["files"][1]) == (place.has("namespaces") and place.has("mount"))


def test_where_a_kernel_has_nothing_the_limits_stay_and_the_reasons_are_said() -> None:
    nothing = ("namespaces", "landlock", "seccomp")
    with open_folder() as folder:
        caged = caged_in(folder, Place("nothing", None if os.getuid() else NOBODY, nothing))
        told = caged.told(
            "print(json.dumps([[g.works, g.why_not] for g in guards.values()]"
            " + [tried(lambda: os.write(os.open(str(limits.scratch) + '/x', 0o101), b'x'))]))",
            max_file_bytes=0,
        )

    *guards, written = told
    assert [works for works, _ in guards] == [False, False, False, True]
    for _, why_not in guards[:3]:
        assert "namespaces: not in the kernel of this test" in why_not
        assert "Landlock: " in why_not
    assert written == "EFBIG"


def test_a_python_without_ctypes_keeps_the_limits() -> None:
    with open_folder() as folder:
        caged = caged_in(folder, Place("no ctypes", None, ("ctypes",)))
        guards = caged.told("print(json.dumps([[g.works, g.why_not] for g in guards.values()]))")

    assert [works for works, _ in guards] == [False, False, False, True]
    assert "no ctypes" in guards[0][1]


def test_a_worker_dies_with_the_agent_that_started_it(whole: Caged) -> None:
    code = (
        "tried(lambda: Kernel().prctl(1, 0))\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print(os.getpid(), flush=True)\ntime.sleep(60)"
    )
    agent = (
        "import json, os, signal, subprocess, sys\n"
        f"command = {whole.command(code)!r}\n"
        "command[2] = json.dumps({**json.loads(command[2]), 'parent_pid': os.getpid()})\n"
        "child = subprocess.Popen(command, stdout=subprocess.PIPE)\n"
        "print(child.stdout.readline().decode(), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", agent], stdout=subprocess.PIPE, text=True, check=False, timeout=30
    )

    status = Path(f"/proc/{int(done.stdout)}/status")
    limit = time.monotonic() + 10
    while status.exists() and "zombie" not in status.read_text():
        assert time.monotonic() < limit, "the worker lives on"
        time.sleep(0.01)


def test_a_worker_whose_agent_is_gone_already_does_not_begin(whole: Caged) -> None:
    done = whole.run("print('began')", parent_pid=1)

    assert done.returncode != 0
    assert done.stdout == ""


def test_the_agent_learns_how_the_walls_stand_and_stays_as_it_was() -> None:
    before = Path("/proc/self/status").read_text().partition("Seccomp")[2][:20]

    guards = probe_guards(default_worker_command())

    assert [guard.name for guard in guards] == ["network", "files", "system-calls", "memory"]
    assert all(guard.works or guard.why_not for guard in guards)
    assert guards[3].works
    assert Path("/proc/self/status").read_text().partition("Seccomp")[2][:20] == before


@pytest.mark.parametrize("command", [["/no/such/program"], [sys.executable, "-c", "print('{}')"]])
def test_a_cage_that_cannot_be_tried_is_said(command: list[str]) -> None:
    for guard in probe_guards(command):
        assert not guard.works
        assert guard.why_not.startswith("it cannot be tried: ")
