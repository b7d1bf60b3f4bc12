"""`genba job`: what waits, what runs, what came of it, and how to withdraw it."""

import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from host.cli.console import UNKNOWN, iso, lasted, local, plain_table, print_json, table_console
from host.cli.workspace import JsonOption, WorkspaceOption, opened
from host.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from host.job import JobState
    from host.store import Store
    from host.store.queue_view import JobLine, JobQuery

job_app = typer.Typer(no_args_is_help=True)
State = Literal["open", "queued", "running", "done", "failed", "cancelled", "all"]
SHORT_ID = 12
_ID = re.compile(r"[0-9a-f]{1,32}")

DeviceOption = Annotated[
    str | None,
    typer.Option("--device", metavar="NAME", help="Those of this device.", show_default=False),
]
StudyOption = Annotated[
    str | None,
    typer.Option("--study", metavar="NAME", help="Those of this study.", show_default=False),
]


class UnknownJobIdError(UsageError):
    """No job, or more than one, has that id."""


@job_app.command("list")
def list_jobs(
    *,
    device: DeviceOption = None,
    state: Annotated[
        State, typer.Option(help="Those in this state; open ones are queued or running.")
    ] = "open",
    study: StudyOption = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="At most so many.")] = 100,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """List jobs: open ones in the order in which devices take them, others newest first."""
    with opened(workspace) as (_, store):
        now = store.now()
        # One more than is shown tells whether there are more.
        found = store.queue_view.jobs(_query(store, device, study, _states(state)), limit=limit + 1)
    jobs = found[:limit]
    if as_json:
        print_json([_record(job, now) for job in jobs])
    elif jobs:
        table_console().print(_table(jobs, now))
        if len(found) > limit:
            print(f"There are more jobs: --limit shows more than {limit}")
    else:
        print("No job is open" if state == "open" else "No job fits")


@job_app.command()
def show(
    job_id: Annotated[
        str, typer.Argument(metavar="ID", help="As `genba job list` has it; its start is enough.")
    ],
    *,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Show a job: who asked for what, where it stands, and what came of it."""
    with opened(workspace) as (_, store):
        now = store.now()
        job = _one(store, job_id)
        spec = asdict(store.jobs.get(job.id).spec)
    if as_json:
        print_json({**_record(job, now), "spec": spec})
        return
    lines = {
        "job": job.id,
        "what": f"{job.kind} {_model(job)}".strip(),
        "model SHA-256": job.model_sha256,
        "device": job.device,
        "study": job.study,
        "purpose": job.purpose,
        "priority": str(job.priority),
        "state": _state_words(job, now),
        "attempts": str(job.attempt),
        "asked for": local(job.created_at),
        "taken": local(job.leased_at),
        "ended": local(job.finished_at),
        "result": _result(job),
    }
    width = max(len(name) for name in lines)
    for name, value in lines.items():
        print(f"{name:{width}}  {value or UNKNOWN}")


@job_app.command()
def cancel(
    job_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID", help="The jobs; the start of an id is enough."),
    ] = None,
    *,
    device: DeviceOption = None,
    study: StudyOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Withdraw jobs, or all open ones of a device or a study; a running one is stopped."""
    if bool(job_ids) == (device is not None or study is not None):
        raise UsageError("say which jobs: give ids, or --device or --study")
    with opened(workspace) as (_, store):
        if job_ids:
            jobs = [_one(store, job_id) for job_id in job_ids]
        else:
            jobs = store.queue_view.jobs(_query(store, device, study, _states("open")))
        cancelled = store.jobs.cancel([job.id for job in jobs])
    running = sum(job.state == "leased" for job in jobs)
    print(f"Cancelled {cancelled} {'job' if cancelled == 1 else 'jobs'}")
    if running and cancelled:
        print(f"{running} of them ran: the devices are told to stop within about a second")
    if cancelled < len(jobs):
        print(f"{len(jobs) - cancelled} had ended before: what came of them is kept")


def _states(state: State) -> "Sequence[JobState]":
    from host.job import ALL_STATES, OPEN_STATES

    match state:
        case "open":
            return OPEN_STATES
        case "all":
            return ALL_STATES
        case "running":
            return ("leased",)
        case _:
            return (state,)


def _query(
    store: "Store", device: str | None, study: str | None, states: "Sequence[JobState]"
) -> "JobQuery":
    from host.store.queue_view import JobQuery

    return JobQuery(
        device_id=None if device is None else store.devices.by_name(device).id,
        study_id=None if study is None else store.studies.by_name(study).id,
        states=states,
    )


def _one(store: "Store", id_or_start: str) -> "JobLine":
    """The job whose id begins so. Raises UnknownJobIdError."""
    from host.job import ALL_STATES
    from host.store.queue_view import JobQuery

    start = id_or_start.lower()
    if not _ID.fullmatch(start):
        raise UnknownJobIdError(
            f"{id_or_start!r} is no id of a job: give the start of one in `genba job list --state"
            " all`"
        )
    found = store.queue_view.jobs(JobQuery(states=ALL_STATES, id_prefix=start), limit=2)
    if not found:
        raise UnknownJobIdError(
            f"no job has an id that begins with {start}: see `genba job list --state all`"
        )
    if len(found) > 1:
        raise UnknownJobIdError(
            f"several jobs have an id that begins with {start}: give more of it"
        )
    return found[0]


def _state(job: "JobLine") -> State:
    return "running" if job.state == "leased" else job.state


def _record(job: "JobLine", now: datetime) -> dict[str, Any]:
    values = asdict(job)
    times = ("not_before", "created_at", "finished_at", "leased_at", "leased_until")
    return {
        **values,
        **{name: iso(values[name]) for name in times},
        "state": _state(job),
        "device_answers": _answers(job, now),
    }


def _answers(job: "JobLine", now: datetime) -> bool | None:
    """Whether the device that has the job renews its lease; None where none has it."""
    if job.state != "leased" or job.leased_until is None:
        return None
    return job.leased_until > now


def _table(jobs: "Sequence[JobLine]", now: datetime) -> "Table":
    from rich.text import Text

    table = plain_table()
    table.add_column("job", no_wrap=True)
    table.add_column("device", overflow="fold")
    table.add_column("kind", no_wrap=True)
    table.add_column("model", overflow="fold")
    table.add_column("study", overflow="fold")
    table.add_column("asked for", no_wrap=True)
    table.add_column("state", overflow="fold")
    for job in jobs:
        # Text, because names must not be read as markup.
        table.add_row(
            job.id[:SHORT_ID],
            Text(job.device),
            job.kind,
            Text(_model(job) or UNKNOWN),
            Text(job.study or UNKNOWN),
            f"{lasted(job.created_at, now)} ago",
            Text(_state_words(job, now)),
        )
    return table


def _model(job: "JobLine") -> str:
    """The name of the file, or the start of its hash where nobody named it."""
    return job.label or (job.model_sha256 or "")[:SHORT_ID]


def _state_words(job: "JobLine", now: datetime) -> str:
    words: str = _state(job)
    if job.leased_at is not None and job.state == "leased":
        words += f" for {lasted(job.leased_at, now)}"
        if not _answers(job, now):
            words += ", but its device does not answer: it will be given out again"
    if job.state == "queued" and job.not_ready_because is not None:
        words += f", put off: {job.not_ready_because}"
    if job.failure_kind is not None:
        words += f": {job.failure_kind}"
    return words


def _result(job: "JobLine") -> str | None:
    if job.failure_kind is not None:
        return f"{job.failure_kind}: {job.failure_message}"
    if job.measurement_number is not None:
        return f"genba measurements show {job.measurement_number}"
    return None
