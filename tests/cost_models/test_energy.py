"""Power and energy on top of a latency model."""

import csv
import math
import os
from pathlib import Path

import numpy as np
import pytest

from cost_models.base import ModelFormatError, NotFittedError
from cost_models.energy import EnergyModel, PowerModel, columns_upon
from cost_models.evaluate import coverage, mape, spearman
from cost_models.kernels import NETWORK_INPUT, Kernel, KernelClass, KernelGraph
from cost_models.latency import LatencyModel
from cost_models.nnls import FloatArray
from cost_models.nonnegative import NonNegativeModel

TABLE = (
    Path(os.environ.get("GENBA_DATA", Path(__file__).parents[2] / "../shared/data"))
    / "latency/nasbench201_cifar10_devices.csv"
)
OPERATIONS = ("skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")


class Work(NonNegativeModel):
    """Seconds of a network of two classes of work."""

    quantity = "latency_seconds"
    columns = (("constant", "run"), ("macs", "mac"), ("bytes", "byte"))
    nominal_rates = {"run": 0.1, "mac": 1.0, "byte": 1.0}  # noqa: RUF012


class WorkPower(PowerModel):
    latency_kind = Work
    columns = columns_upon(Work.columns, "share")


class WorkEnergy(EnergyModel):
    latency_kind = Work
    columns = columns_upon(Work.columns, "second")


RATES = np.array([0.1, 1.0, 2.0])
WATTS = np.array([2.0, 6.0, 3.0])


def work(count: int, seed: int = 0) -> FloatArray:
    amounts = np.random.default_rng(seed).lognormal(sigma=1.0, size=(count, 2))
    return np.column_stack([np.ones(count), amounts])


def fitted_latency(rows: FloatArray, noise: float = 0.0) -> Work:
    random = np.random.default_rng(3)
    return Work().fit_rows(rows, rows @ RATES * np.exp(noise * random.standard_normal(len(rows))))


def watts(rows: FloatArray) -> FloatArray:
    seconds = rows * RATES
    power: FloatArray = seconds @ WATTS / seconds.sum(axis=1)
    return power


def test_the_power_of_classes_is_learned() -> None:
    rows, fresh = work(20), work(200, seed=1)
    model = WorkPower(fitted_latency(rows))

    model.fit_rows(model.features_of(rows), watts(rows))

    predicted = np.array([p.value for p in model.predict_rows(model.features_of(fresh))])
    constant = np.full(200, watts(rows).mean())
    assert mape(predicted, watts(fresh)) < 0.02
    assert mape(constant, watts(fresh)) > 0.1


def test_power_that_is_one_number_stays_one_number() -> None:
    rows = work(20)
    model = WorkPower(fitted_latency(rows))
    noise = np.exp(0.02 * np.random.default_rng(5).standard_normal(20))

    model.fit_rows(model.features_of(rows), 5.0 * noise)

    assert model.coefficients["run"] == pytest.approx(5.0, rel=0.02)
    assert max(rate for name, rate in model.coefficients.items() if name != "run") < 1e-3


def test_energy_is_power_times_seconds() -> None:
    rows, fresh = work(20), work(200, seed=1)
    model = WorkEnergy(fitted_latency(rows))

    model.fit_latency_rows(rows, watts(rows) * (rows @ RATES))

    predicted = np.array([p.value for p in model.predict_rows(model.features_of(fresh))])
    assert mape(predicted, watts(fresh) * (fresh @ RATES)) < 0.03


def test_powers_do_not_make_up_for_what_the_latency_model_gets_wrong() -> None:
    rows = work(30)
    latency = fitted_latency(rows, noise=0.3)

    model = WorkEnergy(latency).fit_latency_rows(rows, 4.0 * latency.measured_values)

    assert model.coefficients["run"] == pytest.approx(4.0)
    assert model.log_errors == pytest.approx(latency.log_errors, rel=1e-3, abs=1e-6)


def test_of_a_network_measured_twice_the_mean_seconds_count() -> None:
    rows = np.vstack([work(12), work(12)[:1]])
    latency = Work().fit_rows(rows, np.append(work(12) @ RATES, 2 * (rows[0] @ RATES)))

    model = WorkEnergy(latency).fit_latency_rows(rows[:1], np.array([3.0 * 1.5 * rows[0] @ RATES]))

    assert model.coefficients["run"] == pytest.approx(3.0)


def test_intervals_of_energy_hold_what_they_promise() -> None:
    held: list[bool] = []
    for seed in range(12):
        rows, fresh = work(30, seed=seed), work(100, seed=100 + seed)
        random = np.random.default_rng(seed)
        noise = np.exp(0.1 * random.standard_normal((2, 130)))
        latency = Work().fit_rows(rows, rows @ RATES * noise[0, :30])
        joules = watts(rows) * latency.measured_values
        model = WorkEnergy(latency).fit_latency_rows(rows, joules)
        truth = watts(fresh) * (fresh @ RATES) * noise[0, 30:]
        found = model.predict_rows(model.features_of(fresh))
        held += [p.low <= t <= p.high for p, t in zip(found, truth, strict=True)]

    assert 0.86 < np.mean(held) < 0.96


PAIR: tuple[KernelClass, ...] = ("conv", "pool")


