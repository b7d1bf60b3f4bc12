"""A bundle that somebody touched is refused, and no hostile one does any harm."""

import hashlib
import io
import json
import os
import shutil
import stat
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from host.errors import UsageError
from host.export.archive import zip_of
from host.export.bundle import WrittenBundle, read_manifest, read_model_card
from host.export.manifest import (
    MANIFEST,
    SCHEMA,
    SIGNATURE,
    SIGNER,
    UNSIGNED_SCHEMA,
    expected_files,
    json_bytes,
    parse_manifest,
)
from host.export.signing import SigningKey
from host.export.verification import verify_bundle

Files = dict[str, bytes]


def files_of(path: Path) -> Files:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewrite(path: Path, change: Callable[[Files], object]) -> None:
    files = files_of(path)
    change(files)
    path.write_bytes(zip_of(files))


def edited(content: bytes, change: Callable[[Any], object]) -> bytes:
    manifest = json.loads(content)
    change(manifest)
    return json_bytes(manifest)


def edit_manifest(change: Callable[[Any], object]) -> Callable[[Files], object]:
    return lambda files: files.update({MANIFEST: edited(files[MANIFEST], change)})


def sign_again(files: Files, key: SigningKey) -> None:
    """What whoever has another key can do."""

    def name(manifest: Any) -> None:
        manifest["signer"]["public_key_sha256"] = key.public.fingerprint

    files[MANIFEST] = edited(files[MANIFEST], name)
    files[SIGNATURE] = key.sign(files[MANIFEST])
    files[SIGNER] = key.public.pem


