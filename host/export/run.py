"""Classify an image with the model of this bundle: python run.py IMAGE [MODEL.onnx].

Needs numpy, onnxruntime and pillow. Prints each class and its probability, the answer first.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

HERE = Path(__file__).resolve().parent


def read_image(path: str, spec: dict[str, Any]) -> Any:
    """The image as the float32 array (1, C, H, W) that the model reads."""
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
    image = image.convert("L" if spec["channels"] == 1 else "RGB")
    image = image.resize((spec["width"], spec["height"]), Image.Resampling.BILINEAR)
    pixels = np.asarray(image).reshape(spec["height"], spec["width"], spec["channels"])
    mean, std = (np.array(spec[key], np.float32).reshape(-1, 1, 1) for key in ("mean", "std"))
    scaled = pixels.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    return ((scaled - mean) / std)[np.newaxis]


def classify(image_path: str, model_path: Path) -> list[tuple[str, float]]:
    """Pairs of class and probability, the most probable first."""
    spec = json.loads((HERE / "preprocessing.json").read_text(encoding="utf-8"))
    labels = (HERE / "labels.txt").read_text(encoding="utf-8").splitlines()
    session = onnxruntime.InferenceSession(str(model_path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    logits = session.run(None, {name: read_image(image_path, spec)})[0][0].astype(np.float64)
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    return [(labels[i], float(shares[i])) for i in np.argsort(-shares, kind="stable")]


def main(arguments: list[str]) -> None:
    if len(arguments) not in (1, 2):
        sys.exit("usage: python run.py IMAGE [MODEL.onnx]")
    manifest = json.loads((HERE / "manifest.json").read_text(encoding="utf-8"))
    model_path = HERE / manifest["shipped_model"] if len(arguments) == 1 else Path(arguments[1])
    if not model_path.is_file():
        sys.exit(f"there is no model {model_path}")
    try:
        answers = classify(arguments[0], model_path)
    except OSError as error:
        sys.exit(f"cannot classify {arguments[0]}: {error}")
    for label, share in answers:
        sys.stdout.write(f"{label}\t{share:.6f}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
