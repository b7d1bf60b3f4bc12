"""Shelly and Tasmota: what their documents may hold, and their passwords."""

import base64
import logging
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from host.device import MeterBinding
from host.meters import MeterError, MeterUsageError, open_meter

if TYPE_CHECKING:
    from tests.host.meters.conftest import Bench, WebDevice

PASSWORD = "correct horse battery"


def test_the_counter_of_a_shelly_is_in_watt_hours(shelly_bench: "Bench") -> None:
    with closing(open_meter(shelly_bench.bound(quantity="joules"))) as meter:
        reading = meter.read()

    assert meter.quantity == "joules"
    assert reading.energy_joules == pytest.approx(6.532 * 3600)


def test_the_counter_of_a_first_shelly_is_in_watt_minutes(shelly_1_bench: "Bench") -> None:
    with closing(open_meter(shelly_1_bench.binding)) as meter:
        assert meter.read().energy_joules == 120 * 60


def test_the_counter_of_a_tasmota_plug_is_in_kilowatt_hours(tasmota_bench: "Bench") -> None:
    with closing(open_meter(tasmota_bench.binding)) as meter:
        assert meter.read().energy_joules == pytest.approx(3.185 * 3.6e6)


def test_a_shelly_that_only_measures_is_another_component(
    shelly_bench: "Bench", web: "WebDevice"
) -> None:
    web.documents["/rpc/PM1.GetStatus?id=1"] = {"id": 1, "apower": 7.25}

    with closing(open_meter(shelly_bench.bound(component="pm1", channel="1"))) as meter:
        reading = meter.read()

    assert reading.power_watts == 7.25
    assert reading.energy_joules is None
    with pytest.raises(MeterError, match="no energy counter"):
        reading.value("joules")


def test_a_shelly_takes_its_password_by_digest(shelly_bench: "Bench", web: "WebDevice") -> None:
    web.digest_password = PASSWORD

    with closing(open_meter(shelly_bench.bound(password=PASSWORD))) as meter:
        readings = [meter.read().power_watts for _ in range(3)]
    refused = open_meter(shelly_bench.bound(password="wrong"))
    with closing(refused), pytest.raises(MeterError, match="refuses the password"):
        refused.read()

    assert readings == [12.5] * 3
    # The challenge is kept: one refused request, then one for each reading.
    assert web.requests[:5] == ["/shelly", *["/rpc/Switch.GetStatus?id=0"] * 4]


def test_a_first_shelly_takes_its_password_as_it_is(
    shelly_1_bench: "Bench", web: "WebDevice"
) -> None:
    web.basic = "Basic " + base64.b64encode(f"line:{PASSWORD}".encode()).decode()

    with closing(open_meter(shelly_1_bench.bound(user="line", password=PASSWORD))) as meter:
        assert meter.read().power_watts == 12.5


def test_a_first_shelly_that_doubts_its_reading_is_believed(
    shelly_1_bench: "Bench", web: "WebDevice"
) -> None:
    web.documents["/meter/0"]["is_valid"] = False

    with (
        closing(open_meter(shelly_1_bench.binding)) as meter,
        pytest.raises(MeterError, match="not valid"),
    ):
        meter.read()


@pytest.mark.parametrize("document", [{}, {"name": "a printer"}, [], "text"])
def test_what_is_no_shelly_is_told(shelly_bench: "Bench", web: "WebDevice", document: Any) -> None:
    web.documents["/shelly"] = document

    with pytest.raises(MeterError):
        open_meter(shelly_bench.binding)


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ({"id": 0, "output": True}, "no number apower"),
        ({"id": 0, "apower": None}, "no number apower"),
        ({"id": 0, "apower": True}, "no number apower"),
        ({"id": 0, "apower": "many"}, "no number apower"),
        ([], "not an object"),
    ],
)
def test_a_shelly_without_a_meter_is_told(
    shelly_bench: "Bench", web: "WebDevice", status: Any, says: str
) -> None:
    web.documents["/rpc/Switch.GetStatus?id=0"] = status

    with closing(open_meter(shelly_bench.binding)) as meter, pytest.raises(MeterError, match=says):
        meter.read()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"<html>Welcome</html>", "not JSON"),
        (b'{"apower": NaN}', "no number apower"),
        (b'{"apower": 1e999}', "no number apower"),
        (b"[" * 100_000, "not JSON"),
        (b" " * 300_000, "far too long"),
        (b"\xff\xfe\x00", "not JSON"),
    ],
)
def test_an_answer_that_makes_no_sense_is_refused(
    shelly_bench: "Bench", web: "WebDevice", body: bytes, says: str
) -> None:
    web.raw["/rpc/Switch.GetStatus?id=0"] = body

    with closing(open_meter(shelly_bench.binding)) as meter, pytest.raises(MeterError, match=says):
        meter.read()


def test_a_component_that_is_not_there_is_told(shelly_bench: "Bench") -> None:
    meter = open_meter(shelly_bench.bound(channel="3"))

    with closing(meter), pytest.raises(MeterError, match=r"HTTP 404 to /rpc/Switch\.GetStatus"):
        meter.read()


@pytest.mark.parametrize("url", ["shelly://h/relay/0", "tasmota://h/cm"])
def test_the_url_of_a_plug_ends_with_its_host(url: str) -> None:
    with pytest.raises(MeterUsageError, match="leave out /"):
        open_meter(MeterBinding(url))


def test_a_tasmota_plug_with_several_outlets_has_channels(
    tasmota_bench: "Bench", web: "WebDevice"
) -> None:
    energy = web.documents["/cm?cmnd=Status 8"]["StatusSNS"]["ENERGY"]
    energy.update(Power=[4, 9], Total=[1.5, 2.5])

    with closing(open_meter(tasmota_bench.bound(channel="1"))) as meter:
        reading = meter.read()
    with (
        closing(open_meter(tasmota_bench.bound(channel="2"))) as meter,
        pytest.raises(MeterError, match=r"no number Power\.2"),
    ):
        meter.read()

    assert reading.power_watts == 9
    assert reading.energy_joules == pytest.approx(2.5 * 3.6e6)


def test_a_tasmota_plug_without_a_meter_is_told(tasmota_bench: "Bench", web: "WebDevice") -> None:
    document = {"StatusSNS": {"Time": "2026-11-24T10:41:02"}}
    web.documents["/cm?cmnd=Status+8"] = web.documents["/cm?cmnd=Status 8"] = document

    with (
        closing(open_meter(tasmota_bench.binding)) as meter,
        pytest.raises(MeterError, match="not a Tasmota plug with a power meter"),
    ):
        meter.read()


def test_the_password_of_a_tasmota_plug_stands_in_no_log(
    tasmota_bench: "Bench", web: "WebDevice", caplog: pytest.LogCaptureFixture
) -> None:
    warning = {"WARNING": "Need user=<username>&password=<password>"}
    let_in = web.documents["/cm?cmnd=Status 8"]
    web.documents.clear()
    for space in ("+", " "):
        login = "user=admin&password=s3cret&"
        web.documents[f"/cm?{login}cmnd=Status{space}8"] = let_in
        web.documents[f"/cm?cmnd=Status{space}8"] = warning

    with caplog.at_level(logging.INFO):
        with closing(open_meter(tasmota_bench.bound(password="s3cret"))) as meter:
            watts = meter.read().power_watts
        with (
            closing(open_meter(tasmota_bench.binding)) as meter,
            pytest.raises(MeterError, match="refuses the password"),
        ):
            meter.read()

    assert watts == 12
    assert "s3cret" not in caplog.text
