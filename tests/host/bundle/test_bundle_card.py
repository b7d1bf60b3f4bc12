"""The model card says how good, how fast, from what, and what nobody knows; in two languages."""

import re
from collections.abc import Callable
from dataclasses import replace
from string import Formatter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.export.contents import BundleContents
from host.export.forms import feed_of_form
from host.export.model_card import model_card
from host.export.model_card_gaps import not_measured
from host.export.model_card_texts import TEXTS, Language
from host.export.model_card_words import code, number, plain
from host.preprocessing import Preprocessing

LANGUAGES = ("en", "ja")


def tables(card: str) -> list[list[str]]:
    """The lines of each table."""
    blocks = [block.splitlines() for block in card.split("\n\n")]
    return [lines for lines in blocks if lines[0].startswith("| ")]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_both_languages_have_the_same_texts_with_the_same_places() -> None:
    def places(text: str) -> set[str]:
        found = {place or "" for _, place, _, _ in Formatter().parse(text)}
        return found - {"", "kind"}

    english, japanese = TEXTS["en"], TEXTS["ja"]

    assert english.keys() == japanese.keys()
    assert {k: places(v) for k, v in english.items()} == {k: places(v) for k, v in japanese.items()}


def test_the_card_says_how_good_how_fast_and_from_what(contents: BundleContents) -> None:
    card = model_card(contents)

    assert "Tells 3 classes of images apart: defective, functional, 傷." in card
    assert "| onnx-fp32 | test images | accuracy | 0.800 | 0.700 to 0.880 | 100 | 0.600 |" in card
    assert "| onnx-int8 | test images | AUROC | 0.900 | not computed | 100 | – |" in card
    assert "Machine kiosk, CPU Core 2, x86_64; runtime onnx 1.23.2, threads: 1." in card
    assert "Form to run: onnx-int8 (it is 1.40 times as fast)." in card
    assert "| onnx-fp32 | 10.00 | " in card
    assert "none: no powercap zone" in card
    assert "50.00 [49.00 to 51.00] | 5.000 | rapl (package) | 98.75 %" in card
    assert "WARN: 34 % of the CPU was taken | onnxruntime 1.23.2 |" in card
    assert "CC BY-NC-SA 4.0" in card
    assert "`r16 w0.5 relu | k3`" in card
    assert "stem, head" in card
    assert "max_latency_ms = 30" in card


def test_what_was_predicted_stands_beside_what_was_measured(contents: BundleContents) -> None:
    card = model_card(contents)

    assert (
        "| onnx-fp32 | Latency p50 (ms) | 12.00 | 9.000 to 15.00 (90 %) | 10.00 | yes |"
        " LatencyModel |" in card
    )
    assert "| onnx-fp32 | Peak memory (MB) | 60.00 | 50.00 or more (90 %) | 70.00 | yes |" in card
    kiosk = card[card.index("### kiosk") : card.index("### press-2t")]
    assert kiosk.index("**Measured**") < kiosk.index("**Predicted before it was measured**")


def test_units_stand_in_the_headings(contents: BundleContents) -> None:
    cases: tuple[tuple[Language, tuple[str, ...]], ...] = (
        ("en", ("Latency p50 (ms)", "Peak memory (MB)", "Energy per inference, gross (mJ)")),
        ("ja", ("推論時間 p50 (ms)", "ピークメモリ (MB)", "消費電力 (W)")),
    )
    for language, headings in cases:
        card = model_card(contents, language)
        heads = [cell for lines in tables(card) for cell in cells(lines[0])]

        assert set(headings) <= set(heads)


def test_a_japanese_card_uses_the_words_of_a_plant(
    make_contents: Callable[..., BundleContents],
) -> None:
    card = model_card(make_contents(inspected=True), "ja")

    for word in (
        "正解率",
        "見逃し(件)",
        "過検出(件)",
        "検出率",
        "検証用画像",
        "量子化",
        "推論時間",
        "消費電力",
    ):
        assert word in card
    # 体言止め: a data sheet, no conversation.
    assert not re.search(r"(です|ます|ください)", card)


@pytest.mark.parametrize(
    ("language", "sentence"),
    [
        ("en", "read float32 of one window of 40 steps and give float32 logits "),
        ("ja", "float32 40 点の波形 1 件、出力は float32 のロジット "),
    ],
)
@pytest.mark.parametrize("runtime", ["onnx", "tflite", "ncnn"])
def test_of_a_signal_the_steps_are_told_and_no_shape_that_the_file_has_not(
    make_contents: Callable[..., BundleContents], runtime: str, language: Language, sentence: str
) -> None:
    card = model_card(make_contents(runtime, "signal"), language)

    assert sentence + ("(3)" if runtime == "ncnn" else "(1, 3)") in card
    assert not re.search(r"\(1, \D", card)


