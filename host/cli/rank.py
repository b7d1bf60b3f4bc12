"""`genba rank`: networks in an order, without training any of them."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from host.cli.console import note, print_json, table_console
from host.cli.measure import ThreadsOption
from host.cli.pictures import LanguageOption, require_picture
from host.cli.workspace import JsonOption, WorkspaceOption, opened
from host.errors import UsageError

if TYPE_CHECKING:
    from host.calibration.prediction import Predictor
    from host.cli.countdown import Countdown
    from host.data.images import ImageFolder
    from host.proxies.ensembles import Ensemble
    from host.proxies.scoring import View
    from host.ranking.contenders import Contender
    from host.ranking.ranking import Ranker, Ranking, Stage
    from host.report.rank import NamedRanking
    from host.spaces.base import Task
    from host.store import Store

_SAMPLE = 100
_DRAWN_AT_A_TIME = 100
_TASK_OF_MADE_IMAGES = (3, 10)
_STAGES: "dict[Stage, str]" = {
    "pruning": "scored to prune",
    "scoring": "scored",
}
_KEPT = "every score is kept: the same command goes on from there"


def rank(  # noqa: PLR0913 - the options of a command
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="SPACE|FILES", help="A search space, such as nasbench201, or ONNX files."
        ),
    ],
    *,
    proxies: Annotated[
        str | None,
        typer.Option(
            metavar="A,B", help="Judge by the ranks of these proxies.", show_default=False
        ),
    ] = None,
    ensemble: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Judge by these proxies together: see genba proxies list.",
            show_default="the recommended one",
        ),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            max=1_000_000,
            help="How many networks of the space to draw.",
            show_default=str(_SAMPLE),
        ),
    ] = None,
    keep: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Let free proxies leave so much of the sample for the dear ones, such as 0.2;"
            " mostly the large networks stay.",
            show_default="all of it",
        ),
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(
            metavar="D1,D2",
            help="Predict the latency on these devices.",
            show_default="count MACs",
        ),
    ] = None,
    threads: ThreadsOption = 1,
    images: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|gaussian|natural",
            help="What proxies look at: a folder with a sub-folder for each class, or made-up"
            " images.",
            show_default="natural",
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=2, max=4096, help="How many images.")] = 32,
    resolution: Annotated[
        int | None,
        typer.Option(
            metavar="SIDE",
            min=1,
            max=4096,
            help="Side of the images; smaller is faster.",
            show_default="as each network reads them",
        ),
    ] = None,
    inits: Annotated[
        int,
        typer.Option(
            metavar="K",
            min=1,
            max=1000,
            help="Draw weights and images so often; from 2 on, ranks have intervals.",
        ),
    ] = 1,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="For all that is drawn.")] = 0,
    executor: Annotated[
        Literal["local", "ray"], typer.Option(help="Where scores are computed.")
    ] = "local",
    processes: Annotated[
        int | None,
        typer.Option(
            metavar="P", min=1, max=1024, help="At a time.", show_default="one a processor"
        ),
    ] = None,
    top: Annotated[
        int, typer.Option(metavar="N", min=0, help="How many to show in the table; 0 is all.")
    ] = 20,
    csv_file: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Write all as CSV.", show_default=False),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            "--picture",
            metavar="FILE.png",
            help="Draw score against cost, with the Pareto front.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
    language: LanguageOption = "en",
    workspace: WorkspaceOption = None,
) -> None:
    """Rank networks without training them, cheapest knowledge first.

    Proxies look at untrained networks; their ranks are combined into a score, which is compared
    with predicted latency or with MACs. Ctrl-C loses nothing: the same command goes on.
    """
    from host.cli.countdown import countdown
    from host.proxies.choice import judge
    from host.proxies.executors import executor as executor_of
    from host.proxies.executors import usable_cpus
    from host.ranking.ranking import Ranker
    from host.report.rank import NamedRanking, ranking_block

    chosen = judge(ensemble, None if proxies is None else _names("--proxies", proxies))
    _check_files(csv_file, picture)
    _check_keep(keep, chosen)
    with opened(workspace) as (_, store):
        predictors = _predictors(store, devices, threads)
        folder, views = _views(images, batch_size, inits, seed, resolution)
        with countdown() as told:
            contenders = _contenders(targets, sample, _task(folder), seed, told)
            wanted = min(processes or usable_cpus(), len(contenders) * inits)
            with executor_of(executor, wanted) as scoring:
                ranker = Ranker(
                    store=store,
                    executor=scoring,
                    ensemble=chosen,
                    views=views,
                    keep=keep,
                    seed=seed,
                    predictors=predictors,
                    on_progress=lambda stage, far: told.update(
                        _STAGES[stage], far.done, far.total, far.share
                    ),
                )
                ranking = _ranked(ranker, contenders, resolution)
    named = NamedRanking(ranking, _source(targets))
    _write(named, csv_file, picture, language)
    if as_json:
        from host.report.rank_records import ranking_record

        print_json(ranking_record(named, seed))
    else:
        table_console().print(ranking_block(named, top, language))


def _names(option: str, text: str) -> list[str]:
    """The parts between commas. Raises UsageError for an empty one."""
    names = [part.strip() for part in text.split(",")]
    if not all(names):
        raise UsageError(f"{option} {text!r} names nothing somewhere: write it as {option} a,b")
    return names


def _check_files(csv_file: Path | None, picture: Path | None) -> None:
    """See that both can be written, before hours are spent. Raises UsageError."""
    if picture is not None:
        require_picture(picture)
    if csv_file is not None and (csv_file.is_dir() or not csv_file.parent.is_dir()):
        raise UsageError(f"--csv {csv_file}: name a file in a folder that is there")


def _check_keep(keep: float | None, chosen: "Ensemble") -> None:
    """See that something can be pruned, before anything is drawn. Raises UsageError."""
    from host.proxies.cascade import divided
    from host.proxies.catalogue import proxies_by_name

    if keep is None:
        return
    if not 0 < keep <= 1:
        raise UsageError(f"--keep {keep:g}: write a share above 0 and up to 1, such as 0.2")
    divided(proxies_by_name(chosen.members))


def _predictors(store: "Store", devices: str | None, threads: int) -> "dict[str, Predictor]":
    """The cost models of each device. Raises UnknownDeviceError and NotCalibratedError."""
    from host.calibration.prediction import Predictor
    from host.calibration.setting import Setting

    found = {}
    for name in [] if devices is None else _names("--devices", devices):
        device = store.devices.by_name(name)
        found[name] = Predictor.of(store, device, Setting.of_device(device, "onnx", threads))
    return found


def _views(
    images: str | None, batch_size: int, inits: int, seed: int, resolution: int | None
) -> "tuple[ImageFolder | None, tuple[View, ...]]":
    """What proxies look at, and the folder that it comes from, if any."""
    from host.data.images import scan_folder
    from host.ranking.views import MADE, made_views, views_of_folder

    if images is None or images in MADE:
        source = None if images is None else MADE[images]
        return None, made_views(source, batch_size, inits, seed=seed, resolution=resolution)
    folder = scan_folder(Path(images))
    for file in folder.excluded:
        note(f"left out {file.path}: {file.reason}")
    return folder, views_of_folder(folder, batch_size, inits, seed=seed, resolution=resolution)


def _task(folder: "ImageFolder | None") -> "Task":
    """What candidates of a space must fit: the images of a folder, or three channels."""
    from host.spaces.base import Task

    if folder is None:
        return Task(*_TASK_OF_MADE_IMAGES)
    return Task(folder.channels, len(folder.classes))


def _contenders(
    targets: Sequence[str], sample: int | None, task: "Task", seed: int, told: "Countdown"
) -> "list[Contender]":
    """What is ranked. Raises UsageError."""
    from host.ranking.contenders import drawn, of_files
    from host.spaces.base import size
    from host.spaces.catalogue import SPACES, space_by_name

    spaces = [target for target in targets if target in SPACES]
    if not spaces:
        if sample is not None:
            raise UsageError("--sample draws from a space; of files all are ranked: leave it out")
        return of_files([_file(target) for target in dict.fromkeys(targets)], note)
    if len(targets) > 1:
        raise UsageError(
            f"{spaces[0]} is a space: rank one space, or any number of files, not both at once"
        )
    space = space_by_name(spaces[0])
    count = sample or _SAMPLE
    most = min(count, size(space))

    def on_drawn(done: int) -> None:
        if done % _DRAWN_AT_A_TIME == 0:
            told.update("drawn", done, most, done / most)

    found = drawn(space, task, count, seed=seed, on_drawn=on_drawn)
    if len(found) < count:
        note(f"the space {space.name} has {len(found)} different networks: all are ranked")
    return found


def _file(target: str) -> Path:
    """Raises UsageError for what is neither a space nor a file."""
    from host.spaces.catalogue import SPACES

    path = Path(target)
    if not path.exists():
        raise UsageError(
            f"{target} is neither a file nor a space; the spaces are {', '.join(SPACES)}"
        )
    return path


def _ranked(
    ranker: "Ranker", contenders: "Sequence[Contender]", resolution: int | None
) -> "Ranking":
    from host.proxies.executors import ScoringError

    try:
        return ranker.rank(contenders)
    except KeyboardInterrupt:
        note(_KEPT)
        raise
    except ScoringError as error:
        if resolution is None:
            raise
        raise UsageError(f"{error}; it may be too large for --resolution {resolution}") from error


def _source(targets: Sequence[str]) -> str:
    """What people call that which was ranked."""
    return targets[0] if len(targets) == 1 else f"{len(targets)} files"


def _write(
    named: "NamedRanking",
    csv_file: Path | None,
    picture: Path | None,
    language: Literal["en", "ja"],
) -> None:
    from host.report.plots import png
    from host.report.rank_plots import ranking_figure
    from host.report.rank_records import csv_rows

    if csv_file is not None:
        with csv_file.open("w", encoding="utf-8", newline="") as opened_file:
            csv.writer(opened_file).writerows(csv_rows(named))  # RFC 4180: quoted, CRLF
        note(f"wrote {csv_file}")
    if picture is not None:
        picture.write_bytes(png(ranking_figure(named, language)))
        note(f"wrote {picture}")
