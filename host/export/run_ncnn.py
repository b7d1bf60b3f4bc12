"""Runs an ncnn model; becomes part of the `run.py` of a bundle."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import ncnn
import numpy as np


def logits_of(model: Path, values: Any) -> Any:  # a number a class
    net, example = ncnn.Net(), values.reshape(values.shape[1], -1, values.shape[-1])
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    with tempfile.TemporaryDirectory() as folder:
        shutil.unpack_archive(model, folder, "zip")
        if net.load_param(f"{folder}/model.param") or net.load_model(f"{folder}/model.bin"):
            raise ValueError("ncnn cannot load it")
    extractor, read = net.create_extractor(), ncnn.Mat(example.shape[::-1])
    read.numpy()[...] = example
    extractor.input(net.input_names()[0], read)
    return np.array(extractor.extract(net.output_names()[0])[1])
