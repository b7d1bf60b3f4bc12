from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from device_agent import lease_proof
from device_agent.errors import NoCryptographyError, UnprovenLeaseError
from device_agent.lease_proof import prove_lease, with_cryptography, with_openssl

pytest.importorskip("cryptography")

LEASE = b"the bytes of a lease"
NO_OPENSSL = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command")
CHECKS = [pytest.param(with_openssl, marks=NO_OPENSSL), with_cryptography]


@pytest.mark.parametrize("check", CHECKS)
def test_a_lease_signed_with_the_hosts_key_is_proven(check: Any, authority: Any) -> None:
    assert check(LEASE, authority.sign_lease(LEASE), authority.ca_pem)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(
    "forge",
    [
        pytest.param(lambda host, _: (LEASE + b"!", host.sign_lease(LEASE)), id="other bytes"),
        pytest.param(lambda _, other: (LEASE, other.sign_lease(LEASE)), id="another key"),
        pytest.param(lambda _, __: (LEASE, b"no signature"), id="no signature"),
        pytest.param(
            lambda host, _: (LEASE, host.sign_lease(LEASE)[:-2] + b"\0\0"), id="turned bits"
        ),
    ],
)
def test_whatever_else_is_signed_otherwise_is_not(
    check: Any, forge: Any, authority: Any, another_authority: Any
) -> None:
    lease, signature = forge(authority, another_authority)

    assert not check(lease, signature, authority.ca_pem)


def test_a_signature_of_something_that_is_no_lease_proves_nothing(authority: Any) -> None:
    """The same key signs certificates, whose bytes a device may have a say in."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    signature = authority.key.sign(LEASE, ec.ECDSA(hashes.SHA256()))

    with pytest.raises(UnprovenLeaseError, match="enrol this device again"):
        prove_lease(LEASE, signature, authority.ca_pem)


@pytest.mark.parametrize("signature", [b"", b"x" * 100_000])
def test_a_signature_of_no_size_that_one_has_starts_no_process(
    authority: Any, signature: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_proof, "_run", None)

    with pytest.raises(UnprovenLeaseError):
        prove_lease(LEASE, signature, authority.ca_pem)


def test_the_python_package_serves_where_the_command_is_missing(
    authority: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoCryptographyError, match="no openssl command"):
        with_openssl(LEASE, authority.sign_lease(LEASE), authority.ca_pem)

    prove_lease(LEASE, authority.sign_lease(LEASE), authority.ca_pem)


@pytest.mark.parametrize("works_for", ["nothing", "x509"])
def test_the_python_package_serves_where_the_command_is_broken(
    authority: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, works_for: str
) -> None:
    fake = tmp_path / "openssl"
    fake.write_text(f'#!/bin/sh\n[ "$1" = {works_for} ] && exit 0\necho "no engine" >&2\nexit 1\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(NoCryptographyError, match="no engine"):
        with_openssl(LEASE, authority.sign_lease(LEASE), authority.ca_pem)

    prove_lease(LEASE, authority.sign_lease(LEASE), authority.ca_pem)


def test_a_device_that_can_check_nothing_takes_no_job_and_says_what_to_install(
    authority: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))

    with pytest.raises(UnprovenLeaseError, match="install the openssl command"):
        prove_lease(LEASE, authority.sign_lease(LEASE), authority.ca_pem)


def test_a_ca_that_cannot_be_read_proves_nothing(authority: Any) -> None:
    with pytest.raises(UnprovenLeaseError):
        prove_lease(LEASE, authority.sign_lease(LEASE), b"rotten")
