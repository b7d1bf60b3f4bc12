"""Setting the service up, against a systemd that only writes down what it is told."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from device_agent.service.setup import (
    Manager,
    ServiceUsageError,
    install,
    planned_unit,
    run_command,
    uninstall,
    write_unit,
)
from device_agent.service.standing import Interpreter, ServiceError, act_as_owner_of
from device_agent.service.unit import DEFAULT_USER, SERVICE_HOME, Unit
from device_agent.state import Home

SYSTEM_PYTHON = Interpreter(Path("/opt/genba/bin/python3"), Path("/opt/genba"), (Path("/usr/lib"),))
ME = pwd.getpwuid(os.geteuid()).pw_name
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


class Systemd:
    """Writes down the commands."""

    def __init__(self, unit_dir: Path) -> None:
        self.commands: list[str] = []
        self.manager = Manager(unit_dir, self._run)

    def _run(self, command: Sequence[str]) -> None:
        self.commands.append(" ".join(command))


@pytest.fixture
def systemd(tmp_path: Path) -> Systemd:
    return Systemd(tmp_path)


def after_acting_as_owner_of(home: Path, executable: Path) -> str:
    """What a process of its own says about its user, group and rights afterwards, or the error."""
    script = """
import os, sys
from pathlib import Path
from device_agent.service.standing import Interpreter, ServiceError, act_as_owner_of
try:
    act_as_owner_of(Path(sys.argv[1]), Interpreter(Path(sys.argv[2]), Path("/"), ()))
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    print(os.geteuid(), os.getegid(), int(status.split("CapEff:")[1].split()[0], 16))
except ServiceError as error:
    print(error)
