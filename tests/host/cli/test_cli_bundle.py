"""`genba bundle`: bundles written again, verified by whose key it is, and shown."""

import json
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from host.__main__ import main
from host.export.archive import zip_of
from host.export.bundle import write_bundle
from host.export.contents import BundleContents, BundleModel, BundleProfile
from host.export.manifest import MANIFEST, SIGNATURE, SIGNER, UNSIGNED_SCHEMA
from host.export.signing import KEY_FILE, PublicKey, SigningKey, signing_key
from host.preprocessing import Preprocessing
from host.store import Store
from host.workspace import Workspace

KEYS = ("aa11" * 16, "ab22" * 16)
HEAVY = ("torch", "onnxruntime", "onnx", "ai_edge_litert")


@pytest.fixture
def contents(model: Path) -> BundleContents:
    return BundleContents(
        name="s1-aa11",
        device_class="x86_64-onnx",
        genba_version="0.1.0",
        created_at="2026-11-24T00:00:00+00:00",
        study="s1",
        space="mobile",
        candidate="k3",
        seed=7,
        classes=("bad", "good", "\x1b[31m傷", "d"),
        preprocessing=Preprocessing(1, 1, 1, (0.5,), (0.5,)),
        data_fingerprint="f" * 64,
        data_counts={"test": 4},
        data_licence="CC0",
        models=(BundleModel("onnx-fp32", model.read_bytes()),),
        shipped="onnx-fp32",
        profiles=(BundleProfile("kiosk", "kiosk", "Core 2", "x86_64", "onnx", "1.23.2", 1),),
    )


@pytest.fixture
def bundle(workspace: Workspace, contents: BundleContents, tmp_path: Path) -> Path:
    """A bundle that this workspace signed."""
    return write_bundle(tmp_path / "b", contents, signing_key(workspace.pki_folder)).path


@pytest.fixture
def strange(workspace: Workspace, contents: BundleContents, tmp_path: Path) -> Path:
    """A bundle of somebody else."""
    return write_bundle(tmp_path / "s", contents, SigningKey.make()).path


@pytest.fixture
def shipped(
    plant_store: Store, contents: BundleContents, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[str, str]]:
    """A study with two finalists for two classes; what was asked for is noted."""
    from host.study import shipping

    asked: list[tuple[str, str]] = []
    plant_store.studies.create("s1", "{}", 7)
    pairs = [(key, name) for key in KEYS for name in ("x86_64-onnx", "armv7l-onnx")]

    def made(_store: Store, study: str, key: str, device_class: str) -> BundleContents:
        asked.append((key, device_class))
        profile = replace(contents.profiles[0], architecture=device_class.partition("-")[0])
        return replace(
            contents, name=f"{study}-{key[:4]}", device_class=device_class, profiles=(profile,)
        )

    monkeypatch.setattr(shipping, "shippable", lambda store, study: pairs)
    monkeypatch.setattr(shipping, "bundle_contents", made)
    return asked


def test_every_bundle_of_a_study_is_written_signed_and_noted(
    workspace: Workspace,
    plant_store: Store,
    shipped: list[tuple[str, str]],
    loaded: Callable[..., Any],
    said: Callable[..., str],
) -> None:
    written = loaded("bundle", "create", "s1")

    assert [(one["finalist"], one["device_class"]) for one in written] == shipped
    assert len(shipped) == 4
    noted = plant_store.bundles.of_study(plant_store.studies.by_name("s1").id)
    assert [one.path for one in noted] == [one["path"] for one in written]
    assert [one.manifest_sha256 for one in noted] == [one["manifest_sha256"] for one in written]
    for one in written:
        path = Path(one["path"])
        assert path.parent == workspace.root / "studies" / "s1" / "bundles"
        assert "signed by the key of this workspace" in said("bundle", "verify", path)


