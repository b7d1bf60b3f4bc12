"""JSON over HTTP from small devices in the plant."""

import logging
from collections.abc import Mapping
from typing import Any

import httpx

from host.meters.base import MeterError
from host.meters.documents import parse_json
from host.meters.options import Address

_MAX_BYTES = 256 * 1024

# It logs every URL, several a second, and that of a Tasmota plug holds its password.
logging.getLogger("httpx").setLevel(logging.WARNING)


class JsonDevice:
    """A device that answers GET with JSON. No proxy is asked: the device is on the same network."""

    def __init__(self, address: Address, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._client = httpx.Client(
            base_url=f"http://{address.netloc}", timeout=timeout_seconds, trust_env=False
        )

    def get(
        self, path: str, params: Mapping[str, str] | None = None, auth: httpx.Auth | None = None
    ) -> dict[str, Any]:
        """The JSON object at this path. Raises MeterError."""
        try:
            document = parse_json(self._body(path, params, auth))
        except httpx.TimeoutException as error:
            raise MeterError(
                f"the meter does not answer within {self._timeout_seconds:g} s; check that it is "
                "switched on"
            ) from error
        except httpx.HTTPError as error:
            raise MeterError(
                f"the meter does not answer ({error}); check its address and the network"
            ) from error
        if not isinstance(document, dict):
            raise MeterError("the meter's answer is not an object; check its URL")
        return document

    def _body(self, path: str, params: Mapping[str, str] | None, auth: httpx.Auth | None) -> bytes:
        body = bytearray()
        with self._client.stream("GET", path, params=params, auth=auth) as response:
            if response.status_code in {401, 403}:
                raise MeterError(
                    "the meter refuses the password; give the right one with the option password"
                )
            if response.status_code != 200:
                raise MeterError(
                    f"the meter answers HTTP {response.status_code} to {path}; check its kind"
                )
            for part in response.iter_bytes():
                body += part
                if len(body) > _MAX_BYTES:
                    raise MeterError("the meter's answer is far too long; check its address")
        return bytes(body)

    def close(self) -> None:
        self._client.close()
