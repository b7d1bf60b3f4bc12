"""From a space to a front: calibrate the cost models, breed candidates, measure what decides."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from cost_models.base import Prediction
from cost_models.design import d_optimal
from host.config import StudyConfig
from host.errors import UsageError
from host.search.evolution import Evolution, non_dominated
from host.spaces.base import Candidate, sample
from host.study.ledger import Ledger
from host.study.limits import InfeasibleError, Limit, Miss, Target, closest
from host.study.proposal import Proposal, Proposer
from host.study.report import Reporter
from host.study.scoring import Scorer
from host.study.surrogates import MIN_MEASUREMENTS, Surrogates, all_targets

Matrix = npt.NDArray[np.float64]

POOL = 300
"""Candidates from which those for calibration are chosen (cost-model literature: 600 of 15,625)."""
GENERATIONS_PER_FIT = 3
PROPOSALS_PER_CANDIDATE = 10
"""So many proposals may be made for each candidate of the budget before the search gives up."""


class SpaceTooSmallError(UsageError):
    """The space has too few candidates to fit a cost model on."""


@dataclass
class Search:
    """One search. Every step is a function of the configuration, the seed and the measurements.

    So a study that was stopped runs the same steps again, and whatever the store holds is not
    done twice.
    """

    config: StudyConfig
    limits: Sequence[Limit]
    proposer: Proposer
    scorer: Scorer
    ledger: Ledger
    surrogates: Surrogates
    reporter: Reporter
    on_scored: Callable[[Sequence[Proposal]], None]
    """Told of candidates when they have scores."""
    archive: dict[str, Proposal] = field(default_factory=dict)
    """Candidates with scores, by key."""
    hopeless: dict[str, Proposal] = field(default_factory=dict)
    """Candidates without scores, because their upper bounds exceed a limit as far as is known."""
    foretold: dict[tuple[str, str, Target], Prediction] = field(default_factory=dict)
    """What was predicted of a candidate on a device just before it was measured."""

    def calibrate(self) -> None:
        """Measure a few candidates from which the cost models learn most, and fit them."""
        self.reporter.stage("calibrate")
        rng = np.random.default_rng(self.config.seed)
        wanted = min(POOL, math.prod(len(d.choices) for d in self.proposer.space.decisions))
        # A proposer of its own: what is drawn here and not chosen is still to be found later.
        drawn = Proposer(self.proposer.space, self.proposer.task)
        pool: list[Proposal] = []
        for _ in range(10 * wanted):
            if len(pool) == wanted:
                break
            pool += drawn.fresh([sample(self.proposer.space, rng)])
        pool = [p for p in pool if not self._too_large(p)] or pool
        count = min(self.config.budget.calibration, len(pool))
        if count < MIN_MEASUREMENTS:
            raise SpaceTooSmallError(
                f"the space holds only {len(pool)} different candidates, {MIN_MEASUREMENTS} are "
                "needed to calibrate: allow more in [space]"
            )
        rows = self.surrogates.design_rows(pool)
        self._measure_to_calibrate([pool[index] for index in d_optimal(rows, count)])
        # What was rejected or failed teaches nothing: others stand in for it.
        while (missing := self._missing()) > 0:
            taken = np.array([p.key in self.ledger.keys for p in pool])
            spare = [p for p in pool if p.key not in self.ledger.keys]
            count = min(missing, len(spare), self._left())
            if count <= 0:
                break
            best = d_optimal(rows[~taken], count, chosen_rows=rows[taken])
            self._measure_to_calibrate([spare[index] for index in best])
        self.surrogates.fit(self.ledger, self.archive)

    def _measure_to_calibrate(self, drawn: Sequence[Proposal]) -> None:
        chosen = self.proposer.fresh(proposal.candidate for proposal in drawn)
        self.ledger.measure(chosen)
        self._score(chosen)

    def _missing(self) -> int:
        """How many more candidates the device with the fewest usable measurements needs."""
        usable = self.surrogates.usable(self.ledger, self.archive)
        return MIN_MEASUREMENTS - min(len(keys) for keys in usable.values())

    def explore(self) -> None:
        """Breed candidates until the budget of scores is spent; measure the doubtful ones."""
        self.reporter.stage("search")
        space = self.proposer.space
        evolution = Evolution(
            [len(decision.choices) for decision in space.decisions],
            objectives=1 + len(self.ledger.devices),
            constraints=len(self.limits),
            population=self.config.search.population,
            seed=self.config.seed,
        )
        budget = self.config.budget
        generation = 0
        while (
            len(self.archive) < budget.candidates
            and len(self.archive) + len(self.hopeless) < PROPOSALS_PER_CANDIDATE * budget.candidates
        ):
            asked = evolution.ask()
            if not asked:
                break
            fresh = self.proposer.fresh(Candidate(choices) for choices in asked)
            self.hopeless |= {p.key: p for p in fresh}
            # All of them: the last fit may have moved a bound below its limit.
            waiting = list(self.hopeless.values())
            bounds = self.surrogates.upper_bounds(self.limits, waiting)
            promising = [p for p, row in zip(waiting, bounds, strict=True) if (row <= 0).all()]
            self._score(promising[: budget.candidates - len(self.archive)])
            known = self._candidates()
            everything = [p for p in known if not self._failed(p)] or known
            evolution.tell(
                [p.candidate.choices for p in everything],
                self._objectives(everything),
                self.surrogates.upper_bounds(self.limits, everything),
            )
            generation += 1
            if generation % GENERATIONS_PER_FIT == 0:
                self._measure_doubtful()

    def settle(self) -> list[Proposal]:
        """Measure the front until all of it is measured or the budget is spent; best score first.

        Raises InfeasibleError where no measured candidate meets all limits.
        """
        self.reporter.stage("front")
        while self._left() > 0:
            unmeasured = [p for p in self._expected_front() if p.key not in self.ledger.keys]
            if not unmeasured:
                break
            self._measure(_spread(unmeasured, self._left()))
        feasible = [p for p in self.measured() if self._excess(p) <= 0]
        if not feasible:
            raise InfeasibleError(self._why_nothing_fits())
        combined = self.combined_scores()
        scores = np.array([combined[p.key] for p in feasible])
        objectives = np.column_stack([-scores, self._measured_latencies(feasible)])
        front = [feasible[index] for index in non_dominated(objectives)]
        return sorted(front, key=lambda p: (-combined[p.key], p.key))

    def within_limits(self, proposal: Proposal) -> bool:
        """Whether a measured candidate meets every limit."""
        return self._excess(proposal) <= 0

    def measured(self) -> list[Proposal]:
        """The candidates that every device has measured."""
        return [p for p in self.archive.values() if self.ledger.complete(p.key)]

    def combined_scores(self) -> dict[str, float]:
        """The log-rank of every scored candidate among all of them."""
        keys = list(self.archive)
        return dict(zip(keys, (float(s) for s in self.scorer.combined(keys)), strict=True))

    def _score(self, proposals: Sequence[Proposal]) -> None:
        before = len(self.archive)
        total = self.config.budget.candidates
        self.scorer.score(
            proposals, lambda done: self.reporter.progress("candidates", before + done, total)
        )
        for proposal in proposals:
            self.archive[proposal.key] = proposal
            self.hopeless.pop(proposal.key, None)
        self.on_scored(proposals)

    def _measure(self, proposals: Sequence[Proposal]) -> None:
        """Predict, measure, fit again."""
        for device, target in all_targets([d.name for d in self.ledger.devices]):
            predictions = self.surrogates.predict(device, target, proposals)
            for proposal, prediction in zip(proposals, predictions, strict=True):
                self.foretold[proposal.key, device, target] = prediction
        self.ledger.measure(proposals)
        self._score([p for p in proposals if p.key not in self.archive])
        self.surrogates.fit(self.ledger, self.archive)

    def _measure_doubtful(self) -> None:
        """Spend part of half the free budget where it decides most.

        On the largest networks whose predicted values meet the limits and whose upper bounds do
        not, and on the front as it is expected.
        """
        budget = self.config.budget
        half = (budget.measurements - budget.calibration) // 2
        spent = len(self.ledger.keys) - budget.calibration
        count = min(max(1, half // 3), half - spent)
        if count <= 0:
            return
        doubtful = [p for p in self.hopeless.values() if self._may_fit(p)]
        near = [p for p in self._expected_front() if p.key not in self.ledger.keys]
        # The largest doubtful networks first: they gain most if the limit turns out to hold.
        doubtful.sort(key=lambda p: (-p.network.macs, p.key))
        wanted = [*doubtful[: (count + 1) // 2], *_spread(near, count)]
        chosen = list({p.key: p for p in wanted}.values())[:count]
        if chosen:
            self._measure(chosen)

    def _may_fit(self, proposal: Proposal) -> bool:
        """Whether the predicted values themselves, not their upper bounds, meet every limit."""
        if self._failed(proposal):
            return False
        return self._miss(proposal).excess <= 0 if self.limits else True

    def _failed(self, proposal: Proposal) -> bool:
        """Whether a device was asked for this candidate and could not run it."""
        return proposal.key in self.ledger.keys and not self.ledger.complete(proposal.key)

    def _why_nothing_fits(self) -> str:
        if not self.limits or all(self._failed(p) for p in self._candidates()):
            return (
                "no candidate was measured on every device: see the failures above, or allow "
                "other networks in [space]"
            )
        misses = [self._miss(p) for p in self._candidates() if not self._failed(p)]
        if min(miss.excess for miss in misses) <= 0:
            return (
                f"all {self.config.budget.measurements} measurements were spent before a candidate "
                "was found within all limits: raise measurements in [budget]"
            )
        return closest(misses).sentence()

    def _expected_front(self) -> list[Proposal]:
        """The front by score and predicted latency of what should meet the limits.

        Measured candidates count by what was measured of them. Where the upper bounds leave
        nothing, the predicted values decide.
        """
        hopeful = [p for p in self.archive.values() if self._excess(p) <= 0]
        if not hopeful:
            hopeful = [p for p in self._candidates() if self._may_fit(p)]
        if not hopeful:
            return []
        objectives = self._objectives(hopeful)
        return [hopeful[index] for index in non_dominated(objectives)]

    def _candidates(self) -> list[Proposal]:
        return [*self.archive.values(), *self.hopeless.values()]

    def _objectives(self, proposals: Sequence[Proposal]) -> Matrix:
        """Negative score, and latencies: as measured where they are, else as predicted.

        A candidate without a score ranks last.
        """
        combined = self.combined_scores()
        worst = min(combined.values()) - 1.0
        scores = [combined.get(p.key, worst) for p in proposals]
        latencies = self.surrogates.latencies(proposals)
        for row, proposal in enumerate(proposals):
            for column, device in enumerate(self.ledger.devices):
                measured = self.ledger.value(proposal.key, device.name, "latency_seconds")
                if measured is not None:
                    latencies[row, column] = measured
        return np.column_stack([-np.array(scores), latencies])

    def _measured_latencies(self, proposals: Sequence[Proposal]) -> Matrix:
        rows = [
            [
                seconds
                for device in self.ledger.devices
                if (seconds := self.ledger.value(p.key, device.name, "latency_seconds")) is not None
            ]
            for p in proposals
        ]
        return np.array(rows)

    def _excess(self, proposal: Proposal) -> float:
        """The largest excess over a limit: of what was measured, else of the upper bounds."""
        if self._failed(proposal):
            return math.inf
        if not self.limits:
            return 0.0
        if proposal.key in self.ledger.keys:
            return self._miss(proposal).excess
        return float(self.surrogates.upper_bounds(self.limits, [proposal]).max())

    def _miss(self, proposal: Proposal) -> Miss:
        """The limit exceeded by most: by the measured value where there is one."""
        misses = [self._against(limit, proposal) for limit in self.limits]
        return max(misses, key=lambda miss: miss.excess)

    def _against(self, limit: Limit, proposal: Proposal) -> Miss:
        kind: Literal["measured", "predicted", "computed"] = "computed"
        if limit.quantity == "model_bytes" or limit.device is None:
            value = float(proposal.model_bytes)
        elif self.ledger.outcome(proposal.key, limit.device) is not None:
            measured = self.ledger.value(proposal.key, limit.device, limit.quantity)
            # A device that failed to run the model does not meet the limit.
            value = math.inf if measured is None else measured
            kind = "measured"
        else:
            prediction = self.surrogates.predict(limit.device, limit.quantity, [proposal])[0]
            value, kind = prediction.value, "predicted"
        return Miss(proposal.text, limit, value, kind)

    def _too_large(self, proposal: Proposal) -> bool:
        return any(
            limit.quantity == "model_bytes" and limit.excess(proposal.model_bytes) > 0
            for limit in self.limits
        )

    def _left(self) -> int:
        return self.config.budget.measurements - len(self.ledger.keys)


def _spread(proposals: Sequence[Proposal], count: int) -> list[Proposal]:
    """Up to `count` of them, evenly by size: both ends of a front and what lies between."""
    ordered = sorted(proposals, key=lambda p: (p.network.macs, p.key))
    if len(ordered) <= count:
        return ordered
    places = np.linspace(0, len(ordered) - 1, count).round().astype(int)
    return [ordered[index] for index in dict.fromkeys(places.tolist())]
