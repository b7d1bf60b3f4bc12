from __future__ import annotations

import builtins
import shutil
from pathlib import Path
from typing import Any

import pytest

from device_agent.errors import NoCryptographyError
from device_agent.identity import make_key_pair, with_cryptography, with_openssl

pytest.importorskip("cryptography")

MAKERS = {
    "cryptography": with_cryptography,
    "openssl": pytest.param(
        with_openssl,
        marks=pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command"),
    ),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_the_request_proves_possession_of_a_p256_key(make: Any) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    pair = make()

    request = x509.load_pem_x509_csr(pair.csr_pem)
    key = serialization.load_pem_private_key(pair.key_pem, password=None)
    assert request.is_signature_valid
    assert request.public_key() == key.public_key()
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp256r1"


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_every_key_is_new(make: Any) -> None:
    assert make().key_pem != make().key_pem


def test_the_key_is_not_shown_by_accident() -> None:
    assert "PRIVATE" not in repr(with_cryptography())


@pytest.fixture
def no_cryptography(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("cryptography"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command")
@pytest.mark.usefixtures("no_cryptography")
def test_openssl_serves_where_the_package_is_missing() -> None:
    assert b"PRIVATE KEY" in make_key_pair().key_pem


@pytest.mark.usefixtures("no_cryptography")
def test_a_device_with_neither_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(NoCryptographyError, match="install the openssl command"):
        make_key_pair()


def test_an_openssl_that_fails_is_quoted(tmp_path: Path) -> None:
    fake = tmp_path / "openssl"
    fake.write_text("#!/bin/sh\necho 'unable to load provider' >&2\nexit 1\n")
    fake.chmod(0o755)

    with pytest.raises(NoCryptographyError, match="unable to load provider"):
        with_openssl(str(fake))
