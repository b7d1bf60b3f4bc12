"""First contact: a one-time token in, a key and a certificate out."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import socket
import ssl
from dataclasses import dataclass, field
from typing import Callable

from device_agent import link
from device_agent.errors import AlreadyEnrolledError, BadTokenError, HostAwayError, WrongHostError
from device_agent.identity import KeyPair
from device_agent.state import Home, Identity
from device_agent.system import DeviceFacts

_PREFIX = "genba1"
_CONNECT_SECONDS = 20.0
_SHA256_BYTES = 32


@dataclass(frozen=True)
class Token:
    """genba1/HOST:PORT/FINGERPRINT/SECRET, taken apart. `host` has brackets where it is IPv6."""

    host: str
    port: int
    ca_sha256: bytes
    secret: str = field(repr=False)

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"


def parse_token(text: str) -> Token:
    """Raises BadTokenError with what is wrong."""
    parts = text.strip().split("/")
    if len(parts) != 4 or parts[0] != _PREFIX:
        raise BadTokenError(f"it must read {_PREFIX}/HOST:PORT/FINGERPRINT/SECRET")
    _, address, fingerprint, secret = parts
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.%\w]+\]|[^\s:\[\]]+):(\d{1,5})", address)
    if match is None or not 0 < int(match.group(2)) < 1 << 16:
        raise BadTokenError(f"{address!r} is no HOST:PORT")
    if not secret:
        raise BadTokenError("its secret is missing")
    return Token(match.group(1), int(match.group(2)), _fingerprint(fingerprint), secret)


def enrol(
    home: Home,
    token: Token,
    facts: DeviceFacts,
    *,
    make_key_pair: Callable[[], KeyPair],
    force: bool = False,
) -> Identity:
    """Enrol this device and keep its identity in `home`.

    The secret leaves the device only after the host has shown the certificate that the token
    names, over a channel that trusts nothing else. Raises AlreadyEnrolledError without `force`,
    WrongHostError, HostAwayError, HostRefusedError, RequestRefusedError and what `make_key_pair`
    and `home` raise; then nothing has changed in `home`.
    """
    home.create()
    if home.is_enrolled() and not force:
        raise AlreadyEnrolledError(str(home.path), home.identity().device_name)
    ca_pem = pinned_ca(token)
    pair = make_key_pair()
    reply = link.enroll(
        token.address, ca_pem, token_secret=token.secret, csr_pem=pair.csr_pem, facts=facts
    )
    identity = Identity(
        device_id=reply.device_id,
        device_name=reply.device_name,
        host=token.host,
        gateway_port=reply.gateway_port,
        key_pem=pair.key_pem,
        certificate_pem=reply.certificate_pem,
        # Not the one in the reply: only this one was checked against the token.
        ca_pem=ca_pem,
    )
    home.save_identity(identity)
    return identity


def pinned_ca(token: Token) -> bytes:
    """The host's CA certificate in PEM, proven by the token's fingerprint.

    Raises HostAwayError where nobody answers and WrongHostError where somebody else does.
    """
    # Nothing is verified here because the fingerprint below is the verification.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection(
                (token.host.strip("[]"), token.port), timeout=_CONNECT_SECONDS
            ) as connection,
            context.wrap_socket(connection, server_hostname=link.SERVER_NAME) as session,
        ):
            certificate = session.getpeercert(binary_form=True) or b""
    except OSError as error:
        detail = f"{token.address}: {error.strerror or error}"
        raise HostAwayError("UNAVAILABLE", detail) from error
    if not hmac.compare_digest(hashlib.sha256(certificate).digest(), token.ca_sha256):
        raise WrongHostError(token.address)
    return ssl.DER_cert_to_PEM_cert(certificate).encode("ascii")


def _fingerprint(text: str) -> bytes:
    try:
        digest = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadTokenError("its fingerprint is not base64") from error
    if len(digest) != _SHA256_BYTES:
        raise BadTokenError("its fingerprint has the wrong length")
    return digest
