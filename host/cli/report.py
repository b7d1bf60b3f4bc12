"""`genba report`: what a study found, as a page for people, and as PDF."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from host.cli.console import note
from host.cli.pictures import LanguageOption
from host.cli.workspace import WorkspaceOption, opened
from host.errors import UsageError

if TYPE_CHECKING:
    from host.report.measurement_texts import Language
    from host.report.study import StudyReport, Usage
    from host.store import Store

HOURS_OF_A_YEAR = 8784.0


@dataclass(frozen=True)
class _Told:
    """What the command was told about a year on the line."""

    inferences_per_year: float | None
    rate_hertz: float | None
    hours_per_year: float | None
    price_per_kwh: float | None
    currency: str | None

    def check(self) -> None:
        """Raises UsageError for what cannot be meant."""
        for option, value in (
            ("--inferences-per-year", self.inferences_per_year),
            ("--rate-hertz", self.rate_hertz),
            ("--hours-per-year", self.hours_per_year),
            ("--price-per-kwh", self.price_per_kwh),
        ):
            _above_zero(option, value)
        if (self.price_per_kwh is None) != (self.currency is None):
            raise UsageError("--price-per-kwh and --currency go together: give both or neither")
        if self.rate_hertz is not None and self.hours_per_year is None:
            raise UsageError("--rate-hertz needs --hours-per-year: for how long the line runs")
        if self.hours_per_year is None and self.inferences_per_year is None:
            if self.price_per_kwh is not None:
                raise UsageError(
                    "a price needs to know how often devices are asked: add --inferences-per-year,"
                    " or --rate-hertz and --hours-per-year"
                )
        elif self.hours_per_year is not None and self.inferences_per_year is not None:
            raise UsageError("--inferences-per-year and --hours-per-year exclude each other")
        if self.hours_per_year is not None and self.hours_per_year > HOURS_OF_A_YEAR:
            raise UsageError(f"--hours-per-year must be at most {HOURS_OF_A_YEAR:g}")

    def usage(self, config: Mapping[str, Any]) -> "Usage | None":
        """None where nothing was told of a year. Raises UsageError where there is no rate."""
        from host.report.study import Usage

        price, currency = self.price_per_kwh, self.currency
        if self.inferences_per_year is not None:
            return Usage(self.inferences_per_year, price_per_kwh=price, currency=currency)
        if self.hours_per_year is None:
            return None
        rate = self.rate_hertz or config.get("line", {}).get("rate_hertz")
        if rate is None:
            raise UsageError("the study names no rate of the line: add --rate-hertz")
        return Usage.at_rate(rate, self.hours_per_year, price_per_kwh=price, currency=currency)


def report(  # noqa: PLR0913 - the options of a command
    name: Annotated[str, typer.Argument(metavar="STUDY", help="The study's name.")],
    *,
    language: LanguageOption = "en",
    output_dir: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Where to write report-en.html or report-ja.html.",
            show_default="the study's folder",
        ),
    ] = None,
    pdf: Annotated[bool, typer.Option("--pdf", help="Print it as PDF too, by Chromium.")] = False,
    inferences_per_year: Annotated[
        float | None,
        typer.Option(metavar="N", help="How often a device is asked in a year."),
    ] = None,
    rate_hertz: Annotated[
        float | None,
        typer.Option(
            metavar="R",
            help="Instead: how often a second, while the line runs.",
            show_default="rate_hertz of the study's [line]",
        ),
    ] = None,
    hours_per_year: Annotated[
        float | None, typer.Option(metavar="H", help="How many hours a year the line runs.")
    ] = None,
    price_per_kwh: Annotated[
        float | None, typer.Option(metavar="P", help="Price of a kilowatt-hour.")
    ] = None,
    currency: Annotated[
        str | None, typer.Option(metavar="CODE", help="Currency of the price, such as JPY.")
    ] = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Write the report of a study: one HTML file that needs nothing else, and a PDF."""
    from host.report.study import write_study

    told = _Told(inferences_per_year, rate_hertz, hours_per_year, price_per_kwh, currency)
    told.check()
    with opened(workspace) as (found, store):
        made = _report(store, name, told)
        folder = output_dir or found.root / "studies" / name
    page = write_study(made, folder, language)
    print(page)
    if pdf:
        _print_pdf(page, language)


def _print_pdf(page: Path, language: "Language") -> None:
    from host.report.pdf import print_pdf
    from host.report.plots import japanese_fonts

    path = page.with_suffix(".pdf")
    print_pdf(page, path)
    print(path)
    if language == "ja" and not japanese_fonts():
        note(
            f"this machine has no Japanese font, so {path.name} may show boxes: install"
            " fonts-noto-cjk and print it again"
        )


def _report(store: "Store", name: str, told: _Told) -> "StudyReport":
    """Everything that the store has of a study.

    Raises NoFrontError, OtherVersionError and UsageError.
    """
    from importlib.metadata import version

    from host.report.study import Origin, StudyReport
    from host.study.stored import require_result, stored_facts

    study = store.studies.by_name(name)
    result = require_result(store, study)
    config = json.loads(study.config_json)
    return StudyReport(
        front=result.front,
        finalists=result.finalists,
        trials=result.trials,
        data=stored_facts(store, study),
        origin=Origin(
            genba_version=version("genba"),
            seed=study.seed,
            config=config,
            created_at=study.created_at,
            finished_at=study.finished_at,
            stopped_because=study.failed_because,
        ),
        usage=told.usage(config),
    )


def _above_zero(option: str, value: float | None) -> None:
    # A comparison with NaN is false.
    if value is not None and not 0 < value < float("inf"):
        raise UsageError(f"{option} must be above 0 and finite, got {value:g}")
