"""What a study has spent of its budget, over all its runs, and where the budget ended it.

An end is kept: a study that goes on makes the same steps up to it, however long they take now.
"""

import time
from collections.abc import Callable
from typing import Literal

from pydantic import Field

from host.config import BudgetConfig
from host.store.store import Store
from host.study.front import Value

SEARCH_SHARE = 0.5
"""The part of the time that is for the search; the rest is for the finalists."""

SPENDING = "spending"
"""Name of the stored result that holds it."""

Clock = Callable[[], float]
End = Literal["search", "measuring"]


class _Kept(Value):
    """`ends` are steps by what ended there."""

    seconds: float = 0.0
    epochs: int = 0
    ends: dict[str, int] = Field(default_factory=dict)


class Spending:
    """Time from start to end without the stops, and the ends that a budget has brought about."""

    def __init__(
        self,
        store: Store,
        study_id: int,
        budget: BudgetConfig,
        device_seconds: Callable[[], float],
        clock: Clock = time.monotonic,
        *,
        counts: bool = True,
    ) -> None:
        """A study that has ended spends nothing more (not `counts`) when it is run again."""
        self.budget = budget
        self.device_seconds = device_seconds
        self._store, self._study_id, self._clock = store, study_id, clock
        known = store.studies.result(study_id, SPENDING)
        self._kept = _Kept() if known is None else _Kept.model_validate_json(known)
        self._before = self._kept.seconds
        self._began_at = clock()
        self._counts = counts

    @property
    def seconds(self) -> float:
        """Of all runs so far."""
        return self._before + (self._clock() - self._began_at if self._counts else 0.0)

    @property
    def saved_seconds(self) -> float:
        """Of all runs up to the last `save`."""
        return self._kept.seconds

    @property
    def epochs(self) -> int:
        """Epochs trained, of all candidates."""
        return self._kept.epochs

    def note_epoch(self) -> None:
        """One more epoch was trained."""
        self._keep(epochs=self._kept.epochs + 1)

    def save(self) -> None:
        """Keep the time spent."""
        self._keep()

    def search_seconds_are_spent(self) -> bool:
        """Whether the part of the time that is for the search is over."""
        limit = self.budget.seconds
        return limit is not None and self.seconds >= SEARCH_SHARE * limit

    def seconds_left(self) -> float | None:
        """Until the budget of time is spent, None where there is none."""
        limit = self.budget.seconds
        return None if limit is None else max(0.0, limit - self.seconds)

    def device_seconds_are_spent(self) -> bool:
        """Whether devices have worked as long as they may."""
        limit = self.budget.device_seconds
        return limit is not None and self.device_seconds() >= limit

    def end(self, what: End, at: int, is_over: Callable[[], bool]) -> bool:
        """Whether that ends at this step: where it ended before, or now for the first time."""
        known = self._kept.ends.get(what)
        if known is None and is_over():
            known = at
            self._keep(ends=self._kept.ends | {what: at})
        return known is not None and at >= known

    def _keep(self, **changes: object) -> None:
        self._kept = self._kept.model_copy(update={"seconds": self.seconds} | changes)
        self._store.studies.put_result(self._study_id, SPENDING, self._kept.model_dump_json())