def test_bundles_are_chosen_by_finalist_class_and_folder(
    shipped: list[tuple[str, str]], said: Callable[..., str], tmp_path: Path
) -> None:
    out = tmp_path / "stick"

    text = said(
        "bundle", "create", "s1", "--finalist", "ab", "--class", "armv7l-onnx", "--out", out
    )

    assert shipped == [(KEYS[1], "armv7l-onnx")]
    (path,) = out.iterdir()
    assert text == f"{path}: finalist ab22ab22 for armv7l-onnx\n"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--finalist", "a"], 'several finalists begin with "a": s1 has aa11aa11aa11, ab22ab22'),
        (["--finalist", "b"], 'no finalist begins with "b": s1 has aa11'),
        (["--class", "x"], 'no device of s1 is of the class "x": it has x86_64-onnx, armv7l-onnx'),
    ],
)
def test_what_a_study_does_not_have_is_named(
    shipped: list[tuple[str, str]], said: Callable[..., str], options: list[str], sentence: str
) -> None:
    assert sentence in said("bundle", "create", "s1", *options, code=2)
    assert shipped == []


def test_a_study_without_finalists_has_nothing_to_ship(
    plant_store: Store, said: Callable[..., str]
) -> None:
    plant_store.studies.create("s2", "{}", 7)

    assert "the study s2 has no finalist yet" in said("bundle", "create", "s2", code=2)
    assert "no study is named 'nope'" in said("bundle", "create", "nope", code=2)


def test_who_signed_a_bundle_decides(
    bundle: Path,
    strange: Path,
    workspace: Workspace,
    said: Callable[..., str],
    tmp_path: Path,
) -> None:
    with zipfile.ZipFile(strange) as archive:
        (tmp_path / "maker.pem").write_bytes(archive.read(SIGNER))
    fingerprint = PublicKey.read(tmp_path / "maker.pem").fingerprint
    own = signing_key(workspace.pki_folder).public.fingerprint

    ours = said("bundle", "verify", bundle)
    theirs = said("bundle", "verify", strange, code=1)
    accepted = said("bundle", "verify", strange, "--any-signer")
    by_key = said("bundle", "verify", strange, "--key", tmp_path / "maker.pem")
    another = said("bundle", "verify", bundle, "--key", tmp_path / "maker.pem", code=1)

    files = "intact, 6 files match the manifest"
    assert ours == f"{bundle}: {files}; signed by the key of this workspace (fingerprint {own})\n"
    assert (
        f"is intact, but signed by a key that nothing here vouches for (fingerprint {fingerprint})"
        in theirs
    )
    assert f"{files}; signed by a key that nothing here vouches for" in accepted
    assert f"{files}; signed by the key in {tmp_path / 'maker.pem'}" in by_key
    assert "is intact, but signed by another key than that in" in another


