"""`genba search`: run, resume and look at studies."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from host.cli.workspace import JsonOption, WorkspaceOption, opened

if TYPE_CHECKING:
    from host.config import StudyConfig
    from host.store.studies import Study
    from host.study.stored import StudyResult

search_app = typer.Typer(no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The study's name.")]


@search_app.command("run")
def run(
    file: Annotated[Path, typer.Argument(metavar="STUDY.toml", help="What to do.")],
    *,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Run a study, or go on with it where it stopped.

    Ctrl-C stops it at any point; the same command goes on from there.
    """
    from host.config import load_study

    _run(load_study(file), as_json=as_json, workspace=workspace)


@search_app.command("resume")
def resume(
    name: NameArgument, *, as_json: JsonOption = False, workspace: WorkspaceOption = None
) -> None:
    """Go on with a study, from the configuration that it was started with."""
    from host.config import stored_study

    with opened(workspace) as (_, store):
        config = stored_study(store.studies.by_name(name).config_json)
    _run(config, as_json=as_json, workspace=workspace)


@search_app.command("list")
def list_studies(*, as_json: JsonOption = False, workspace: WorkspaceOption = None) -> None:
    """List the studies of the workspace."""
    with opened(workspace) as (_, store):
        studies = store.studies.all()
    if as_json:
        print(json.dumps([_study_json(study) for study in studies], ensure_ascii=False, indent=2))
        return
    if not studies:
        print("There is no study yet: genba search run study.toml")
        return
    from rich.table import Table
    from rich.text import Text

    from host.cli.console import table_console

    table = Table()
    for column in ("study", "state", "started", "finished", "why it stopped"):
        table.add_column(column, overflow="fold")
    for study in studies:
        finished = "" if study.finished_at is None else f"{study.finished_at:%Y-%m-%d %H:%M} UTC"
        table.add_row(
            study.name,
            _state(study),
            f"{study.created_at:%Y-%m-%d %H:%M} UTC",
            finished,
            Text(study.failed_because or ""),
        )
    table_console().print(table)


@search_app.command("status")
def status(
    name: NameArgument, *, as_json: JsonOption = False, workspace: WorkspaceOption = None
) -> None:
    """Show how far a study is, and what its devices have to do."""
    from host.api.study import status_of

    with opened(workspace) as (_, store):
        study = store.studies.by_name(name)
        found = status_of(store, study)
    bundles = [str(path) for path in found.bundles]
    if as_json:
        details = {"jobs": found.jobs, "scored": found.scored, "bundles": bundles}
        print(json.dumps(_study_json(study) | details, ensure_ascii=False, indent=2))
        return
    print(f"{study.name}: {_state(study)}")
    print(f"  candidates scored: {found.scored}")
    counts = ", ".join(f"{count} {state}" for state, count in found.jobs.items())
    print(f"  measurements that it was the first to ask for: {counts}")
    if study.failed_because:
        print(f"  stopped because {study.failed_because}")
    for bundle in bundles:
        print(f"  bundle {bundle}")


@search_app.command("schema")
def schema() -> None:
    """Print the JSON schema of study.toml."""
    from host.config import study_schema

    print(json.dumps(study_schema(), ensure_ascii=False, indent=2))


def _run(config: "StudyConfig", *, as_json: bool, workspace: Path | None) -> None:
    from host.cli.progress import StageClock, reporter
    from host.gateway.server import ensure_gateway
    from host.report.page import write_front
    from host.study.run import run_study

    stages = StageClock()
    with opened(workspace) as (found, store), reporter(stages, as_json=as_json) as told:
        with ensure_gateway(found, store):
            try:
                result = run_study(config, store=store, workspace=found.root, reporter=told)
            except KeyboardInterrupt:
                print(
                    f"genba: nothing is lost; go on with: genba search resume {config.name}",
                    file=sys.stderr,
                )
                raise
        told.stage("report")
        folder = found.root / "studies" / config.name
        pictures = write_front(result.front, result.finalists, folder)
    if as_json:
        print(json.dumps(_result_json(result, pictures, stages.seconds()), ensure_ascii=False))
    else:
        _print(result, pictures, stages.seconds())


def _print(
    result: "StudyResult", pictures: Sequence[Path], seconds: Sequence[tuple[str, float]]
) -> None:
    from host.cli.console import table_console
    from host.report.tables import finalists_table, front_table, stage_table

    console = table_console()
    console.print(front_table(result.front))
    console.print(finalists_table(result.finalists))
    console.print(stage_table(seconds))
    for finalist in result.finalists:
        for bundle in finalist.bundles:
            print(f"bundle   {bundle.path}")
    for picture in pictures:
        print(f"picture  {picture}")


def _result_json(
    result: "StudyResult", pictures: Sequence[Path], seconds: Sequence[tuple[str, float]]
) -> dict[str, Any]:
    return {
        "event": "result",
        "front": result.front.model_dump(mode="json"),
        "finalists": [finalist.model_dump(mode="json") for finalist in result.finalists],
        "pictures": [str(picture) for picture in pictures],
        "stage_seconds": dict(seconds),
    }


def _state(study: "Study") -> str:
    if study.finished_at is not None:
        return "finished"
    return f"stopped in {study.stage}" if study.failed_because else f"in {study.stage}"


def _study_json(study: "Study") -> dict[str, Any]:
    return {
        "name": study.name,
        "stage": study.stage,
        "seed": study.seed,
        "created_at": study.created_at.isoformat(),
        "finished_at": None if study.finished_at is None else study.finished_at.isoformat(),
        "failed_because": study.failed_because,
    }