def test_every_flipped_byte_of_a_bundle_is_noticed(bundle: WrittenBundle) -> None:
    content = bundle.path.read_bytes()
    with zipfile.ZipFile(bundle.path) as archive:
        entries = archive.infolist()
        directory = archive.start_dir
    # Every byte of what a zip has around its files, and some of each file.
    offsets = set(range(directory, len(content)))
    for entry in entries:
        body = entry.header_offset + 30 + len(entry.filename)
        offsets |= set(range(entry.header_offset, body))
        offsets |= set(range(body, body + entry.file_size, max(1, entry.file_size // 20)))
    accepted = []

    for offset in sorted(offsets):
        for bit in (0, 5):
            damaged = bytearray(content)
            damaged[offset] ^= 1 << bit
            bundle.path.write_bytes(damaged)
            if verify_bundle(bundle.path).intact:
                accepted.append(offset)

    assert accepted == []


@given(data=st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_done_to_the_bytes_is_noticed_and_harms_nothing(
    bundle: WrittenBundle, tmp_path: Path, data: st.DataObject
) -> None:
    content = bundle.path.read_bytes()
    tail = data.draw(st.booleans())
    start = data.draw(st.integers(max(0, len(content) - 1500) if tail else 0, len(content)))
    length = data.draw(st.integers(0, 40))
    new = data.draw(st.binary(max_size=40))
    damaged = content[:start] + new + content[start + length :]
    path = tmp_path / "damaged.zip"
    path.write_bytes(damaged)

    assert verify_bundle(path).intact == (damaged == content)


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_a_manifest_of_any_bytes_is_refused_as_none(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        expected_files(parse_manifest(content))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(st.sampled_from([SCHEMA, UNSIGNED_SCHEMA, "x"]), JSON, JSON)
def test_a_manifest_of_other_types_is_refused(schema: str, files: Any, shipped: Any) -> None:
    with pytest.raises(ValueError, match=r"^[ -~]+$"):
        expected_files({"schema": schema, "files": files, "shipped_model": str(shipped)})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda files: files.pop("labels.txt"), "labels.txt is missing"),
        (lambda files: files.update({"extra.sh": b""}), "extra.sh is not in the manifest"),
        (
            lambda files: files.update({"run.py": files["run.py"][:-1] + b" "}),
            "run.py has been changed: its hash is not that of the manifest",
        ),
        (lambda files: files.update({"labels.txt": b"a"}), "labels.txt has 1 bytes, the manif"),
        (lambda files: files.pop(MANIFEST), "manifest.json is missing"),
        (lambda files: files.update({MANIFEST: b"{"}), "manifest.json is not in the form"),
        (lambda files: files.update({MANIFEST: b"[]"}), "manifest.json is not in the form"),
        (lambda files: files.update({MANIFEST: b"\xff"}), "manifest.json is not in the form"),
        (lambda files: files.update({MANIFEST: b"[" * 99999}), "manifest.json is not in the form"),
        (
            lambda files: files.update({MANIFEST: b'{"schema": "x", "files": {}}'}),
            "manifest.json is not in the form of a bundle's: its schema is 'x', not genba-bundle/2",
        ),
        (
            lambda files: files.update({MANIFEST: b" " * (17 << 20)}),
            "manifest.json is larger than any bundle needs",
        ),
        (lambda files: files.pop(SIGNATURE), "manifest.sig is missing"),
        (lambda files: files.pop(SIGNER), "signer.pem is missing"),
        (lambda files: files.update({SIGNATURE: b"x" * 65}), "manifest.sig is larger than it can"),
        (lambda files: files.update({SIGNATURE: b"x"}), "manifest.sig is not the signature of"),
        (
            lambda files: files.update({SIGNER: SigningKey.make().public.pem}),
            "signer.pem is not the key that the manifest names",
        ),
        (
            lambda files: files.update({SIGNER: files[SIGNER] + b"\n"}),
            "signer.pem has more in it than a key",
        ),
        (lambda files: files.update({SIGNER: b"junk"}), "signer.pem cannot be used: it is no pub"),
        (
            edit_manifest(lambda manifest: manifest["accuracies"][0].update(value=0.99)),
            "manifest.sig is not the signature of this manifest",
        ),
        (
            edit_manifest(lambda manifest: manifest.pop("signer")),
            "signer.pem is not the key that the manifest names",
        ),
        (
            edit_manifest(lambda manifest: manifest.update(shipped_model="models/x.onnx")),
            "manifest.json is not in the form of a bundle's: the model that it ships is not",
        ),
        (
            edit_manifest(lambda m: m["files"].update({"../x": m["files"]["run.py"]})),
            "manifest.json is not in the form of a bundle's: it names a file '../x'",
        ),
        (
            edit_manifest(lambda m: m["files"].update({SIGNER: m["files"]["run.py"]})),
            "manifest.json is not in the form of a bundle's: it names a file signer.pem",
        ),
    ],
)
def test_what_was_touched_is_named(
    bundle: WrittenBundle, change: Callable[[Files], object], problem: str
) -> None:
    rewrite(bundle.path, change)

    found = verify_bundle(bundle.path)

    assert len(found.problems) == 1
    assert found.problems[0].startswith(problem)
    assert not found.intact
    assert found.vouched_by({"key": SigningKey.make().public}) is None


def test_who_signs_a_changed_bundle_with_another_key_is_not_vouched_for(
    bundle: WrittenBundle, key: SigningKey
) -> None:
    thief = SigningKey.make()

    def change(files: Files) -> None:
        lower = edited(files[MANIFEST], lambda manifest: manifest.update(seed=8))
        files[MANIFEST] = lower
        sign_again(files, thief)

    rewrite(bundle.path, change)
    found = verify_bundle(bundle.path)

    assert found.problems == ()
    assert found.signer is not None
    assert found.signer.fingerprint == thief.public.fingerprint
    assert found.vouched_by({"workspace": key.public}) is None


def test_a_signature_cannot_be_taken_off_by_calling_the_bundle_an_older_one(
    bundle: WrittenBundle, key: SigningKey
) -> None:
    def change(files: Files) -> None:
        files[MANIFEST] = edited(files[MANIFEST], lambda m: m.update(schema=UNSIGNED_SCHEMA))
        del files[SIGNATURE], files[SIGNER]

    rewrite(bundle.path, change)
    found = verify_bundle(bundle.path)

    assert found.unsigned
    assert found.intact
    assert found.signer is None
    assert found.vouched_by({"workspace": key.public}) is None


def test_an_older_bundle_is_read_and_has_nobodys_signature(tmp_path: Path) -> None:
    model = b"a model"
    card = b"# old\n"
    files = {"models/a.fp32.onnx": model, "MODEL_CARD.md": card}
    manifest = {
        "schema": UNSIGNED_SCHEMA,
        "shipped_model": "models/a.fp32.onnx",
        "files": {name: _entry(content) for name, content in files.items()},
    }
    path = tmp_path / "old.zip"
    path.write_bytes(zip_of({MANIFEST: json_bytes(manifest), **files}))

    found = verify_bundle(path)

    assert (found.problems, found.files, found.unsigned) == ((), 2, True)
    assert read_model_card(path) == "# old\n"
    with pytest.raises(UsageError, match=r"has no MODEL_CARD\.ja\.md"):
        read_model_card(path, "ja")


def _entry(content: bytes) -> dict[str, object]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}


@pytest.mark.parametrize("keep", [0, 10, 2000])
def test_a_truncated_zip_is_a_problem_and_no_crash(bundle: WrittenBundle, keep: int) -> None:
    bundle.path.write_bytes(bundle.path.read_bytes()[:keep])

    assert "is no readable zip file" in verify_bundle(bundle.path).problems[0]
    with pytest.raises(UsageError, match="is no bundle"):
        read_manifest(bundle.path)


@pytest.mark.parametrize(
    "name",
    [
        "../evil.sh",
        "/etc/cron.d/evil",
        "models/../../evil",
        "C:\\evil",
        "a\\..\\b",
        "a/./b",
        "a//b",
        ".hidden",
        "models/",
        "evil\x1b[2J",
        "x" * 300,
        "trailing.",
    ],
)
def test_a_name_that_leaves_the_folder_is_refused(bundle: WrittenBundle, name: str) -> None:
    rewrite(bundle.path, lambda files: files.update({name: b"x"}))

    (problem,) = verify_bundle(bundle.path).problems

    assert "is no name for a file of a bundle" in problem
    assert problem.isprintable()


def test_two_files_of_one_name_are_refused(bundle: WrittenBundle) -> None:
    with zipfile.ZipFile(bundle.path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("run.py", b"import os")

    assert verify_bundle(bundle.path).problems == ("two files have the name run.py",)


def test_names_that_differ_in_case_only_are_refused(bundle: WrittenBundle) -> None:
    rewrite(bundle.path, lambda files: files.update({"RUN.py": b""}))

    assert verify_bundle(bundle.path).problems[0].startswith("two files have the name")


def test_a_file_below_a_file_is_refused(bundle: WrittenBundle) -> None:
    rewrite(bundle.path, lambda files: files.update({"run.py/x": b""}))

    assert verify_bundle(bundle.path).problems == ("run.py/x lies below a file",)


def compressed(files: Files, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_a_zip_that_was_packed_otherwise_is_refused_with_a_way_out(
    bundle: WrittenBundle, tmp_path: Path
) -> None:
    files = files_of(bundle.path)
    bundle.path.write_bytes(compressed(files))
    too_dense = verify_bundle(bundle.path).problems
    with zipfile.ZipFile(bundle.path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)

    (problem,) = verify_bundle(bundle.path).problems

    assert too_dense == ("its files are larger than itself",)
    assert problem.startswith("the zip was changed around its files")
    folder = tmp_path / "unpacked"
    shutil.unpack_archive(bundle.path, folder)
    assert verify_bundle(folder).intact


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_file_packed_by_a_rare_method_is_refused(tmp_path: Path, method: int) -> None:
    path = tmp_path / "rare.zip"
    path.write_bytes(compressed({MANIFEST: os.urandom(100)}, method))

    (problem,) = verify_bundle(path).problems

    assert problem == (
        f"{MANIFEST} is compressed by method {method}, which no bundle uses: get the bundle as its"
        " maker wrote it"
    )


@pytest.mark.parametrize("settings", [b"\xff" * 5, b"]" + b"\xff" * 4], ids=["none", "huge"])
def test_lzma_is_not_even_begun(tmp_path: Path, settings: bytes) -> None:
    content = compressed({MANIFEST: os.urandom(100)}, zipfile.ZIP_LZMA)
    at = 30 + len(MANIFEST) + 4
    path = tmp_path / "lzma.zip"
    path.write_bytes(content[:at] + settings + content[at + 5 :])

    with pytest.raises(UsageError, match="is compressed by method 14"):
        read_manifest(path)


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    path.write_bytes(compressed({MANIFEST: b"\0" * (64 << 20)}))
    assert path.stat().st_size < 100_000

    tracemalloc.start()
    found = verify_bundle(path)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert found.problems == ("its files are larger than itself",)
    assert peak_bytes < 4 << 20


def test_entries_that_share_their_bytes_are_refused(bundle: WrittenBundle) -> None:
    """A directory that lists one entry many times: the "better zip bomb" of Fifield (2019)."""
    content = bundle.path.read_bytes()
    with zipfile.ZipFile(bundle.path) as archive:
        start = archive.start_dir
        large = max(archive.infolist(), key=lambda entry: entry.file_size)
    directory = content[start:-22]
    place = directory.index(large.filename.encode()) - 46
    entry = directory[place : place + 46 + len(large.filename)]
    names = [str(number).zfill(len(large.filename)).encode() for number in range(50)]
    many = b"".join(entry[:46] + name for name in names)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 50, 50, len(many), start, 0)
    bundle.path.write_bytes(content[:start] + many + end)

    (problem,) = verify_bundle(bundle.path).problems

    assert problem == "its files are larger than itself"


def test_a_huge_directory_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "many.zip"
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, 3 << 20, 0, 0)
    path.write_bytes(b"\0" * (3 << 20) + end)

    assert verify_bundle(path).problems == ("its directory is larger than any bundle's",)


def test_a_link_in_a_zip_is_refused(bundle: WrittenBundle) -> None:
    files = files_of(bundle.path)
    with zipfile.ZipFile(bundle.path, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            kind = stat.S_IFLNK if name == "labels.txt" else stat.S_IFREG
            entry.external_attr = (kind | 0o644) << 16
            archive.writestr(entry, content)

    assert not verify_bundle(bundle.path).intact


def test_a_sparse_file_larger_than_any_bundle_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.zip"
    with path.open("wb") as file:
        file.truncate(1 << 40)

    assert verify_bundle(path).problems == ("it is larger than any bundle",)


def test_what_is_neither_file_nor_folder_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "pipe.zip"
    os.mkfifo(path)

    assert verify_bundle(path).problems == ("it is no plain file",)


def test_a_missing_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no bundle .*nowhere.zip"):
        verify_bundle(tmp_path / "nowhere.zip")


def test_an_unpacked_bundle_is_verified_alike(bundle: WrittenBundle, tmp_path: Path) -> None:
    folder = tmp_path / "unpacked"
    shutil.unpack_archive(bundle.path, folder)
    clean = verify_bundle(folder)
    card = read_model_card(folder)
    manifest = read_manifest(folder)
    (folder / "models" / "finalist-1.fp32.onnx").unlink()
    (folder / "note.txt").write_text("hello")

    problems = verify_bundle(folder).problems

    assert clean.intact
    assert clean.signer is not None
    assert card == read_model_card(bundle.path)
    assert manifest == read_manifest(bundle.path)
    assert problems == (
        "note.txt is not in the manifest",
        "models/finalist-1.fp32.onnx is missing",
    )


def test_a_link_in_an_unpacked_bundle_is_refused(bundle: WrittenBundle, tmp_path: Path) -> None:
    folder = tmp_path / "unpacked"
    shutil.unpack_archive(bundle.path, folder)
    shutil.move(folder / "labels.txt", tmp_path / "labels.txt")
    (folder / "labels.txt").symlink_to(tmp_path / "labels.txt")

    assert verify_bundle(folder).problems == ("labels.txt is no plain file",)
