"""Power over SNMP, asked of pysnmp's own agent."""

from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from host.device import MeterBinding
from host.meters import MeterError, MeterUsageError, open_meter

if TYPE_CHECKING:
    from tests.host.meters.conftest import SnmpAgent

PASSWORD = "correct horse battery"
V3 = {
    "version": "3",
    "user": "line",
    "auth_protocol": "sha256",
    "auth_password": PASSWORD,
    "priv_password": PASSWORD[::-1],
}
OUTLET = "1.3.6.1.4.1.318.1.1.26.9.4.3.1.7.5"
ENERGY = "1.3.6.1.4.1.318.1.1.26.4.3.1.9.1"
DEVICE = "1.3.6.1.4.1.318.1.1.26.4.3.1.5.1"


def opened(agent: "SnmpAgent", oid: str, **options: str):
    options = {"timeout_seconds": "0.5", "community": "plant", **options}
    if options.get("version") == "3":
        del options["community"]
    url = f"snmp://127.0.0.1:{agent.port}/{oid}"
    return closing(open_meter(MeterBinding(url, options)))


def test_a_rack_pdu_counts_in_steps_of_10_watts(snmp_agent: "SnmpAgent") -> None:
    snmp_agent.objects[DEVICE] = 12

    with opened(snmp_agent, DEVICE) as meter:
        assert meter.read().power_watts == 120
        assert meter.facts.resolution_watts == 10


def test_an_outlet_counts_in_watts(snmp_agent: "SnmpAgent") -> None:
    snmp_agent.objects[OUTLET] = 41

    with opened(snmp_agent, f".{OUTLET}") as meter:
        assert meter.read().power_watts == 41
        assert meter.facts.resolution_watts == 1


def test_the_counter_of_a_pdu_is_in_tenths_of_kilowatt_hours(snmp_agent: "SnmpAgent") -> None:
    snmp_agent.objects[ENERGY] = 15

    with opened(snmp_agent, ENERGY) as meter:
        assert meter.quantity == "joules"
        assert meter.read().energy_joules == pytest.approx(1.5 * 3.6e6)


@pytest.mark.parametrize(
    ("value", "options", "watts"),
    [
        (415, {"scale": "0.1"}, 41.5),
        (41_500, {"unit": "mW"}, 41.5),
        ("41.5", {}, 41.5),
        (-3, {}, -3),
    ],
)
def test_another_object_has_the_unit_that_is_given(
    snmp_agent: "SnmpAgent", value: Any, options: dict[str, str], watts: float
) -> None:
    snmp_agent.objects["1.3.6.1.4.1.9999.1"] = value

    with opened(snmp_agent, "1.3.6.1.4.1.9999.1", **options) as meter:
        assert meter.read().power_watts == pytest.approx(watts)


def test_version_3_is_authenticated_and_encrypted(snmp_agent: "SnmpAgent") -> None:
    snmp_agent.objects[OUTLET] = 41

    with opened(snmp_agent, OUTLET, **V3) as meter:
        assert [meter.read().power_watts for _ in range(3)] == [41] * 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"user": "nobody"},
        {"auth_password": "something else"},
        {"priv_password": "something else"},
        {"auth_protocol": "sha512"},
    ],
)
def test_version_3_with_wrong_credentials_is_told(
    snmp_agent: "SnmpAgent", wrong: dict[str, str]
) -> None:
    snmp_agent.objects[OUTLET] = 41

    with (
        opened(snmp_agent, OUTLET, **{**V3, **wrong}) as meter,
        pytest.raises(MeterError) as caught,
    ):
        meter.read()

    assert "something else" not in str(caught.value)


def test_a_wrong_community_is_no_answer(snmp_agent: "SnmpAgent") -> None:
    with (
        opened(snmp_agent, OUTLET, community="wr0ng") as meter,
        pytest.raises(MeterError, match="does not answer over SNMP") as caught,
    ):
        meter.read()

    assert "wr0ng" not in str(caught.value)


@pytest.mark.parametrize("value", [None, "off"])
def test_an_object_without_a_number_is_told(snmp_agent: "SnmpAgent", value: Any) -> None:
    if value is not None:
        snmp_agent.objects[OUTLET] = value

    with (
        opened(snmp_agent, OUTLET) as meter,
        pytest.raises(MeterError, match=r"not a number .*index of the device or outlet"),
    ):
        meter.read()


def test_a_host_without_an_address_is_told() -> None:
    meter = open_meter(MeterBinding(f"snmp://no-such-host.invalid/{OUTLET}"))

    with closing(meter), pytest.raises(MeterError, match="cannot be asked over SNMP"):
        meter.read()


@pytest.mark.parametrize(
    ("rest", "options", "says"),
    [
        ("h", {}, "ends with a numeric OID"),
        ("h/PowerNet-MIB::rPDU2", {}, "ends with a numeric OID"),
        ("h/9.9.9", {}, "ends with a numeric OID"),
        ("h/1.3.6.1", {"scale": "0"}, "scale cannot be 0"),
        ("h/1.3.6.1", {"version": "1"}, "version is one of 2c, 3"),
        ("h/1.3.6.1", {"version": "3"}, "needs the option user"),
        ("h/1.3.6.1", {**V3, "auth_password": "short"}, "at least 8 characters"),
        ("h/1.3.6.1", {**V3, "community": "public"}, "no option community"),
        ("h/1.3.6.1", {**V3, "priv_protocol": "rot13"}, "priv_protocol is one of"),
        (
            "h/1.3.6.1",
            {"version": "3", "user": "line", "priv_password": PASSWORD},
            "needs auth_password too",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused(rest: str, options: dict[str, str], says: str) -> None:
    with pytest.raises(MeterUsageError) as caught:
        open_meter(MeterBinding(f"snmp://{rest}", options))

    assert says in str(caught.value)
    assert PASSWORD not in str(caught.value)
