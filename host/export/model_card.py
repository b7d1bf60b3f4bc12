"""The page of a bundle that people read first."""

from host.export.contents import BundleAccuracy, BundleContents, BundleMeasurement, BundlePrediction


def model_card(contents: BundleContents) -> str:
    """MODEL_CARD.md: what the model is for, how good, how fast, and where each number is from."""
    sections = [
        f"# {contents.name}",
        _purpose(contents),
        "## Accuracy",
        _table(
            ("Precision", "Images", "Figure", "Value", "95 % interval", "n", "Majority class"),
            [_accuracy_row(accuracy) for accuracy in contents.accuracies],
        ),
        "## Measured on devices",
        _table(
            (
                "Precision",
                "Device",
                "Runtime",
                "Threads",
                "Latency, median (ms)",
                "95 % interval (ms)",
                "n",
                "Peak RSS (MB)",
                "Energy, gross (mJ per inference)",
                "Verdict",
            ),
            [_measurement_row(measurement) for measurement in contents.measurements],
        ),
        "## Predicted, not measured",
        _table(
            ("Precision", "Device", "Quantity", "Value", "Interval", "Cost model"),
            [_prediction_row(prediction) for prediction in contents.predictions],
        ),
        "## Input",
        _input(contents),
        "## Provenance",
        _provenance(contents),
    ]
    return "\n\n".join(sections) + "\n"


def _purpose(contents: BundleContents) -> str:
    sizes = ", ".join(
        f"{model.precision} {len(model.onnx) / 1e6:.2f} MB" for model in contents.models
    )
    return (
        f"Tells {len(contents.classes)} classes of images apart: "
        f"{', '.join(contents.classes)}. Ships {contents.shipped}. Sizes: {sizes}.\n\n"
        "Classify an image: `python run.py IMAGE` (needs numpy, onnxruntime and pillow)."
    )


def _accuracy_row(accuracy: BundleAccuracy) -> tuple[str, ...]:
    interval = (
        "not computed"
        if accuracy.low is None or accuracy.high is None
        else f"{accuracy.low:.3f} to {accuracy.high:.3f}"
    )
    baseline = "" if accuracy.baseline is None else f"{accuracy.baseline:.3f}"
    value = f"{accuracy.value:.3f}"
    return (
        accuracy.precision,
        accuracy.subset,
        accuracy.metric,
        value,
        interval,
        str(accuracy.n),
        baseline,
    )


def _measurement_row(measurement: BundleMeasurement) -> tuple[str, ...]:
    energy = measurement.energy_per_inference_joules
    low_ms = measurement.latency_low_seconds * 1e3
    high_ms = measurement.latency_high_seconds * 1e3
    return (
        measurement.precision,
        measurement.device,
        f"{measurement.runtime} {measurement.runtime_version}",
        str(measurement.threads),
        f"{measurement.latency_seconds * 1e3:.3f}"
        + ("" if measurement.latency_kind == "measured" else f" ({measurement.latency_kind})"),
        f"{low_ms:.3f} to {high_ms:.3f}",
        str(measurement.n),
        f"{measurement.peak_rss_bytes / 1e6:.1f}",
        f"none: {measurement.energy_absent_because}"
        if energy is None
        else f"{energy * 1e3:.3g} ({measurement.energy_kind})",
        ": ".join((measurement.verdict, "; ".join(measurement.verdict_reasons))).removesuffix(": "),
    )


def _prediction_row(prediction: BundlePrediction) -> tuple[str, ...]:
    return (
        prediction.precision,
        prediction.device,
        prediction.quantity,
        f"{prediction.value:.4g}",
        f"{prediction.low:.4g} to {prediction.high:.4g} ({prediction.level:.0%})",
        prediction.cost_model,
    )


def _input(contents: BundleContents) -> str:
    spec = contents.preprocessing
    return (
        f"Float32 (1, {spec.channels}, {spec.height}, {spec.width}), {spec.colour_order}: the "
        f"image upright, squeezed to {spec.width} x {spec.height} (bilinear), then "
        "(pixel / 255 - mean) / std; mean and std stand in `preprocessing.json`."
    )


def _provenance(contents: BundleContents) -> str:
    counts = ", ".join(f"{name} {count}" for name, count in contents.data_counts.items())
    rows = [
        ("made by", f"genba {contents.genba_version}, {contents.created_at}"),
        ("study", contents.study),
        ("search space", contents.space),
        ("candidate", f"`{contents.candidate}`"),
        ("seed", str(contents.seed)),
        ("images", f"{counts}; fingerprint {contents.data_fingerprint}"),
        ("licence of the images", contents.data_licence or "not stated"),
    ]
    return "\n".join(f"- {name}: {value}" for name, value in rows)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return "None."
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )
