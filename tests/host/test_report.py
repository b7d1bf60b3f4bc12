"""What people see of a study: tables, picture, page."""

import io
import re

import pytest
from PIL import Image
from rich.console import Console

from host.report import units
from host.report.page import front_page, write_front
from host.report.plots import front_figure, png
from host.report.tables import finalists_table, front_table, stage_table, three_figures
from host.report.texts import TEXTS
from host.study.finalist import Choice, FinalistResult, FormResult, Score
from host.study.front import FrontReport, FrontRow, OnDevice, Point, Predicted


def on_device(name="panel", latency=0.0123, *, power=None, predicted=True, high=0.02):
    prediction = Predicted(value=0.0125, low=0.01, high=high, level=0.9)
    return OnDevice(
        device=name,
        runtime="onnxruntime 1.23.2",
        predicted_latency_seconds=prediction if predicted else None,
        predicted_peak_rss_bytes=None,
        latency_seconds=latency,
        latency_low_seconds=0.012,
        latency_high_seconds=0.0126,
        samples=41,
        peak_rss_bytes=81_400_000,
        power_watts=power,
        energy_per_inference_joules=None if power is None else power * latency,
        power_source=None if power is None else "rapl, measured",
        power_absent_because="" if power else "no <sensor> here",
    )


def doubtful(report):
    device = (
        report.rows[0]
        .devices[0]
        .model_copy(
            update={
                "latency_kind": "derived",
                "verdict": "WARN",
                "verdict_reasons": ["34 % of the CPU was taken by <others>"],
            }
        )
    )
    row = report.rows[0].model_copy(update={"devices": [device]})
    return report.model_copy(update={"rows": [row, *report.rows[1:]]})


def front(rows=None, devices=1):
    names = ["panel", "kiosk"][:devices]
    made = [
        FrontRow(
            key=f"key{n}",
            text=f"r64 w0.5 <{n}>",
            score=-0.5 - n,
            scores={"flops": 1e6, "jacob_cov": None},
            parameters=123_456,
            macs=1_000_000,
            model_bytes=500_000,
            devices=[on_device(name, 0.0123 / (n + 1), predicted=n != 1) for name in names],
        )
        for n in range(3)
    ]
    return FrontReport(
        study="housings",
        space="mobile",
        proxies=["flops", "jacob_cov"],
        limits=["max_latency_ms = 40 on panel"],
        device_limits_seconds={"panel": 0.04},
        scored=200,
        measured=24,
        rows=made if rows is None else rows,
        others=[
            Point(score=-2.0, latency_seconds=dict.fromkeys(names, 0.01), within_limits=within)
            for within in (True, False)
        ],
    )


def finalist():
    score = Score(value=0.91, low=0.88, high=0.94, n=500)
    forms = [
        FormResult(
            form=form,
            sha256="00",
            size_bytes=size,
            accuracy=score,
            balanced_accuracy=0.9,
            auroc=score,
            validation_quality=0.92,
            devices=[on_device()],
        )
        for form, size in (("fp32", 2_000_000), ("int8", 600_000))
    ]
    return FinalistResult(
        key="key0",
        text="r64 w0.5 <0>",
        score=-0.5,
        parameters=123_456,
        macs=1_000_000,
        classes=["good", "bad"],
        epochs=8,
        best_epoch=6,
        train_seconds=60.0,
        validation_auroc=0.92,
        validation_balanced_accuracy=0.9,
        majority_accuracy=0.7,
        forms=forms,
        choices=[Choice(device="panel", form="int8", because="it is faster", within_limits=True)],
        bundle="/plant/studies/housings/bundles/b.zip",
        manifest_sha256="11",
    )


def printed(table):
    output = io.StringIO()
    Console(file=output, width=160).print(table)
    return output.getvalue()


def test_the_front_table_shows_predicted_and_measured_side_by_side():
    text = printed(front_table(front()))

    assert "12.5 [10, 20]" in text
    assert "12.3 [12, 12.6] n=41" in text
    assert "81.4" in text
    assert "calibration" in text
    assert "power on panel: none, because no <sensor> here" in text
    assert "limits: max_latency_ms = 40 on panel" in text


def test_the_finalists_table_shows_intervals_baseline_and_the_choice():
    text = printed(finalists_table([finalist()]))

    assert "0.910 [0.880, 0.940]" in text
    assert "0.700" in text
    assert "panel: int8, it is faster" in text


def test_stages_add_up():
    assert re.search(r"total\s+3\.5", printed(stage_table([("data", 1.0), ("search", 2.5)])))


@pytest.mark.parametrize("devices", [1, 2])
def test_the_picture_is_a_png_with_a_panel_for_every_device(devices):
    image = Image.open(io.BytesIO(png(front_figure(front(devices=devices)))))

    assert image.format == "PNG"
    assert image.width > devices * 800


@pytest.mark.parametrize("language", ["en", "ja"])
def test_the_page_needs_nothing_from_elsewhere_and_escapes_what_it_shows(language):
    page = front_page(front(), [finalist()], language)

    addresses = set(re.findall(r"https?://[^/\s\"'<)]+", page))
    assert addresses <= {"http://www.w3.org"}  # names of SVG, which no browser opens
    assert "<script" not in page
    assert f'<html lang="{language}">' in page
    assert "r64 w0.5 &lt;0&gt;" in page
    assert "no &lt;sensor&gt; here" in page
    assert TEXTS[language]["title"] in page
    assert "12.3 [12, 12.6] n=41" in page


def test_a_japanese_device_name_is_drawn_without_complaint():
    rows = [row.model_copy(update={"devices": [on_device("ライン3")]}) for row in front().rows]
    report = front(rows=rows).model_copy(update={"others": []})

    assert png(front_figure(report)).startswith(b"\x89PNG")
    assert "latency on ライン3" in front_page(report, [])


def test_every_text_exists_in_every_language():
    assert TEXTS["en"].keys() == TEXTS["ja"].keys()


def test_a_front_without_finalists_has_a_page_too(tmp_path):
    paths = write_front(front(), [], tmp_path / "new")

    assert [path.name for path in paths] == ["front.png", "front.html"]
    assert all(path.stat().st_size > 1000 for path in paths)


def test_the_three_figures_are_those_of_the_form_that_is_shipped():
    assert three_figures(front(), [finalist()]) == [
        ("auroc", "0.910"),
        ("latency", "12.3 ms / 40 ms"),
        ("memory", "81.4 MB"),
    ]
    assert three_figures(front(), []) == []


def test_numbers_without_a_bound_or_a_sensor_say_so():
    unbounded = Predicted(value=0.01, low=0.005, high=None, level=0.9)

    assert units.predicted_latency(unbounded) == "10 [5, no bound]"
    assert units.power(on_device()) == "none"
    assert units.power(on_device(power=3.456)) == "3.46 (rapl, measured)"
    assert units.share(None) == "-"


def test_what_speaks_against_a_measurement_stands_beside_it_and_below_the_table():
    report = doubtful(front())

    text = printed(front_table(report))
    page = front_page(report, [])

    assert "derived WARN" in " ".join(text.split())
    assert "panel: WARN: 34 % of the CPU was taken by <others>" in text
    assert "taken by &lt;others&gt;" in page