def test_a_key_verifies_where_there_is_no_workspace(
    bundle: Path,
    workspace: Workspace,
    said: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said("bundle", "key", "--out", tmp_path / "key.pem")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    with_key = said("bundle", "verify", bundle, "--key", tmp_path / "key.pem")
    without = said("bundle", "verify", bundle, code=1)
    named = said("bundle", "verify", bundle, "-w", tmp_path / "elsewhere", code=2)
    no_key = said("bundle", "verify", bundle, "--key", tmp_path / "none.pem", code=2)

    assert "signed by the key in" in with_key
    assert "a key that nothing here vouches for" in without
    assert "is not a workspace" in named
    assert "none.pem cannot be read" in no_key


def test_a_verification_leaves_no_key_behind(
    strange: Path, workspace: Workspace, said: Callable[..., str]
) -> None:
    said("bundle", "verify", strange, code=1)

    assert not (workspace.pki_folder / KEY_FILE).exists()


def test_verify_tells_programs_the_same(
    bundle: Path, strange: Path, loaded: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    good = loaded("bundle", "verify", bundle)
    code = main(["bundle", "verify", str(strange), "--json"])
    bad = json.loads(capsys.readouterr().out)

    assert (good["accepted"], good["intact"], good["vouched_by"]) == (True, True, "workspace")
    assert (good["files"], good["problems"], good["schema"]) == (6, [], "genba-bundle/2")
    assert code == 1
    assert (bad["accepted"], bad["intact"], bad["vouched_by"]) == (False, True, None)
    assert len(bad["signer"]) == 64


def test_a_damaged_bundle_is_refused_whoever_may_sign(
    bundle: Path, said: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytearray(bundle.read_bytes())
    content[content.index(b"good")] ^= 1
    bundle.write_bytes(content)

    for options in ([], ["--any-signer"]):
        assert f"{bundle} is not intact: " in said("bundle", "verify", bundle, *options, code=1)
    assert main(["bundle", "verify", str(bundle), "--json"]) == 1
    record = json.loads(capsys.readouterr().out)
    assert (record["accepted"], record["intact"]) == (False, False)
    assert record["problems"]


def test_an_unsigned_bundle_is_read_but_not_accepted_by_itself(
    bundle: Path, said: Callable[..., str]
) -> None:
    with zipfile.ZipFile(bundle) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(files[MANIFEST]) | {"schema": UNSIGNED_SCHEMA}
    del files[SIGNATURE], files[SIGNER]
    bundle.write_bytes(zip_of(files | {MANIFEST: json.dumps(manifest).encode()}))

    refused = said("bundle", "verify", bundle, code=1)
    accepted = said("bundle", "verify", bundle, "--any-signer")

    assert "is intact, but nobody signed it (genba-bundle/1 has no signature)" in refused
    assert "intact, 6 files match the manifest; nobody signed it" in accepted


def test_what_a_bundle_holds_is_shown_and_steers_no_terminal(
    bundle: Path, said: Callable[..., str], loaded: Callable[..., Any]
) -> None:
    english, japanese = (
        said("bundle", "show", bundle),
        said("bundle", "show", bundle, "--lang", "ja"),
    )
    manifest = loaded("bundle", "show", bundle)

    assert english.startswith("# s1-aa11\n\n## Purpose\n")
    assert japanese.startswith("# s1-aa11\n\n## 用途\n")
    assert "\x1b" not in english + japanese
    assert manifest["classes"] == ["bad", "good", "\x1b[31m傷", "d"]


def test_what_a_changed_bundle_shows_is_called_anybodys(
    bundle: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "unpacked"
    shutil.unpack_archive(bundle, folder)
    (folder / "MODEL_CARD.md").write_text("# better\x1b]0;x\x07 \u202ethan ever\n")

    assert main(["bundle", "show", str(folder)]) == 0
    captured = capsys.readouterr()

    assert "is not intact, so anybody may have written this: MODEL_CARD.md has" in captured.err
    assert captured.out == "# better\ufffd]0;x\ufffd \ufffdthan ever\n"


def test_half_a_character_in_a_manifest_is_shown_as_unreadable(
    bundle: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "unpacked"
    shutil.unpack_archive(bundle, folder)
    manifest = json.loads((folder / MANIFEST).read_text()) | {"name": "a\ud800b"}
    (folder / MANIFEST).write_text(json.dumps(manifest))

    assert main(["bundle", "show", str(folder), "--json"]) == 0

    assert json.loads(capsys.readouterr().out)["name"] == "a\ufffdb"


@pytest.mark.parametrize("command", ["verify", "show"])
def test_a_bundle_is_verified_and_shown_without_a_runtime_or_a_training_framework(
    bundle: Path, workspace: Workspace, command: str
) -> None:
    script = (
        "import sys; from host.__main__ import main; "
        f"code = main(['bundle', {command!r}, {str(bundle)!r}]); "
        f"print(code, *sorted({set(HEAVY)!r} & set(sys.modules)), file=sys.stderr)"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert "s1-aa11" in done.stdout
    assert done.stderr == "0\n"


def test_the_key_of_a_workspace_is_shown_and_written(
    workspace: Workspace, said: Callable[..., str], loaded: Callable[..., Any], tmp_path: Path
) -> None:
    text = said("bundle", "key")
    record = loaded("bundle", "key")
    told = said("bundle", "key", "--out", tmp_path / "key.pem")

    public = PublicKey.read(tmp_path / "key.pem")
    assert f"fingerprint {public.fingerprint} (SHA-256" in text
    assert text.endswith(public.pem.decode())
    assert record["fingerprint"] == public.fingerprint
    assert told.endswith(f"wrote {tmp_path / 'key.pem'}\n")
    assert stat.S_IMODE((workspace.pki_folder / KEY_FILE).stat().st_mode) == 0o600
    assert "PRIVATE" not in text + told + json.dumps(record)
