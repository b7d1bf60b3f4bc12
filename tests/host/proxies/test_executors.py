"""Executors give equal numbers, and end as they should."""

import importlib.util
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from host.errors import UsageError
from host.proxies.catalogue import PROXIES
from host.proxies.executors import (
    Executor,
    ExecutorName,
    InProcess,
    LocalPool,
    ScoringError,
    WorkerCrashedError,
    executor,
    usable_cpus,
)
from host.proxies.work import Batch, Scores, Work
from host.spaces.base import SearchSpace, Task, sample
from host.spaces.mobile import Mobile
from host.spaces.nasbench201 import NasBench201

RAY = pytest.param(
    "ray",
    marks=[
        pytest.mark.alone,
        pytest.mark.skipif(
            importlib.util.find_spec("ray") is None, reason="needs Ray: pip install 'genba[ray]'"
        ),
    ],
)


class Dies:
    """A model whose module ends the process that makes it."""

    key = "dies"
    input_shape = (3, 8, 8)

    def module(self, seed: int) -> nn.Module:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


class Breaks:
    """A model whose module cannot be made, by an error of its own kind."""

    key = "breaks"
    input_shape = (3, 8, 8)

    def module(self, seed: int) -> nn.Module:
        raise RuntimeError("mat1 and mat2 do not fit\nand more lines")


class Refuses:
    """A model that the user must change."""

    key = "refuses"
    input_shape = (3, 8, 8)

    def module(self, seed: int) -> nn.Module:
        raise UsageError("model.onnx cannot be converted")


class Sleeps:
    """A model whose module takes a minute."""

    key = "sleeps"
    input_shape = (3, 8, 8)

    def module(self, seed: int) -> nn.Module:
        time.sleep(60)
        raise AssertionError


def a_batch(seed: int, side: int = 16) -> Batch:
    pixels = np.random.default_rng(seed).standard_normal((8, 3, side, side))
    return Batch("gaussian", pixels.astype(np.float32), np.arange(8) % 4)


def works(proxies: tuple[str, ...] = ("naswot", "jacob_cov", "synflow", "zen")) -> list[Work]:
    rng = np.random.default_rng(0)
    task = Task(channels=3, classes=10)
    spaces: list[SearchSpace] = [
        NasBench201(cells=1),
        Mobile({"resolution": (32,), "width": (0.25,)}),
    ]
    return [
        Work(space.name, space.build(sample(space, rng), task), proxies, batch, seed=batch_seed)
        for batch_seed, batch in ((0, a_batch(0)), (1, a_batch(1)))
        for space in spaces
        for _ in range(2)
    ]


def results(made: Executor, todo: list[Work]) -> list[Scores]:
    """In the order of the works."""
    found = dict(made.run(todo))
    return [found[work] for work in todo]


@pytest.fixture
def one_at_a_time() -> InProcess:
    return InProcess()


@pytest.fixture(params=["one", "pool", RAY])
def an_executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    """Each executor in turn."""
    name: ExecutorName = "ray" if request.param == "ray" else "local"
    with executor(name, 1 if request.param == "one" else 2) as made:
        yield made


@pytest.mark.timeout(300)
def test_every_executor_gives_the_same_numbers_to_the_last_digit(an_executor: Executor) -> None:
    todo = works()

    found, again = results(an_executor, todo), results(an_executor, todo[:3])

    expected = results(InProcess(), todo)
    assert found == expected
    assert again == expected[:3]
    assert all(math.isfinite(value) for scores in found for value in scores.values())


def test_what_is_scored_beside_it_changes_no_score(one_at_a_time: InProcess) -> None:
    (work, *_) = works(tuple(PROXIES))

    (together,) = results(one_at_a_time, [work])

    for name in PROXIES:
        (alone,) = results(one_at_a_time, [replace(work, proxies=(name,))])
        assert alone[name] == pytest.approx(together[name], rel=1e-4, nan_ok=True)


def test_the_pool_goes_on_after_a_run_that_was_left(one_at_a_time: InProcess) -> None:
    todo = works()
    with executor("local", 2) as pool:
        next(iter(pool.run(todo)))

        assert results(pool, todo[::-1]) == results(one_at_a_time, todo[::-1])


