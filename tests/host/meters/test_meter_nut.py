"""UPSes: what they say, and servers that have nothing to say."""

import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from host.device import MeterBinding
from host.meters import MeterError, MeterUsageError, open_meter

if TYPE_CHECKING:
    from tests.host.meters.conftest import Bench, UpsServer


def binding(server: "UpsServer", ups: str = "rack", **options: str) -> MeterBinding:
    return MeterBinding(f"nut://127.0.0.1:{server.port}/{ups}", {"timeout_seconds": "1", **options})


def test_a_load_in_percent_is_a_derived_power_in_steps(ups_server: "UpsServer") -> None:
    ups_server.variables = {"ups.load": "7", "ups.realpower.nominal": "900"}

    with closing(open_meter(binding(ups_server))) as meter:
        assert meter.read().power_watts == pytest.approx(63)
        assert meter.kind == "derived"
        assert meter.facts.resolution_watts == 9


def test_the_nominal_power_may_be_given(ups_server: "UpsServer") -> None:
    ups_server.variables = {"ups.load": "7", "ups.realpower": "1"}

    with closing(open_meter(binding(ups_server, nominal_watts="1000"))) as meter:
        assert meter.read().power_watts == pytest.approx(70)
        assert meter.kind == "derived"


@pytest.mark.parametrize("variables", [{}, {"ups.load": "7"}, {"ups.realpower.nominal": "900"}])
def test_a_ups_that_says_no_power_is_told(
    ups_server: "UpsServer", variables: dict[str, str]
) -> None:
    ups_server.variables = variables

    with pytest.raises(MeterError, match="give the option nominal_watts"):
        open_meter(binding(ups_server))


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("DATA-STALE", "no fresh data"),
        ("DRIVER-NOT-CONNECTED", "driver of the UPS does not run"),
        ("ACCESS-DENIED", "denies access"),
        ("SOMETHING-NEW more words", "answers 'ERR SOMETHING-NEW more words'"),
    ],
)
def test_what_the_server_complains_of_is_told(
    nut_bench: "Bench", ups_server: "UpsServer", code: str, says: str
) -> None:
    with closing(open_meter(nut_bench.binding)) as meter:
        ups_server.error = code
        with pytest.raises(MeterError, match=says):
            meter.read()
        ups_server.error = ""
        after = meter.read().power_watts

    assert after == 12.5


def test_a_ups_that_the_server_does_not_know_is_told(ups_server: "UpsServer") -> None:
    with pytest.raises(MeterError, match="knows no UPS of that name"):
        open_meter(binding(ups_server, "cellar"))


def test_a_value_that_is_no_number_is_told(nut_bench: "Bench", ups_server: "UpsServer") -> None:
    with closing(open_meter(nut_bench.binding)) as meter:
        ups_server.variables["ups.realpower"] = "much"

        with pytest.raises(MeterError, match=r"no number as ups\.realpower"):
            meter.read()


def test_a_server_that_hangs_up_is_asked_again(nut_bench: "Bench", ups_server: "UpsServer") -> None:
    with closing(open_meter(nut_bench.binding)) as meter:
        meter.read()
        ups_server.hang_up()
        started = time.process_time()
        with pytest.raises(MeterError, match="does not answer"):
            meter.read()
        busy = time.process_time() - started

        after = meter.read().power_watts

    assert after == 12.5
    assert busy < 0.5


@pytest.mark.parametrize("rest", ["h", "h/", "h/a%20b", "h/a%0AGET"])
def test_the_url_ends_with_the_name_of_a_ups(rest: str) -> None:
    with pytest.raises(MeterUsageError, match="ends with the name of the UPS"):
        open_meter(MeterBinding(f"nut://{rest}"))
