from __future__ import annotations

import base64
import socket
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.enrol import enrol, parse_token
from device_agent.errors import (
    AlreadyEnrolledError,
    BadTokenError,
    HostAwayError,
    HostRefusedError,
    WrongHostError,
)
from device_agent.identity import make_key_pair
from device_agent.link import Link
from device_agent.state import Home
from device_agent.system import read_facts

PRINT = base64.urlsafe_b64encode(bytes(range(32))).decode().rstrip("=")


@pytest.fixture
def new_home(tmp_path: Path) -> Any:
    return Home(tmp_path / "new")


def enrol_with(token: str, home: Home, **options: Any) -> Any:
    return enrol(home, parse_token(token), read_facts(), make_key_pair=make_key_pair, **options)


@pytest.mark.parametrize("host", ["plant-server", "10.0.0.7", "[fe80::1]", "a.b.example"])
def test_a_token_is_taken_apart(host: Any) -> None:
    token = parse_token(f" genba1/{host}:7444/{PRINT}/s3cret_-\n")

    assert token.address == f"{host}:7444"
    assert token.ca_sha256 == bytes(range(32))
    assert token.secret == "s3cret_-"
    assert "s3cret" not in repr(token)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "genba1",
        "genba2/h:1/" + PRINT + "/s",
        f"genba1/h/{PRINT}/s",
        f"genba1/h:0/{PRINT}/s",
        f"genba1/h:70000/{PRINT}/s",
        f"genba1/:1/{PRINT}/s",
        f"genba1/fe80::1:7444/{PRINT}/s",
        f"genba1/h:1/{PRINT}/",
        f"genba1/h:1/{PRINT}/s/t",
        f"genba1/h:1/{PRINT[:-4]}/s",
        f"genba1/h:1/{PRINT}AAAA/s",
        "genba1/h:1/!!!/s",
        f"genba1/h:1/{PRINT[:-1]}é/s",
    ],
)
def test_what_is_no_token_is_a_usage_error(text: str) -> None:
    with pytest.raises(BadTokenError, match="genba device enroll") as caught:
        parse_token(text)

    assert caught.value.exit_code == 2


@settings(deadline=None)
@given(st.text())
def test_any_text_is_a_token_or_a_usage_error(text: str) -> None:
    with pytest.raises(BadTokenError):
        parse_token(f"genba1/{text}")


def test_a_device_enrols_and_can_attach_at_once(host: Any, new_home: Home) -> None:
    identity = enrol_with(host.token, new_home)

    assert new_home.identity() == identity
    assert identity.device_name == "press-3"
    assert identity.gateway_port == host.gateway_port
    link = Link(identity)
    assert link.hello("session", "0.1.0", read_facts()).device_name == "press-3"
    link.close()


def test_the_private_key_never_leaves_the_device(host: Any, new_home: Home) -> None:
    identity = enrol_with(host.token, new_home)

    (request,) = host.enrolments
    assert identity.key_pem not in request.SerializeToString()
    assert b"PRIVATE" not in request.SerializeToString()


def test_a_host_with_another_certificate_gets_no_secret(
    host: Any, another_authority: Any, new_home: Home
) -> None:
    token = host.token.replace(host.authority.fingerprint, another_authority.fingerprint)

    with pytest.raises(WrongHostError, match="nothing was sent"):
        enrol_with(token, new_home)

    assert host.enrolments == []
    assert not new_home.is_enrolled()


def test_a_host_that_shows_the_right_certificate_without_its_key_gets_no_secret(
    host: Any, new_home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The certificate is public: whoever replays it must still prove the key."""
    wanted = parse_token(host.token)
    monkeypatch.setattr(
        "device_agent.enrol.pinned_ca", lambda token: _another_certificate().encode()
    )

    with pytest.raises(HostAwayError):
        enrol(new_home, wanted, read_facts(), make_key_pair=make_key_pair)

    assert host.enrolments == []


def _another_certificate() -> str:
    import ssl
    from datetime import datetime, timezone

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "genba test CA")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(1970, 1, 1, tzinfo=timezone.utc))
        .not_valid_after(datetime(9999, 12, 31, tzinfo=timezone.utc))
        .sign(key, hashes.SHA256())
    )
    return ssl.DER_cert_to_PEM_cert(certificate.public_bytes(serialization.Encoding.DER))


def test_a_token_that_the_host_refuses_leaves_nothing_behind(host: Any, new_home: Home) -> None:
    token = host.token.replace(host.secret, "used-before")

    with pytest.raises(HostRefusedError, match="this token was used already"):
        enrol_with(token, new_home)

    assert not new_home.is_enrolled()


def test_an_enrolled_device_is_not_enrolled_again_by_accident(host: Any, new_home: Home) -> None:
    first = enrol_with(host.token, new_home)

    with pytest.raises(AlreadyEnrolledError, match=r"press-3.*--force"):
        enrol_with(host.token, new_home)
    second = enrol_with(host.token, new_home, force=True)

    assert second.key_pem != first.key_pem
    assert new_home.identity() == second


def test_a_host_that_is_not_there_is_one_sentence(host: Any, new_home: Home) -> None:
    token = host.token.replace(f":{host.enrolment_port}/", f":{free_port()}/")

    with pytest.raises(HostAwayError, match="cannot be reached"):
        enrol_with(token, new_home)


def test_a_server_that_speaks_no_tls_is_one_sentence(host: Any, new_home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer_plainly, args=(server,), daemon=True).start()
        token = host.token.replace(f":{host.enrolment_port}/", f":{server.getsockname()[1]}/")

        with pytest.raises(HostAwayError, match="cannot be reached"):
            enrol_with(token, new_home)


def answer_plainly(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(100)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_a_status_of_the_host_is_told_apart_by_what_can_be_done(host: Any, new_home: Home) -> None:
    identity = enrol_with(host.token, new_home)
    link = Link(identity)
    host.refuse_hello = (grpc.StatusCode.FAILED_PRECONDITION, "speak protocol 2")

    with pytest.raises(HostRefusedError, match="speak protocol 2"):
        link.hello("session", "0.1.0", read_facts())

    link.close()
