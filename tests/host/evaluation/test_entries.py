"""What dominates what, what misses a limit, and that kinds of numbers are never mixed."""

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from host.evaluation.entries import (
    Comparison,
    Entry,
    Place,
    Quality,
    compared,
    dominances,
    entries_of_study,
    missed,
)
from host.evaluation.picture import comparison_figure
from host.evaluation.records import comparison_record
from host.evaluation.table import comparison_block
from host.export.forms import Form
from host.study.finalist import Choice, FinalistResult, FormResult, Score
from host.study.front import FrontReport, FrontRow, LimitLine, OnDevice, Profile

ORIGIN = "the plant's test images"


def on(
    device: str = "panel", latency: float = 0.01, width: float = 0.001, **changes: Any
) -> OnDevice:
    return OnDevice(
        **{
            "device": device,
            "runtime": "onnxruntime 1.23.2",
            "predicted_latency_seconds": None,
            "predicted_peak_rss_bytes": None,
            "latency_seconds": latency,
            "latency_low_seconds": latency - width,
            "latency_high_seconds": latency + width,
            "latency_p90_seconds": None,
            "samples": 62,
            "peak_rss_bytes": 70_000_000,
            "power_watts": None,
            "energy_per_inference_joules": None,
            "power_source": None,
            "power_absent_because": "no powercap zone",
            "verdict": "OK",
            **changes,
        }
    )


def score(value: float, half: float = 0.01) -> Score:
    return Score(value=value, low=value - half, high=value + half, n=200)


def entry(label: str, latency: float, auroc: float | None, **changes: Any) -> Entry:
    quality = None if auroc is None else Quality("AUROC", score(auroc), ORIGIN)
    values: dict[str, Any] = {
        "kind": "own model",
        "label": label,
        "name": label,
        "size_bytes": 1000,
        "on": {"panel": on(latency=latency)},
        "quality": quality,
    }
    return Entry(**(values | changes))


def pairs(*entries: Entry) -> set[tuple[str, str, bool]]:
    found = dominances(entries, ["panel"])
    return {(one.winner, one.loser, one.certain) for one in found}


def test_better_and_faster_dominates_surely_where_the_intervals_lie_apart() -> None:
    assert pairs(entry("a", 0.010, 0.90), entry("b", 0.020, 0.80)) == {("a", "b", True)}


def test_within_the_intervals_it_dominates_only_by_the_figures() -> None:
    assert pairs(entry("a", 0.0100, 0.900), entry("b", 0.0101, 0.895)) == {("a", "b", False)}


def test_better_but_slower_dominates_nothing() -> None:
    assert pairs(entry("a", 0.020, 0.90), entry("b", 0.010, 0.80)) == set()


def test_an_untrained_candidate_is_neither_better_nor_worse_than_a_model() -> None:
    candidate = entry("C1", 0.001, None, kind="candidate", score=5.0)

    assert pairs(entry("a", 0.010, 0.90), candidate) == set()


def test_accuracies_on_other_images_are_not_compared() -> None:
    other = entry("b", 0.020, None, quality=Quality("AUROC", score(0.5), "other images"))

    assert pairs(entry("a", 0.010, 0.90), other) == set()


def test_an_auroc_is_not_compared_with_an_accuracy() -> None:
    other = entry("b", 0.020, None, quality=Quality("accuracy", score(0.5), ORIGIN))

    assert pairs(entry("a", 0.010, 0.90), other) == set()


def test_a_rejected_figure_neither_wins_nor_loses() -> None:
    rejected = entry("b", 0.0, 0.8, on={"panel": on(latency=0.02, verdict="REJECT")})

    assert pairs(entry("a", 0.010, 0.90), rejected) == set()


_figures = st.tuples(st.integers(1, 6), st.integers(1, 6))


@given(st.lists(_figures, min_size=1, max_size=6))
def test_dominance_is_a_strict_order(figures: list[tuple[int, int]]) -> None:
    entries = [
        entry(str(number), 0.01 * latency, 0.1 * quality)
        for number, (latency, quality) in enumerate(figures)
    ]
    found = {(one.winner, one.loser) for one in dominances(entries, ["panel"])}

    for winner, loser in found:
        assert (loser, winner) not in found
        assert winner != loser
        for middle, last in found:
            if middle == loser:
                assert (winner, last) in found
    beaten = {loser for _, loser in found}
    assert len(beaten) < len(entries)


def line(quantity: str, maximum: float, device: str | None = "panel") -> LimitLine:
    return LimitLine(quantity=quantity, device=device, maximum=maximum, text=f"{quantity} limit")


@pytest.mark.parametrize(
    ("limit", "value"),
    [
        (line("latency_seconds", 0.005), 0.011),  # the upper end of the interval
        (line("latency_seconds", 0.0105), 0.011),
        (line("peak_rss_bytes", 50e6), 70_000_000),
        (line("model_bytes", 500, None), 1000),
    ],
)
def test_a_limit_is_missed_by_what_was_measured(limit: LimitLine, value: float) -> None:
    (found,) = missed(entry("a", 0.010, 0.9), [limit])

    assert found.value == pytest.approx(value)


@pytest.mark.parametrize(
    "limit",
    [
        line("latency_seconds", 0.02),
        line("latency_seconds", 0.005, "press"),
        line("latency_p90_seconds", 1e-9),  # not known: too few samples
        line("energy_per_inference_joules", 1e-9),  # not measured
    ],
)
def test_a_limit_is_not_missed_by_what_keeps_it_or_was_not_measured(limit: LimitLine) -> None:
    assert missed(entry("a", 0.010, 0.9), [limit]) == []


