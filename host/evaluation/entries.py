"""What is compared: a user's models, finalists of a study, and its untrained candidates.

Three kinds of numbers tell them apart and are never sorted together: a candidate has a score, a
finalist an accuracy on the study's test images, an own model an accuracy where it was judged. All
have costs that a device measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from host.export.forms import Runtime
from host.study.finalist import FinalistResult, FormResult, Score
from host.study.front import FrontReport, FrontRow, LimitLine, OnDevice, Predicted, value_on

Kind = Literal["own model", "finalist", "candidate"]
Measure = Literal["AUROC", "accuracy"]
KINDS: tuple[Kind, ...] = ("own model", "finalist", "candidate")


@dataclass(frozen=True)
class Place:
    """Where models are measured: a machine and how its runtime is set up, under a name.

    `runtime` is None where each file has its own.
    """

    name: str
    device: str
    threads: int = 1
    runtime: Runtime | None = None


@dataclass(frozen=True)
class Quality:
    """A share on the images of `origin`, which chose nothing: AUROC with two classes, or accuracy.

    Two of them are compared only where measure and origin are the same.
    """

    measure: Measure
    score: Score
    origin: str


@dataclass(frozen=True)
class Entry:
    """One row of the comparison. `label` is short and unique; `name` says what it is.

    `on` has the figures by place; `absent` says why there are none at a place. `predicted` is what
    the cost models say of an own model, also where it was not measured. Only a candidate and a
    finalist have a score. Without a quality, `no_quality_because` says why.
    """

    kind: Kind
    label: str
    name: str
    size_bytes: int
    on: Mapping[str, OnDevice]
    absent: Mapping[str, str] = field(default_factory=dict)
    predicted: Mapping[str, Predicted] = field(default_factory=dict)
    score: float | None = None
    accuracy: Score | None = None
    quality: Quality | None = None
    no_quality_because: str = ""

    def figures(self, place: str) -> OnDevice | None:
        """Those that may be used: None where there are none, or the verdict rejects them."""
        found = self.on.get(place)
        return None if found is None or found.verdict == "REJECT" else found


@dataclass(frozen=True)
class Dominance:
    """At a place the winner is at least as good and as fast as the loser, and better in one.

    `certain` is whether it is better there by more than the 95 % intervals.
    """

    place: str
    winner: str
    loser: str
    certain: bool


@dataclass(frozen=True)
class Missed:
    """A limit of the study that a measured figure exceeds, of the median latency the upper end of
    its interval.
    """

    label: str
    limit: LimitLine
    value: float


@dataclass(frozen=True)
class Comparison:
    """All entries by kind, in the order of KINDS, and what follows from them."""

    places: tuple[Place, ...]
    entries: tuple[Entry, ...]
    dominances: tuple[Dominance, ...]
    missed: tuple[Missed, ...]
    study: str | None = None
    limits: tuple[LimitLine, ...] = ()
    notes: tuple[str, ...] = ()

    def of_kind(self, kind: Kind) -> list[Entry]:
        """The entries of one kind, in their order."""
        return [entry for entry in self.entries if entry.kind == kind]

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What the qualities are, each once: accuracies and AUROCs are never compared."""
        found = (entry.quality.measure for entry in self.entries if entry.quality is not None)
        return tuple(dict.fromkeys(found))


def compared(
    places: Sequence[Place],
    entries: Sequence[Entry],
    *,
    front: FrontReport | None = None,
    notes: Sequence[str] = (),
) -> Comparison:
    """The comparison of these entries under the limits of the front, if there is one."""
    limits = () if front is None else tuple(front.limits)
    ordered = tuple(entry for kind in KINDS for entry in entries if entry.kind == kind)
    names = [place.name for place in places]
    return Comparison(
        places=tuple(places),
        entries=ordered,
        dominances=tuple(dominances(ordered, names)),
        missed=tuple(miss for entry in ordered for miss in missed(entry, limits)),
        study=None if front is None else front.study,
        limits=limits,
        notes=tuple(notes),
    )


