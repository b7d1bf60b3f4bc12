from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_agent.errors import SensorUnavailableError
from device_agent.sensors.rapl import Rapl, udev_rule

WRAP_UJ = 262_143_328_850
ZEN = "vendor_id : AuthenticAMD\ncpu family : 23\nmodel\t\t: 49\n"
IVY_BRIDGE = "vendor_id : GenuineIntel\ncpu family : 6\nmodel\t\t: 58\n"
HASWELL = "vendor_id : GenuineIntel\ncpu family : 6\nmodel\t\t: 60\n"


def open_rapl(root: Path, clock: Any) -> Rapl:
    return Rapl(root / "sys", root / "proc/cpuinfo", clock=clock)


def counter(root: Path, domain: str) -> Path:
    return root / "sys/class/powercap" / domain / "energy_uj"


def test_only_packages_are_counted(machine: Any, clock: Any) -> None:
    root = machine("optiplex-7050")
    source = open_rapl(root, clock)
    for energy in root.glob("sys/class/powercap/*/energy_uj"):
        energy.write_text(str(int(energy.read_text()) + 3_000_000), encoding="ascii")
    clock.sleep(1.0)

    assert source.read() == pytest.approx(3.0)


def test_all_sockets_are_added_up_even_where_one_of_them_wraps(machine: Any, clock: Any) -> None:
    root = machine("dual-xeon")
    source = open_rapl(root, clock)
    counter(root, "intel-rapl:0").write_text("55343312102", encoding="ascii")
    # 10987 microjoules to the wrap, and 20 J after it.
    counter(root, "intel-rapl:1").write_text("20000000", encoding="ascii")
    clock.sleep(1.0)

    assert source.read() == pytest.approx(30.0 + 20.010987)


@settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40
)
@given(start=st.integers(0, WRAP_UJ - 1), used=st.lists(st.integers(0, 250_000_000), max_size=6))
def test_a_counter_that_wraps_loses_nothing(
    tmp_path_factory: Any, clock: Any, start: int, used: list[int]
) -> None:
    root = tmp_path_factory.mktemp("machine")
    domain = root / "sys/class/powercap/intel-rapl:0"
    domain.mkdir(parents=True)
    (domain / "name").write_text("package-0", encoding="ascii")
    (domain / "max_energy_range_uj").write_text(str(WRAP_UJ), encoding="ascii")
    (domain / "energy_uj").write_text(str(start), encoding="ascii")
    (root / "proc").mkdir()
    (root / "proc/cpuinfo").write_text(HASWELL, encoding="ascii")
    source = open_rapl(root, clock)
    total = 0
    read = []
    for joules in used:
        total += joules
        (domain / "energy_uj").write_text(str((start + total) % WRAP_UJ), encoding="ascii")
        clock.sleep(1.0)
        read.append(source.read())

    assert source.read() == pytest.approx(total * 1e-6)
    assert read == sorted(read)


@pytest.mark.parametrize(
    ("text", "kind"),
    [(HASWELL, "measured"), (IVY_BRIDGE, "derived"), (ZEN, "derived"), ("\n", "derived")],
)
def test_only_cpus_that_measure_are_labelled_measured(
    machine: Any, clock: Any, text: str, kind: str
) -> None:
    root = machine("optiplex-7050")
    (root / "proc/cpuinfo").write_text(text, encoding="ascii")

    assert open_rapl(root, clock).kind == kind


def test_a_sandy_bridge_server_is_derived(machine: Any, clock: Any) -> None:
    assert open_rapl(machine("dual-xeon"), clock).kind == "derived"


def test_an_atom_that_shows_ten_kilowatts_is_refused_for_good(machine: Any, clock: Any) -> None:
    root = machine("atom-c2750")
    source = open_rapl(root, clock)
    energy = counter(root, "intel-rapl:0")
    # 10 W in a unit that is 1000 times too large.
    energy.write_text(str(183_512_000_000 + 1_000_000_000), encoding="ascii")
    clock.sleep(0.1)

    with pytest.raises(SensorUnavailableError, match="10000 W, more than the 80 W"):
        source.read()
    clock.sleep(60.0)
    with pytest.raises(SensorUnavailableError, match="its unit is wrong"):
        source.read()


def test_a_counter_that_is_reset_is_not_taken_for_a_wrap(machine: Any, clock: Any) -> None:
    root = machine("optiplex-7050")
    source = open_rapl(root, clock)
    counter(root, "intel-rapl:0").write_text("0", encoding="ascii")
    clock.sleep(0.05)

    with pytest.raises(SensorUnavailableError, match="it was reset"):
        source.read()


def test_readings_in_quick_succession_are_not_judged_by_their_jitter(
    machine: Any, clock: Any
) -> None:
    root = machine("optiplex-7050")
    source = open_rapl(root, clock)
    counter(root, "intel-rapl:0").write_text(str(41_882_156_332 + 65_000), encoding="ascii")
    clock.sleep(0.0001)

    assert source.read() == pytest.approx(0.065)


def test_a_package_without_a_stated_limit_may_draw_what_any_package_may(
    machine: Any, clock: Any
) -> None:
    root = machine("optiplex-7050")
    (root / "sys/class/powercap/intel-rapl:0/constraint_0_power_limit_uw").unlink()

    assert open_rapl(root, clock).max_watts == pytest.approx(1000.0)


def test_a_counter_kept_for_root_comes_with_the_udev_rule(
    machine: Any, clock: Any, deny: Any
) -> None:
    root = machine("optiplex-7050")
    deny("energy_uj")

    with pytest.raises(SensorUnavailableError, match=re.escape(udev_rule())):
        open_rapl(root, clock)


def test_the_udev_rule_names_the_group() -> None:
    assert "/bin/chgrp genba /sys%p/energy_uj" in udev_rule("genba")


def test_a_machine_without_rapl_says_so(tmp_path: Path, clock: Any) -> None:
    with pytest.raises(SensorUnavailableError, match="no RAPL"):
        open_rapl(tmp_path, clock)


def test_a_folder_that_may_not_be_listed_says_so(
    machine: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = machine("optiplex-7050")

    def refuse(path: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)

    with pytest.raises(SensorUnavailableError, match=r"powercap cannot be listed"):
        open_rapl(root, clock)
