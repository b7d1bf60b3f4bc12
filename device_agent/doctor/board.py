"""Heat, supply and sensors of the board."""

from __future__ import annotations

from collections.abc import Iterator

from device_agent.canary import run_canary
from device_agent.doctor.checkup import Check, Look, Patient, State, text_of, user_name
from device_agent.errors import SensorUnavailableError
from device_agent.sensors.base import PowerSourceFacts
from device_agent.sensors.rapl import UDEV_RULES_FILE, udev_rule
from device_agent.sensors.throttle import firmware_word, throttle_counts

_HOT_CELSIUS = 75.0
_SLOW_CLOCK_SHARE = 0.9
_UNDERVOLTED_SINCE_BOOT = 1 << 16
_COOL = "let it cool down; give it a heat sink or a fan"
_SUPPLY = "use a stronger power supply and a shorter, thicker cable"


def _temperature(patient: Patient) -> Iterator[Check]:
    celsius = patient.around.temperature_celsius()
    if celsius is None:
        yield Check(
            "temperature",
            State.WARN,
            "no sensor of the CPU is known to the kernel",
            "the agent cannot wait until the CPU has cooled down, nor say how hot it was",
            _temperature_driver(patient),
        )
        return
    hot = celsius >= _HOT_CELSIUS
    yield Check(
        "temperature",
        State.WARN if hot else State.OK,
        f"{celsius:.1f} °C",
        "it will be throttled soon" if hot else "",
        _COOL if hot else "",
    )


def _temperature_driver(patient: Patient) -> str:
    cpuinfo = text_of(patient.around.roots.proc / "cpuinfo")
    if " hypervisor" in cpuinfo:
        return "none in a virtual machine: measure on the machine itself"
    if "GenuineIntel" in cpuinfo:
        return "sudo modprobe coretemp"
    if "AuthenticAMD" in cpuinfo:
        return "sudo modprobe k10temp"
    return "boot a kernel with the thermal driver of this board"


def _throttling(patient: Patient) -> Iterator[Check]:
    if not _tells_throttling(patient):
        yield Check("throttling", State.OK, "nothing on this device tells; the canary does")
        return
    limits = patient.around.throttle_watch().now()
    if limits:
        volts = "undervoltage" in limits
        yield Check(
            "throttling",
            State.FAIL,
            f"the CPU is slowed down now: {', '.join(limits)}",
            "every figure would be wrong, and no measurement is taken",
            _SUPPLY if volts else _COOL,
        )
        return
    yield _throttled_before(patient)


def _tells_throttling(patient: Patient) -> bool:
    sys_root, mailbox = patient.around.roots.sys, patient.around.mailbox
    return firmware_word(sys_root, mailbox) is not None or bool(throttle_counts(sys_root))


def _throttled_before(patient: Patient) -> Check:
    if _word(patient) & _UNDERVOLTED_SINCE_BOOT:
        return Check(
            "throttling",
            State.WARN,
            "not now, but the voltage was too low at some time since boot",
            "it will be again under load, and then the clock is halved",
            _SUPPLY,
        )
    return Check("throttling", State.OK, "the CPU is not slowed down")


def _word(patient: Patient) -> int:
    """The throttle word; 0 on a board that has none."""
    read = firmware_word(patient.around.roots.sys, patient.around.mailbox)
    try:
        return read() if read is not None else 0
    except SensorUnavailableError:
        # It answered a moment ago: a mailbox that is busy.
        return 0


def _firmware_access(patient: Patient) -> Iterator[Check]:
    """On a Raspberry Pi alone: who may not ask the firmware misses throttling and power."""
    model = text_of(patient.around.roots.proc / "device-tree/model")
    if "Raspberry Pi" not in model:
        return
    try:
        patient.around.mailbox.get_throttled()
    except SensorUnavailableError as error:
        yield Check(
            "firmware",
            State.WARN,
            str(error),
            "undervoltage and throttling are not seen, and the power of a Raspberry Pi 5 neither",
            f"sudo usermod -aG video {user_name()}, then start the agent again",
        )
        return
    yield Check("firmware", State.OK, "answers")
    yield from _clock(patient)


def _clock(patient: Patient) -> Iterator[Check]:
    """The clock as the firmware measures it, right after some work."""
    most = text_of(patient.cpu_folder / "cpu0/cpufreq/cpuinfo_max_freq")
    run_canary(lambda: int(patient.around.clock() * 1e9))
    try:
        hertz = patient.around.mailbox.measure_clock_hertz()
    except SensorUnavailableError as error:
        yield Check("clock", State.OK, f"not told ({error})")
        return
    if not most.isdigit():
        yield Check("clock", State.OK, f"{hertz / 1e6:.0f} MHz")
        return
    slow = hertz < _SLOW_CLOCK_SHARE * int(most) * 1000
    yield Check(
        "clock",
        State.WARN if slow else State.OK,
        f"{hertz / 1e6:.0f} of {int(most) / 1000:.0f} MHz",
        "the cores run below their clock although there was work" if slow else "",
        "see governor and throttling" if slow else "",
    )


def _power(patient: Patient) -> Iterator[Check]:
    working = [source for source in patient.power_sources if source.works]
    for source in working:
        yield Check(f"power {source.name}", State.OK, "works")
    for source in patient.power_sources:
        # What is there and cannot be read is worth mending; what is not there is not.
        if not source.works and "permission" in source.why_not:
            yield _closed(source)
    if not working:
        others = "; ".join(f"{s.name}: {s.why_not}" for s in patient.power_sources)
        yield Check(
            "power",
            State.WARN,
            f"no sensor on this board ({others})",
            "no energy figures, unless a meter of the plant's network is bound to this device",
            "on the host: genba device meter DEVICE URL",
        )


def _closed(source: PowerSourceFacts) -> Check:
    mend = f"give {user_name()} read access, as said"
    if source.name == "rapl":
        mend = (
            f"echo '{udev_rule()}' | sudo tee {UDEV_RULES_FILE}"
            " && sudo udevadm control --reload && sudo udevadm trigger --action=add"
            " --subsystem-match=powercap"
        )
    if source.name == "pmic":
        mend = f"sudo usermod -aG video {user_name()}, then start the agent again"
    return Check(
        f"power {source.name}", State.WARN, source.why_not, "its energy figures are missing", mend
    )


LOOKS: tuple[Look, ...] = (_temperature, _throttling, _firmware_access, _power)
