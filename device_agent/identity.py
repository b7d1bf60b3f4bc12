"""A private key and a certificate signing request, made on the device."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

from device_agent.errors import NoCryptographyError

_SUBJECT = "genba-agent"
_OPENSSL_SECONDS = 60.0
# Some small systems have the command but no openssl.cnf.
_OPENSSL_CONFIG = "[req]\nprompt = no\ndistinguished_name = name\n[name]\nCN = " + _SUBJECT + "\n"


@dataclass(frozen=True)
class KeyPair:
    """An EC P-256 key in PEM, and a request that proves its possession."""

    key_pem: bytes = field(repr=False)
    csr_pem: bytes


def make_key_pair() -> KeyPair:
    """With the Python package cryptography where it is there, otherwise with the openssl command.

    Raises NoCryptographyError where neither works.
    """
    problems = []
    makers: tuple[Callable[[], KeyPair], ...] = (with_cryptography, with_openssl)
    for make in makers:
        result = _try(make)
        if isinstance(result, KeyPair):
            return result
        problems.append(result.problem)
    raise NoCryptographyError("; ".join(problems))


def with_cryptography() -> KeyPair:
    """Raises NoCryptographyError where the package cannot be imported."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise NoCryptographyError("no Python package cryptography") from error
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, _SUBJECT)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return KeyPair(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        request.public_bytes(serialization.Encoding.PEM),
    )


def with_openssl(command: str = "openssl") -> KeyPair:
    """Raises NoCryptographyError where the command is missing or fails."""
    with tempfile.TemporaryDirectory(prefix="genba-key-") as name:
        folder = Path(name)
        key_file, config_file = folder / "key.pem", folder / "openssl.cnf"
        config_file.write_text(_OPENSSL_CONFIG, encoding="ascii")
        curve = ("ec_paramgen_curve:P-256", "ec_param_enc:named_curve")
        options = [word for option in curve for word in ("-pkeyopt", option)]
        # The folder is the user's alone, so the key is at no moment readable by others.
        _openssl([command, "genpkey", "-algorithm", "EC", *options, "-out", str(key_file)])
        csr_pem = _openssl(
            [command, "req", "-new", "-sha256", "-key", str(key_file), "-config", str(config_file)]
        )
        return KeyPair(key_file.read_bytes(), csr_pem)


def _openssl(command: list[str]) -> bytes:
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=_OPENSSL_SECONDS)
    except FileNotFoundError as error:
        raise NoCryptographyError("no openssl command") from error
    except subprocess.CalledProcessError as error:
        last = error.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise NoCryptographyError(f"openssl {command[1]} fails: {' '.join(last)}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoCryptographyError(f"openssl {command[1]} fails: {error}") from error
    return done.stdout


def _try(make: Callable[[], KeyPair]) -> KeyPair | NoCryptographyError:
    try:
        return make()
    except NoCryptographyError as problem:
        return problem
