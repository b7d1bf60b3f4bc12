"""The chapter on how to do a study again, and how to check what was shipped."""

import shlex
from collections.abc import Iterator
from datetime import datetime

from host.report.study_blocks import Block, Bullets, Code, Paragraph, Section, Table, table, text
from host.report.study_facts import StudyReport
from host.report.study_numbers import Words
from host.report.study_toml import toml_text


def reproduce_section(report: StudyReport, words: Words) -> Section:
    """Commands, versions, seed, fingerprint, bundles, and the configuration in force."""
    return Section(words["reproduce"], list(_blocks(report, words)))


def _blocks(report: StudyReport, words: Words) -> Iterator[Block]:
    yield Bullets([Paragraph(line) for line in _facts(report, words)])
    yield Code(words["reproduce.commands"], "\n".join(_commands(report)))
    if any(finalist.bundles for finalist in report.finalists):
        yield _bundles(report, words)
    yield _files(report, words)
    yield Code(words["reproduce.config"], toml_text(report.origin.config))


def _facts(report: StudyReport, words: Words) -> Iterator[str]:
    origin = report.origin
    yield words["reproduce.version"].format(version=origin.genba_version)
    yield words["reproduce.seed"].format(seed=origin.seed)
    yield words["reproduce.created"].format(at=_moment(origin.created_at))
    if origin.finished_at is None:
        yield words["reproduce.unfinished"]
    else:
        yield words["reproduce.finished"].format(at=_moment(origin.finished_at))
    if report.data is not None:
        yield words["data.fingerprint"].format(fingerprint=report.data.fingerprint)
    for profile in report.front.profiles:
        yield words["reproduce.runtime"].format(
            device=profile.name,
            runtime=profile.engine,
            threads=profile.threads,
        )
    yield words["reproduce.noise"]


def _moment(at: datetime) -> str:
    return f"{at.astimezone():%Y-%m-%d %H:%M %z}"


def _commands(report: StudyReport) -> Iterator[str]:
    study = shlex.quote(report.front.study)
    yield "genba search run study.toml"
    yield f"genba search resume {study}"
    yield f"genba front show {study}"
    yield f"genba report {study} --pdf"
    for finalist in report.finalists:
        for bundle in finalist.bundles:
            yield f"genba bundle verify {shlex.quote(bundle.path)}"


def _bundles(report: StudyReport, words: Words) -> Table:
    return table(
        words["bundles.table"],
        [words[f"column.{name}"] for name in ("number", "device_class", "devices", "path", "hash")],
        [
            [
                str(number),
                text(bundle.device_class),
                text(words["comma"].join(bundle.devices)),
                text(bundle.path),
                text(bundle.manifest_sha256),
            ]
            for number, finalist in enumerate(report.finalists, start=1)
            for bundle in finalist.bundles
        ],
    )


def _files(report: StudyReport, words: Words) -> Table:
    return table(
        words["files.table"],
        [words[f"column.{name}"] for name in ("number", "form", "file_hash")],
        [
            [str(number), text(form.form), text(form.sha256)]
            for number, finalist in enumerate(report.finalists, start=1)
            for form in finalist.forms
        ],
    )
