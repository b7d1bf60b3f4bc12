"""Networks ranked without training: what is asked for, and from there to the ranking."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from host.api.bounds import check_threads, check_whole
from host.errors import UsageError

if TYPE_CHECKING:
    from host.calibration.prediction import Predictor
    from host.data.images import ImageFolder
    from host.proxies.ensembles import Ensemble
    from host.proxies.scoring import View
    from host.ranking.contenders import Contender
    from host.ranking.ranking import Ranking, Stage
    from host.spaces.base import Task
    from host.store import Store

DEFAULT_SAMPLE = 100
ExecutorName = Literal["local", "ray"]
OnProgress = Callable[[str, int, int, float], None]
"""Told what is done, how much of it, of how much, and how large a share of the time that is."""

_DRAWN_AT_A_TIME = 100
_TASK_OF_MADE_IMAGES = (3, 10)
_STAGES: "dict[Stage, str]" = {
    "pruning": "scored to prune",
    "scoring": "scored",
}


@dataclass(frozen=True)
class RankRequest:
    """What to rank, by what, and how.

    `targets` are one search space, of which a `sample` is drawn, or ONNX files and folders of
    them. `devices` are those whose cost models predict the latency; without any, MACs are counted.
    `images` is a folder, "gaussian" or "natural"; `draws` of weights and images give ranks with
    intervals from two on. Without `processes` there is one for each processor.
    """

    targets: tuple[str, ...]
    ensemble: "Ensemble"
    sample: int | None = None
    keep: float | None = None
    devices: tuple[str, ...] = ()
    threads: int = 1
    images: str | None = None
    batch_size: int = 32
    resolution: int | None = None
    draws: int = 1
    seed: int = 0
    executor: ExecutorName = "local"
    processes: int | None = None

    @property
    def source(self) -> str:
        """What people call that which is ranked."""
        return self.targets[0] if len(self.targets) == 1 else f"{len(self.targets)} files"


def check_request(request: RankRequest) -> None:
    """See that every number of the request can be meant. Raises UsageError."""
    check_threads(request.threads)
    for name, value, least, most in (
        ("sample", request.sample, 1, 1_000_000),
        ("batch_size", request.batch_size, 2, 4096),
        ("resolution", request.resolution, 1, 4096),
        ("draws", request.draws, 1, 1000),
        ("seed", request.seed, 0, 2**31 - 1),
        ("processes", request.processes, 1, 1024),
    ):
        if value is not None:
            check_whole(name, value, least, most)


def check_keep(keep: float | None, ensemble: "Ensemble") -> None:
    """See that something can be pruned, before anything is drawn. Raises UsageError."""
    from host.proxies.cascade import divided
    from host.proxies.catalogue import proxies_by_name

    if keep is None:
        return
    if not 0 < keep <= 1:
        raise UsageError(f"--keep {keep:g}: write a share above 0 and up to 1, such as 0.2")
    divided(proxies_by_name(ensemble.members))


def rank_networks(
    store: "Store",
    request: RankRequest,
    *,
    say: Callable[[str], None],
    on_progress: OnProgress,
) -> "Ranking":
    """The ranking. Every score is stored as it comes: the same request goes on from there.

    Raises UsageError for what cannot be ranked, UnknownDeviceError, NotCalibratedError and
    ScoringError.
    """
    from host.proxies.executors import ScoringError, usable_cpus
    from host.proxies.executors import executor as executor_of
    from host.ranking.ranking import Ranker

    check_keep(request.keep, request.ensemble)
    predictors = _predictors(store, request)
    folder, views = _views(request, say)
    contenders = _contenders(request, _task(folder), say, on_progress)
    wanted = min(request.processes or usable_cpus(), len(contenders) * request.draws)
    with executor_of(request.executor, wanted) as scoring:
        ranker = Ranker(
            store=store,
            executor=scoring,
            ensemble=request.ensemble,
            views=views,
            keep=request.keep,
            seed=request.seed,
            predictors=predictors,
            on_progress=lambda stage, far: on_progress(
                _STAGES[stage], far.done, far.total, far.share
            ),
        )
        try:
            return ranker.rank(contenders)
        except ScoringError as error:
            if request.resolution is None:
                raise
            raise UsageError(
                f"{error}; it may be too large for --resolution {request.resolution}"
            ) from error


def _predictors(store: "Store", request: RankRequest) -> "dict[str, Predictor]":
    """The cost models of each device. Raises UnknownDeviceError and NotCalibratedError."""
    from host.calibration.prediction import Predictor
    from host.calibration.setting import Setting

    found = {}
    for name in request.devices:
        device = store.devices.by_name(name)
        found[name] = Predictor.of(
            store, device, Setting.of_device(device, "onnx", request.threads)
        )
    return found


def _views(
    request: RankRequest, say: Callable[[str], None]
) -> "tuple[ImageFolder | None, tuple[View, ...]]":
    """What proxies look at, and the folder that it comes from, if any."""
    from host.data.images import scan_folder
    from host.ranking.views import MADE, made_views, views_of_folder

    images, count, draws = request.images, request.batch_size, request.draws
    seed, resolution = request.seed, request.resolution
    if images is None or images in MADE:
        source = None if images is None else MADE[images]
        return None, made_views(source, count, draws, seed=seed, resolution=resolution)
    folder = scan_folder(Path(images))
    for file in folder.excluded:
        say(f"left out {file.path}: {file.reason}")
    return folder, views_of_folder(folder, count, draws, seed=seed, resolution=resolution)


def _task(folder: "ImageFolder | None") -> "Task":
    """What candidates of a space must fit: the images of a folder, or three channels."""
    from host.spaces.base import Task

    if folder is None:
        return Task(*_TASK_OF_MADE_IMAGES)
    return Task(folder.channels, len(folder.classes))


def _contenders(
    request: RankRequest, task: "Task", say: Callable[[str], None], on_progress: OnProgress
) -> "list[Contender]":
    """What is ranked. Raises UsageError."""
    from host.ranking.contenders import drawn, of_files
    from host.spaces.base import size
    from host.spaces.catalogue import SPACES, space_by_name

    targets = request.targets
    spaces = [target for target in targets if target in SPACES]
    if not spaces:
        if request.sample is not None:
            raise UsageError("--sample draws from a space; of files all are ranked: leave it out")
        return of_files([_file(target, tuple(SPACES)) for target in dict.fromkeys(targets)], say)
    if len(targets) > 1:
        raise UsageError(
            f"{spaces[0]} is a space: rank one space, or any number of files, not both at once"
        )
    space = space_by_name(spaces[0])
    count = DEFAULT_SAMPLE if request.sample is None else request.sample
    most = min(count, size(space))

    def on_drawn(done: int) -> None:
        if done % _DRAWN_AT_A_TIME == 0:
            on_progress("drawn", done, most, done / most)

    found = drawn(space, task, count, seed=request.seed, on_drawn=on_drawn)
    if len(found) < count:
        say(f"the space {space.name} has {len(found)} different networks: all are ranked")
    return found


def _file(target: str, spaces: Sequence[str]) -> Path:
    """Raises UsageError for what is neither a space nor a file."""
    path = Path(target)
    if not path.exists():
        raise UsageError(
            f"{target} is neither a file nor a space; the spaces are {', '.join(spaces)}"
        )
    return path
