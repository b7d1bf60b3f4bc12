"""What a study recommends for each device profile, and whether it is within the limits."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from host.report.study_facts import Shown, StudyReport, row_on
from host.study.finalist import Choice, FinalistResult, FormResult
from host.study.front import LimitLine, OnDevice, Profile, value_on


@dataclass(frozen=True)
class Pick(Shown):
    """What the gate chose of a finalist for a device profile."""

    choice: Choice


@dataclass(frozen=True)
class Standing:
    """A limit, and the figure that it is held against, of the median latency the upper end of its
    interval; None where that was not measured.
    """

    limit: LimitLine
    value: float | None

    @property
    def within(self) -> bool | None:
        """None where nothing can be said."""
        return None if self.value is None else self.value <= self.limit.maximum

    @property
    def used(self) -> float | None:
        """The share of the limit that is used up."""
        return None if self.value is None else self.value / self.limit.maximum


def chosen_on(finalists: Sequence[FinalistResult], profile: Profile) -> list[Pick]:
    """What the gate chose of every finalist for a device profile, in the order of finalists.

    Finalists without a form for it, or without a measurement there, are left out.
    """
    return [
        pick
        for number, finalist in enumerate(finalists, start=1)
        if (pick := _pick(number, finalist, profile)) is not None
    ]


def recommended(finalists: Sequence[FinalistResult], profile: Profile) -> Pick | None:
    """The best for a device profile: within the limits before beyond them, then the better quality
    on validation samples (test samples choose nothing), then the quicker.
    """

    def worth(pick: Pick) -> tuple[bool, float, float]:
        quality = pick.form.validation_quality
        return pick.choice.within_limits, quality, -pick.row.latency_seconds

    return max(chosen_on(finalists, profile), key=worth, default=None)


def picks_of(report: StudyReport) -> list[Pick]:
    """The recommended of every device profile that has one, in the order of profiles."""
    found = (recommended(report.finalists, profile) for profile in report.front.profiles)
    return [pick for pick in found if pick is not None]


def standings(limits: Sequence[LimitLine], form: FormResult, row: OnDevice) -> Iterator[Standing]:
    """A measured form against every limit that holds for it on a device profile."""
    for limit in limits:
        if limit.device in (None, row.device):
            yield Standing(limit, _figure(limit.quantity, form, row))


def tightest(picks: Sequence[Pick], limits: Sequence[LimitLine]) -> Pick | None:
    """The one that uses most of its latency limit; without limits, the slowest."""

    def used(pick: Pick) -> tuple[float, float]:
        shares = [
            standing.used or 0.0
            for standing in standings(limits, pick.form, pick.row)
            if standing.limit.quantity == "latency_seconds"
        ]
        return max(shares, default=0.0), pick.row.latency_seconds

    return max(picks, key=used, default=None)


def _figure(quantity: str, form: FormResult, row: OnDevice) -> float | None:
    return form.size_bytes if quantity == "model_bytes" else value_on(row, quantity)


def _pick(number: int, finalist: FinalistResult, profile: Profile) -> Pick | None:
    for choice in finalist.choices:
        if choice.device == profile.name:
            form = next((form for form in finalist.forms if form.form == choice.form), None)
            row = None if form is None else row_on(form.devices, profile.name)
            if form is not None and row is not None:
                return Pick(number, finalist, form, profile, row, choice)
    return None
