"""`genba rank`: networks in an order, without training any of them."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from host.api.ranking import (
    DEFAULT_SAMPLE,
    ExecutorName,
    RankRequest,
    check_keep,
    rank_networks,
)
from host.cli.console import note, print_json, table_console
from host.cli.measure import ThreadsOption
from host.cli.pictures import LanguageOption, check_picture, write_picture
from host.cli.workspace import JsonOption, WorkspaceOption, opened
from host.errors import UsageError

if TYPE_CHECKING:
    from host.report.rank import NamedRanking

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
            show_default=str(DEFAULT_SAMPLE),
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
    executor: Annotated[ExecutorName, typer.Option(help="Where scores are computed.")] = "local",
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
    from host.report.rank import NamedRanking, ranking_block

    chosen = judge(ensemble, None if proxies is None else names_of("--proxies", proxies))
    _check_files(csv_file, picture)
    check_keep(keep, chosen)
    request = RankRequest(
        targets=tuple(targets),
        ensemble=chosen,
        sample=sample,
        keep=keep,
        devices=() if devices is None else tuple(names_of("--devices", devices)),
        threads=threads,
        images=images,
        batch_size=batch_size,
        resolution=resolution,
        draws=inits,
        seed=seed,
        executor=executor,
        processes=processes,
    )
    with opened(workspace) as (_, store), countdown() as told, _saying_what_is_kept():
        ranking = rank_networks(store, request, say=note, on_progress=told.update)
    named = NamedRanking(ranking, request.source)
    _write(named, csv_file, picture, language)
    if as_json:
        from host.report.rank_records import ranking_record

        print_json(ranking_record(named, seed))
    else:
        table_console().print(ranking_block(named, top, language))


def names_of(option: str, text: str) -> list[str]:
    """The parts between commas. Raises UsageError for an empty one."""
    names = [part.strip() for part in text.split(",")]
    if not all(names):
        raise UsageError(f"{option} {text!r} names nothing somewhere: write it as {option} a,b")
    return names


def _check_files(csv_file: Path | None, picture: Path | None) -> None:
    """See that both can be written, before hours are spent. Raises UsageError."""
    check_picture(picture)
    if csv_file is not None and (csv_file.is_dir() or not csv_file.parent.is_dir()):
        raise UsageError(f"--csv {csv_file}: name a file in a folder that is there")


@contextmanager
def _saying_what_is_kept() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        note(_KEPT)
        raise


def _write(
    named: "NamedRanking",
    csv_file: Path | None,
    picture: Path | None,
    language: Literal["en", "ja"],
) -> None:
    from host.report.rank_plots import ranking_figure
    from host.report.rank_records import csv_rows

    if csv_file is not None:
        with csv_file.open("w", encoding="utf-8", newline="") as opened_file:
            csv.writer(opened_file).writerows(csv_rows(named))  # RFC 4180: quoted, CRLF
        note(f"wrote {csv_file}")
    if picture is not None:
        write_picture(picture, ranking_figure(named, language))
