"""The survey as one HTML file with its pictures inside, and the pictures as files beside it."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from benchmarks.proxies.bootstrap import Interval
from benchmarks.proxies.judging import PICKS, TOPS
from benchmarks.proxies.targets import BASELINES, dataset
from benchmarks.survey.figures import Column
from benchmarks.survey.plots import correlation_figure, cost_figure, matrix_figure
from host.proxies.ensembles import RECOMMENDED
from host.report.plots import png, svg


def survey_page(columns: Sequence[Column], described: Sequence[str]) -> str:
    """The page: pictures, and every number of them as a table; `described` says what was scored."""
    environment = Environment(
        loader=PackageLoader("benchmarks.survey"), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("survey.html").render(
        columns=columns,
        described=described,
        tops=TOPS,
        picks=PICKS,
        ours=RECOMMENDED.name,
        baselines=[
            (on, baseline)
            for on in ("CIFAR-10", "CIFAR-100")
            for baseline in BASELINES
            if any(dataset(column.name) == on for column in columns)
        ],
        correlations=svg(correlation_figure(columns)),
        costs=svg(cost_figure(columns)),
        matrices=[(column.name, svg(matrix_figure(column.matrix))) for column in columns],
        number=number,
        interval=interval,
    )


def write_survey(columns: Sequence[Column], described: Sequence[str], folder: Path) -> list[Path]:
    """Write survey.html and its pictures as PNG files into a folder, and name them."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {
        "correlation.png": correlation_figure(columns),
        "cost.png": cost_figure(columns),
        **{f"matrix-{column.name}.png": matrix_figure(column.matrix) for column in columns},
    }
    for name, figure in pictures.items():
        (folder / name).write_bytes(png(figure))
    page = folder / "survey.html"
    page.write_text(survey_page(columns, described), encoding="utf-8")
    return [page, *(folder / name for name in pictures)]


def number(value: float | None, digits: int = 3) -> str:
    """A figure, or nothing where there is none."""
    return "" if value is None else f"{value:.{digits}f}"


def interval(found: Interval | None) -> str:
    """Both ends, or nothing."""
    return "" if found is None else f"[{found.low:.3f}, {found.high:.3f}]"
