"""The host's own certificate authority, and the tokens that let devices find it.

All keys are EC P-256. Certificates are valid from 1970, because a Raspberry Pi boots there, until
9999-12-31T23:59:59Z, which RFC 5280 section 4.1.2.5 gives as "no well-defined expiration". A
device is shut out by taking its public key off the list in the store.
"""

import base64
import hashlib
import os
import re
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from host.errors import GenbaError, UsageError

SERVER_NAME = "genba-host"
"""The name in every certificate of a host: devices check it instead of an address."""
CSR_MAX_BYTES = 16 * 1024
LEASE_PREFIX = b"genba-lease/1\n"
_NOT_BEFORE = datetime(1970, 1, 1, tzinfo=UTC)
_NOT_AFTER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
_KEY_FILE, _CERTIFICATE_FILE = "ca.key", "ca.crt"
_TOKEN = re.compile(
    r"genba1/(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s/:\[\]]+):(?P<port>[0-9]{1,5})"
    r"/(?P<fingerprint>[A-Za-z0-9_-]{43})/(?P<secret>[A-Za-z0-9_-]{16,64})"
)


class PkiError(GenbaError):
    """The keys of the workspace cannot be used."""


class CsrError(GenbaError):
    """What a device sent is no certificate request that can be signed."""


class TokenFormatError(UsageError):
    """The text is not a token."""

    def __init__(self) -> None:
        super().__init__(
            "this is not an enrolment token; one begins with genba1/ and is printed by"
            " `genba device enroll NAME`: copy all of it"
        )


@dataclass(frozen=True)
class Token:
    """What a device needs to enrol once: where, whom to trust, and the secret."""

    host: str
    enrolment_port: int
    ca_fingerprint: str
    secret: str = field(repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"genba1/{host}:{self.enrolment_port}/{self.ca_fingerprint}/{self.secret}"

    @property
    def secret_sha256(self) -> str:
        """All that the host keeps of the secret."""
        return hash_secret(self.secret)

    @classmethod
    def make(cls, host: str, enrolment_port: int, ca_fingerprint: str) -> Self:
        """A token with a new secret of 128 random bits."""
        return cls(host, enrolment_port, ca_fingerprint, secrets.token_urlsafe(16))

    @classmethod
    def parse(cls, text: str) -> Self:
        """The token of that text. Raises TokenFormatError."""
        found = _TOKEN.fullmatch(text.strip())
        if found is None or not 1 <= int(found["port"]) <= 65535:
            raise TokenFormatError
        return cls(
            found["host"].strip("[]"), int(found["port"]), found["fingerprint"], found["secret"]
        )


def hash_secret(secret: str) -> str:
    """The SHA-256 of a token's secret in hexadecimal."""
    return hashlib.sha256(secret.encode()).hexdigest()


def spki_sha256(certificate_or_csr: x509.Certificate | x509.CertificateSigningRequest) -> str:
    """The SHA-256 of the public key (SubjectPublicKeyInfo, DER) in hexadecimal."""
    key = certificate_or_csr.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(key).hexdigest()


@lru_cache(maxsize=1024)
def spki_sha256_of_pem(certificate_pem: bytes) -> str:
    """`spki_sha256` of a certificate in PEM. Raises ValueError where it is none."""
    return spki_sha256(x509.load_pem_x509_certificate(certificate_pem))


def read_csr(csr_pem: bytes) -> x509.CertificateSigningRequest:
    """A request for a P-256 key, signed with that key. Raises CsrError where it is not."""
    if len(csr_pem) > CSR_MAX_BYTES:
        raise CsrError(f"the certificate request has more than {CSR_MAX_BYTES} bytes")
    try:
        csr = x509.load_pem_x509_csr(csr_pem)
        key = csr.public_key()
        signed = csr.is_signature_valid
    except (ValueError, InvalidSignature) as error:
        raise CsrError("the certificate request cannot be read: it must be PEM") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise CsrError("the certificate request is not for an EC P-256 key")
    if not signed:
        raise CsrError("the certificate request is not signed with its own key")
    return csr


@dataclass(frozen=True)
class ServerIdentity:
    """A private key and its certificate, both PEM."""

    key_pem: bytes = field(repr=False)
    certificate_pem: bytes


@dataclass(frozen=True)
class CertificateAuthority:
    """Signs the certificates of one workspace."""

    key: ec.EllipticCurvePrivateKey = field(repr=False)
    certificate: x509.Certificate

    @classmethod
    def make(cls) -> Self:
        """A new authority with a new key."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "genba CA")])
        certificate = (
            _builder(name, name, key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(_server_name(), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(key, certificate)

    def save(self, folder: Path) -> None:
        """Write the key (mode 0600) and the certificate. Raises FileExistsError."""
        _write_new(folder / _KEY_FILE, _private_pem(self.key), 0o600)
        _write_new(folder / _CERTIFICATE_FILE, self.certificate_pem, 0o644)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The authority that was saved there. Raises PkiError."""
        try:
            key = serialization.load_pem_private_key((folder / _KEY_FILE).read_bytes(), None)
            certificate = x509.load_pem_x509_certificate((folder / _CERTIFICATE_FILE).read_bytes())
        except (OSError, ValueError, TypeError) as error:
            raise PkiError(
                f"the keys in {folder} cannot be read ({error}): restore them from a backup, or"
                " make a new workspace and enrol the devices again"
            ) from error
        if (
            not isinstance(key, ec.EllipticCurvePrivateKey)
            or key.public_key() != certificate.public_key()
        ):
            raise PkiError(
                f"{_KEY_FILE} and {_CERTIFICATE_FILE} in {folder} do not belong together"
            )
        return cls(key, certificate)

    @property
    def certificate_pem(self) -> bytes:
        """The authority's certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate in DER, as base64url without padding."""
        digest = hashlib.sha256(self.certificate.public_bytes(serialization.Encoding.DER)).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    @property
    def as_server(self) -> ServerIdentity:
        """The authority itself as a server: what a device meets when it enrols."""
        return ServerIdentity(_private_pem(self.key), self.certificate_pem)

    def issue_server(self) -> ServerIdentity:
        """A certificate for the gateway, with a new key that lives in this process only."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, SERVER_NAME)])
        certificate = (
            self._leaf(subject, key.public_key(), ExtendedKeyUsageOID.SERVER_AUTH)
            .add_extension(_server_name(), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return ServerIdentity(
            _private_pem(key), certificate.public_bytes(serialization.Encoding.PEM)
        )

    def sign_device(self, csr: x509.CertificateSigningRequest, name: str) -> bytes:
        """A client certificate in PEM for the key of the request, with `name` as its subject.

        Nothing else of the request is taken over.
        """
        key = csr.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise CsrError("the certificate request is not for an EC P-256 key")
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        return (
            self._leaf(subject, key, ExtendedKeyUsageOID.CLIENT_AUTH)
            .sign(self.key, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
        )

    def sign_lease(self, lease: bytes) -> bytes:
        """ECDSA with SHA-256 in DER (RFC 3279 section 2.2.3) over a serialised lease.

        The prefix keeps it apart from certificates, which the same key signs.
        """
        return self.key.sign(LEASE_PREFIX + lease, ec.ECDSA(hashes.SHA256()))

    def _leaf(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, purpose: x509.ObjectIdentifier
    ) -> x509.CertificateBuilder:
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        return (
            _builder(subject, self.certificate.subject, key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(authority, critical=False)
        )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _server_name() -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.DNSName(SERVER_NAME)])


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write_new(path: Path, content: bytes, mode: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
