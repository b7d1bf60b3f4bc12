"""Power that is published: payloads, age, and brokers that come and go."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from host.device import MeterBinding
from host.meters import Meter, MeterError, MeterUsageError, open_meter

if TYPE_CHECKING:
    from tests.host.meters.conftest import Bench, Broker

PASSWORD = "correct horse battery"


def binding(broker: "Broker", **options: str) -> MeterBinding:
    options = {"timeout_seconds": "1", "max_age_seconds": "2", **options}
    return MeterBinding(f"mqtt://127.0.0.1:{broker.port}/line-3/meter", options)


def read_after(publish: Callable[[], None], meter: Meter) -> float | None:
    publish()
    until = time.monotonic() + 5
    while True:
        try:
            return meter.read().power_watts
        except MeterError:
            if time.monotonic() > until:
                raise


@contextmanager
def opened(broker: "Broker", **options: str) -> Iterator[Meter]:
    broker.start()
    with closing(open_meter(binding(broker, **options))) as meter:
        yield meter


@pytest.mark.parametrize(
    ("payload", "options", "watts"),
    [
        ("41.5", {}, 41.5),
        (' "41.5" ', {}, 41.5),
        ("0.0415", {"unit": "kW"}, 41.5),
        ("415", {"scale": "0.1"}, 41.5),
        ('{"power": 41.5, "energy": 1.2}', {"field": "power"}, 41.5),
        ('{"phases": [{"p": 1}, {"p": 41.5}]}', {"field": "phases.1.p"}, 41.5),
    ],
)
def test_a_payload_is_a_number_or_holds_one(
    broker: "Broker", payload: str, options: dict[str, str], watts: float
) -> None:
    with opened(broker, **options) as meter:
        broker.publish("line-3/meter", payload)

        assert meter.read().value("watts") == pytest.approx(watts)


def test_a_topic_may_hold_a_counter(broker: "Broker") -> None:
    with opened(broker, unit="kWh") as meter:
        broker.publish("line-3/meter", "1.5")

        assert meter.quantity == "joules"
        assert meter.read().value("joules") == pytest.approx(1.5 * 3.6e6)


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        ("on", "not JSON"),
        ("", "not JSON"),
        ('{"power": 1}', "no number in it"),
        ("null", "no number in it"),
        ("[]", "no number in it"),
        ("1" * 70_000, "far too long"),
    ],
)
def test_a_payload_that_holds_none_is_refused(broker: "Broker", payload: str, says: str) -> None:
    with opened(broker) as meter:
        broker.publish("line-3/meter", payload)

        with pytest.raises(MeterError, match=says):
            meter.read()


def test_a_reading_has_the_time_at_which_it_arrived(mqtt_bench: "Bench") -> None:
    with closing(open_meter(mqtt_bench.binding)) as meter:
        earliest = time.monotonic()
        first = meter.read().taken_monotonic_seconds
        time.sleep(0.12)
        second = meter.read().taken_monotonic_seconds
        latest = time.monotonic()

    assert first is not None
    assert second is not None
    assert earliest - 0.1 <= first < second <= latest


def test_a_value_that_is_old_is_refused(broker: "Broker") -> None:
    with opened(broker, max_age_seconds="0.3") as meter:
        broker.publish("line-3/meter", "41.5")
        fresh = meter.read().power_watts
        time.sleep(0.35)

        with pytest.raises(MeterError, match="nothing was published under line-3/meter"):
            meter.read()

    assert fresh == 41.5


def test_a_retained_value_is_of_unknown_age_and_refused(broker: "Broker") -> None:
    broker.start()
    broker.publish("line-3/meter", "41.5", retain=True)

    with (
        closing(open_meter(binding(broker, max_age_seconds="0.3"))) as meter,
        pytest.raises(MeterError, match=r"nothing was published .* for 0\.3 s"),
    ):
        meter.read()


def test_a_broker_that_wants_a_password_gets_it(broker: "Broker") -> None:
    broker.start(password=True)

    with pytest.raises(MeterError, match=r"refuses the subscription .*check user, password") as no:
        open_meter(binding(broker))
    with pytest.raises(MeterError) as wrong:
        open_meter(binding(broker, user="line", password="wr0ng-secret"))
    open_meter(binding(broker, user="line", password=PASSWORD)).close()

    assert "uthori" in str(no.value)
    assert "wr0ng-secret" not in str(wrong.value)


def test_a_broker_that_was_started_again_is_subscribed_to_again(broker: "Broker") -> None:
    ended = threading.Event()

    def publish() -> None:
        while not ended.wait(0.1):
            try:
                broker.publish("line-3/meter", "41.5")
            except OSError:
                continue

    with opened(broker, max_age_seconds="0.5") as meter:
        broker.stop()
        broker.start()
        thread = threading.Thread(target=publish)
        thread.start()
        try:
            again = read_after(lambda: None, meter)
        finally:
            ended.set()
            thread.join()

    assert again == 41.5


@pytest.mark.parametrize(
    ("rest", "options", "says"),
    [
        ("h", {}, "ends with one topic"),
        ("h/", {}, "ends with one topic"),
        ("h/line/+", {}, "without wildcards"),
        ("h/line/%23", {}, "without wildcards"),
        ("h/t", {"unit": "V"}, "the option unit is one of mW, W, kW, J"),
        ("h/t", {"password": "x"}, "needs the option user too"),
        ("h/t", {"tls": "maybe"}, "the option tls is one of yes, no"),
        ("h/t", {"tls": "yes", "ca_file": "/no/such.pem"}, "the option ca_file cannot be used"),
        ("h/t", {"max_age_seconds": "0"}, "max_age_seconds is a number from 0.1"),
    ],
)
def test_a_subscription_that_makes_no_sense_is_refused(
    rest: str, options: dict[str, str], says: str
) -> None:
    with pytest.raises(MeterUsageError) as caught:
        open_meter(MeterBinding(f"mqtt://{rest}", options))

    assert says in str(caught.value)
