"""Whoever calls the gateway, as gRPC names them."""

import re
from urllib.parse import unquote

# [2001:db8::7]:52114 or 192.0.2.7:52114
_WITH_PORT = re.compile(r"(?:\[(?P<address>[^\]]+)\]|(?P<bare>[^:\s]+)):[0-9]+")


def peer_address(peer: str) -> str:
    """The address alone of where a call came from, without scheme and port."""
    if not peer:
        return "an unknown address"
    place = unquote(peer).removeprefix("ipv4:").removeprefix("ipv6:")
    found = _WITH_PORT.fullmatch(place)
    return place if found is None else found["address"] or found["bare"]
