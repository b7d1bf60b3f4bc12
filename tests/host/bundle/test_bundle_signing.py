"""The signing key of a workspace: made once, kept private, understood by OpenSSL."""

import shutil
import stat
import subprocess
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from host.export.bundle import WrittenBundle
from host.export.signing import (
    KEY_FILE,
    PublicKey,
    PublicKeyError,
    SigningKey,
    SigningKeyError,
    known_public_key,
    signing_key,
)


def ec_pem(*, private: bool) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    if private:
        return key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def test_the_key_is_made_at_first_use_and_stays(tmp_path: Path) -> None:
    before = known_public_key(tmp_path)
    first, second = signing_key(tmp_path), signing_key(tmp_path)

    assert before is None
    assert first.public.fingerprint == second.public.fingerprint
    assert known_public_key(tmp_path) == first.public
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]


def test_only_the_owner_may_read_the_key(tmp_path: Path) -> None:
    key = signing_key(tmp_path)

    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600
    assert "PRIVATE" not in repr(key)


def test_processes_that_make_the_key_at_once_get_the_same(tmp_path: Path) -> None:
    found: list[str] = []
    barrier = threading.Barrier(8)

    def make() -> None:
        barrier.wait()
        found.append(signing_key(tmp_path).public.fingerprint)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 8
    assert len(set(found)) == 1


@pytest.mark.parametrize("content", [b"", b"junk", ec_pem(private=True)])
def test_a_damaged_key_is_not_replaced_by_another(tmp_path: Path, content: bytes) -> None:
    (tmp_path / KEY_FILE).write_bytes(content)

    with pytest.raises(SigningKeyError, match="restore it from a backup"):
        signing_key(tmp_path)

    assert (tmp_path / KEY_FILE).read_bytes() == content


def test_a_folder_that_is_not_there_holds_no_key(tmp_path: Path) -> None:
    assert known_public_key(tmp_path / "pki") is None
    with pytest.raises(SigningKeyError, match=r"cannot be kept in .*pki: No such file"):
        signing_key(tmp_path / "pki")


def test_a_public_key_is_read_back_from_its_pem(tmp_path: Path) -> None:
    public = SigningKey.make().public
    path = tmp_path / "key.pem"
    path.write_bytes(public.pem)

    assert PublicKey.read(path).fingerprint == public.fingerprint


@pytest.mark.parametrize("content", [b"", b"junk", ec_pem(private=False), ec_pem(private=True)])
def test_what_is_no_public_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(content)

    with pytest.raises(PublicKeyError, match=r"key\.pem cannot be used: it is"):
        PublicKey.read(path)
    with pytest.raises(PublicKeyError, match="cannot be read: No such file"):
        PublicKey.read(tmp_path / "none.pem")


@given(st.binary(max_size=200), st.binary(max_size=200), st.binary(max_size=70))
def test_a_signature_is_of_one_content_and_one_key(a: bytes, b: bytes, junk: bytes) -> None:
    key, other = SigningKey.make(), SigningKey.make()
    signature = key.sign(a)

    assert key.sign(a) == signature
    assert key.public.verifies(a, signature)
    assert key.public.verifies(b, signature) == (a == b)
    assert not other.public.verifies(a, signature)
    assert not key.public.verifies(a, junk)


def test_openssl_verifies_a_bundle_as_its_card_says(bundle: WrittenBundle, tmp_path: Path) -> None:
    folder = tmp_path / "unpacked"
    shutil.unpack_archive(bundle.path, folder)
    card = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    command = next(line for line in card.splitlines() if line.startswith("openssl "))
    shutil.copy(folder / "signer.pem", folder / "KEY.pem")

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command.split(), cwd=folder, capture_output=True, text=True, check=False
        )

    good = run()
    (folder / "manifest.json").write_bytes((folder / "manifest.json").read_bytes() + b" ")
    bad = run()

    assert good.returncode == 0, good.stderr
    assert "Verified Successfully" in good.stdout
    assert bad.returncode != 0


def test_the_fingerprint_is_what_openssl_and_sha256_say(tmp_path: Path) -> None:
    public = SigningKey.make().public
    path = tmp_path / "key.pem"
    path.write_bytes(public.pem)

    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-in", str(path), "-outform", "DER"],
        capture_output=True,
        check=True,
    ).stdout
    digest = subprocess.run(["sha256sum"], input=der, capture_output=True, check=True).stdout

    assert digest.decode().split()[0] == public.fingerprint