def a_row(key: str, combined: float) -> FrontRow:
    return FrontRow(
        key=key,
        text=f"candidate {key}",
        score=combined,
        scores={"flops": 1.0},
        parameters=1000,
        macs=10_000,
        model_bytes=4000,
        devices=[on("panel", 0.004), on("press", 0.008)],
    )


def a_form(form: Form, auroc: float, latency: float) -> FormResult:
    return FormResult(
        form=form,
        sha256="0" * 64,
        size_bytes=2000,
        accuracy=score(0.8),
        balanced_accuracy=0.8,
        auroc=score(auroc),
        inspection=None,
        confusion=[[80, 20], [20, 80]],
        validation_quality=auroc,
        largest_difference=1e-6,
        float_layers=[],
        devices=[on("panel", latency), on("press", 2 * latency)],
    )


def a_finalist(key: str, auroc: float) -> FinalistResult:
    return FinalistResult(
        key=key,
        text=f"candidate {key}",
        score=3.0,
        parameters=1000,
        macs=10_000,
        classes=["good", "scratched"],
        epochs=10,
        best_epoch=8,
        train_seconds=20.0,
        taught_by=None,
        validation_auroc=auroc,
        validation_balanced_accuracy=0.8,
        majority_accuracy=0.5,
        forms=[a_form("onnx-fp32", auroc, 0.004), a_form("onnx-int8", auroc - 0.01, 0.002)],
        choices=[
            Choice(device="panel", form="onnx-int8", because="faster", within_limits=True),
            Choice(device="press", form="onnx-fp32", because="faster", within_limits=True),
        ],
        bundles=[],
    )


def a_front(rows: list[FrontRow]) -> FrontReport:
    profiles = [
        Profile(
            name=name,
            device=name,
            architecture="x86_64",
            cpu="Celeron",
            runtime="onnx",
            runtime_version="onnxruntime 1.23.2",
            threads=1,
        )
        for name in ("panel", "press")
    ]
    return FrontReport(
        study="housings",
        space="mobile",
        proxies=["flops"],
        profiles=profiles,
        limits=[line("latency_seconds", 0.005)],
        scored=40,
        measured=20,
        hypervolume=[(40, 0.5)],
        stopped_because="converged",
        spent=[],
        rows=rows,
        others=[],
    )


def test_a_finalist_stands_once_for_each_chosen_form_and_no_more_as_a_candidate() -> None:
    places = [Place("panel", "panel"), Place("press", "press")]
    front = a_front([a_row("k1", 2.0), a_row("k2", 5.0), a_row("k3", 4.0)])

    found = entries_of_study(front, [a_finalist("k1", 0.9)], places, ORIGIN)

    assert [(one.label, one.kind) for one in found] == [
        ("F1", "finalist"),
        ("F2", "finalist"),
        ("C1", "candidate"),
        ("C2", "candidate"),
    ]
    fp32, int8, *candidates = found
    assert fp32.name.endswith("onnx-fp32")
    assert set(fp32.on) == {"press"}
    assert set(int8.on) == {"panel"}
    assert int8.absent["press"] == "another form was chosen for it"
    assert [one.score for one in candidates] == [5.0, 4.0]
    assert all(one.quality is None for one in candidates)


def test_kinds_stand_apart_whatever_their_numbers_are() -> None:
    places = [Place("panel", "panel")]
    front = a_front([a_row("k1", 2.0), a_row("k2", 99.0)])
    own = entry("mine.onnx", 0.010, 0.5)

    found = compared(
        places,
        [*entries_of_study(front, [a_finalist("k1", 0.9)], places, ORIGIN), own],
        front=front,
    )

    assert [one.kind for one in found.entries] == ["own model", "finalist", "candidate"]
    assert [(one.winner, one.loser) for one in found.dominances] == [("F1", "mine.onnx")]
    assert [one.label for one in found.missed] == ["mine.onnx"]


def test_a_limit_on_the_file_is_missed_once_however_many_places_there_are() -> None:
    places = [Place("panel", "panel"), Place("press", "press")]
    both = {"panel": on("panel"), "press": on("press")}
    limits = [line("model_bytes", 500, None), line("latency_seconds", 0.005, "press")]
    front = a_front([]).model_copy(update={"limits": limits})

    found = compared(places, [entry("a", 0.01, 0.9, on=both)], front=front)

    assert [(miss.limit.quantity, miss.limit.device) for miss in found.missed] == [
        ("model_bytes", None),
        ("latency_seconds", "press"),
    ]
    assert len(comparison_record(found)["missed_limits"]) == 2


def test_the_power_at_the_rate_of_the_line_is_held_against_its_limit() -> None:
    hot = entry("a", 0.01, 0.9, on={"panel": on(power_at_rate_watts=7.0)})

    (found,) = missed(hot, [line("power_watts", 6.0)])

    assert found.value == 7.0


def mixed() -> Comparison:
    """A model whose images have two classes, and one whose images have more."""
    other = Quality("accuracy", score(0.5), "images of three classes")
    entries = [entry("a", 0.010, 0.9), entry("b", 0.020, None, quality=other)]
    return compared([Place("panel", "panel")], entries)


def test_accuracies_and_aurocs_in_one_table_are_each_called_what_they_are() -> None:
    output = io.StringIO()

    Console(file=output, width=200).print(comparison_block(mixed()))

    text = output.getvalue()
    assert "AUROC / accuracy" in text
    assert "AUROC 0.900 [0.890, 0.910]" in text
    assert "accuracy 0.500 [0.490, 0.510]" in text


def test_accuracies_and_aurocs_have_axes_of_their_own_in_the_picture() -> None:
    figure = comparison_figure(mixed())

    assert [axes.get_ylabel() for axes in figure.axes] == [
        "AUROC on test images, trained",
        "accuracy on test images, trained",
    ]
    assert [text.get_text() for axes in figure.axes for text in axes.texts] == ["a", "b"]
