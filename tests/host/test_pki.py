"""The certificate authority, checked with OpenSSL and with a real handshake."""

import hashlib
import socket
import ssl
import stat
import subprocess
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from host.pki import (
    SERVER_NAME,
    CertificateAuthority,
    CsrError,
    PkiError,
    Token,
    TokenFormatError,
    read_csr,
    spki_sha256,
)


def _key_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _csr(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "whoever")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name)
    request = request.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _verify(folder: Path, ca_pem: bytes, leaf_pem: bytes, *purpose: str) -> str:
    (folder / "ca.pem").write_bytes(ca_pem)
    (folder / "leaf.pem").write_bytes(leaf_pem)
    command = ["openssl", "verify", "-x509_strict", *purpose, "-CAfile", "ca.pem", "leaf.pem"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return CertificateAuthority.make()


def test_openssl_accepts_the_server_and_the_device_for_their_purpose(
    authority: CertificateAuthority, tmp_path: Path
) -> None:
    device = authority.sign_device(read_csr(_csr(ec.generate_private_key(ec.SECP256R1()))), "kiosk")
    server = authority.issue_server().certificate_pem

    answers = [
        _verify(tmp_path, authority.certificate_pem, device, "-purpose", "sslclient"),
        _verify(tmp_path, authority.certificate_pem, server, "-purpose", "sslserver"),
    ]

    assert answers == ["leaf.pem: OK\n"] * 2


def test_a_device_certificate_is_no_server_and_no_authority(
    authority: CertificateAuthority, tmp_path: Path
) -> None:
    device = authority.sign_device(read_csr(_csr(ec.generate_private_key(ec.SECP256R1()))), "kiosk")

    answer = _verify(tmp_path, authority.certificate_pem, device, "-purpose", "sslserver")

    assert "unsuitable certificate purpose" in answer
    extensions = x509.load_pem_x509_certificate(device).extensions
    assert extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_the_subject_is_the_name_of_the_device_and_not_what_it_asked_for(
    authority: CertificateAuthority,
) -> None:
    csr = read_csr(_csr(ec.generate_private_key(ec.SECP256R1())))

    certificate = x509.load_pem_x509_certificate(authority.sign_device(csr, "プレス-3"))

    assert certificate.subject.rfc4514_string() == "CN=プレス-3"
    assert spki_sha256(certificate) == spki_sha256(csr)


@pytest.mark.parametrize("which", ["authority", "server", "device"])
def test_certificates_hold_from_1970_and_never_expire(
    authority: CertificateAuthority, which: str
) -> None:
    csr = read_csr(_csr(ec.generate_private_key(ec.SECP256R1())))
    pem = {
        "authority": authority.certificate_pem,
        "server": authority.issue_server().certificate_pem,
        "device": authority.sign_device(csr, "kiosk"),
    }[which]

    certificate = x509.load_pem_x509_certificate(pem)

    assert certificate.not_valid_before_utc == datetime(1970, 1, 1, tzinfo=UTC)
    assert certificate.not_valid_after_utc == datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


def test_a_mutual_handshake_succeeds_with_the_name_of_the_host(
    authority: CertificateAuthority, tmp_path: Path
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    server = authority.issue_server()
    files = {
        "ca": authority.certificate_pem,
        "server": server.key_pem + server.certificate_pem,
        "device": _key_pem(key) + authority.sign_device(read_csr(_csr(key)), "kiosk"),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tmp_path / "ca")
    server_side.load_cert_chain(tmp_path / "server")
    server_side.verify_mode = ssl.CERT_REQUIRED
    client_side = ssl.create_default_context(cafile=tmp_path / "ca")
    client_side.load_cert_chain(tmp_path / "device")
    here, there = socket.socketpair()

    def answer() -> None:
        with server_side.wrap_socket(there, server_side=True) as connection:
            connection.sendall(hashlib.sha256(connection.getpeercert(True) or b"").digest())

    thread = threading.Thread(target=answer)
    thread.start()
    with client_side.wrap_socket(here, server_hostname=SERVER_NAME) as connection:
        seen = connection.recv(64)
    thread.join()

    device = ssl.PEM_cert_to_DER_cert(
        files["device"].decode().partition("-----END PRIVATE")[2][len(" KEY-----\n") :]
    )
    assert seen == hashlib.sha256(device).digest()


def test_the_private_key_is_readable_by_its_owner_only(
    authority: CertificateAuthority, tmp_path: Path
) -> None:
    authority.save(tmp_path)

    assert stat.S_IMODE((tmp_path / "ca.key").stat().st_mode) == 0o600
    assert CertificateAuthority.load(tmp_path).fingerprint == authority.fingerprint


def test_saved_keys_are_never_overwritten(authority: CertificateAuthority, tmp_path: Path) -> None:
    authority.save(tmp_path)

    with pytest.raises(FileExistsError):
        CertificateAuthority.make().save(tmp_path)


def test_missing_or_broken_keys_are_named(authority: CertificateAuthority, tmp_path: Path) -> None:
    with pytest.raises(PkiError, match="restore them from a backup"):
        CertificateAuthority.load(tmp_path)

    authority.save(tmp_path)
    (tmp_path / "ca.crt").write_bytes(CertificateAuthority.make().certificate_pem)

    with pytest.raises(PkiError, match="do not belong together"):
        CertificateAuthority.load(tmp_path)


def _tampered() -> bytes:
    lines = _csr(ec.generate_private_key(ec.SECP256R1())).decode().splitlines()
    lines[-2] = ("A" if lines[-2][0] != "A" else "B") + lines[-2][1:]
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    ("csr_pem", "because"),
    [
        (b"", "must be PEM"),
        (b"\xff" * 100, "must be PEM"),
        (b"x" * 20_000, "bytes"),
        (_csr(rsa.generate_private_key(65537, 2048)), "not for an EC P-256 key"),
        (_csr(ec.generate_private_key(ec.SECP384R1())), "not for an EC P-256 key"),
    ],
    ids=["empty", "noise", "too long", "rsa", "p384"],
)
def test_a_request_that_cannot_be_signed_says_why(csr_pem: bytes, because: str) -> None:
    with pytest.raises(CsrError, match=because):
        read_csr(csr_pem)


def test_a_tampered_request_is_refused() -> None:
    with pytest.raises(CsrError):
        read_csr(_tampered())


HOSTS = st.one_of(
    st.ip_addresses().map(str),
    st.from_regex(r"[a-z][a-z0-9-]{0,20}(\.[a-z]{1,8}){0,2}", fullmatch=True),
)


@given(host=HOSTS, port=st.integers(1, 65535))
def test_a_token_survives_its_text(host: str, port: int) -> None:
    token = Token.make(host, port, "f" * 43)

    again = Token.parse(f"  {token}\n")

    assert again == token


def test_tokens_differ_and_do_not_show_their_secret() -> None:
    one, two = (Token.make("10.0.0.1", 8444, "f" * 43) for _ in range(2))

    assert one.secret != two.secret
    assert one.secret not in repr(one)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "genba1/host/fingerprint/secret",
        f"genba2/host:1/{'f' * 43}/{'s' * 22}",
        f"genba1/host:0/{'f' * 43}/{'s' * 22}",
        f"genba1/host:70000/{'f' * 43}/{'s' * 22}",
        f"genba1/host:1/{'f' * 42}/{'s' * 22}",
        f"genba1/ho st:1/{'f' * 43}/{'s' * 22}",
        f"genba1/host:1/{'f' * 43}",
    ],
)
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(TokenFormatError, match="copy all of it"):
        Token.parse(text)
