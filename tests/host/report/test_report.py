"""What people see of a front: tables, picture, page."""

import io
import re

import pytest
from PIL import Image
from rich.console import Console

from host.report import units
from host.report.page import front_page, write_front
from host.report.plots import front_figure, png
from host.report.tables import finalists_table, front_table, stage_table, three_figures
from host.report.texts import PLOT_TEXTS, TEXTS
from host.study.front import Predicted


def printed(table):
    output = io.StringIO()
    Console(file=output, width=160).print(table)
    return output.getvalue()


def test_the_front_table_shows_predicted_and_measured_side_by_side(make):
    text = printed(front_table(make.front(["panel"])))

    assert "12.9 [9.84, 17.2]" in text
    assert "12.3 [12.1, 12.5] n=41" in text
    assert "81.4" in text
    assert "calibration" in text
    assert "power on panel: none, because no <sensor> here" in text
    assert "limits: max_model_mb = 2.5; max_latency_ms = 40 on panel" in text


def test_the_finalists_table_shows_intervals_baseline_and_the_choice(make):
    text = printed(finalists_table([make.finalist()]))

    assert "0.968 [0.949, 0.980]" in text
    assert "0.700" in text
    assert "panel: onnx-int8, it is the fastest form" in text


def test_a_form_that_was_chosen_for_no_device_is_not_called_chosen(make):
    text = printed(finalists_table([make.finalist(["panel"], choices=[])]))

    assert "onnx-int8" in text
    assert "yes" not in text


def test_stages_add_up():
    assert re.search(r"total\s+3\.5", printed(stage_table([("data", 1.0), ("search", 2.5)])))


@pytest.mark.parametrize("names", [["panel"], ["panel", "kiosk"]])
def test_the_picture_is_a_png_with_a_panel_for_every_device(make, names):
    image = Image.open(io.BytesIO(png(front_figure(make.front(names), ["key0"]))))

    assert image.format == "PNG"
    assert image.width > len(names) * 800


@pytest.mark.parametrize("language", ["en", "ja"])
def test_the_page_needs_nothing_from_elsewhere_and_escapes_what_it_shows(make, language):
    row = make.row(0, ["panel"]).model_copy(update={"text": "r64 w0.5 <0>"})
    front = make.front(["panel"], rows=[row])

    page = front_page(front, [make.finalist(["panel"])], language)

    assert not re.findall(r"https?://", page)
    assert "<script" not in page
    assert f'<html lang="{language}">' in page
    assert "r64 w0.5 &lt;0&gt;" in page
    assert "no &lt;sensor&gt; here" in page
    assert TEXTS[language]["title"] in page
    assert PLOT_TEXTS[language]["plot.y"] in page
    assert "12.3 [12.1, 12.5] n=41" in page


def test_a_japanese_device_name_is_drawn_without_complaint(make):
    front = make.front(["ライン3"])

    assert png(front_figure(front)).startswith(b"\x89PNG")
    assert "latency on ライン3" in front_page(front, [])


def test_a_device_that_was_lost_has_an_empty_panel(make):
    front = make.front(["panel", "kiosk"])
    rows = [row.model_copy(update={"devices": row.devices[:1]}) for row in front.rows]
    others = [
        point.model_copy(update={"latency_seconds": {"panel": 0.01}}) for point in front.others
    ]
    lost = front.model_copy(update={"rows": rows, "others": others})

    assert png(front_figure(lost)).startswith(b"\x89PNG")
    assert "kiosk" in front_page(lost, [])


def test_every_text_exists_in_every_language():
    assert TEXTS["en"].keys() == TEXTS["ja"].keys()
    assert PLOT_TEXTS["en"].keys() == PLOT_TEXTS["ja"].keys()


def test_a_front_without_finalists_has_a_page_too(make, tmp_path):
    paths = write_front(make.front(["panel"]), [], tmp_path / "new")

    assert [path.name for path in paths] == ["front.png", "front.html"]
    assert all(path.stat().st_size > 1000 for path in paths)


def test_the_three_figures_are_those_of_the_form_that_is_shipped(make):
    assert three_figures(make.front(), [make.finalist()]) == [
        ("auroc", "0.981"),
        ("latency", "6.77 ms / 40 ms"),
        ("memory", "81.4 MB"),
    ]
    assert three_figures(make.front(), []) == []


def test_numbers_without_a_bound_or_a_sensor_say_so(make):
    unbounded = Predicted(value=0.01, low=0.005, high=None, level=0.9)

    assert units.predicted_latency(unbounded) == "10 [5, no bound]"
    assert units.power(make.on_device()) == "none"
    assert units.power(make.on_device(latency=0.01, joules=0.03456)) == "3.46 (rapl, measured)"
    assert units.share(None) == "-"


def test_what_speaks_against_a_measurement_stands_beside_it_and_below_the_table(make):
    doubtful = make.on_device(
        latency_kind="derived",
        verdict="WARN",
        verdict_reasons=["34 % of the CPU was taken by <others>"],
    )
    row = make.row(0, ["panel"]).model_copy(update={"devices": [doubtful]})
    report = make.front(["panel"], rows=[row])

    text = printed(front_table(report))
    page = front_page(report, [])

    assert "derived WARN" in " ".join(text.split())
    assert "panel: WARN: 34 % of the CPU was taken by <others>" in text
    assert "taken by &lt;others&gt;" in page
