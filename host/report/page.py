"""The front as one HTML file: no scripts, nothing from elsewhere, for old browsers and printers."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from host.report import units
from host.report.measurement_texts import Language
from host.report.plots import front_figure, inline_svg, png
from host.report.tables import absent_power, three_figures, verdict_notes
from host.report.texts import TEXTS
from host.study.finalist import FinalistResult
from host.study.front import FrontReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
        picture=inline_svg(_figure(report, finalists, language), TEXTS[language]["front"]),
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
    picture.write_bytes(png(_figure(report, finalists, language)))
    page.write_text(front_page(report, finalists, language), encoding="utf-8")
    return [picture, page]


def _figure(
    report: FrontReport, finalists: Sequence[FinalistResult], language: Language
) -> "Figure":
    return front_figure(report, [finalist.key for finalist in finalists], language)
