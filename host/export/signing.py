"""Who wrote a bundle: the signing key of a workspace, and the public keys that people exchange.

Signatures are Ed25519 (RFC 8032) over the bytes of a manifest, 64 bytes as they are, so that
OpenSSL verifies them too. A key is known by the SHA-256 of its SubjectPublicKeyInfo in DER.
"""

import hashlib
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from host.errors import GenbaError, UsageError

KEY_FILE = "bundle.key"
SIGNATURE_BYTES = 64
_LARGEST_KEY_BYTES = 16 << 10


class SigningKeyError(GenbaError):
    """The signing key of the workspace cannot be used."""


class PublicKeyError(UsageError):
    """What was given is no public key that signs bundles."""


@dataclass(frozen=True)
class PublicKey:
    """The key that verifies what a signing key signed."""

    key: Ed25519PublicKey = field(repr=False)

    @classmethod
    def of_pem(cls, pem: bytes) -> Self:
        """The key in a PEM text. Raises PublicKeyError."""
        try:
            key = serialization.load_pem_public_key(pem)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise PublicKeyError('it is no public key: it must begin "BEGIN PUBLIC KEY"') from error
        if not isinstance(key, Ed25519PublicKey):
            raise PublicKeyError("it is a public key of another kind: bundles have Ed25519")
        return cls(key)

    @classmethod
    def read(cls, path: Path) -> Self:
        """The key in a file. Raises PublicKeyError."""
        try:
            with path.open("rb") as file:
                return cls.of_pem(file.read(_LARGEST_KEY_BYTES))
        except OSError as error:
            raise PublicKeyError(f"{path} cannot be read: {error.strerror or error}") from error
        except PublicKeyError as error:
            raise PublicKeyError(f"{path} cannot be used: {error}") from error

    @property
    def pem(self) -> bytes:
        """The key as it stands in bundles."""
        return self.key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the key (SubjectPublicKeyInfo, DER) in hexadecimal."""
        der = self.key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return hashlib.sha256(der).hexdigest()

    def verifies(self, content: bytes, signature: bytes) -> bool:
        """Whether the signature is of that content with this key."""
        try:
            self.key.verify(signature, content)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class SigningKey:
    """The private key."""

    key: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def make(cls) -> Self:
        """A new one."""
        return cls(Ed25519PrivateKey.generate())

    @property
    def public(self) -> PublicKey:
        """What may be given to others."""
        return PublicKey(self.key.public_key())

    def sign(self, content: bytes) -> bytes:
        """64 bytes; the same for the same content."""
        return self.key.sign(content)


def signing_key(folder: Path) -> SigningKey:
    """The signing key in a folder of keys; at first use it is made (mode 0600).

    Raises SigningKeyError.
    """
    try:
        found = _load(folder)
        if found is None:
            _make(folder)
            found = _load(folder)
    except OSError as error:
        raise SigningKeyError(
            f"the key that signs bundles cannot be kept in {folder}: {error.strerror or error}"
        ) from error
    if found is None:
        raise SigningKeyError(f"the key that signs bundles has vanished from {folder}")
    return found


def known_public_key(folder: Path) -> PublicKey | None:
    """The public key of the signing key in a folder, or None where nothing was signed yet.

    Raises SigningKeyError.
    """
    try:
        found = _load(folder)
    except OSError as error:
        raise SigningKeyError(f"{folder / KEY_FILE} cannot be read: {error}") from error
    return None if found is None else found.public


def _load(folder: Path) -> SigningKey | None:
    path = folder / KEY_FILE
    try:
        pem = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SigningKeyError(
            f"{path} is no private key ({error}): restore it from a backup, or remove it and tell"
            " whoever verifies your bundles the new public key"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SigningKeyError(f"{path} is no Ed25519 key: restore it from a backup")
    return SigningKey(key)


def _make(folder: Path) -> None:
    """Whole or not at all; of two processes that do this at once, the first one's key stays."""
    pem = SigningKey.make().key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    new = folder / f".{KEY_FILE}.{secrets.token_hex(8)}"
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(new, folder / KEY_FILE)
    finally:
        new.unlink()
