"""Proof that a lease was signed by the owner of the host's keys, who vouches for every job.

The mathematics happens in a child process: the agent's own memory stays small, and free of keys
and of code that reads them.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Callable

from device_agent.errors import NoCryptographyError, UnprovenLeaseError

PREFIX = b"genba-lease/1\n"
"""Stands before the signed bytes, because the same key signs certificates."""

_CHILD_SECONDS = 60.0
# An ECDSA signature over P-256 in DER has at most 72 bytes (RFC 3279, section 2.2.3).
_MAX_SIGNATURE_BYTES = 128
_BOOT = (
    "import sys; sys.path.extend(p for p in sys.argv.pop(1).split(':') if p not in sys.path);"
    "from device_agent.lease_proof import main; sys.exit(main())"
)
# What the child of another Python ends with; 1 is left to tracebacks.
_VALID, _NO_CRYPTOGRAPHY, _INVALID = 0, 3, 4
# Status 1 of `openssl dgst -verify` also stands for a file that it cannot read.
_NOT_VERIFIED = (b"verification failure", b"error verifying data")

Check = Callable[[bytes, bytes, bytes], bool]
"""Given a lease, its signature and the CA certificate in PEM, whether the signature holds."""


def prove_lease(lease: bytes, signature: bytes, ca_pem: bytes) -> None:
    """With the openssl command, or where that fails with the Python package cryptography.

    Raises UnprovenLeaseError where the signature is not by the key of `ca_pem`, and where nothing
    on this device can tell.
    """
    if not 0 < len(signature) <= _MAX_SIGNATURE_BYTES:
        raise UnprovenLeaseError("its signature is none")
    problems = []
    checks: tuple[Check, ...] = (with_openssl, with_cryptography)
    for check in checks:
        try:
            if check(lease, signature, ca_pem):
                return
        except NoCryptographyError as error:
            problems.append(error.problem)
            continue
        raise UnprovenLeaseError(
            "the job is not signed with the key of the host that this device was enrolled with: if"
            " the host got new keys, enrol this device again"
        )
    raise UnprovenLeaseError(str(NoCryptographyError("; ".join(problems))))


def with_openssl(lease: bytes, signature: bytes, ca_pem: bytes, command: str = "openssl") -> bool:
    """Raises NoCryptographyError where the command is missing or fails."""
    shown = _run([command, "x509", "-pubkey", "-noout"], ca_pem)
    if shown.returncode != 0:
        raise NoCryptographyError(f"openssl x509 fails: {_last_line(shown.stderr)}")
    with _readable(shown.stdout) as key, _readable(signature) as proof:
        names = ["-verify", f"/proc/self/fd/{key}", "-signature", f"/proc/self/fd/{proof}"]
        checked = _run([command, "dgst", "-sha256", *names], PREFIX + lease, (key, proof))
    said = (checked.stdout + checked.stderr).lower()
    if checked.returncode != 0 and not any(words in said for words in _NOT_VERIFIED):
        raise NoCryptographyError(f"openssl dgst fails: {_last_line(checked.stderr)}")
    return checked.returncode == 0


def with_cryptography(lease: bytes, signature: bytes, ca_pem: bytes) -> bool:
    """In another Python. Raises NoCryptographyError where the package is missing or fails."""
    paths = ":".join(str(Path(path).absolute()) for path in sys.path if ":" not in path)
    question = json.dumps([part.hex() for part in (lease, signature, ca_pem)])
    checked = _run([sys.executable, "-I", "-B", "-c", _BOOT, paths], question.encode("ascii"))
    if checked.returncode == _NO_CRYPTOGRAPHY:
        raise NoCryptographyError("no Python package cryptography")
    if checked.returncode not in (_VALID, _INVALID):
        raise NoCryptographyError(f"a Python process fails: {_last_line(checked.stderr)}")
    return checked.returncode == _VALID


def main() -> int:
    """The child of `with_cryptography`: the question on stdin, the answer as exit status."""
    lease, signature, ca_pem = (bytes.fromhex(part) for part in json.load(sys.stdin))
    try:
        from cryptography import x509
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError:
        return _NO_CRYPTOGRAPHY
    key = x509.load_pem_x509_certificate(ca_pem).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return _INVALID
    try:
        key.verify(signature, PREFIX + lease, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return _INVALID
    return _VALID


@contextlib.contextmanager
def _readable(data: bytes) -> Iterator[int]:
    """A descriptor to read from: a pipe, because a full disk must not keep leases from being
    checked. `data` must fit into the pipe's buffer of at least 4 KiB.
    """
    reading, writing = os.pipe()
    try:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(data)
        yield reading
    finally:
        os.close(reading)


def _run(
    command: Sequence[str], given: bytes, descriptors: Sequence[int] = ()
) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            command,
            input=given,
            capture_output=True,
            check=False,
            timeout=_CHILD_SECONDS,
            pass_fds=descriptors,
            cwd="/",
        )
    except FileNotFoundError as error:
        raise NoCryptographyError(f"no {command[0]} command") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoCryptographyError(f"{command[0]} fails: {error}") from error


def _last_line(noise: bytes) -> str:
    return " ".join(noise.decode(errors="replace").strip().splitlines()[-1:]) or "it says nothing"
