"""The unit file, as text and as systemd's own programs judge it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from device_agent.service.unit import UNIT_NAME, Unit

HOME = Path("/var/lib/genba-agent")
_ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(_ANALYZE is None, reason="no systemd-analyze here")


def unit(home: Path = HOME, *groups: str) -> Unit:
    python = Path(shutil.which("python3") or "/usr/bin/python3")
    return Unit(python, Path("/usr"), home, "genba-agent", "genba-agent", groups)


def settings(text: str) -> dict[str, list[str]]:
    """All values of each name of [Service], in order."""
    found: dict[str, list[str]] = {}
    service = text.partition("[Service]\n")[2].partition("[Install]\n")[0]
    for line in service.splitlines():
        if line and not line.startswith("#"):
            name, value = line.split("=", 1)
            found.setdefault(name, []).append(value)
    return found


def analyze(*arguments: str, path: Path) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"}
    return subprocess.run(
        [str(_ANALYZE), *arguments, str(path)],
        capture_output=True,
        text=True,
        check=False,
        env=environ,
    )


def calls_in(group: str) -> set[str]:
    """The system calls of a group, and of the groups in it."""
    lines = analyze("syscall-filter", path=Path(group)).stdout.splitlines()[1:]
    calls = set()
    for name in (line.strip() for line in lines):
        if name and not name.startswith("#"):
            calls |= calls_in(name) if name.startswith("@") else {name}
    return calls


@pytest.fixture
def unit_file(tmp_path: Path) -> Path:
    path = tmp_path / UNIT_NAME
    path.write_text(unit(HOME, "video").text())
    return path


@needs_systemd
def test_systemd_has_no_complaint_about_the_unit(unit_file: Path) -> None:
    done = analyze("verify", "--man=no", path=unit_file)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd
def test_systemd_counts_the_service_among_the_well_protected(unit_file: Path) -> None:
    done = analyze("security", "--offline=true", "--threshold=30", path=unit_file)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze judges only services that run")

    assert done.returncode == 0, done.stdout


def test_the_cage_of_the_worker_has_what_it_takes() -> None:
    found = settings(unit().text())

    calls = set(" ".join(found["SystemCallFilter"]).split())
    assert set(found["RestrictNamespaces"][0].split()) == {"user", "net", "mnt"}
    assert {"@system-service", "@mount", "seccomp", "landlock_restrict_self"} <= calls
    assert "MemoryDenyWriteExecute" not in found
    assert "PrivateDevices" not in found


@needs_systemd
def test_systemd_lets_every_call_through_that_builds_the_cage() -> None:
    allowed = set()
    for name in " ".join(settings(unit().text())["SystemCallFilter"]).split():
        allowed |= calls_in(name) if name.startswith("@") else {name}

    assert {
        "unshare",
        "mount",
        "mount_setattr",
        "umount2",
        "pivot_root",
        "seccomp",
        "landlock_create_ruleset",
        "landlock_add_rule",
        "landlock_restrict_self",
        "prctl",
        "capset",
        "setrlimit",
        "prlimit64",
        "sched_setaffinity",
        "kill",
        "setsid",
        "waitid",
    } <= allowed
    assert not {"ptrace", "bpf", "init_module", "reboot", "clock_settime"} & allowed


def test_nothing_in_the_unit_pauses_a_worker_that_is_measured() -> None:
    found = settings(unit().text())

    assert not {"CPUQuota", "CPUSchedulingPolicy", "AllowedCPUs", "CPUAffinity"} & set(found)


def test_the_manager_makes_and_keeps_a_folder_below_var_lib() -> None:
    found = settings(unit().text())

    assert found["StateDirectory"] == ["genba-agent"]
    assert "DynamicUser" not in found
    assert "ReadWritePaths" not in found


def test_a_folder_elsewhere_is_opened_for_writing() -> None:
    found = settings(unit(Path("/data/agent")).text())

    assert found["ReadWritePaths"] == ["/data/agent"]
    assert "StateDirectory" not in found


def test_device_files_are_opened_by_groups_that_exist() -> None:
    assert settings(unit(HOME, "video").text())["SupplementaryGroups"] == ["video"]
    assert "SupplementaryGroups" not in settings(unit().text())


def test_the_unit_runs_the_agent_without_the_environment_of_anybody() -> None:
    command = settings(unit().text())["ExecStart"]

    assert len(command) == 1
    assert command[0].endswith(" -I -m device_agent run --home /var/lib/genba-agent")