def chain(*kinds: KernelClass, size: int = 10**6) -> KernelGraph:
    kernels = [
        Kernel(
            kind,
            ("Op",),
            size * 100 if kind == "conv" else 0,
            size,
            size,
            1000 if kind == "conv" else 0,
            (index - 1 if index else NETWORK_INPUT,),
            (1,),
        )
        for index, kind in enumerate(kinds)
    ]
    return KernelGraph(tuple(kernels), size)


@pytest.mark.parametrize("kind", [PowerModel, EnergyModel])
def test_what_the_latency_model_has_not_seen_is_flagged_and_open(
    kind: type[PowerModel] | type[EnergyModel],
) -> None:
    graphs = [chain(*PAIR * (1 + index), size=10**5 * (2 + index)) for index in range(12)]
    latency = LatencyModel().fit(graphs, np.array([0.01 * (2 + index) for index in range(12)]))
    model = kind(latency).fit(graphs, np.linspace(1, 2, 12))

    known, new, unknown = model.predict(
        [graphs[3], chain("conv", "pool", "move"), chain("conv", "pool", "unknown")]
    )

    assert (known.flagged, new.flagged) == ((), ("move_bytes",))
    assert unknown.flagged == ("unknown_bytes",)
    assert known.high < math.inf
    assert new.high == unknown.high == math.inf
    assert 0 < new.low <= new.value


@pytest.mark.parametrize("kind", [PowerModel, EnergyModel])
def test_a_model_upon_one_that_is_not_fitted_says_so(
    kind: type[PowerModel] | type[EnergyModel],
) -> None:
    with pytest.raises(NotFittedError, match="latency_seconds"):
        kind(LatencyModel()).fit([chain("conv")], np.array([1.0]))


def test_the_latency_model_is_in_the_text_with_its_threads() -> None:
    graphs = [chain(*PAIR * (1 + index)) for index in range(4)]
    latency = LatencyModel(threads=2).fit(graphs, np.array([1.0, 2.0, 3.0, 4.0]))
    model = EnergyModel(latency, level=0.8).fit(graphs, np.array([1.0, 2.0, 3.0, 4.0]))

    restored = EnergyModel.from_json(model.to_json())

    assert restored.latency.to_json() == latency.to_json()
    assert isinstance(restored.latency, LatencyModel)
    assert restored.latency.threads == 2
    assert restored.predict(graphs) == model.predict(graphs)
    with pytest.raises(ModelFormatError, match="power_watts"):
        PowerModel.from_json(model.to_json())
    with pytest.raises(ModelFormatError):
        LatencyModel.from_json(model.to_json())


@pytest.mark.parametrize("latency", [None, [], {}, {"model": "latency_seconds"}])
def test_a_text_without_a_latency_model_is_refused(latency: object) -> None:
    graphs = [chain("conv", "pool")] * 2
    upon = LatencyModel().fit(graphs, np.ones(2))
    parts = PowerModel(upon).fit(graphs, np.ones(2)).parts()

    with pytest.raises(ModelFormatError):
        PowerModel.of_parts(parts | {"latency": latency})


class Cell(NonNegativeModel):
    """A NAS-Bench-201 cell by how often it holds each operation."""

    quantity = "latency_seconds"
    columns = (("constant", "run"), *((name, "op") for name in OPERATIONS))
    nominal_rates = {"run": 1.0, "op": 1.0}  # noqa: RUF012


class CellPower(PowerModel):
    latency_kind = Cell
    columns = columns_upon(Cell.columns, "share")


class CellEnergy(EnergyModel):
    latency_kind = Cell
    columns = columns_upon(Cell.columns, "second")


@pytest.mark.skipif(
    not TABLE.is_file(), reason=f"{TABLE} is not there; GENBA_DATA names its folder"
)
def test_learned_power_beats_a_constant_on_a_published_edge_gpu() -> None:
    with TABLE.open(newline="", encoding="utf-8") as file:
        cells = [row for index, row in enumerate(csv.DictReader(file)) if index % 13 == 0]
    # All six edges carry an operation, so that nothing is dead code.
    cells = [row for row in cells if "none" not in row["arch_str"]]
    rows = np.array(
        [[1.0, *(float(row["arch_str"].count(o)) for o in OPERATIONS)] for row in cells]
    )
    seconds = np.array([float(row["edgegpu_latency_ms"]) for row in cells]) / 1e3
    joules = np.array([float(row["edgegpu_energy_mj"]) for row in cells]) / 1e3
    measured, asked = slice(0, 40), slice(40, None)
    latency = Cell().fit_rows(rows[measured], seconds[measured])

    power = CellPower(latency)
    power.fit_rows(power.features_of(rows[measured]), joules[measured] / seconds[measured])
    energy = CellEnergy(latency).fit_latency_rows(rows[measured], joules[measured])

    watts = [p.value for p in power.predict_rows(power.features_of(rows[asked]))]
    constant = np.median(joules[measured] / seconds[measured])
    error = mape(np.array(watts) * seconds[asked], joules[asked])
    assert error < 0.02
    assert error < 0.9 * mape(constant * seconds[asked], joules[asked])
    found = energy.predict_rows(energy.features_of(rows[asked]))
    rank = spearman(np.array([p.value for p in found]), joules[asked])
    assert rank is not None
    assert rank > 0.8
    low, high = np.array([p.low for p in found]), np.array([p.high for p in found])
    assert 0.85 < coverage(low, high, joules[asked]) < 0.97
