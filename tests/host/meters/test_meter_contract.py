"""What holds for every meter, whatever it speaks."""

import importlib
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from host.device import MeterBinding
from host.meters import (
    MeterError,
    MeterUsageError,
    MissingPackageError,
    masked_options,
    meter_name,
    open_meter,
)

if TYPE_CHECKING:
    from tests.host.meters.conftest import Bench

SECONDS = 10.0
BENCHES = (
    "modbus_bench",
    "shelly_bench",
    "shelly_1_bench",
    "tasmota_bench",
    "mqtt_bench",
    "snmp_bench",
    "nut_bench",
    "upsd_bench",
)
# Nothing answers at these: what a person mistook is told before the meter is asked.
BINDINGS = {
    "modbus": MeterBinding("modbus://127.0.0.1:9/1", {"model": "sdm120"}),
    "shelly": MeterBinding("shelly://127.0.0.1:9"),
    "tasmota": MeterBinding("tasmota://127.0.0.1:9"),
    "mqtt": MeterBinding("mqtt://127.0.0.1:9/line-3/meter"),
    "snmp": MeterBinding("snmp://127.0.0.1:9/1.3.6.1"),
    "nut": MeterBinding("nut://127.0.0.1:9/rack"),
}


@pytest.fixture(params=BENCHES)
def bench(request: pytest.FixtureRequest) -> "Iterator[Bench]":
    bench: Bench = request.getfixturevalue(request.param)
    yield bench
    bench.stop()


def read_until(meter, watts: float) -> float | None:
    """What the meter says once it says that much, or after a while."""
    until = time.monotonic() + SECONDS
    said = None
    while said != pytest.approx(watts) and time.monotonic() < until:
        try:
            said = meter.read().power_watts
        except MeterError:  # a driver that is just starting
            said = None
        time.sleep(0.02)
    return said


def read_on(meter) -> None:
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        meter.read()


def opened(binding: MeterBinding):
    """The meter, once what serves it has started."""
    until = time.monotonic() + SECONDS
    while True:
        try:
            return open_meter(binding)
        except MeterError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def test_a_meter_says_the_power_of_the_moment(bench: "Bench") -> None:
    before, after = bench.watts

    with closing(opened(bench.binding)) as meter:
        first = read_until(meter, before)
        bench.set_watts(after)
        second = read_until(meter, after)

    assert first == pytest.approx(before)
    assert second == pytest.approx(after)


def test_a_meter_knows_what_its_numbers_are(bench: "Bench") -> None:
    with closing(opened(bench.bound(max_watts="250", interval_seconds="0.75"))) as meter:
        default = meter.scope

    assert meter.facts.name == meter_name(bench.binding)
    assert meter.name.split(" ")[0] == bench.url.split(":")[0]
    assert (default, meter.kind, meter.quantity) == ("wall", "measured", "watts")
    assert (meter.max_watts, meter.interval_seconds) == (250, 0.75)


def test_a_meter_can_supply_the_board_only(bench: "Bench") -> None:
    with closing(opened(bench.bound(scope="board"))) as meter:
        assert meter.scope == "board"


def test_a_meter_that_goes_away_says_so_soon_and_clearly(bench: "Bench") -> None:
    with closing(opened(bench.binding)) as meter:
        read_until(meter, bench.watts[0])
        bench.stop()
        started = time.monotonic()
        with pytest.raises(MeterError) as caught:
            read_on(meter)
        lasted = time.monotonic() - started

    assert lasted < 3
    assert ";" in str(caught.value)  # what is wrong; what to do
    assert "\n" not in str(caught.value)


def test_a_meter_that_was_never_there_is_no_mistake_of_the_user(bench: "Bench") -> None:
    bench.stop()

    with pytest.raises(MeterError) as caught, closing(open_meter(bench.binding)) as meter:
        meter.read()

    assert caught.value.exit_code == 1


@pytest.mark.parametrize("scheme", BINDINGS)
def test_an_option_that_the_meter_lacks_is_named_with_those_that_it_has(scheme: str) -> None:
    binding = BINDINGS[scheme]

    with pytest.raises(MeterUsageError, match=r"has no option colour; it has .*interval_seconds"):
        open_meter(MeterBinding(binding.url, {**binding.options, "colour": "red"}))


