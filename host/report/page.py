"""The front as one HTML file: no scripts, nothing from elsewhere, for old browsers and printers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from jinja2 import Environment, PackageLoader, StrictUndefined

from host.report import units
from host.report.plots import front_figure, png, svg
from host.report.tables import absent_power, three_figures, verdict_notes
from host.report.texts import TEXTS
from host.study.finalist import FinalistResult
from host.study.front import FrontReport

Language = Literal["en", "ja"]


def front_page(
    report: FrontReport, finalists: Sequence[FinalistResult], language: Language = "en"
) -> str:
    """The page: three figures, the picture, and every number of it as a table."""
    environment = Environment(
        loader=PackageLoader("host.report"), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("front.html").render(
        language=language,
        text=TEXTS[language],
        report=report,
        finalists=finalists,
        figures=three_figures(report, finalists),
        picture=svg(front_figure(report)),
        absent_power=absent_power(report),
        verdict_notes=verdict_notes(report),
        units=units,
    )


def write_front(
    report: FrontReport,
    finalists: Sequence[FinalistResult],
    folder: Path,
    language: Language = "en",
) -> list[Path]:
    """Write front.png and front.html into a folder, and name them."""
    folder.mkdir(parents=True, exist_ok=True)
    picture, page = folder / "front.png", folder / "front.html"
    picture.write_bytes(png(front_figure(report)))
    page.write_text(front_page(report, finalists, language), encoding="utf-8")
    return [picture, page]
