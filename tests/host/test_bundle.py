"""Bundles: complete, the same for the same contents, and telling when something was touched."""

import hashlib
import json
import math
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from host.errors import UsageError
from host.export.bundle import (
    MANIFEST,
    SCHEMA,
    WrittenBundle,
    read_manifest,
    read_model_card,
    verify_bundle,
    write_bundle,
)
from host.export.check import logits_of_onnx
from host.export.contents import (
    BundleAccuracy,
    BundleContents,
    BundleMeasurement,
    BundleModel,
    BundlePrediction,
    Precision,
)
from host.export.errors import ExportError
from host.export.metadata import graph_sha256, onnx_metadata, with_metadata
from host.export.quantize import quantize_int8
from host.measurement import (
    PRESETS,
    PROTOCOL,
    Block,
    Energy,
    Measurement,
    Memory,
    ModelRun,
    ProcessRun,
    Reason,
    Thermal,
    Verdict,
)
from host.network.graph import Conv, GlobalPool, Linear, NetworkBuilder
from host.network.onnx_model import onnx_bytes
from host.network.weights import random_weights
from host.preprocessing import Channels, Preprocessing, decode, pixels_of

CLASSES = ("defective", "functional", "傷")


ENERGY = Energy(
    source="rapl",
    scope="package",
    kind="measured",
    gross_joules=0.05,
    gross_interval_joules=(0.049, 0.051),
    net_joules=0.03,
    net_interval_joules=(0.029, 0.031),
    power_watts=2.0,
    idle_watts=0.8,
    windows=5,
    inferences=80,
    readings=200,
    reading_hertz=20.0,
    lag_seconds=0.0,
)


def measured(energy: Energy | None) -> Measurement:
    block = Block(
        started_monotonic_seconds=0.0,
        lasted_seconds=0.8,
        canary_seconds=0.003,
        reference_seconds=(0.001,),
        reference_cpu_seconds=(0.001,),
        latency_seconds=tuple(0.001 * (10 + i) for i in range(31)),
        cpu_seconds=tuple(0.001 * (10 + i) for i in range(31)),
        run_delay_seconds=(0.0,) * 31,
    )
    process = ProcessRun(
        memory=Memory(1, 2, 50_000_000),
        load_seconds=0.1,
        first_inference_seconds=0.02,
        warmup_runs=5,
        steady=True,
        runs_per_sample=1,
        call_overhead_seconds=5e-6,
        blocks=(block,),
    )
    return Measurement(
        device_id="d1",
        run=ModelRun("a" * 64, 1),
        plan=PRESETS["quick"],
        protocol=PROTOCOL,
        runtime_library="onnxruntime",
        runtime_version="1.23.2",
        runtime_options=(),
        cpus=(0,),
        preflight=None,
        processes=(process,),
        thermal=Thermal(),
        governor=None,
        load_average_start=0.0,
        energy_run=None,
        energies=(energy,) if energy else (),
        energy_absent_because="" if energy else "no sensor",
        verdict=Verdict("WARN", (Reason("BUSY", "WARN", "34 % of the CPU was taken"),)),
        measured_at=datetime(2026, 11, 24, tzinfo=UTC),
    )


def models(channels: int) -> tuple[BundleModel, BundleModel]:
    builder = NetworkBuilder((channels, 12, 16))
    last = builder.conv(0, Conv(8, 3), "relu")
    for _ in range(3):
        last = builder.conv(last, Conv(8, 3), "relu")
    last = builder.add(Linear(len(CLASSES)), builder.add(GlobalPool(), last))
    network = builder.build(last)
    fp32 = onnx_bytes(network, random_weights(network, seed=1))
    images = np.random.default_rng(0).standard_normal((8, channels, 12, 16)).astype(np.float32)
    return BundleModel("fp32", fp32), BundleModel("int8", quantize_int8(fp32, [images]))


def contents_of(channels: Channels = 1) -> BundleContents:
    mean, std = (0.4, 0.5, 0.6)[:channels], (0.2, 0.25, 0.3)[:channels]
    preprocessing = Preprocessing(12, 16, channels, mean, std)
    return BundleContents(
        name="finalist-1",
        genba_version="0.1.0",
        created_at="2026-11-24T00:00:00+00:00",
        study="s1",
        space="mobile",
        candidate="r16 w0.5 relu | k3",
        seed=7,
        classes=CLASSES,
        preprocessing=preprocessing,
        data_fingerprint="f" * 64,
        data_counts={"defective": 10, "functional": 20, "傷": 5},
        data_licence="CC BY-NC-SA 4.0",
        models=models(channels),
        shipped="int8",
        scores={"flops": 1e6, "naswot": math.nan},
        predictions=(
            BundlePrediction(
                "fp32", "kiosk", "latency_seconds", 0.02, 0.01, 0.03, 0.9, "op-count/1"
            ),
        ),
        measurements=(
            BundleMeasurement.of(measured(None), precision="fp32", device="kiosk"),
            BundleMeasurement.of(measured(ENERGY), precision="int8", device="pi"),
        ),
        accuracies=(
            BundleAccuracy("fp32", "test", "accuracy", 0.8, 0.7, 0.88, 100, 0.6),
            BundleAccuracy("int8", "test", "auroc", 0.9, None, None, 100),
        ),
    )


