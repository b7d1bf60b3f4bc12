"""Power or energy that somebody publishes to an MQTT broker."""

import ssl
import threading
from collections.abc import Callable
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from host.meters.base import Meter, MeterError, MeterFacts, MeterUsageError, Reading
from host.meters.documents import number_at, parse_json
from host.meters.options import Options, parse_address

INTERVAL_SECONDS = 0.25
MAX_WATTS = 25_000.0
MAX_AGE_SECONDS = 15.0
_MAX_PAYLOAD_BYTES = 64 * 1024
_KEEPALIVE_SECONDS = 30


class Subscription:
    """A topic, of which the newest value is kept. paho's thread writes, the meter reads."""

    def __init__(
        self,
        client: paho.Client,
        topic: str,
        field: tuple[str, ...],
        clock: Callable[[], float],
    ) -> None:
        self._client, self._topic, self._field, self._clock = client, topic, field, clock
        self._changed = threading.Condition()
        self._subscribed = False
        self._refused = ""
        self._newest: tuple[float, float | MeterError] | None = None
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message

    def open(self, host: str, port: int, timeout_seconds: float) -> None:
        """Connect and subscribe. Raises MeterError."""
        self._client.connect_timeout = timeout_seconds
        try:
            self._client.connect(host, port, keepalive=_KEEPALIVE_SECONDS)
        except (OSError, ValueError) as error:
            raise MeterError(
                f"the MQTT broker does not answer ({error}); check its address"
            ) from error
        self._client.loop_start()
        with self._changed:
            self._changed.wait_for(lambda: self._subscribed or self._refused, timeout_seconds)
            if not self._subscribed:
                raise MeterError(
                    f"the MQTT broker refuses the subscription ({self._refused or 'no answer'}); "
                    "check user, password and topic"
                )

    def newest(self, max_age_seconds: float) -> tuple[float, float]:
        """When the newest value arrived, and the value; waits for the first one.

        Raises MeterError where there is none that is recent.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None, max_age_seconds)
            newest = self._newest
        if newest is None:
            raise MeterError(
                f"nothing was published under {self._topic} for {max_age_seconds:g} s; check the "
                "topic, or make the meter publish more often"
            )
        arrived, value = newest
        age = self._clock() - arrived
        if age > max_age_seconds:
            raise MeterError(
                f"nothing was published under {self._topic} for {age:.0f} s; make the meter "
                "publish more often, or set max_age_seconds"
            )
        if isinstance(value, MeterError):
            raise value
        return arrived, value

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(
        self,
        client: paho.Client,
        _userdata: Any,
        _flags: paho.ConnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            self._refuse(str(reason))
        else:  # at every connection: a broker that was started again has forgotten subscriptions
            client.subscribe(self._topic, qos=0)

    def _on_subscribe(
        self,
        _client: paho.Client,
        _userdata: Any,
        _number: int,
        reasons: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        failures = [str(reason) for reason in reasons if reason.is_failure]
        if failures:
            self._refuse(failures[0])
            return
        with self._changed:
            self._subscribed = True
            self._changed.notify_all()

    def _refuse(self, because: str) -> None:
        with self._changed:
            self._refused = because
            self._changed.notify_all()

    def _on_message(self, _client: paho.Client, _userdata: Any, message: paho.MQTTMessage) -> None:
        if message.retain:  # of unknown age
            return
        arrived = self._clock()
        try:
            value: float | MeterError = self._parse(bytes(message.payload))
        except MeterError as error:
            value = error
        with self._changed:
            self._newest = (arrived, value)
            self._changed.notify_all()

    def _parse(self, payload: bytes) -> float:
        if len(payload) > _MAX_PAYLOAD_BYTES:
            raise MeterError(f"what is published under {self._topic} is far too long")
        return number_at(parse_json(payload), self._field)


class MqttMeter(Meter):
    """The newest value of a topic."""

    def __init__(
        self,
        facts: MeterFacts,
        subscription: Subscription,
        scale: float,
        max_age_seconds: float,
    ) -> None:
        super().__init__(facts)
        self._subscription, self._scale = subscription, scale
        self._max_age_seconds = max_age_seconds

    def read(self) -> Reading:
        arrived, value = self._subscription.newest(self._max_age_seconds)
        value *= self._scale
        if self.quantity == "watts":
            return Reading(power_watts=value, taken_monotonic_seconds=arrived)
        return Reading(energy_joules=value, taken_monotonic_seconds=arrived)

    def close(self) -> None:
        self._subscription.close()


def open_mqtt(url: str, options: Options, clock: Callable[[], float]) -> MqttMeter:
    """`mqtt://BROKER[:1883]/TOPIC`, the payload a number or JSON. Options: field (a.b.0), unit,
    scale, user, password, max_age_seconds, tls, ca_file.

    Raises MeterUsageError and MeterError.
    """
    tls = options.yes("tls")
    address = parse_address(url, 8883 if tls else 1883)
    topic = address.path
    if not topic or "+" in topic or "#" in topic:
        raise MeterUsageError(
            "the URL of an MQTT meter ends with one topic, without wildcards: mqtt://BROKER/TOPIC"
        )
    field = options.text("field")
    quantity, unit = options.unit()
    scale = options.number("scale", 1.0) * unit
    max_age_seconds = options.number("max_age_seconds", MAX_AGE_SECONDS, low=0.1, high=600.0)
    client = _client(options, tls=tls)
    timeout_seconds = options.timeout_seconds
    facts = options.facts(address, quantity, interval_seconds=INTERVAL_SECONDS, max_watts=MAX_WATTS)
    subscription = Subscription(client, topic, tuple(field.split(".")) if field else (), clock)
    try:
        subscription.open(address.host, address.port, timeout_seconds)
    except MeterError:
        subscription.close()
        raise
    return MqttMeter(facts, subscription, scale, max_age_seconds)


def _client(options: Options, *, tls: bool) -> paho.Client:
    client = paho.Client(CallbackAPIVersion.VERSION2)
    user, password = options.text("user"), options.text("password")
    if user is None and password is not None:
        raise MeterUsageError("a password for the MQTT broker needs the option user too")
    if user is not None:
        client.username_pw_set(user, password)
    ca_file = options.text("ca_file")
    if tls:
        try:
            client.tls_set_context(ssl.create_default_context(cafile=ca_file))
        except OSError as error:
            raise MeterUsageError(f"the option ca_file cannot be used: {error}") from error
    return client
