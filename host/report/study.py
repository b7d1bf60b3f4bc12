"""The report of a study as one HTML file: no scripts, nothing from elsewhere, fit for A4."""

from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from host.report.measurement_texts import Language
from host.report.study_agreement import agreement_section
from host.report.study_blocks import kind_of
from host.report.study_doubts import doubts_section
from host.report.study_energy import energy_section
from host.report.study_facts import Origin, StudyReport, Usage
from host.report.study_finalists import finalists_section
from host.report.study_front import front_section
from host.report.study_headline import headline
from host.report.study_numbers import NO_BREAK
from host.report.study_question import question_section
from host.report.study_reproduce import reproduce_section
from host.report.study_sentences import SENTENCES
from host.report.study_texts import LABELS
from host.report.texts import PLOT_TEXTS

__all__ = ["Origin", "StudyReport", "Usage", "study_page", "words_of", "write_study"]


def study_page(report: StudyReport, language: Language = "en") -> str:
    """The page, for a manager first and an engineer after."""
    words = words_of(language)
    environment = Environment(
        loader=PackageLoader("host.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sections = [
        question_section(report, words),
        front_section(report, words),
        finalists_section(report, words),
        energy_section(report, words),
        agreement_section(report, words),
        doubts_section(report, words),
        reproduce_section(report, words),
    ]
    return environment.get_template("study.html").render(
        language=language,
        words=words,
        report=report,
        headline=headline(report, words),
        sections=sections,
        kind_of=kind_of,
    )


def words_of(language: Language) -> Mapping[str, str]:
    """Every word of the page; no line breaks before a percent sign."""
    words = {**PLOT_TEXTS[language], **LABELS[language], **SENTENCES[language]}
    return {key: value.replace(" %", f"{NO_BREAK}%") for key, value in words.items()}


def write_study(report: StudyReport, folder: Path, language: Language = "en") -> Path:
    """Write the page as report-en.html or report-ja.html into a folder, and name it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"report-{language}.html"
    path.write_text(study_page(report, language), encoding="utf-8")
    return path
