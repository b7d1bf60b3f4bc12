from dataclasses import replace
from datetime import UTC, datetime

import pytest

from host.measurement import Preflight, Thermal
from host.measurement.judge import Baseline, judge

BASELINE = Baseline(0.0015, 0.0015, 0.005, datetime(2026, 9, 1, tzinfo=UTC))


def reason(verdict, code):
    return next(r for r in verdict.reasons if r.code == code)


@pytest.fixture
def three(make_process, make_measurement, rng):
    """A measurement by three processes, with changes to each of them."""

    def make(**changes):
        return make_measurement([make_process(rng, **changes) for _ in range(3)])

    return make


def test_a_quiet_measurement_of_an_unchanged_device_is_ok(three):
    verdict = judge(three(), BASELINE)

    assert (verdict.level, verdict.reasons) == ("OK", ())


def test_without_a_baseline_the_device_is_not_compared_with_its_past(three):
    assert judge(three(reference=(0.003,)), None).level == "OK"


def test_measurements_without_plan_and_preflight_are_judged_too(three):
    bare = replace(three(), plan=None, preflight=None)

    assert judge(bare, BASELINE).level == "OK"


def test_a_derived_figure_is_a_warning_that_says_so(three):
    verdict = judge(three(delayed=1.0), BASELINE)

    assert verdict.level == "WARN"
    assert verdict.codes == ("CONTENDED",)
    assert "derived from the CPU time" in verdict.reasons[0].sentence
    assert "0 of 450" in verdict.reasons[0].sentence


def test_contended_samples_of_several_threads_are_rejected(make_process, make_measurement, rng):
    contended = make_measurement([make_process(rng, delayed=1.0) for _ in range(3)])
    contended = replace(contended, run=replace(contended.run, threads=2))

    verdict = judge(contended, BASELINE)

    assert verdict.level == "REJECT"
    assert reason(verdict, "CONTENDED").level == "REJECT"


@pytest.mark.parametrize("delayed", [0.15, 0.3, 0.6, 0.9, 1.0])
def test_no_contended_measurement_is_ok(three, delayed):
    measurement = three(delayed=delayed)

    verdict = judge(measurement, BASELINE)

    assert verdict.level != "OK"
    assert "CONTENDED" in verdict.codes


def test_a_few_delayed_samples_are_nothing_to_warn_of(three):
    assert judge(three(delayed=0.02), BASELINE).level == "OK"


def test_a_reference_that_is_slow_now_and_then_is_a_warning(three):
    verdict = judge(three(reference=(0.0015, 0.0015, 0.0015, 0.002)), BASELINE)

    assert "beside a slow reference" in reason(verdict, "CONTENDED").sentence


@pytest.mark.parametrize(("spread", "level"), [(0.02, None), (0.05, "WARN"), (0.2, "REJECT")])
def test_processes_have_to_agree(make_process, make_measurement, rng, spread, level):
    processes = [make_process(rng, seconds=0.007 * f) for f in (1, 1 + spread / 2, 1 + spread)]

    verdict = judge(make_measurement(processes), BASELINE)

    levels = {r.code: r.level for r in verdict.reasons}
    assert levels.get("UNSTABLE") == level


@pytest.mark.parametrize(("rise", "level"), [(0.01, None), (0.05, "WARN"), (0.3, "REJECT")])
def test_latency_has_to_be_steady(make_process, make_measurement, rng, rise, level):
    run = make_process(rng, noise=0.001)
    blocks = tuple(
        replace(b, latency_seconds=tuple(x * (1 + rise * i / 4) for x in b.latency_seconds))
        for i, b in enumerate(run.blocks)
    )

    verdict = judge(make_measurement([replace(run, blocks=blocks)]), BASELINE)

    levels = {r.code: r.level for r in verdict.reasons}
    assert levels.get("DRIFT") == level


def test_the_drift_of_the_reference_is_told_with_its_limit(make_process, make_measurement, rng):
    run = make_process(rng, blocks=8, reference=(0.0015,) * 5 + (0.00156,) * 4)

    verdict = judge(make_measurement([run]), None)

    assert verdict.level == "WARN"
    sentence = reason(verdict, "REFERENCE_DRIFT").sentence
    assert "4.0% slower" in sentence
    assert "limit 2%" in sentence


@pytest.mark.parametrize(
    ("reference", "level"),
    [(0.00155, None), (0.0016, "WARN"), (0.0014, "WARN"), (0.0018, "REJECT"), (0.0012, "REJECT")],
)
def test_the_reference_is_compared_with_its_baseline(three, reference, level):
    verdict = judge(three(reference=(reference,)), BASELINE)

    levels = {r.code: r.level for r in verdict.reasons}
    assert levels.get("DEVICE_CHANGED") == level


