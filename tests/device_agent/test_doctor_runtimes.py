"""The doctor knows from one table what works on this machine, and names the exact versions."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest

from device_agent.doctor import Check, Patient, State
from device_agent.doctor.checkup import installed_version
from device_agent.doctor.runtimes import LOOKS
from device_agent.runtimes.base import RuntimeFacts
from device_agent.state import Home
from device_agent.surroundings import Surroundings
from device_agent.system import Roots

MACHINES = Path(__file__).parent / "machines"
A9 = "Features : half thumb fastmult vfp edsp neon vfpv3 tls vfpd32\nCPU part : 0xc09"
CORE2 = "flags : fpu sse sse2 ssse3"
PENRYN = "flags : fpu sse sse2 ssse3 sse4_1"
HASWELL = "flags : fpu sse sse2 ssse3 sse4_1 sse4_2 avx2"
ATOM = "flags : fpu mmx sse sse2 ssse3 movbe"
PENTIUM3 = "flags : fpu mmx sse"
PIP = f"{sys.executable} -m pip install --no-deps --only-binary=:all:"


def absent(name: str, why: str = "it is not installed") -> RuntimeFacts:
    return RuntimeFacts(name, name, "", works=False, why_not=why)


def works(name: str) -> RuntimeFacts:
    return RuntimeFacts(name, name, "1", works=True, why_not="")


@pytest.fixture
def examined(tmp_path: Path) -> Any:
    """The checks by name, on the machine that is described."""

    def run(
        cpuinfo: str,
        machine: str,
        python: str = "3.11",
        *,
        bits: int = 32,
        runtimes: tuple[RuntimeFacts, ...] = (absent("onnx"), absent("tflite"), absent("ncnn")),
        **installed: str,
    ) -> dict[str, Check]:
        (tmp_path / "proc").mkdir(exist_ok=True)
        (tmp_path / "proc/cpuinfo").write_text(cpuinfo)
        patient = Patient(
            Home(tmp_path),
            runtimes,
            (),
            around=Surroundings(roots=Roots(proc=tmp_path / "proc")),
            machine=machine,
            pointer_bits=bits,
            python=python,
            installed={name.replace("_", "-"): version for name, version in installed.items()}.get,
        )
        return {check.name: check for look in LOOKS for check in look(patient)}

    return run


def test_a_raspberry_pi_2_is_told_the_versions_of_tflite_and_ncnn_and_why_there_is_no_onnx(
    examined: Any,
) -> None:
    cpuinfo = (MACHINES / "raspberry-pi-2/proc/cpuinfo").read_text()

    checks = examined(cpuinfo, "armv7l")

    assert checks["machine"].state is State.OK
    assert "Cortex-A7 and newer" in checks["machine"].found
    assert checks["runtime onnx"].state is State.OK
    assert "none here, because onnxruntime is built" in checks["runtime onnx"].found
    assert checks["runtime tflite"].state is State.FAIL
    assert checks["runtime tflite"].mend == (
        f"sudo apt install python3-numpy && {PIP} tflite-runtime==2.14.0, in an environment made by"
        " `python3 -m venv --system-site-packages`"
    )
    assert "ncnn==" in checks["runtime ncnn"].mend


def test_what_the_system_has_already_is_not_asked_for_again(examined: Any) -> None:
    cpuinfo = (MACHINES / "raspberry-pi-2/proc/cpuinfo").read_text()

    checks = examined(cpuinfo, "armv7l", numpy="1.24.2", runtimes=(absent("tflite"),))

    assert checks["runtime tflite"].mend == f"{PIP} tflite-runtime==2.14.0"


def test_a_32_bit_system_under_a_64_bit_kernel_counts_as_32_bit(examined: Any) -> None:
    pi = examined("Features : fp asimd evtstrm crc32 cpuid", "aarch64")
    pc = examined(HASWELL, "x86_64")

    assert pi["machine"].found.startswith("armv7l, Cortex-A7 and newer")
    assert pc["machine"].found.startswith("i686, with SSE2")
    assert "not built for 32-bit x86" in pc["runtime onnx"].found
    assert "ncnn==" in pc["runtime ncnn"].mend


def test_a_cortex_a9_is_offered_ncnn_alone(examined: Any) -> None:
    checks = examined(A9, "armv7l")

    assert "needs VFPv4" in checks["runtime tflite"].found
    assert checks["runtime tflite"].state is State.OK
    assert checks["runtime ncnn"].state is State.FAIL
    assert "ncnn==" in checks["runtime ncnn"].mend


def test_debian_13_on_a_raspberry_pi_2_gives_its_own_onnxruntime(examined: Any) -> None:
    cpuinfo = (MACHINES / "raspberry-pi-2/proc/cpuinfo").read_text()

    checks = examined(cpuinfo, "armv7l", "3.13")

    assert "sudo apt install python3-numpy python3-onnxruntime" in checks["runtime onnx"].mend
    assert "pip" not in checks["runtime onnx"].mend
    assert "tflite-runtime ended with Python 3.11" in checks["runtime tflite"].found


@pytest.mark.parametrize(
    ("cpuinfo", "found"), [(CORE2, "none here, because"), (PENRYN, "it is not installed")]
)
def test_tflite_for_a_new_python_needs_sse4_1(examined: Any, cpuinfo: str, found: str) -> None:
    checks = examined(cpuinfo, "x86_64", "3.13", bits=64)

    assert found in checks["runtime tflite"].found


def test_a_missing_runtime_is_a_warning_where_another_works(examined: Any) -> None:
    alone = examined(HASWELL, "x86_64", bits=64)
    beside = examined(HASWELL, "x86_64", bits=64, runtimes=(works("onnx"), absent("tflite")))

    assert alone["runtime tflite"].state is State.FAIL
    assert beside["runtime tflite"].state is State.WARN
    assert beside["runtime onnx"].state is State.OK
    assert beside["runtime tflite"].mend == f"{PIP} numpy==1.26.4 tflite-runtime==2.14.0"


@pytest.mark.parametrize(
    ("cpuinfo", "machine", "python", "state", "words"),
    [
        (PENTIUM3, "i686", "3.11", State.FAIL, "need SSE2"),
        ("", "armv6l", "3.11", State.FAIL, "die by SIGILL on an ARMv6"),
        (A9, "armv7l", "3.13", State.FAIL, "3.9 (Debian 11) or 3.11 (Debian 12)"),
        (ATOM, "i686", "3.14", State.WARN, "3.9 (Debian 11) or 3.11 (Debian 12) or 3.13"),
        ("", "riscv", "3.11", State.WARN, "no machine of genba's table"),
    ],
)
def test_a_machine_on_which_no_agent_is_known_to_work_says_why_and_what_would(
    examined: Any, cpuinfo: str, machine: str, python: str, state: State, words: str
) -> None:
    check = examined(cpuinfo, machine, python)["machine"]

    assert check.state is state
    assert words in f"{check.found} {check.meaning} {check.mend}"
    assert check.mend


def test_where_the_table_knows_nothing_the_extra_is_named(examined: Any) -> None:
    checks = examined("", "riscv", runtimes=(absent("onnx"),))

    assert "pip install 'genba[onnx]'" in checks["runtime onnx"].mend


def test_a_numpy_that_does_not_start_on_this_cpu_is_named_with_the_one_that_does(
    examined: Any,
) -> None:
    old = examined(PENRYN, "x86_64", bits=64, numpy="2.4.6")
    new = examined(HASWELL, "x86_64", bits=64, numpy="2.4.6")

    assert old["package numpy"].state is State.FAIL
    assert "numpy 2.4.6: numpy 2.4 and later" in old["package numpy"].found
    assert old["package numpy"].mend == f"{PIP} numpy==1.26.4"
    assert "package numpy" not in new


def test_tflite_runtime_beside_numpy_2_is_found_although_both_are_installed(examined: Any) -> None:
    checks = examined(HASWELL, "x86_64", bits=64, numpy="2.0.2", tflite_runtime="2.14.0")

    assert "opens no model beside numpy 2" in checks["package numpy"].found
    assert checks["package numpy"].mend == f"{PIP} numpy==1.26.4"


def test_a_package_that_works_nowhere_on_this_cpu_goes_away(examined: Any) -> None:
    core2 = examined(CORE2, "x86_64", "3.13", bits=64, ai_edge_litert="2.3.0")
    a9 = examined(A9, "armv7l", grpcio="1.80.1")

    assert "pip uninstall ai-edge-litert" in core2["package ai-edge-litert"].mend
    assert core2["package ai-edge-litert"].state is State.FAIL
    assert "uninstall grpcio && " in a9["package grpcio"].mend


def test_installed_packages_are_found_without_importing_them() -> None:
    assert installed_version("grpcio")
    assert installed_version("no-such-package") is None


def test_this_very_machine_is_told_something(tmp_path: Path) -> None:
    patient = dataclasses.replace(Patient(Home(tmp_path), (absent("ncnn"),), ()))

    checks = [check for look in LOOKS for check in look(patient)]

    assert {check.name for check in checks} >= {"machine", "runtime ncnn"}
