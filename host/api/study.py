"""Studies: one search from start to end, run, gone on with and looked at."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

    from host.api.workspace import OpenWorkspace
    from host.config import StudyConfig
    from host.job import JobState
    from host.store import Store, studies
    from host.study.stored import StudyResult


@dataclass(frozen=True)
class StageBegan:
    """Another part of the study begins."""

    name: str


@dataclass(frozen=True)
class Progress:
    """So much of the current stage's work of that kind is done."""

    what: str
    done: int
    total: int


@dataclass(frozen=True)
class Message:
    """A sentence that a person should read."""

    text: str


@dataclass(frozen=True)
class Found:
    """How the study stands, such as the best so far: as facts, and as a line for a person."""

    kind: str
    facts: Mapping[str, object]
    text: str


StudyEvent = StageBegan | Progress | Message | Found
OnEvent = Callable[[StudyEvent], None]


@dataclass(frozen=True)
class StudyStatus:
    """How far a study is. `jobs` counts, by state, the measurements that it was first to ask for.

    It is finished, or stopped for the reason in `failed_because`, or in its `stage`.
    """

    stage: str
    created_at: "datetime"
    finished_at: "datetime | None"
    failed_because: str | None
    scored: int
    jobs: "Mapping[JobState, int]"
    bundles: tuple[Path, ...]


class Study:
    """A study of a workspace, by its configuration; nothing happens before `run`."""

    def __init__(self, workspace: "OpenWorkspace", config: "StudyConfig") -> None:
        self.config = config
        self._workspace = workspace

    @property
    def name(self) -> str:
        """The study's name, which stands for it in the workspace."""
        return self.config.name

    def run(self, on_event: OnEvent | None = None) -> "StudyResult":
        """Run the study, or go on with it where it stopped; returns when it is finished.

        `on_event` is told what happens, in this thread; what it raises stops the study, and the
        next `run` goes on from there. Raises GenbaError for whatever ends it.
        """
        from host.study.run import run_study

        self._workspace.serve()
        return run_study(
            self.config,
            store=self._workspace.store,
            workspace=self._workspace.root,
            reporter=_Events(on_event),
        )

    def result(self) -> "StudyResult | None":
        """The front and the finalists that the store holds; None before there is a front."""
        from host.store import UnknownStudyError
        from host.study.stored import stored_result

        store = self._workspace.store
        try:
            return stored_result(store, store.studies.by_name(self.name))
        except UnknownStudyError:
            return None

    def status(self) -> StudyStatus | None:
        """How far the study is; None before its first run."""
        from host.store import UnknownStudyError

        store = self._workspace.store
        try:
            return status_of(store, store.studies.by_name(self.name))
        except UnknownStudyError:
            return None


def status_of(store: "Store", study: "studies.Study") -> StudyStatus:
    """How far a study is that the store holds."""
    from host.job import ALL_STATES

    states = [job.state for job in store.jobs.of_study(study.id)]
    return StudyStatus(
        stage=study.stage,
        created_at=study.created_at,
        finished_at=study.finished_at,
        failed_because=study.failed_because,
        scored=sum(row.role == "scored" for row in store.studies.candidates(study.id)),
        jobs={state: states.count(state) for state in ALL_STATES},
        bundles=tuple(Path(one.path) for one in store.bundles.of_study(study.id)),
    )


def config_of(given: "Path | str | Mapping[str, Any] | StudyConfig") -> "StudyConfig":
    """The configuration in a file, in a table as `tomllib` reads one, or as it is.

    Relative paths are taken from the file's own folder, or from the current one. Raises
    ConfigError.
    """
    from host.config import StudyConfig, load_study, study_of

    if isinstance(given, StudyConfig):
        return given
    if isinstance(given, str | Path):
        return load_study(Path(given))
    return study_of(given, Path.cwd(), said="the study")


class _Events:
    """The study's reporter: hands over what happens as values."""

    def __init__(self, on_event: OnEvent | None) -> None:
        self._on_event = on_event

    def stage(self, name: str) -> None:
        self._tell(StageBegan(name))

    def progress(self, what: str, done: int, total: int) -> None:
        self._tell(Progress(what, done, total))

    def say(self, text: str) -> None:
        self._tell(Message(text))

    def found(self, kind: str, facts: Mapping[str, object], text: str) -> None:
        self._tell(Found(kind, facts, text))

    def _tell(self, event: StudyEvent) -> None:
        if self._on_event is not None:
            self._on_event(event)