def test_under_contention_the_cpu_time_of_references_is_compared(
    make_process, make_measurement, rng
):
    def waiting(block):
        return replace(block, reference_seconds=tuple(3 * x for x in block.reference_seconds))

    runs = [make_process(rng, delayed=1.0, canary=0.02) for _ in range(3)]
    slow = [replace(r, blocks=tuple(waiting(b) for b in r.blocks)) for r in runs]

    verdict = judge(make_measurement(slow), BASELINE)

    assert verdict.codes == ("CONTENDED",)


def test_a_derived_figure_beside_a_much_slower_reference_is_rejected(three):
    verdict = judge(three(delayed=1.0, reference=(0.0019,)), BASELINE)

    assert reason(verdict, "DEVICE_CHANGED").level == "REJECT"


@pytest.mark.parametrize(
    ("canary", "reference", "level"),
    [
        (0.0051, 0.0015, None),
        (0.0053, 0.0015, "WARN"),
        (0.0070, 0.0015, "WARN"),
        (0.0070, 0.0016, "REJECT"),
    ],
)
def test_the_canary_rejects_only_together_with_the_reference(three, canary, reference, level):
    verdict = judge(three(canary=canary, reference=(reference,)), BASELINE)

    levels = {r.code: r.level for r in verdict.reasons}
    assert levels.get("CLOCK_CHANGED") == level


def test_throttling_rejects_and_names_the_remedy(three):
    throttled = replace(three(), thermal=Thermal(45.0, 80.0, 82.0, 3, throttled=("undervoltage",)))
    counted = replace(three(), thermal=Thermal(45.0, 80.0, 82.0, 3))

    assert "power supply" in reason(judge(throttled, None), "THROTTLED").sentence
    assert "3 times" in reason(judge(counted, None), "THROTTLED").sentence
    assert judge(counted, None).level == "REJECT"


def test_heat_is_a_warning_where_nothing_counts_throttling(three):
    blind = replace(three(), thermal=Thermal(45.0, 84.0, 85.0, None))
    sure = replace(three(), thermal=Thermal(45.0, 84.0, 85.0, 0))

    assert judge(blind, None).codes == ("HOT",)
    assert judge(sure, None).level == "OK"


@pytest.mark.parametrize(
    ("problem", "code", "level"),
    [
        ("busy: other programs use 12 % of the CPU", "BUSY", "WARN"),
        ("swapping: 30 pages came in", "SWAPPING", "REJECT"),
        ("hot: 71 °C", "HOT", "WARN"),
        ("low_memory: 20 MB are free", "LOW_MEMORY", "WARN"),
        ("something", "SOMETHING", "WARN"),
    ],
)
def test_problems_of_the_preflight_become_reasons(three, problem, code, level):
    preflight = Preflight(0.12, 0, 2_000_000_000, 45.0, (), 0.005, 30.0, (problem,))

    verdict = judge(replace(three(), preflight=preflight), BASELINE)

    assert [(r.code, r.level) for r in verdict.reasons] == [(code, level)]
    assert verdict.reasons[0].sentence


def test_limits_that_hold_at_the_start_reject(three):
    preflight = Preflight(0.0, 0, 2_000_000_000, 45.0, ("frequency_capped",), 0.005, 0.0)

    verdict = judge(replace(three(), preflight=preflight), BASELINE)

    assert (verdict.level, verdict.codes) == ("REJECT", ("THROTTLED",))


def test_each_code_is_said_once_and_rejections_first(three):
    preflight = Preflight(
        0.0, 0, 2_000_000_000, 45.0, ("frequency_capped",), 0.005, 0.0, ("busy: x",)
    )
    hot = replace(three(), preflight=preflight, thermal=Thermal(throttled=("throttled",)))

    assert judge(hot, BASELINE).codes == ("THROTTLED", "BUSY")


def test_a_warm_up_that_did_not_converge_is_a_warning(three):
    assert judge(three(steady=False), BASELINE).codes == ("NO_STEADY_STATE",)


@pytest.mark.parametrize(("samples", "level"), [(2, "WARN"), (1, "REJECT")])
def test_few_samples_are_told(make_process, make_measurement, rng, samples, level):
    run = make_process(rng, blocks=4, samples=samples)

    verdict = judge(make_measurement([run]), BASELINE)

    assert reason(verdict, "FEW_SAMPLES").level == level


def test_an_interval_wider_than_the_plan_is_a_warning(make_process, make_measurement, rng):
    runs = [make_process(rng, blocks=2, samples=20, noise=0.1) for _ in range(3)]

    verdict = judge(make_measurement(runs), BASELINE)

    assert reason(verdict, "IMPRECISE").level == "WARN"
    assert "±1.0% was the aim" in reason(verdict, "IMPRECISE").sentence
