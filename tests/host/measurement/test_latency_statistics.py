import math
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.measurement import Block, Memory, ProcessRun
from host.measurement.statistics import MIN_CLEAN, NoSamplesError, latency_of, sample_states

SECONDS = 0.007


def quantile(latency, level):
    return next(q for q in latency.quantiles if q.level == level)


def test_quiet_samples_give_the_measured_median(make_process, rng):
    processes = [make_process(rng) for _ in range(3)]

    latency = latency_of(processes, threads=1)

    samples = [x for p in processes for b in p.blocks for x in b.latency_seconds]
    assert latency.kind == "measured"
    assert latency.seconds == pytest.approx(np.median(samples))
    assert latency.raw_seconds == latency.seconds
    assert (latency.n, latency.clean, latency.delayed, latency.unsettled) == (450, 450, 0, 0)
    assert latency.mean_seconds == pytest.approx(np.mean(samples))
    assert latency.min_seconds == min(samples)
    assert latency.interval_seconds[0] < latency.seconds < latency.interval_seconds[1]
    assert latency.half_width < 0.005


def test_delayed_samples_are_left_out(make_process, rng):
    processes = [make_process(rng, delayed=0.6) for _ in range(3)]

    latency = latency_of(processes, threads=4)

    assert latency.kind == "measured"
    assert latency.seconds == pytest.approx(SECONDS, rel=0.02)
    assert latency.raw_seconds > 2 * SECONDS
    assert MIN_CLEAN <= latency.clean == latency.n - latency.delayed


def test_the_delay_limit_is_that_of_the_whole_sample(make_process, rng):
    # 32 µs in a sample of 16 runs: 44 % of one run, 3 % of the sample.
    run = make_process(rng, seconds=70e-6, delayed=1.0, delay=2e-6, runs_per_sample=16)

    assert latency_of([run], threads=1).delayed == 0


def test_one_thread_that_never_ran_undisturbed_gives_a_derived_figure(make_process, rng):
    processes = [make_process(rng, delayed=1.0) for _ in range(3)]

    latency = latency_of(processes, threads=1)

    cpu = [x for p in processes for b in p.blocks for x in b.cpu_seconds]
    assert latency.kind == "derived"
    assert latency.contended
    assert latency.seconds == pytest.approx(np.quantile(cpu, 0.25))
    assert latency.clean == 0
    assert latency.relative_to_reference == pytest.approx(latency.seconds / 0.0015)


@pytest.mark.parametrize(("threads", "cpu"), [(2, True), (1, False)])
def test_without_usable_cpu_time_only_the_raw_median_is_left(make_process, rng, threads, cpu):
    latency = latency_of([make_process(rng, delayed=1.0, cpu=cpu)], threads=threads)

    assert latency.kind == "measured"
    assert latency.contended
    assert latency.seconds == latency.raw_seconds


def test_few_samples_that_are_all_clean_are_measured(make_process, rng):
    latency = latency_of([make_process(rng, blocks=2, samples=4)], threads=1)

    assert (latency.kind, latency.n, latency.contended) == ("measured", 8, False)


def test_without_run_delay_the_time_that_was_not_cpu_time_tells(make_process, rng):
    run = make_process(rng, delayed=0.5, run_delay=False)

    latency = latency_of([run], threads=1)

    assert 0 < latency.delayed < latency.n
    assert latency.seconds == pytest.approx(SECONDS, rel=0.02)


@pytest.mark.parametrize(("switches", "delayed"), [(None, 0), (1, 0), (200, 150)])
def test_without_run_delay_switches_tell_of_several_threads(make_process, rng, switches, delayed):
    run = make_process(rng, run_delay=False, switches=switches)

    assert latency_of([run], threads=2).delayed == delayed


def test_time_stolen_by_a_hypervisor_disturbs_the_whole_block(make_process, rng):
    run = make_process(rng, steal=0.1)

    assert latency_of([run], threads=2).delayed == 150


def test_blocks_beside_a_slow_reference_are_left_out(make_process, rng):
    slow = make_process(rng, seconds=1.5 * SECONDS, reference=(0.002,))
    quick = make_process(rng)

    latency = latency_of([slow, quick, quick], threads=1)

    assert latency.seconds == pytest.approx(SECONDS, rel=0.02)
    assert (latency.unsettled, latency.clean) == (150, 300)
    assert latency.reference_seconds == pytest.approx(0.0015)


def test_every_sample_has_a_state_in_the_order_of_measuring(make_process, rng):
    slow = make_process(rng, reference=(0.002,))
    quick, waiting = make_process(rng), make_process(rng, delayed=1.0)

    states = sample_states([slow, quick, waiting], threads=1)

    assert states == ("unsettled",) * 150 + ("clean",) * 150 + ("delayed",) * 150


def test_a_slow_reference_is_borne_where_little_else_is_left(make_process, rng):
    # Only the first of ten blocks is quick: less than a third of the samples.
    run = make_process(rng, blocks=10, reference=(0.001, 0.001, 0.002))

    latency = latency_of([run], threads=1)

    assert latency.clean == latency.n
    assert latency.unsettled > 0