@pytest.mark.parametrize("scheme", BINDINGS)
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("interval_seconds", "fast"),
        ("interval_seconds", "nan"),
        ("interval_seconds", "0"),
        ("max_watts", "-1"),
        ("scope", "house"),
        ("timeout_seconds", "1e9"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(scheme: str, option: str, value: str) -> None:
    binding = BINDINGS[scheme]

    with pytest.raises(MeterUsageError, match=option):
        open_meter(MeterBinding(binding.url, {**binding.options, option: value}))


@pytest.mark.parametrize("scheme", BINDINGS)
def test_a_password_in_the_url_is_refused(scheme: str) -> None:
    rest = BINDINGS[scheme].url.split("://")[1]

    with pytest.raises(MeterUsageError, match="give user and password as options") as caught:
        open_meter(MeterBinding(f"{scheme}://admin:s3cret@{rest}", BINDINGS[scheme].options))

    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("scheme", BINDINGS)
@pytest.mark.parametrize(
    "rest", ["", "/", ":99999/1", ":x/1", "host:5/1?unit=W", "host:5/1#a", "[::1/1"]
)
def test_a_url_that_names_no_place_is_refused(scheme: str, rest: str) -> None:
    with pytest.raises(MeterUsageError, match="URL"):
        open_meter(MeterBinding(f"{scheme}://{rest}", BINDINGS[scheme].options))


@pytest.mark.parametrize(
    ("url", "package"),
    [
        ("modbus://h/1", "pymodbus"),
        ("shelly://h", "httpx"),
        ("tasmota://h", "httpx"),
        ("mqtt://h/t", "paho-mqtt"),
        ("snmp://h/1.3.6.1", "pysnmp"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, url: str, package: str
) -> None:
    top = package.removesuffix("-mqtt")
    for name in [n for n in sys.modules if n == top or n.startswith(f"{top}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, top, None)
    for name in ("modbus", "shelly", "tasmota", "mqtt", "snmp", "web"):
        monkeypatch.delitem(sys.modules, f"host.meters.{name}", raising=False)

    with pytest.raises(MissingPackageError) as caught:
        open_meter(MeterBinding(url))

    assert package in str(caught.value)
    assert "pip install 'genba[meters]'" in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("url", ["", "192.168.7.20", "http://192.168.7.20", "shelly:host"])
def test_only_urls_of_known_schemes_are_meters(url: str) -> None:
    with pytest.raises(MeterUsageError, match="modbus://, shelly://"):
        open_meter(MeterBinding(url))


def test_the_name_of_a_meter_tells_its_place_and_no_secret() -> None:
    urls = [
        "modbus://10.0.0.5:1502/3",
        "shelly://plug-3",
        "mqtt://[fe80::1]/line%203/power",
        "tasmota://admin:s3cret@plug",
        "nonsense",
    ]

    assert [meter_name(MeterBinding(url)) for url in urls] == [
        "modbus 10.0.0.5:1502/3",
        "shelly plug-3",
        "mqtt fe80::1/line 3/power",
        "tasmota",
        "meter",
    ]


def test_passwords_and_communities_are_masked_for_people() -> None:
    options = {
        "password": "a",
        "auth_password": "bb",
        "community": "ccc",
        "user": "line",
        "unit": "kW",
    }

    shown = masked_options(MeterBinding("snmp://pdu/1.3.6", options))

    assert shown == {
        "password": "••••",
        "auth_password": "••••",
        "community": "••••",
        "user": "line",
        "unit": "kW",
    }


def test_the_catalogue_loads_no_client_library() -> None:
    loaded = {name.split(".")[0] for name in sys.modules}
    catalogue = importlib.import_module("host.meters.catalogue")

    assert catalogue.SCHEMES == ("modbus", "shelly", "tasmota", "mqtt", "snmp", "nut")
    assert {name.split(".")[0] for name in sys.modules} == loaded