def test_no_works_are_no_trouble() -> None:
    with executor("local", 2) as pool:
        assert list(pool.run([])) == []


@pytest.mark.timeout(300)
def test_a_network_that_cannot_be_scored_is_named(an_executor: Executor) -> None:
    broken = Work("my.onnx", Breaks(), ("naswot",), a_batch(0), seed=0)
    refused = Work("my.onnx", Refuses(), ("naswot",), a_batch(0), seed=0)

    with pytest.raises(ScoringError, match=r"my\.onnx: mat1 and mat2 do not fit \(while"):
        list(an_executor.run([broken]))
    with pytest.raises(UsageError, match=r"my\.onnx: model\.onnx cannot be converted"):
        list(an_executor.run([refused]))


@pytest.mark.timeout(300)
def test_a_batch_that_does_not_suit_is_the_user_s_mistake(an_executor: Executor) -> None:
    (work, *_) = works()
    grey = Batch("images", np.zeros((8, 1, 16, 16), np.float32))

    with pytest.raises(UsageError, match="with 3 channels"):
        list(an_executor.run([replace(work, batch=grey)]))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["local", RAY])
def test_a_process_that_dies_is_a_sentence_with_the_network(name: str) -> None:
    dying = Work("huge.onnx", Dies(), ("naswot",), a_batch(0), seed=0)
    todo = [*works(), dying]

    with (
        executor("ray" if name == "ray" else "local", 2) as made,
        pytest.raises(WorkerCrashedError, match=r"scored huge\.onnx .*--processes"),
    ):
        list(made.run(todo))


def test_the_signal_that_ended_a_process_is_named() -> None:
    dying = Work("huge.onnx", Dies(), ("naswot",), a_batch(0), seed=0)

    with executor("local", 2) as pool, pytest.raises(WorkerCrashedError, match="SIGKILL"):
        list(pool.run([dying]))


def test_closing_ends_processes_at_once_whatever_they_compute() -> None:
    sleeping = Work("slow.onnx", Sleeps(), ("naswot",), a_batch(0), seed=0)
    (quick, *_) = works()
    pool = LocalPool(2)
    running = pool.run([sleeping, quick])
    next(running)
    processes = [worker.process.process for worker in pool._workers]

    started = time.monotonic()
    pool.close()

    assert time.monotonic() - started < 10
    assert not any(process.is_alive() for process in processes)


def test_the_number_of_threads_of_this_process_is_as_before(one_at_a_time: InProcess) -> None:
    import torch

    before = torch.get_num_threads()

    list(one_at_a_time.run(works()[:1]))

    assert torch.get_num_threads() == before


SCRIPT = """
import sys
from host.proxies.executors import executor
from tests_executors import works

if __name__ == "__main__":
    with executor("local", 2) as pool:
        for _ in pool.run(works() * 1000):
            print("scored", flush=True)
"""


@pytest.fixture
def long_run(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process group that scores for a long time, as a shell starts it."""
    (tmp_path / "tests_executors.py").symlink_to(Path(__file__))
    (tmp_path / "main.py").write_text(SCRIPT)
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[3])])
    process = subprocess.Popen(
        [sys.executable, tmp_path / "main.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "scored\n"
    yield process
    process.kill()
    process.communicate()


def group_is_gone(process: subprocess.Popen[str]) -> bool:
    for _ in range(200):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_ctrl_c_ends_the_pool_quietly_and_leaves_no_process(
    long_run: subprocess.Popen[str],
) -> None:
    os.killpg(long_run.pid, signal.SIGINT)  # as a terminal does

    _, errors = long_run.communicate(timeout=60)

    assert errors.count("Traceback") == 1  # that of the script itself
    assert errors.strip().endswith("KeyboardInterrupt")
    assert group_is_gone(long_run)


def test_processes_end_with_whoever_started_them(long_run: subprocess.Popen[str]) -> None:
    long_run.kill()
    long_run.communicate(timeout=60)

    assert group_is_gone(long_run)


def test_ray_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)

    with pytest.raises(UsageError, match=r"install genba\[ray\]"), executor("ray", 2):
        pass


def test_a_machine_has_a_processor() -> None:
    assert usable_cpus() >= 1
