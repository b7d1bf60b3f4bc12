"""A PostgreSQL server of the tests' own: its programs are found or unpacked, never installed."""

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

STARTS_WITHIN_SECONDS = 60.0
_DEBIAN = Path("/usr/lib/postgresql")
_SERVANT = "nobody"  # the server refuses to run as root
_EMPTY = """
DO $$
DECLARE name text;
BEGIN
    SET LOCAL lock_timeout = '10s';
    SET LOCAL session_replication_role = replica;  -- neither references nor the log's triggers
    FOR name IN SELECT tablename FROM pg_tables
        WHERE schemaname = 'public' AND tablename <> 'alembic_version'
    LOOP EXECUTE format('DELETE FROM %I', name); END LOOP;
    FOR name IN SELECT sequencename FROM pg_sequences WHERE schemaname = 'public'
    LOOP EXECUTE format('ALTER SEQUENCE %I RESTART', name); END LOOP;
END $$
"""


class NoPostgresqlError(Exception):
    """No server can be run here; the text says why."""


class Server:
    """A server with a superuser and any number of databases, on a unix socket."""

    def __init__(self, folder: Path, programs: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self._programs = programs
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str) -> str:
        """The address of a database as the store takes it."""
        return f"postgresql+psycopg://genba@/{database}?host={self.folder}"

    def initialise(self) -> None:
        """Make an empty cluster."""
        self._run(
            "initdb",
            "--pgdata=data",
            "--username=genba",
            "--auth=trust",  # the socket lies in a folder of the tests' own
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        )

    def start(self) -> None:
        """Start the server and wait until it answers."""
        command = [str(self._programs / "postgres"), "-D", "data", "-k", str(self.folder)]
        if shutil.which("setpriv") is not None:  # it also ends where pytest is killed
            command = ["setpriv", "--pdeathsig", "INT", *command]
        options = {
            "listen_addresses": "",
            "fsync": "on",
            "jit": "off",  # needs LLVM, which is not unpacked
            "shared_buffers": "16MB",
            "max_connections": "200",
            "max_wal_size": "256MB",
            "dynamic_shared_memory_type": "mmap",  # containers have a small /dev/shm
            # As in Japan: no time may depend on the zone of the server.
            "timezone": "Asia/Tokyo",
        }
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        log = self.folder / "log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self._environment,
                user=_servant(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        give_up_at = time.monotonic() + STARTS_WITHIN_SECONDS
        pid_file = self.folder / "data" / "postmaster.pid"
        # Its last line says "ready" once connections are accepted.
        while not (pid_file.exists() and "ready" in pid_file.read_text()):
            if self._process.poll() is not None or time.monotonic() > give_up_at:
                raise NoPostgresqlError(f"PostgreSQL does not start: {log.read_text()}")
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End the server: SIGINT rolls back what goes on, SIGQUIT is a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=30)
            self._process = None

    def create(self, database: str, template: str = "template1") -> None:
        """Make a database as another one is."""
        self.execute("postgres", f"CREATE DATABASE {database} TEMPLATE {template}")

    def drop(self, database: str) -> None:
        """Remove a database, whoever is connected to it."""
        self.execute("postgres", f"DROP DATABASE {database} WITH (FORCE)")

    def empty(self, database: str) -> None:
        """Remove all rows but the schema's version; far faster than another database."""
        self.execute(database, _EMPTY)

    def execute(self, database: str, sql: str) -> None:
        """Run a statement as the superuser."""
        with psycopg.connect(
            host=str(self.folder), user="genba", dbname=database, autocommit=True
        ) as connection:
            connection.execute(sql.encode())

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._programs / program), *arguments],
            cwd=self.folder,
            env=self._environment,
            user=_servant(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise NoPostgresqlError(f"{program} fails: {done.stderr.strip()}")


@contextlib.contextmanager
def running_server(cache: Path) -> Iterator[Server]:
    """A server that ends with the context. `cache` keeps what has to be downloaded.

    Raises NoPostgresqlError.
    """
    if sys.platform != "linux":
        raise NoPostgresqlError("PostgreSQL's own server is only started on Linux")
    # Not below pytest's folder: that is closed to the user under whom the server runs.
    with tempfile.TemporaryDirectory(prefix="genba-pg-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        programs, libraries = _installed(), ""
        if programs is None:
            programs, libraries = _unpacked(_downloaded(cache), folder / "programs")
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "LD_LIBRARY_PATH": libraries}
        home = folder / "server"
        home.mkdir(mode=0o700)
        if os.geteuid() == 0:
            shutil.chown(home, _SERVANT)
        server = Server(home, programs, environment)
        server.initialise()
        server.start()
        try:
            yield server
        finally:
            server.stop(signal.SIGQUIT)  # at once: nothing of it is kept


def _servant() -> str | None:
    return _SERVANT if os.geteuid() == 0 else None


def _installed() -> Path | None:
    """The folder of the newest programs that are here."""
    found = [path.parent for path in _DEBIAN.glob("*/bin/initdb")]
    if found:
        return max(found, key=lambda path: int(re.sub(r"\D", "", path.parent.name) or 0))
    program = shutil.which("initdb")
    return None if program is None else Path(program).resolve().parent


def _downloaded(cache: Path) -> list[Path]:
    """Debian's packages of the server and of the libraries that are missing here."""
    kept = sorted(cache.glob("*.deb"))
    if kept:
        return kept
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise NoPostgresqlError("PostgreSQL is not installed, and there is no apt to get it from")
    plan = _apt("install", "--simulate", "--no-install-recommends", "postgresql")
    wanted = [
        package
        for package in re.findall(r"^Inst (\S+)", plan, re.MULTILINE)
        if re.fullmatch(r"postgresql-\d+|lib(?!llvm|perl).*", package)
    ]
    if not any(package.startswith("postgresql-") for package in wanted):
        raise NoPostgresqlError("PostgreSQL is not installed, and apt does not know it")
    part = cache.with_name(f"{cache.name}.{secrets.token_hex(4)}")
    part.mkdir(parents=True)
    try:
        _apt("download", *wanted, folder=part)
        part.rename(cache)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return sorted(cache.glob("*.deb"))


def _apt(*arguments: str, folder: Path | None = None) -> str:
    try:
        done = subprocess.run(
            ["apt-get", "--quiet", *arguments],
            cwd=folder,
            env=os.environ | {"LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    except subprocess.TimeoutExpired as error:
        raise NoPostgresqlError("PostgreSQL is not installed, and apt takes too long") from error
    if done.returncode != 0:
        said = " ".join(done.stderr.split())
        raise NoPostgresqlError(f"PostgreSQL is not installed, and apt cannot get it: {said}")
    return done.stdout


def _unpacked(packages: list[Path], folder: Path) -> tuple[Path, str]:
    """The folder of the programs, and those of the libraries that they need."""
    for package in packages:
        subprocess.run(["dpkg-deb", "--extract", str(package), str(folder)], check=True)
    programs = [path.parent for path in folder.glob("usr/lib/postgresql/*/bin/initdb")]
    if not programs:
        raise NoPostgresqlError(f"{packages[0].parent} holds no package of PostgreSQL: remove it")
    libraries = {path.parent for path in folder.glob("**/*.so*")}
    return programs[0], ":".join(map(str, sorted(libraries)))
