"""Bundles: complete, and the same for the same contents and key."""

import errno
import hashlib
import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.errors import UsageError
from host.export.archive import is_clean, zip_of
from host.export.bundle import WrittenBundle, read_manifest, read_model_card, write_bundle
from host.export.contents import BundleContents, BundleModel
from host.export.errors import ExportError
from host.export.manifest import MANIFEST, SCHEMA
from host.export.metadata import graph_sha256, onnx_metadata, with_metadata
from host.export.signing import SigningKey
from host.export.verification import verify_bundle


def test_a_bundle_holds_the_models_and_all_that_is_known(bundle: WrittenBundle) -> None:
    with zipfile.ZipFile(bundle.path) as archive:
        names = archive.namelist()
        labels = archive.read("labels.txt").decode()
        spec = json.loads(archive.read("preprocessing.json"))

    manifest = read_manifest(bundle.path)

    assert names == [
        "MODEL_CARD.ja.md",
        "MODEL_CARD.md",
        "labels.txt",
        "manifest.json",
        "manifest.sig",
        "models/finalist-1.fp32.onnx",
        "models/finalist-1.int8.onnx",
        "preprocessing.json",
        "run.py",
        "signer.pem",
    ]
    assert bundle.path.name == f"finalist-1-x86_64-onnx-{bundle.manifest_sha256[:12]}.zip"
    assert labels == "defective\nfunctional\n傷\n"
    assert spec == manifest["input"]
    assert spec["axes"] == ["batch", "channel", "height", "width"]
    assert manifest["schema"] == SCHEMA
    assert manifest["shipped_model"] == "models/finalist-1.int8.onnx"
    assert manifest["provenance"]["seed"] == 7
    assert manifest["scores"] == {"flops": 1e6, "naswot": None}
    assert [p["name"] for p in manifest["profiles"]] == ["kiosk", "press-2t"]
    assert [c["within_limits"] for c in manifest["choices"]] == [True, False]
    assert manifest["limits"][0]["maximum"] == 0.03
    assert manifest["models"]["models/finalist-1.int8.onnx"]["float_layers"] == ["stem", "head"]
    assert "Energy and power of onnx-fp32 on kiosk: no powercap zone." in manifest["not_measured"]
    assert set(manifest["files"]) == set(names) - {"manifest.json", "manifest.sig", "signer.pem"}
    assert verify_bundle(bundle.path).problems == ()


def test_a_bundle_tells_n_interval_device_and_runtime_of_each_measurement(
    bundle: WrittenBundle,
) -> None:
    kiosk, press = read_manifest(bundle.path)["measurements"]

    assert (kiosk["n"], kiosk["profile"], kiosk["runtime_version"]) == (62, "kiosk", "1.23.2")
    assert kiosk["latency_seconds"] == pytest.approx(0.010)
    assert kiosk["latency_low_seconds"] < 0.010 < kiosk["latency_high_seconds"]
    assert kiosk["latency_mad_seconds"] > 0
    assert kiosk["energy_per_inference_joules"] is None
    assert kiosk["energy_absent_because"] == "no powercap zone"
    assert kiosk["agreement"] is None
    assert press["energy_per_inference_joules"] == pytest.approx(0.05)
    assert press["energy_low_joules"] < 0.05 < press["energy_high_joules"]
    assert press["energy_source"] == "rapl (package)"
    assert press["energy_absent_because"] == ""
    assert press["verdict"] == "WARN"


def test_equal_contents_and_keys_give_equal_files(
    bundle: WrittenBundle,
    make_contents: Callable[..., BundleContents],
    key: SigningKey,
    tmp_path: Path,
) -> None:
    again = write_bundle(tmp_path / "elsewhere", make_contents(), key)

    assert again.path.name == bundle.path.name
    assert again.path.read_bytes() == bundle.path.read_bytes()
    with zipfile.ZipFile(bundle.path) as archive:
        assert hashlib.sha256(archive.read(MANIFEST)).hexdigest() == bundle.manifest_sha256


def test_other_contents_or_another_key_leave_the_first_bundle_where_it_is(
    bundle: WrittenBundle, contents: BundleContents, key: SigningKey
) -> None:
    folder = bundle.path.parent
    other = write_bundle(folder, replace(contents, seed=8), key)
    third = write_bundle(folder, contents, SigningKey.make())

    assert sorted(folder.iterdir()) == sorted([bundle.path, other.path, third.path])
    assert verify_bundle(bundle.path).intact


@pytest.mark.parametrize("runtime", ["onnx", "tflite", "ncnn"])
def test_the_manifest_ties_the_shipped_model_to_the_measured_one(
    make_contents: Callable[..., BundleContents], key: SigningKey, runtime: str, tmp_path: Path
) -> None:
    contents = make_contents(runtime)
    measured = contents.models[0]
    entries = onnx_metadata(
        classes=contents.classes,
        preprocessing=contents.preprocessing,
        study=contents.study,
        candidate=contents.candidate,
        data_fingerprint=contents.data_fingerprint,
    )

    named = replace(measured, content=with_metadata(measured.content, entries))
    shipped = replace(contents, models=(named, *contents.models[1:]))
    manifest = read_manifest(write_bundle(tmp_path, shipped, key).path)

    assert named.content != measured.content
    entry = manifest["models"][contents.model_path(named.form)]
    assert entry["graph_sha256"] == graph_sha256(measured.content)