def dominances(entries: Sequence[Entry], places: Sequence[str]) -> list[Dominance]:
    """Every pair at every place of which one dominates the other in quality and latency.

    Only of entries whose qualities may be compared, with figures that no verdict rejects.
    """
    return [
        found
        for place in places
        for winner in entries
        for loser in entries
        if (found := _dominance(winner, loser, place)) is not None
    ]


def missed(entry: Entry, limits: Sequence[LimitLine]) -> list[Missed]:
    """The limits that the entry's measured figures exceed at their places, or its file does."""
    found = []
    for limit in limits:
        value = _value(entry, limit)
        if value is not None and value > limit.maximum:
            found.append(Missed(entry.label, limit, value))
    return found


def entries_of_study(
    front: FrontReport,
    finalists: Sequence[FinalistResult],
    places: Sequence[Place],
    origin: str,
) -> list[Entry]:
    """The finalists of a study, each in the forms that were chosen, best quality first; then the
    candidates of its front that were not trained, best score first.

    `origin` tells which images the finalists were judged on.
    """
    names = {place.name for place in places}
    chosen = [
        (finalist, form)
        for finalist in finalists
        for form in finalist.forms
        if names & _profiles_of(finalist, form)
    ]
    chosen.sort(key=lambda pair: -pair[1].quality)
    trained = {finalist.key for finalist in finalists}
    rows = sorted((row for row in front.rows if row.key not in trained), key=lambda row: -row.score)
    return [
        *(
            _of_finalist(finalist, form, f"F{number}", names, origin)
            for number, (finalist, form) in enumerate(chosen, start=1)
        ),
        *(_of_candidate(row, f"C{number}", names) for number, row in enumerate(rows, start=1)),
    ]


def _profiles_of(finalist: FinalistResult, form: FormResult) -> set[str]:
    """The device profiles for which this form was chosen."""
    return {choice.device for choice in finalist.choices if choice.form == form.form}


def _of_finalist(
    finalist: FinalistResult, form: FormResult, label: str, places: set[str], origin: str
) -> Entry:
    wanted = places & _profiles_of(finalist, form)
    on = {one.device: one for one in form.devices if one.device in wanted}
    measure: Measure = "accuracy" if form.auroc is None else "AUROC"
    return Entry(
        kind="finalist",
        label=label,
        name=f"{finalist.text}, {form.form}",
        size_bytes=form.size_bytes,
        on=on,
        absent=dict.fromkeys(places - set(on), "another form was chosen for it"),
        score=finalist.score,
        accuracy=form.accuracy,
        quality=Quality(measure, form.auroc or form.accuracy, origin),
    )


def _of_candidate(row: FrontRow, label: str, places: set[str]) -> Entry:
    on = {one.device: one for one in row.devices if one.device in places}
    return Entry(
        kind="candidate",
        label=label,
        name=row.text,
        size_bytes=row.model_bytes,
        on=on,
        absent=dict.fromkeys(places - set(on), "the study did not measure it there"),
        score=row.score,
        no_quality_because="untrained: it has a score, which is no accuracy",
    )


def _dominance(winner: Entry, loser: Entry, place: str) -> Dominance | None:
    if winner is loser or winner.quality is None or loser.quality is None:
        return None
    if _kind_of_number(winner.quality) != _kind_of_number(loser.quality):
        return None
    fast, slow = winner.figures(place), loser.figures(place)
    if fast is None or slow is None:
        return None
    good, bad = winner.quality.score, loser.quality.score
    faster = slow.latency_seconds - fast.latency_seconds
    better = good.value - bad.value
    if faster < 0 or better < 0 or faster == better == 0:
        return None
    certain = fast.latency_high_seconds < slow.latency_low_seconds or good.low > bad.high
    return Dominance(place, winner.label, loser.label, certain)


def _kind_of_number(quality: Quality) -> tuple[str, str]:
    return quality.measure, quality.origin


def _value(entry: Entry, limit: LimitLine) -> float | None:
    """What the limit is held against; None for what was not measured."""
    if limit.quantity == "model_bytes":
        return entry.size_bytes
    figures = None if limit.device is None else entry.on.get(limit.device)
    return None if figures is None else value_on(figures, limit.quantity)