"""
    command = [sys.executable, "-c", script, str(home), str(executable)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def unit_for(home: Path, user: str = ME) -> Unit:
    return Unit(Path("/opt/genba/bin/python3"), Path("/opt/genba"), home, user, user)


def test_a_unit_for_an_agent_below_opt_can_be_planned() -> None:
    unit = planned_unit(SERVICE_HOME, DEFAULT_USER, SYSTEM_PYTHON)

    assert (unit.home, unit.user, unit.group) == (SERVICE_HOME, "genba-agent", "genba-agent")


@pytest.mark.parametrize("user", ["", "Root", "a b", "x\ny", "-x", "user;reboot"])
def test_a_name_that_no_user_has_is_a_wrong_command(user: str) -> None:
    with pytest.raises(ServiceUsageError, match="no name of a user"):
        planned_unit(SERVICE_HOME, user, SYSTEM_PYTHON)


@pytest.mark.parametrize("home", ["/srv/a b", "/srv/a\nExecStartPre=/bin/x", "/srv/%h", '/srv/"'])
def test_a_folder_that_would_change_the_meaning_of_the_unit_is_refused(home: str) -> None:
    with pytest.raises(ServiceUsageError, match="choose a path"):
        planned_unit(Path(home), DEFAULT_USER, SYSTEM_PYTHON)


@pytest.mark.parametrize("home", ["/home/pi/.genba-agent", "/root/agent", "/tmp/agent"])
def test_a_folder_that_the_service_does_not_see_is_refused_with_the_command_to_move_it(
    home: str,
) -> None:
    with pytest.raises(ServiceError, match=f"sudo mv {home} /var/lib/genba-agent"):
        planned_unit(Path(home), DEFAULT_USER, SYSTEM_PYTHON)


def test_a_way_around_to_a_hidden_folder_is_seen_through() -> None:
    with pytest.raises(ServiceError, match="lies in /root"):
        planned_unit(Path("/srv/../root/agent"), DEFAULT_USER, SYSTEM_PYTHON)


@pytest.mark.parametrize(
    ("interpreter", "text"),
    [
        (Interpreter(Path("python3"), Path("/opt/x"), ()), "absolute path"),
        (Interpreter(Path(), Path("/opt/x"), ()), "absolute path"),
        (Interpreter(Path("/home/pi/v/bin/python3"), Path("/home/pi/v"), ()), "lies in /home"),
        (
            Interpreter(Path("/opt/x/bin/python3"), Path("/opt/x"), (Path("/root/.pyenv"),)),
            "lies in /root",
        ),
        (
            Interpreter(Path("/opt/x/bin/python3"), Path("/opt/x"), (Path("/home/pi/genba"),)),
            "lies in /home",
        ),
    ],
)
def test_an_interpreter_that_the_service_could_not_start_is_refused(
    interpreter: Interpreter, text: str
) -> None:
    with pytest.raises(ServiceError, match=text):
        planned_unit(SERVICE_HOME, DEFAULT_USER, interpreter)


def test_a_link_into_a_hidden_folder_is_followed(tmp_path: Path) -> None:
    link = tmp_path / "python3"
    link.symlink_to("/home/pi/python3")

    with pytest.raises(ServiceError, match="which a service does not see"):
        planned_unit(SERVICE_HOME, DEFAULT_USER, Interpreter(link, Path("/opt/x"), ()))


def test_installing_writes_the_unit_and_starts_it_now_and_with_the_machine(
    enrolled: Home, systemd: Systemd
) -> None:
    said: list[str] = []

    install(unit_for(enrolled.path), systemd.manager, said.append)

    written = systemd.manager.unit_path
    assert f"--home {enrolled.path}" in written.read_text()
    assert written.stat().st_mode & 0o777 == 0o644
    assert systemd.commands == [
        "systemctl daemon-reload",
        "systemctl enable genba-agent.service",
        "systemctl restart --no-block genba-agent.service",
    ]
    assert "journalctl -u genba-agent" in said[0]


def test_installing_again_replaces_the_unit(enrolled: Home, systemd: Systemd) -> None:
    install(unit_for(enrolled.path), systemd.manager, lambda _: None)
    systemd.manager.unit_path.write_text("of an older version")

    install(unit_for(enrolled.path), systemd.manager, lambda _: None)

    assert "[Service]" in systemd.manager.unit_path.read_text()


def test_the_user_of_the_service_is_made_where_it_is_missing(
    enrolled: Home, systemd: Systemd
) -> None:
    try:
        pwd.getpwnam(DEFAULT_USER)
    except KeyError:
        pass
    else:
        pytest.skip(f"this machine has a user {DEFAULT_USER}")

    # The command is only written down here, so the user is still missing afterwards.
    with pytest.raises(ServiceError, match="made just now"):
        install(unit_for(enrolled.path, DEFAULT_USER), systemd.manager, lambda _: None)

    (command,) = systemd.commands
    assert command == (
        "useradd --system --user-group --no-create-home"
        f" --home-dir {enrolled.path} --shell /usr/sbin/nologin genba-agent"
    )


def test_no_other_user_is_made(enrolled: Home, systemd: Systemd) -> None:
    with pytest.raises(ServiceError, match="there is no user nobody-here"):
        install(unit_for(enrolled.path, "nobody-here"), systemd.manager, lambda _: None)

    assert systemd.commands == []


@needs_root
def test_what_root_enrolled_is_given_to_the_service(enrolled: Home, systemd: Systemd) -> None:
    (enrolled.path / "link").symlink_to("/etc/hostname")
    nobody = pwd.getpwnam("nobody")

    install(unit_for(enrolled.path, "nobody"), systemd.manager, lambda _: None)

    owners = {path.lstat().st_uid for path in (enrolled.path, *enrolled.path.rglob("*"))}
    assert owners == {nobody.pw_uid}
    assert Path("/etc/hostname").stat().st_uid == 0


def test_services_are_refused_without_systemd_and_without_the_right(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="not started by systemd"):
        Manager.of_this_machine("install", root=tmp_path, uid=0)
    (tmp_path / "run" / "systemd" / "system").mkdir(parents=True)
    with pytest.raises(ServiceError, match=r"sudo .* -m device_agent install"):
        Manager.of_this_machine("install", root=tmp_path, uid=1000)

    manager = Manager.of_this_machine("install", root=tmp_path, uid=0)

    assert manager.unit_path == Path("/etc/systemd/system/genba-agent.service")


def test_installing_before_enrolling_is_refused_with_the_command(
    systemd: Systemd, tmp_path: Path
) -> None:
    with pytest.raises(ServiceError, match=r"genba-agent enroll --home .* --token TOKEN"):
        install(unit_for(tmp_path / "empty"), systemd.manager, lambda _: None)

    assert systemd.commands == []


def test_a_command_of_the_system_that_fails_is_told_with_its_words() -> None:
    with pytest.raises(ServiceError, match="no such unit"):
        run_command([sys.executable, "-c", "import sys; sys.exit('no such unit')"])
    with pytest.raises(ServiceError, match="exit code 3"):
        run_command([sys.executable, "-c", "import sys; sys.exit(3)"])
    with pytest.raises(ServiceError, match="cannot be run"):
        run_command(["/nonexistent/systemctl", "daemon-reload"])


def test_a_unit_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="cannot be written: No such file"):
        write_unit(unit_for(tmp_path), tmp_path / "missing" / "genba-agent.service")


def test_uninstalling_stops_the_service_and_keeps_the_identity(
    enrolled: Home, systemd: Systemd
) -> None:
    install(unit_for(enrolled.path), systemd.manager, lambda _: None)
    systemd.commands.clear()

    uninstall(systemd.manager, lambda _: None)

    assert not systemd.manager.unit_path.exists()
    assert enrolled.is_enrolled()
    assert systemd.commands == [
        "systemctl disable --now genba-agent.service",
        "systemctl daemon-reload",
    ]


def test_uninstalling_what_is_not_there_is_a_sentence(systemd: Systemd) -> None:
    with pytest.raises(ServiceError, match="is no service here"):
        uninstall(systemd.manager, lambda _: None)


@needs_root
def test_root_becomes_the_owner_of_the_folder_that_it_works_on(tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    os.chown(tmp_path, nobody.pw_uid, nobody.pw_gid)

    ids = after_acting_as_owner_of(tmp_path, Path("/"))

    assert ids == f"{nobody.pw_uid} {nobody.pw_gid} 0"


@needs_root
def test_an_owner_who_cannot_read_the_agent_is_a_sentence(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir(mode=0o700)
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, pwd.getpwnam("nobody").pw_uid, 0)

    said = after_acting_as_owner_of(home, secret / "python3")

    assert "cannot read" in said


@needs_root
def test_root_stays_root_with_a_folder_of_its_own_and_with_a_new_one(tmp_path: Path) -> None:
    interpreter = Interpreter(Path("/"), Path("/"), ())

    act_as_owner_of(tmp_path, interpreter)
    act_as_owner_of(tmp_path / "new", interpreter)

    assert os.geteuid() == 0
