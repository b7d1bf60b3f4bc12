"""The scores of a study's candidates, and what they come to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from host.proxies.catalogue import proxies_by_name
from host.proxies.ensembles import Ensemble, combine
from host.proxies.executors import Executor, InProcess
from host.proxies.scoring import Progress, Subject, Table, View, score_subjects
from host.store.store import Store
from host.study.proposal import Proposal


@dataclass
class Scorer:
    """Scores proposals by the members of an ensemble, reading from the store what it holds.

    `subject` says what proxies see of a proposal.
    """

    store: Store
    ensemble: Ensemble
    view: View
    subject: Callable[[Proposal], Subject]
    executor: Executor = field(default_factory=InProcess)
    scores: Table = field(default_factory=dict)

    def score(self, proposals: Sequence[Proposal], on_done: Callable[[int], None]) -> None:
        """Fill `scores` for these proposals; `on_done` is told with each how many are ready."""
        ready = 0

        def tell(progress: Progress) -> None:
            nonlocal ready
            while ready < progress.done:
                ready += 1
                on_done(ready)

        (found,) = score_subjects(
            [self.subject(proposal) for proposal in proposals],
            proxies_by_name(self.ensemble.members),
            [self.view],
            store=self.store,
            executor=self.executor,
            on_progress=tell,
        )
        self.scores |= found

    def combined(self, keys: Sequence[str]) -> npt.NDArray[np.float64]:
        """The log-rank of these candidates among themselves; higher is better."""
        table = {name: [self.scores[key][name] for key in keys] for name in self.ensemble.members}
        return combine(self.ensemble, table)
