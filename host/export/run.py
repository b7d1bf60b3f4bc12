"""Classify a file with the model of this bundle: each class and its probability, best first."""

import argparse
import json
from pathlib import Path

import numpy as np

from host.export.run_image import read_input
from host.export.run_onnx import logits_of

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", help="what to classify")
    parser.add_argument("model", nargs="?", type=Path, help="another model than the shipped one")
    parser.add_argument("--threshold", dest="least", type=float, help="NG from this probability")
    here, asked = Path(__file__).resolve().parent, parser.parse_args()
    manifest = json.loads((here / "manifest.json").read_text(encoding="utf-8"))
    model = (asked.model or here / manifest["shipped_model"]).resolve()
    rule = {here / name: m["inspection"] for name, m in manifest["models"].items()}.get(model)
    if asked.least is not None and (rule is None or not 0 < asked.least < 1):
        parser.error("--threshold needs a share below 1, and a model here that finds a defect")
    try:
        logits = logits_of(model, read_input(asked.file, manifest["input"])).astype(np.float64)
    except Exception as error:  # decoders and runtimes have errors of many kinds
        raise SystemExit(f"cannot classify {asked.file} with {model.name}: {error}") from error
    classes, shares = manifest["classes"], np.exp(logits - np.logaddexp.reduce(logits))
    for i in np.argsort(-shares, kind="stable"):
        print(f"{classes[i]}\t{shares[i]:.6f}")
    if rule is not None:
        limit = rule["threshold"] if asked.least is None else -np.log(1 / asked.least - 1)
        verdict = "NG" if logits[rule["defect"]] - logits[1 - rule["defect"]] >= limit else "OK"
        print(f"{verdict}: {rule['defect_class']} is NG from {1 / (1 + np.exp(-limit)):.6f}")