def test_processes_that_only_ran_beside_a_slow_reference_still_disagree(make_process, rng):
    quick, slow = make_process(rng), make_process(rng, seconds=0.0105, reference=(0.002,))

    latency = latency_of([quick, slow], threads=1)

    assert latency.between_processes == pytest.approx(0.4, abs=0.02)


def test_a_trend_is_found_and_noise_is_not(make_process, rng):
    run = make_process(rng)
    rising = [
        replace(b, latency_seconds=tuple(x * (1 + 0.02 * i) for x in b.latency_seconds))
        for i, b in enumerate(run.blocks)
    ]

    steady = latency_of([run], threads=1).drift
    drifting = latency_of([replace(run, blocks=tuple(rising))], threads=1).drift

    assert steady == pytest.approx(0, abs=0.005)
    assert drifting == pytest.approx(0.1, abs=0.02)


def test_the_reference_is_followed_from_start_to_end(make_process, rng):
    run = make_process(rng, blocks=8, reference=(0.0015,) * 5 + (0.00156,) * 4)

    latency = latency_of([run], threads=1)

    assert latency.reference_drift == pytest.approx(0.04)


def test_a_quantile_needs_enough_samples(make_process, rng):
    latency = latency_of([make_process(rng, blocks=4, samples=25)], threads=1)

    p90, p95 = quantile(latency, 0.9), quantile(latency, 0.95)
    assert p90.seconds is not None
    assert p90.seconds > latency.seconds
    assert p95.seconds is None
    assert p95.absent_because == "p95 needs 130 clean samples, there are 100"


def test_a_contended_device_has_no_quantiles(make_process, rng):
    latency = latency_of([make_process(rng, blocks=30, delayed=1.0)], threads=1)

    assert all(q.seconds is None and "not quiet" in q.absent_because for q in latency.quantiles)


def test_samples_without_anything_else_are_enough():
    block = Block(0.0, 1.0, 0.0, (), (), (0.01, 0.011, 0.012), ())
    run = ProcessRun(Memory(1, 1, 1), 0.1, 0.1, 5, True, 1, 0.0, (block,))

    latency = latency_of([run], threads=2)

    assert latency.seconds == 0.011
    assert latency.reference_seconds is None
    assert latency.relative_to_reference is None
    assert latency.canary_seconds is None
    assert latency.reference_drift is None
    assert latency.between_processes is None


def test_no_samples_are_an_error(make_process, rng):
    empty = make_process(rng, blocks=0)

    with pytest.raises(NoSamplesError, match="no latency samples"):
        latency_of([empty], threads=1)


def test_the_same_samples_have_the_same_interval(make_process, rng):
    run = make_process(rng)

    assert latency_of([run], 1) == latency_of([run], 1)


def test_the_interval_holds_the_truth_about_as_often_as_it_says(make_process, rng):
    def holds(effects: np.ndarray) -> bool:
        blocks = []
        for effect in effects:
            block = make_process(rng, blocks=1, seconds=SECONDS * (1 + 0.01 * effect)).blocks[0]
            blocks.append(block)
        run = replace(make_process(rng, blocks=1), blocks=tuple(blocks))
        low, high = latency_of([run], threads=1).interval_seconds
        # The median of |normal| is 0.6745.
        return low <= SECONDS * (1 + 0.01 * 0.6745) <= high

    held = np.mean([holds(rng.normal(size=5)) for _ in range(300)])

    assert 0.88 < held < 0.99


def test_two_thousand_samples_take_milliseconds(make_process, rng):
    processes = [make_process(rng, blocks=10, samples=67) for _ in range(3)]
    latency_of(processes, threads=1)

    taken = []
    for _ in range(10):
        start = time.process_time()
        latency_of(processes, threads=1)
        taken.append(time.process_time() - start)

    assert min(taken) < 0.015  # 3 ms on a free core of 2020


@given(
    st.lists(
        st.lists(st.floats(1e-6, 10.0), min_size=0, max_size=40), min_size=1, max_size=8
    ).filter(any),
    st.floats(0.1, 1000.0),
)
def test_statistics_scale_with_the_unit_of_time_and_are_ordered(blocks, factor):
    def run(scale):
        made = tuple(
            Block(0.0, 1.0, 0.0, (), (), tuple(x * scale for x in samples), ())
            for samples in blocks
        )
        return ProcessRun(Memory(1, 1, 1), 0.1, 0.1, 5, True, 1, 0.0, made)

    one, other = latency_of([run(1.0)], 2), latency_of([run(factor)], 2)

    assert one.interval_seconds[0] <= one.seconds <= one.interval_seconds[1]
    assert one.min_seconds <= one.seconds
    assert all(math.isfinite(x) for x in one.interval_seconds)
    assert other.seconds == pytest.approx(one.seconds * factor)
    assert other.interval_seconds == pytest.approx([x * factor for x in one.interval_seconds])