@pytest.mark.parametrize(
    ("runtime", "kind", "axes"),
    [
        ("onnx", "signal", ["batch", "channel", "time"]),
        ("tflite", "signal", ["batch", "time", "channel"]),
        ("tflite", "colour", ["batch", "height", "width", "channel"]),
        ("ncnn", "colour", ["channel", "height", "width"]),
        ("ncnn", "signal", ["channel", "time"]),
    ],
)
def test_the_order_of_the_axes_is_that_of_the_files(
    make_contents: Callable[..., BundleContents],
    key: SigningKey,
    tmp_path: Path,
    runtime: str,
    kind: str,
    axes: list[str],
) -> None:
    path = write_bundle(tmp_path, make_contents(runtime, kind), key).path

    assert read_manifest(path)["input"]["axes"] == axes


@pytest.mark.parametrize("name", ["", "../up", "a/b", "-x", "a b", "x" * 200, "a.", ".a"])
def test_a_name_that_is_no_file_name_is_refused(contents: BundleContents, name: str) -> None:
    with pytest.raises(ExportError, match="cannot be named"):
        replace(contents, name=name)
    with pytest.raises(ExportError, match="cannot be named"):
        replace(contents, device_class=name)


def test_contents_that_no_bundle_can_hold_are_refused(
    contents: BundleContents,
    make_contents: Callable[..., BundleContents],
    with_form: Callable[..., BundleContents],
) -> None:
    tflite = make_contents("tflite").models[0]
    with pytest.raises(ExportError, match="ships onnx-int8"):
        replace(contents, models=contents.models[:1])
    with pytest.raises(ExportError, match="models of one runtime"):
        with_form(contents, "tflite-fp32", tflite.content)
    with pytest.raises(ExportError, match="is no onnx file"):
        replace(contents, models=(contents.models[0], BundleModel("onnx-int8", tflite.content)))
    ncnn = make_contents("ncnn").models[0]
    with pytest.raises(ExportError, match="onnx-int8 is no onnx file"):
        replace(contents, models=(contents.models[0], BundleModel("onnx-int8", ncnn.content)))
    with pytest.raises(ExportError, match="each once"):
        replace(contents, profiles=(*contents.profiles, contents.profiles[0]))
    with pytest.raises(ExportError, match="the bundle for armv7l-onnx"):
        replace(contents, device_class="armv7l-onnx")
    with pytest.raises(ExportError, match="line break"):
        replace(contents, classes=("a\nb", "c", "d"))
    with pytest.raises(ExportError, match="line break"):
        replace(contents, classes=("a\u2028b", "c", "d"))
    with pytest.raises(ExportError, match="each once"):
        replace(contents, classes=("a", "a", "d"))
    with pytest.raises(ExportError, match="a figure is of kiosk, which is not"):
        replace(contents, profiles=contents.profiles[1:])
    with pytest.raises(ExportError, match=r"inspection .* needs it and one other class"):
        replace(make_contents(inspected=True), classes=("defective", "b", "c"), confusions=())


def test_a_model_that_is_none_is_refused_and_nothing_is_written(
    contents: BundleContents, key: SigningKey, tmp_path: Path
) -> None:
    broken = replace(contents, models=(contents.models[0], BundleModel("onnx-int8", b"junk")))

    with pytest.raises(ExportError, match="no ONNX model"):
        write_bundle(tmp_path / "new", broken, key)

    assert not (tmp_path / "new").exists()


def test_a_full_disk_leaves_no_part_of_a_bundle(
    contents: BundleContents, key: SigningKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(ExportError, match=r"No space left on device\): make room there"):
        write_bundle(tmp_path, contents, key)

    assert list(tmp_path.iterdir()) == []


def test_a_bundle_without_a_manifest_has_none_to_show(tmp_path: Path) -> None:
    path = tmp_path / "b.zip"
    for content in (b"{", b"[]", b"\xff", b"[" * 100_000):
        path.write_bytes(zip_of({MANIFEST: content}))
        with pytest.raises(UsageError, match="is no bundle: its manifest is wrong"):
            read_manifest(path)
    path.write_bytes(zip_of({"labels.txt": b""}))
    with pytest.raises(UsageError, match=r"has no manifest\.json"):
        read_manifest(path)
    path.write_bytes(zip_of({"MODEL_CARD.md": b"\xff"}))
    with pytest.raises(UsageError, match="is no text"):
        read_model_card(path)
    with pytest.raises(UsageError, match=r"there is no bundle .*nowhere.zip"):
        read_manifest(tmp_path / "nowhere.zip")


@given(st.text(max_size=30))
def test_a_clean_name_stays_below_the_folder_it_is_unpacked_into(name: str) -> None:
    if is_clean(name):
        resolved = os.path.normpath(f"/folder/{name}")
        assert resolved == f"/folder/{name}"
        assert not set(name) & set('\\:*?"<>|\0\n ')


@given(
    st.dictionaries(
        st.from_regex(r"[a-c][a-z._-]{0,5}[a-z]", fullmatch=True),
        st.binary(max_size=40),
        max_size=5,
    )
)
def test_the_zip_does_not_depend_on_the_order_of_its_files(files: dict[str, bytes]) -> None:
    shuffled = dict(reversed(files.items()))

    assert zip_of(files) == zip_of(shuffled)


def test_scores_that_are_no_numbers_are_null_in_json(
    contents: BundleContents, key: SigningKey, tmp_path: Path
) -> None:
    odd = replace(contents, scores={"a": float("inf"), "b": float(np.float64(0.25)), "c": None})

    manifest = read_manifest(write_bundle(tmp_path, odd, key).path)

    assert manifest["scores"] == {"a": None, "b": 0.25, "c": None}
