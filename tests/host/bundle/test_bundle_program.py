"""`run.py` of a bundle, without genba, answers as the host does."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from host.export.bundle import write_bundle
from host.export.contents import BundleContents
from host.export.forms import Runtime, logits_of_form
from host.export.program import InputKind, program
from host.export.signing import SigningKey
from host.preprocessing import Inputs, Preprocessing, decode, pixels_of

Floats = npt.NDArray[np.floating]

ALL = [(runtime, kind) for runtime in ("onnx", "tflite", "ncnn") for kind in ("image", "signal")]


def run(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", str(folder / "run.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder.parent,
        env={},
    )


def answers_of(done: subprocess.CompletedProcess[str]) -> dict[str, float]:
    assert done.returncode == 0, done.stderr
    lines = [line.split("\t") for line in done.stdout.splitlines() if "\t" in line]
    return {name: float(share) for name, share in lines}


def shares_of(logits: Floats) -> list[float]:
    powers = np.exp(logits.astype(np.float64) - logits.max())
    return [float(share) for share in powers / powers.sum()]


@pytest.fixture
def unpack(key: SigningKey, tmp_path: Path) -> Callable[[BundleContents], Path]:
    def unpacked(contents: BundleContents) -> Path:
        folder = tmp_path / f"unpacked-{contents.device_class}"
        shutil.unpack_archive(write_bundle(tmp_path, contents, key).path, folder)
        return folder

    return unpacked


def expected(contents: BundleContents, index: int, inputs: Inputs) -> list[float]:
    normalised = contents.preprocessing.normalise(inputs[np.newaxis])
    model = contents.models[index]
    return shares_of(logits_of_form(model.form, model.content, normalised)[0])


@pytest.mark.parametrize("kind", ["grey", "colour"])
@pytest.mark.parametrize(
    ("runtime", "index"), [("onnx", 0), ("onnx", 1), ("tflite", 0), ("ncnn", 0)]
)
def test_the_program_answers_on_photos_as_we_do(
    make_contents: Callable[..., BundleContents],
    unpack: Callable[[BundleContents], Path],
    tmp_path: Path,
    runtime: str,
    index: int,
    kind: str,
) -> None:
    contents = make_contents(runtime, kind)
    folder = unpack(contents)
    spec = contents.preprocessing
    assert isinstance(spec, Preprocessing)
    values = np.random.default_rng(3).integers(0, 256, (40, 30, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = tmp_path / "photo.jpg"
    Image.fromarray(values).save(photo, exif=exif)

    done = run(folder, photo, folder / contents.model_path(contents.models[index].form))

    pixels = pixels_of(decode(photo.read_bytes()), spec.height, spec.width, spec.channels)
    shares = expected(contents, index, pixels)
    answers = answers_of(done)
    assert [answers[name] for name in contents.classes] == pytest.approx(shares, abs=2e-6)
    assert list(answers.values()) == sorted(answers.values(), reverse=True)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_photos_of_every_kind_are_read_as_in_training(
    make_contents: Callable[..., BundleContents],
    unpack: Callable[[BundleContents], Path],
    tmp_path: Path,
    mode: str,
) -> None:
    contents = make_contents("onnx", "colour")
    values = np.random.default_rng(5).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    photo = tmp_path / "photo.tif"
    Image.fromarray(values).convert(mode).save(photo)

    answers = answers_of(run(unpack(contents), photo))

    shares = expected(contents, 1, pixels_of(decode(photo.read_bytes()), 12, 16, 3))
    assert [answers[name] for name in contents.classes] == pytest.approx(shares, abs=2e-6)


@pytest.mark.parametrize("file", ["window.npy", "window.csv", "heading.csv"])
@pytest.mark.parametrize("runtime", ["onnx", "tflite", "ncnn"])
def test_the_program_answers_on_signals_as_we_do(
    make_contents: Callable[..., BundleContents],
    unpack: Callable[[BundleContents], Path],
    tmp_path: Path,
    runtime: str,
    file: str,
) -> None:
    contents = make_contents(runtime, "signal")
    window = np.random.default_rng(4).standard_normal((2, 40)).astype(np.float32)
    window[0, 3] = 1e-5
    if file == "window.npy":
        np.save(tmp_path / file, window)
    else:
        heading = "﻿current,vibration\n" if file == "heading.csv" else ""
        lines = [f"{a!r},{b!r}\n" for a, b in window.T.tolist()]
        (tmp_path / file).write_text(heading + "".join(lines), encoding="utf-8")

    answers = answers_of(run(unpack(contents), tmp_path / file))

    shares = expected(contents, -1, window)
    assert [answers[name] for name in contents.classes] == pytest.approx(shares, abs=2e-6)


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (["1,2"] * 39, "(channels, steps) must be (2, 40), all finite; it has (2, 39)"),
        (["1"] * 80, "(channels, steps) must be (2, 40), all finite; it has (1, 80)"),
        (["1,2"] * 39 + ["1,nan"], "(channels, steps) must be (2, 40), all finite"),
        (["1,2"] * 39 + ["1,x"], "(channels, steps) must be (2, 40), all finite"),
        (["1,2"] * 39 + ["1,2,3"], "Some errors were detected"),
    ],
)
def test_a_signal_that_does_not_fit_is_refused(
    make_contents: Callable[..., BundleContents],
    unpack: Callable[[BundleContents], Path],
    tmp_path: Path,
    lines: list[str],
    problem: str,
) -> None:
    (tmp_path / "window.csv").write_text("\n".join(lines))

    done = run(unpack(make_contents("onnx", "signal")), "window.csv")

    assert done.returncode == 1
    assert done.stderr.startswith("cannot classify window.csv with finalist-1.int8.onnx: ")
    assert problem in done.stderr
    assert "Traceback" not in done.stderr


def test_the_program_runs_the_shipped_model_and_explains_itself(
    make_contents: Callable[..., BundleContents],
    unpack: Callable[[BundleContents], Path],
    tmp_path: Path,
) -> None:
    folder = unpack(make_contents())
    Image.new("L", (20, 20), 90).save(tmp_path / "photo.png")
    Image.new("I;16", (20, 20), 90).save(tmp_path / "deep.png")
    (tmp_path / "broken.png").write_bytes(b"junk")
    (tmp_path / "broken.onnx").write_bytes(b"junk")

    shipped = run(folder, "photo.png")
    named = run(folder, "photo.png", folder / "models/finalist-1.int8.onnx")

    assert shipped.returncode == 0, shipped.stderr
    assert shipped.stdout == named.stdout
    assert len(shipped.stdout.splitlines()) == 3
    for arguments, sentence in (
        (("broken.png",), "cannot classify broken.png with finalist-1.int8.onnx: cannot identify"),
        (("none.png",), "cannot classify none.png with finalist-1.int8.onnx: [Errno 2] No such"),
        (("deep.png",), "cannot classify deep.png with finalist-1.int8.onnx: it has more than 8"),
        (("photo.png", "none.onnx"), "cannot classify photo.png with none.onnx: "),
        (("photo.png", "broken.onnx"), "cannot classify photo.png with broken.onnx: "),
    ):
        failed = run(folder, *arguments)
        assert failed.returncode == 1
        assert failed.stderr.startswith(sentence)
        assert "Traceback" not in failed.stderr
    assert run(folder).stderr.startswith("usage: run.py")
    assert "--threshold needs" in run(folder, "photo.png", "--threshold", "0.5").stderr


def test_the_program_calls_good_and_bad_by_the_threshold_of_the_study(
    make_contents: Callable[..., BundleContents],
    unpack: Callable[[BundleContents], Path],
    tmp_path: Path,
) -> None:
    contents = make_contents("onnx", inspected=True)
    folder = unpack(contents)
    Image.new("L", (20, 20), 90).save(tmp_path / "photo.png")
    share = answers_of(run(folder, "photo.png"))["defective"]
    by_study = "NG" if np.log(share / (1 - share)) >= -0.4 else "OK"

    def verdict(*options: object) -> str:
        done = run(folder, "photo.png", *options)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[-1]

    assert verdict() == f"{by_study}: defective is NG from 0.401312"
    low, high = f"{share - 1e-4:.6f}", f"{share + 1e-4:.6f}"
    assert verdict("--threshold", low) == f"NG: defective is NG from {low}"
    assert verdict("--threshold", high) == f"OK: defective is NG from {high}"
    for wrong in ("0", "1", "1.5", "-0.1", "nan"):
        failed = run(folder, "photo.png", f"--threshold={wrong}")
        assert failed.returncode == 2
        assert "--threshold needs" in failed.stderr
    fp32 = folder / "models/finalist-1.fp32.onnx"
    assert "--threshold needs" in run(folder, "photo.png", fp32, "--threshold", "0.5").stderr


@pytest.mark.parametrize(("runtime", "kind"), ALL)
def test_the_program_fits_on_a_page_and_old_pythons_read_it(
    runtime: Runtime, kind: InputKind
) -> None:
    text = program(runtime, kind)

    tree = ast.parse(text, feature_version=(3, 9))

    # ncnn wants its text and its weights as two files, and so unpacks them first.
    assert len(text.splitlines()) <= (62 if runtime == "ncnn" else 60)
    assert max(map(len, text.splitlines())) <= 100
    names = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [a.name for a in node.names]
        )
    }
    needed = {
        "onnx": {"onnxruntime"},
        "tflite": {"ai_edge_litert", "tflite_runtime"},
        "ncnn": {"ncnn"},
    }[runtime]
    pillow = {"PIL"} if kind == "image" else set()
    assert names - sys.stdlib_module_names == {"numpy"} | needed | pillow


@pytest.mark.parametrize(("runtime", "kind"), ALL)
def test_the_program_is_in_the_order_that_linters_ask_for(
    runtime: Runtime, kind: InputKind, tmp_path: Path
) -> None:
    path = tmp_path / "run.py"
    path.write_text(program(runtime, kind), encoding="utf-8")
    ruff = [sys.executable, "-m", "ruff"]
    options = ["--isolated", "--no-cache", "--line-length=100", "--target-version=py39"]

    checked = subprocess.run(
        [*ruff, "check", *options, "--select=E,F,I,B,UP", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    formatted = subprocess.run(
        [*ruff, "format", *options, "--diff", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert checked.returncode == 0, checked.stdout
    assert formatted.returncode == 0, formatted.stdout