@pytest.mark.parametrize("kind", ["grey", "colour"])
@pytest.mark.parametrize("runtime", ["onnx", "tflite", "ncnn"])
def test_the_shape_that_a_card_tells_is_that_of_the_file(
    make_contents: Callable[..., BundleContents], runtime: str, kind: str
) -> None:
    contents = make_contents(runtime, kind)
    model, spec = contents.models[0], contents.preprocessing
    assert isinstance(spec, Preprocessing)
    inputs = np.zeros((1, spec.channels, spec.height, spec.width), np.float32)

    told = re.search(r"float32 of \(([^)]*)\)", model_card(contents))

    assert told is not None
    sides = tuple(int(side.split()[-1]) for side in told[1].split(", "))
    read = feed_of_form(model.form, model.content, inputs).inputs.shape
    assert sides == (read[1:] if runtime == "ncnn" else read)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", ["grey", "colour", "signal"])
@pytest.mark.parametrize("runtime", ["onnx", "tflite", "ncnn"])
def test_every_table_of_a_card_is_whole(
    make_contents: Callable[..., BundleContents], runtime: str, kind: str, language: Language
) -> None:
    card = model_card(make_contents(runtime, kind, inspected=True), language)

    found = tables(card)

    assert len(found) >= 8
    for lines in found:
        assert {len(cells(line)) for line in lines} == {len(cells(lines[0]))}
        assert cells(lines[1]) == ["---"] * len(cells(lines[0]))
    assert "{" not in card


def test_inspection_tells_threshold_confusion_costs_and_recall(
    make_contents: Callable[..., BundleContents],
) -> None:
    card = model_card(make_contents(inspected=True))

    assert "with the class defective from those with functional" in card
    assert "A miss costs 10, a false alarm 1." in card
    assert "| onnx-int8 | 0.4013 | 70 | 10 | 2 | 18 | 0.3000 |" in card
    assert "| onnx-int8 | 0.850 | 0.640 to 0.950 | 20 | 0.050 | 0.020 to 0.120 | 80 |" in card
    assert "At the threshold that allows 5 % false alarms" in card
    assert "`--threshold 0.3`" in card
    assert "--threshold" not in model_card(make_contents())


def test_what_nobody_measured_is_said(contents: BundleContents) -> None:
    said = not_measured(contents, "en")

    assert said[:4] == [
        "Energy and power of onnx-fp32 on kiosk: no powercap zone.",
        "Latency p90 of onnx-fp32 on kiosk: 62 samples are too few.",
        "Answers of onnx-fp32 on kiosk: not compared with the host's.",
        "onnx-int8 on kiosk: not measured.",
    ]
    assert "Interval of AUROC of onnx-int8 on test images: not computed." in said
    bare = replace(contents, measurements=(), accuracies=())
    assert len(not_measured(bare, "en")) == 4 + 2 + 1
    rejected = replace(contents.measurements[1], verdict="REJECT")
    assert any(
        "measured, but not to be trusted (34 % of the CPU was taken)" in sentence
        for sentence in not_measured(replace(contents, measurements=(rejected,)), "en")
    )


def test_a_card_with_nothing_known_says_none(contents: BundleContents) -> None:
    bare = replace(
        contents,
        choices=(),
        limits=(),
        predictions=(),
        measurements=(),
        accuracies=(),
        confusions=(),
        data_licence="",
    )

    card = model_card(bare)

    assert card.count("None.") == 1 + 2 * 2 + 1
    assert "licence of the data: not stated" in card


def test_derived_figures_are_marked(contents: BundleContents) -> None:
    derived = replace(contents.measurements[0], latency_kind="derived")
    changed = replace(contents, measurements=(derived,))

    assert "| onnx-fp32 | 10.00 (derived) |" in model_card(changed)
    assert "| onnx-fp32 | 10.00(導出値) |" in model_card(changed, "ja")


@given(st.text(max_size=40))
def test_a_name_of_others_stays_in_its_cell_and_on_its_line(text: str) -> None:
    cell, quoted = plain(text), code(text)

    assert cells(f"| {cell} | x |") == [cell.strip(), "x"]
    assert "\n" not in cell + quoted
    assert all(character.isprintable() for character in cell + quoted)
    assert quoted.count("`") == 2
    assert not re.search(r"(?<!\\)(?:\\\\)*[<`\[]", cell)


@given(st.floats(min_value=1e-9, max_value=1e12))
def test_a_number_keeps_four_digits(value: float) -> None:
    assert float(number(value)) == pytest.approx(value, rel=6e-4)
    assert "e" not in number(value)