@pytest.fixture(scope="module")
def contents() -> BundleContents:
    return contents_of()


@pytest.fixture
def bundle(contents: BundleContents, tmp_path: Path) -> WrittenBundle:
    return write_bundle(tmp_path / "bundles", contents)


def rewrite(path: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def test_a_bundle_holds_the_models_and_all_that_is_known(bundle: WrittenBundle) -> None:
    with zipfile.ZipFile(bundle.path) as archive:
        names = archive.namelist()
        labels = archive.read("labels.txt").decode()

    manifest = read_manifest(bundle.path)

    assert names == [
        "MODEL_CARD.md",
        "labels.txt",
        "manifest.json",
        "models/finalist-1.fp32.onnx",
        "models/finalist-1.int8.onnx",
        "preprocessing.json",
        "run.py",
    ]
    assert labels == "defective\nfunctional\n傷\n"
    assert manifest["schema"] == SCHEMA
    assert manifest["shipped_model"] == "models/finalist-1.int8.onnx"
    assert manifest["provenance"]["seed"] == 7
    assert manifest["scores"] == {"flops": 1e6, "naswot": None}
    assert set(manifest["files"]) == set(names) - {"manifest.json"}
    assert verify_bundle(bundle.path) == ()


def test_a_bundle_tells_n_interval_device_and_runtime_of_each_measurement(
    bundle: WrittenBundle,
) -> None:
    kiosk, pi = read_manifest(bundle.path)["measurements"]

    assert (kiosk["n"], kiosk["device"], kiosk["runtime_version"]) == (31, "kiosk", "1.23.2")
    assert kiosk["latency_seconds"] == pytest.approx(0.025)
    assert kiosk["latency_low_seconds"] < 0.025 < kiosk["latency_high_seconds"]
    assert kiosk["energy_per_inference_joules"] is None
    assert kiosk["energy_absent_because"] == "no sensor"
    assert pi["energy_per_inference_joules"] == pytest.approx(0.05)
    assert pi["energy_absent_because"] == ""


def test_equal_contents_give_equal_files(bundle: WrittenBundle, tmp_path: Path) -> None:
    again = write_bundle(tmp_path / "elsewhere", contents_of())

    assert again.path.name == bundle.path.name
    assert again.path.read_bytes() == bundle.path.read_bytes()
    assert hashlib.sha256(json_of(bundle.path)).hexdigest() == bundle.manifest_sha256


def json_of(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(MANIFEST)


def test_other_contents_leave_the_first_bundle_where_it_is(
    bundle: WrittenBundle, contents: BundleContents
) -> None:
    other = write_bundle(bundle.path.parent, replace(contents, seed=8))

    assert sorted(bundle.path.parent.iterdir()) == sorted([bundle.path, other.path])
    assert verify_bundle(bundle.path) == ()


def test_the_manifest_ties_the_shipped_model_to_the_measured_one(contents: BundleContents) -> None:
    fp32 = contents.models[0].onnx
    entries = onnx_metadata(
        classes=contents.classes,
        preprocessing=contents.preprocessing,
        study=contents.study,
        candidate=contents.candidate,
        data_fingerprint=contents.data_fingerprint,
        measurements=contents.measurements,
    )

    named = with_metadata(fp32, entries)

    assert json.loads(entries["measurements"])[0]["n"] == 31
    assert named != fp32
    assert graph_sha256(named) == graph_sha256(fp32)


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
        (
            lambda files: files.update({MANIFEST: b'{"schema": "x", "files": {}}'}),
            "manifest.json is not in the form of genba-bundle/1: its schema is x",
        ),
        (
            lambda files: files.update({MANIFEST: b" " * (17 << 20)}),
            "manifest.json is larger than any bundle needs",
        ),
    ],
)
def test_what_was_touched_is_named(
    bundle: WrittenBundle, change: Callable[[dict[str, bytes]], None], problem: str
) -> None:
    rewrite(bundle.path, change)

    problems = verify_bundle(bundle.path)

    assert len(problems) == 1
    assert problems[0].startswith(problem)


def test_every_flipped_byte_of_a_file_is_noticed(bundle: WrittenBundle) -> None:
    content = bundle.path.read_bytes()
    with zipfile.ZipFile(bundle.path) as archive:
        offsets = [entry.header_offset + 100 for entry in archive.infolist()]

    for offset in offsets:
        damaged = bytearray(content)
        damaged[offset] ^= 1
        bundle.path.write_bytes(damaged)

        assert verify_bundle(bundle.path)


