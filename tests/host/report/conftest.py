"""Studies as plain values, with figures as a plant would have them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from host.report.study import Origin, StudyReport
from host.study.finalist import (
    BundleFile,
    Choice,
    FinalistResult,
    FormResult,
    Inspection,
    RankAgreement,
    Score,
    Trial,
    TrialsReport,
)
from host.study.front import (
    FrontReport,
    FrontRow,
    LimitLine,
    OnDevice,
    Point,
    Predicted,
    Profile,
    Spent,
)
from host.study.stored import DataFacts

NAMES = ("panel", "kiosk", "gateway")
_SLOWER = {"panel": 1.0, "kiosk": 0.6, "gateway": 1.4}


def on_device(
    name: str = "panel",
    latency: float = 0.0123,
    *,
    joules: float | None = None,
    predicted: bool = True,
    bounded: bool = True,
    **other: Any,
) -> OnDevice:
    high = latency * 1.4 if bounded else None
    told = Predicted(value=latency * 1.05, low=latency * 0.8, high=high, level=0.9)
    memory = Predicted(value=80e6, low=74e6, high=88e6, level=0.9)
    values: dict[str, Any] = {
        "device": name,
        "runtime": "onnxruntime 1.23.2",
        "predicted_latency_seconds": told if predicted else None,
        "predicted_peak_rss_bytes": memory if predicted else None,
        "latency_seconds": latency,
        "latency_low_seconds": latency * 0.98,
        "latency_high_seconds": latency * 1.02,
        "latency_p90_seconds": latency * 1.1,
        "samples": 41,
        "peak_rss_bytes": 81_400_000,
        "power_watts": None if joules is None else joules / latency,
        "energy_per_inference_joules": joules,
        "power_source": None if joules is None else "rapl, measured",
        "power_absent_because": "" if joules else "no <sensor> here",
        "verdict": "OK",
        "agreement": 1.0,
    }
    return OnDevice(**values | other)


def profile(name: str = "panel", runtime: str = "onnx") -> Profile:
    return Profile(
        name=name,
        device=f"{name}-pc",
        architecture="x86_64",
        cpu="Intel(R) Core(TM)2 Duo",
        runtime="tflite" if runtime == "tflite" else "onnx",
        runtime_version="onnxruntime 1.23.2",
        threads=1,
    )


def row(n: int, names: Sequence[str]) -> FrontRow:
    return FrontRow(
        key=f"key{n}",
        text=f"r64 w0.5 d2 e{n}",
        score=-0.5 - n,
        scores={"flops": 1e6, "jacob_cov": None},
        parameters=123_456 // (n + 1),
        macs=1_000_000,
        model_bytes=500_000,
        devices=[
            on_device(name, 0.0123 * _SLOWER.get(name, 1.0) / (n + 1), predicted=n != 1)
            for name in names
        ],
    )


def front(names: Sequence[str] = NAMES, **other: Any) -> FrontReport:
    limits = [
        LimitLine(
            quantity="latency_seconds",
            device=name,
            maximum=0.04,
            text=f"max_latency_ms = 40 on {name}",
        )
        for name in names
    ]
    whole = LimitLine(
        quantity="model_bytes", device=None, maximum=2_500_000, text="max_model_mb = 2.5"
    )
    values: dict[str, Any] = {
        "study": "housings",
        "space": "mobile",
        "proxies": ["flops", "jacob_cov"],
        "profiles": [profile(name, "tflite" if name == "gateway" else "onnx") for name in names],
        "limits": [whole, *limits],
        "scored": 200,
        "measured": 24,
        "hypervolume": [(40, 0.41), (80, 0.52), (120, 0.55), (160, 0.551), (200, 0.551)],
        "stopped_because": "the hypervolume has converged",
        "spent": [
            Spent(what="candidates", spent=200, allowed=400),
            Spent(what="measurements", spent=24, allowed=24),
            Spent(what="device minutes", spent=11.5, allowed=30),
            Spent(what="minutes", spent=33.2, allowed=45),
            Spent(what="epochs", spent=180, allowed=None),
        ],
        "rows": [row(n, names) for n in range(3)],
        "others": [
            Point(
                score=-2.0 - 0.3 * n,
                latency_seconds=dict.fromkeys(names, 0.01 + 0.003 * n),
                within_limits=n % 3 != 0,
            )
            for n in range(9)
        ],
    }
    return FrontReport(**values | other)


def inspection(**other: Any) -> Inspection:
    values: dict[str, Any] = {
        "defect_class": "bad",
        "threshold": 0.31,
        "confusion": [[340, 10], [6, 144]],
        "cost_of_miss": 10,
        "cost_of_false_alarm": 1,
        "cost_per_sample": 0.14,
        "recall": Score(value=0.94, low=0.89, high=0.97, n=150),
        "false_alarm_rate": Score(value=0.046, low=0.029, high=0.073, n=350),
        "false_alarm_rate_limit": 0.05,
    }
    return Inspection(**values | other)


def form(name: str, devices: Sequence[OnDevice], **other: Any) -> FormResult:
    values: dict[str, Any] = {
        "form": name,
        "sha256": f"{name[-4:]}" * 16,
        "size_bytes": 600_000 if name.endswith("int8") else 2_000_000,
        "accuracy": Score(value=0.968, low=0.949, high=0.980, n=500),
        "balanced_accuracy": 0.961,
        "auroc": Score(value=0.981, low=0.967, high=0.992, n=500),
        "inspection": inspection(),
        "confusion": [[340, 10], [6, 144]],
        "validation_quality": 0.978 if name.endswith("int8") else 0.983,
        "largest_difference": 0.021 if name.endswith("int8") else 3.2e-6,
        "float_layers": ["head"] if name.endswith("int8") else [],
        "devices": list(devices),
    }
    return FormResult(**values | other)


def finalist(names: Sequence[str] = NAMES, number: int = 0, **other: Any) -> FinalistResult:
    onnx = [name for name in names if name != "gateway"]
    tflite = [name for name in names if name == "gateway"]

    def measured(wanted: Sequence[str], factor: float) -> list[OnDevice]:
        return [
            on_device(n, 0.0123 * _SLOWER.get(n, 1.0) * factor, joules=0.09 * factor)
            for n in wanted
        ]

    forms = [form("onnx-fp32", measured(onnx, 1.0)), form("onnx-int8", measured(onnx, 0.55))]
    if tflite:
        forms += [
            form("tflite-fp32", measured(tflite, 1.0)),
            form("tflite-int8", measured(tflite, 1.3)),
        ]
    chosen = {name: "tflite-fp32" if name in tflite else "onnx-int8" for name in names}
    bundles = [
        BundleFile(
            device_class=f"x86_64-{runtime}",
            devices=list(devices),
            path=f"/plant/studies/housings/bundles/{number}-{runtime}.zip",
            manifest_sha256="ab" * 32,
        )
        for runtime, devices in (("onnx", onnx), ("tflite", tflite))
        if devices
    ]
    values: dict[str, Any] = {
        "key": f"key{number}",
        "text": f"r64 w0.5 d2 e{number}",
        "score": -0.5 - number,
        "parameters": 123_456,
        "macs": 1_000_000,
        "classes": ["good", "bad"],
        "epochs": 27,
        "best_epoch": 21,
        "train_seconds": 260.0,
        "taught_by": None,
        "validation_auroc": 0.983,
        "validation_balanced_accuracy": 0.96,
        "majority_accuracy": 0.7,
        "forms": forms,
        "choices": [
            Choice(
                device=name,
                form=chosen[name],
                because="it is the fastest form within the allowed drop",
                within_limits=True,
            )
            for name in names
        ],
        "bundles": bundles,
    }
    return FinalistResult(**values | other)


def trials(n: int = 9) -> TrialsReport:
    made = [
        Trial(
            key=f"key{k}",
            text=f"r64 w0.5 d2 e{k}",
            score=-0.5 - k,
            parameters=100_000 + k,
            rounds=[(3, 0.95 - 0.01 * k + 0.004 * (k % 3))] + ([(9, 0.97)] if k < 3 else []),
            seconds=31.0 + k,
            finalist=k < 2,
        )
        for k in range(n)
    ]
    agreement = RankAgreement(n=n, epochs=3, kendall=0.61, low=0.22, high=0.88)
    return TrialsReport(trials=made, agreement=agreement)


def data(**other: Any) -> DataFacts:
    values: dict[str, Any] = {
        "folder": "/plant/photos",
        "classes": ["good", "bad"],
        "counts": {"train": [1050, 450], "validation": [350, 150], "test": [350, 150]},
        "fingerprint": "5f" * 32,
        "licence": "own",
    }
    return DataFacts(**values | other)


def report(names: Sequence[str] = NAMES, **other: Any) -> StudyReport:
    values: dict[str, Any] = {
        "front": front(names),
        "finalists": [finalist(names, 0), finalist(names, 1)],
        "origin": Origin(
            genba_version="0.1.0",
            seed=7,
            config={"name": "housings", "seed": 7, "devices": [{"name": name} for name in names]},
            created_at=datetime(2026, 11, 30, 8, 0, tzinfo=UTC),
            finished_at=datetime(2026, 11, 30, 8, 33, tzinfo=UTC),
        ),
        "trials": trials(),
        "data": data(),
    }
    return StudyReport(**values | other)


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """Makes the values of a study; what a test does not name is as above."""
    return SimpleNamespace(
        on_device=on_device,
        profile=profile,
        row=row,
        front=front,
        form=form,
        inspection=inspection,
        finalist=finalist,
        trials=trials,
        data=data,
        report=report,
    )
