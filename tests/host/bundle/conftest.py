"""Contents of bundles with real models, and bundles made of them."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from host.export.bundle import WrittenBundle, write_bundle
from host.export.contents import (
    BundleAccuracy,
    BundleChoice,
    BundleConfusion,
    BundleContents,
    BundleInspection,
    BundleLimit,
    BundleMeasurement,
    BundleModel,
    BundlePrediction,
    BundleProfile,
    BundleShare,
)
from host.export.forms import Form, Runtime, form_of
from host.export.quantize import quantize_int8
from host.export.signing import SigningKey
from host.measurement import Measurement, Reason, Verdict
from host.network.graph import Conv, GlobalPool, Linear, Network, NetworkBuilder
from host.network.ncnn_model import ncnn_bytes
from host.network.onnx_model import onnx_bytes
from host.network.tflite_model import tflite_bytes
from host.network.weights import random_weights
from host.preprocessing import AnyPreprocessing, Preprocessing, SignalPreprocessing

Kind = Literal["grey", "colour", "signal"]
SHAPES = {"grey": (1, 12, 16), "colour": (3, 12, 16), "signal": (2, 1, 40)}
CLASSES = ("defective", "functional", "傷")


@cache
def network(kind: Kind, classes: int) -> Network:
    builder = NetworkBuilder(SHAPES[kind])
    window = (1, 3) if kind == "signal" else 3
    last = builder.conv(0, Conv(8, window), "relu")
    for _ in range(3):
        last = builder.conv(last, Conv(8, window), "relu")
    return builder.build(builder.add(Linear(classes), builder.add(GlobalPool(), last)))


@cache
def models(runtime: Runtime, kind: Kind, classes: int) -> tuple[BundleModel, ...]:
    net = network(kind, classes)
    weights = random_weights(net, seed=1)
    if runtime == "tflite":
        return (BundleModel("tflite-fp32", tflite_bytes(net, weights)),)
    if runtime == "ncnn":
        return (BundleModel("ncnn-fp32", ncnn_bytes(net, weights)),)
    fp32 = onnx_bytes(net, weights)
    inputs = np.random.default_rng(0).standard_normal((8, *SHAPES[kind])).astype(np.float32)
    int8 = quantize_int8(fp32, [inputs])
    return BundleModel("onnx-fp32", fp32), BundleModel("onnx-int8", int8, ("stem", "head"))


def preprocessing(kind: Kind) -> AnyPreprocessing:
    channels, height, width = SHAPES[kind]
    mean, std = (0.4, 0.5, 0.6)[:channels], (0.2, 0.25, 0.3)[:channels]
    if kind == "signal":
        return SignalPreprocessing(channels, width, mean, std)
    return Preprocessing(height, width, 1 if kind == "grey" else 3, mean, std)


def inspection(form: Form) -> BundleInspection:
    return BundleInspection(
        form=form,
        defect_class="defective",
        threshold=-0.4,
        confusion=((70, 10), (2, 18)),
        cost_of_miss=10.0,
        cost_of_false_alarm=1.0,
        cost_per_sample=0.3,
        recall=BundleShare(0.85, 0.64, 0.95, 20),
        false_alarm_rate=BundleShare(0.05, 0.02, 0.12, 80),
        false_alarm_rate_limit=0.05,
    )


@pytest.fixture(scope="session")
def key() -> SigningKey:
    return SigningKey.make()


@pytest.fixture
def make_contents(
    make_measurement: Callable[..., Measurement],
) -> Callable[..., BundleContents]:
    """Contents of a runtime, for grey or colour images or signals; inspected, they have the two
    classes "defective" and "functional".
    """

    def measured(form: Form, profile: str, *, energy: bool) -> BundleMeasurement:
        verdict = Verdict("WARN", (Reason("BUSY", "WARN", "34 % of the CPU was taken"),))
        without = {} if energy else {"energies": ()}
        made = make_measurement("d1", "a" * 64, verdict=verdict, **without)
        agreement = 0.9875 if energy else None
        return BundleMeasurement.of(made, form=form, profile=profile, agreement=agreement)

    def make(
        runtime: Runtime = "onnx", kind: Kind = "grey", *, inspected: bool = False
    ) -> BundleContents:
        classes = CLASSES[:2] if inspected else CLASSES
        held = models(runtime, kind, len(classes))
        fp32, last = form_of(runtime, "fp32"), held[-1].form
        return BundleContents(
            name="finalist-1",
            device_class=f"x86_64-{runtime}",
            genba_version="0.1.0",
            created_at="2026-11-24T00:00:00+00:00",
            study="s1",
            space="mobile",
            candidate="r16 w0.5 relu | k3",
            seed=7,
            classes=classes,
            preprocessing=preprocessing(kind),
            data_fingerprint="f" * 64,
            data_counts={"train": 70, "validation": 15, "test": 100},
            data_licence="CC BY-NC-SA 4.0",
            models=held,
            shipped=last,
            profiles=(
                BundleProfile("kiosk", "kiosk", "Core 2", "x86_64", runtime, "1.23.2", 1),
                BundleProfile("press-2t", "press", "Atom [x]|y", "x86_64", runtime, "1.23.2", 2),
            ),
            choices=(
                BundleChoice("kiosk", last, "it is 1.40 times as fast", within_limits=True),
                BundleChoice("press-2t", fp32, "no gain", within_limits=False),
            ),
            limits=(
                BundleLimit("latency_seconds", "kiosk", 0.03, "max_latency_ms = 30"),
                BundleLimit("model_bytes", None, 2e6, "max_model_mb = 2"),
            ),
            scores={"flops": 1e6, "naswot": math.nan},
            predictions=(
                BundlePrediction(
                    fp32, "kiosk", "latency_seconds", 0.012, 0.009, 0.015, 0.9, "LatencyModel"
                ),
                BundlePrediction(
                    fp32, "kiosk", "peak_rss_bytes", 6e7, 5e7, None, 0.9, "PeakMemoryModel"
                ),
            ),
            measurements=(
                measured(fp32, "kiosk", energy=False),
                measured(last, "press-2t", energy=True),
            ),
            accuracies=(
                BundleAccuracy(fp32, "test", "accuracy", 0.8, 0.7, 0.88, 100, 0.6),
                BundleAccuracy(last, "test", "auroc", 0.9, None, None, 100),
            ),
            confusions=(
                BundleConfusion(
                    last, "test", ((8, 1, 1),) * 3 if not inspected else ((70, 10), (2, 18))
                ),
            ),
            inspections=(inspection(last),) if inspected else (),
        )

    return make


@pytest.fixture
def contents(make_contents: Callable[..., BundleContents]) -> BundleContents:
    return make_contents()


@pytest.fixture
def bundle(contents: BundleContents, key: SigningKey, tmp_path: Path) -> WrittenBundle:
    return write_bundle(tmp_path / "bundles", contents, key)


@pytest.fixture
def with_form() -> Callable[..., BundleContents]:
    """The contents with one model more, of that form and these bytes."""

    def add(contents: BundleContents, form: Form, content: bytes) -> BundleContents:
        return replace(contents, models=(*contents.models, BundleModel(form, content)))

    return add