@pytest.mark.parametrize("keep", [0, 10, 2000])
def test_a_truncated_zip_is_a_problem_and_no_crash(bundle: WrittenBundle, keep: int) -> None:
    bundle.path.write_bytes(bundle.path.read_bytes()[:keep])

    assert "is no readable zip file" in verify_bundle(bundle.path)[0]
    with pytest.raises(UsageError, match="is no bundle"):
        read_manifest(bundle.path)


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", None])
def test_a_bundle_without_a_manifest_has_none_to_show(
    bundle: WrittenBundle, content: bytes | None
) -> None:
    def change(files: dict[str, bytes]) -> None:
        files.pop(MANIFEST) if content is None else files.update({MANIFEST: content})

    rewrite(bundle.path, change)

    with pytest.raises(UsageError, match="is no bundle: it"):
        read_manifest(bundle.path)


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

    problems = verify_bundle(folder)

    assert clean == ()
    assert card == read_model_card(bundle.path)
    assert manifest == read_manifest(bundle.path)
    assert problems == (
        "note.txt is not in the manifest",
        "models/finalist-1.fp32.onnx is missing",
    )


@pytest.mark.parametrize("name", ["", "../up", "a/b", "-x", "a b", "x" * 200])
def test_a_name_that_is_no_file_name_is_refused(contents: BundleContents, name: str) -> None:
    with pytest.raises(ExportError, match="cannot be named"):
        replace(contents, name=name)


def test_contents_that_no_bundle_can_hold_are_refused(contents: BundleContents) -> None:
    with pytest.raises(ExportError, match="ships int8"):
        replace(contents, models=contents.models[:1])
    with pytest.raises(ExportError, match="line break"):
        replace(contents, classes=("a\nb", "c", "d"))
    with pytest.raises(ExportError, match="no ONNX model"):
        write_bundle(Path("unused"), replace(contents, models=(BundleModel("int8", b"junk"),)))


def test_the_model_card_says_how_good_how_fast_and_from_what(bundle: WrittenBundle) -> None:
    card = read_model_card(bundle.path)

    assert "| fp32 | test | accuracy | 0.800 | 0.700 to 0.880 | 100 | 0.600 |" in card
    assert "| int8 | test | auroc | 0.900 | not computed | 100 |  |" in card
    assert "| fp32 | kiosk | onnxruntime 1.23.2 | 1 | 25.000 |" in card
    assert "none: no sensor" in card
    assert "| 50.0 | 50 (measured) | WARN: 34 % of the CPU was taken |" in card
    assert "| fp32 | kiosk | latency_seconds | 0.02 | 0.01 to 0.03 (90%) | op-count/1 |" in card
    assert "CC BY-NC-SA 4.0" in card
    assert "`r16 w0.5 relu | k3`" in card


def run_bundle(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", str(folder / "run.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder.parent,
        env={},
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_program_in_the_bundle_answers_as_we_do(
    tmp_path: Path, channels: Channels, precision: Precision
) -> None:
    contents = contents_of(channels)
    folder = tmp_path / "unpacked"
    shutil.unpack_archive(write_bundle(tmp_path, contents).path, folder)
    values = np.random.default_rng(3).integers(0, 256, (40, 30, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(values).save(tmp_path / "photo.jpg", exif=exif)
    model = next(m for m in contents.models if m.precision == precision)

    done = run_bundle(
        folder, str(tmp_path / "photo.jpg"), str(folder / contents.model_path(precision))
    )

    pixels = pixels_of(decode((tmp_path / "photo.jpg").read_bytes()), 12, 16, channels)
    logits = logits_of_onnx(model.onnx, contents.preprocessing.normalise(pixels[np.newaxis]))[0]
    shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    assert done.returncode == 0, done.stderr
    answers = dict(line.split("\t") for line in done.stdout.splitlines())
    assert next(iter(answers)) == CLASSES[int(logits.argmax())]
    assert [float(answers[name]) for name in CLASSES] == pytest.approx(shares.tolist(), abs=2e-6)


def test_the_program_in_the_bundle_runs_the_shipped_model_and_explains_itself(
    bundle: WrittenBundle, tmp_path: Path
) -> None:
    folder = tmp_path / "unpacked"
    shutil.unpack_archive(bundle.path, folder)
    Image.new("L", (20, 20), 90).save(tmp_path / "photo.png")
    (tmp_path / "broken.png").write_bytes(b"junk")

    shipped = run_bundle(folder, "photo.png")
    named = run_bundle(folder, "photo.png", str(folder / "models/finalist-1.int8.onnx"))
    broken = run_bundle(folder, "broken.png")

    assert shipped.returncode == 0, shipped.stderr
    assert shipped.stdout == named.stdout
    assert broken.returncode == 1
    assert broken.stderr.startswith("cannot classify broken.png: cannot identify image file")
    assert "Traceback" not in broken.stderr
    assert run_bundle(folder).stderr.startswith("usage: python run.py IMAGE")
    assert run_bundle(folder, "photo.png", "none.onnx").stderr == "there is no model none.onnx\n"


def test_the_program_in_the_bundle_fits_on_a_page() -> None:
    program = Path(str(sys.modules[write_bundle.__module__].__file__)).with_name("run.py")

    assert len(program.read_text().splitlines()) <= 60
