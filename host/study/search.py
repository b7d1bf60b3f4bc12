"""From a space to a front: calibrate the cost models, breed candidates, measure what decides."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cost_models.base import Prediction
from cost_models.design import d_optimal
from host.config import StudyConfig
from host.errors import UsageError
from host.search.evolution import Evolution, non_dominated
from host.search.hypervolume import course, is_converged
from host.spaces.base import Candidate, sample
from host.study.feasibility import Feasibility
from host.study.ledger import Ledger
from host.study.limits import InfeasibleError, Limit, Target, why_infeasible
from host.study.proposal import Proposal, Proposer
from host.study.report import Reporter
from host.study.scoring import Scorer
from host.study.spending import Spending
from host.study.surrogates import MIN_MEASUREMENTS, Surrogates

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
    done twice. Where time ended a step is kept by `spending`.
    """

    config: StudyConfig
    limits: Sequence[Limit]
    proposer: Proposer
    scorer: Scorer
    ledger: Ledger
    surrogates: Surrogates
    spending: Spending
    reporter: Reporter
    on_scored: Callable[[Sequence[Proposal]], None]
    """Told of candidates when they have scores."""
    archive: dict[str, Proposal] = field(default_factory=dict)
    """Candidates with scores, by key."""
    hopeless: dict[str, Proposal] = field(default_factory=dict)
    """Candidates without scores, because their upper bounds exceed a limit as far as is known."""
    foretold: dict[tuple[str, str, Target], Prediction] = field(default_factory=dict)
    """What was predicted of a candidate on a profile just before it was measured."""
    marks: list[int] = field(default_factory=list)
    """How many candidates had scores after each generation."""
    stopped_because: str = ""

    def __post_init__(self) -> None:
        self.feasibility = Feasibility(self.limits, self.ledger, self.surrogates)

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
        pool = [p for p in pool if not self.feasibility.is_too_large(p)] or pool
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
        """How many more candidates the profile with the fewest usable measurements needs."""
        usable = [self.ledger.usable(device.name) for device in self.ledger.devices]
        return MIN_MEASUREMENTS - min(len(keys) for keys in usable)

    def explore(self) -> None:
        """Breed candidates until the front grows no more or a budget is spent; measure the
        doubtful ones.
        """
        self.reporter.stage("search")
        space = self.proposer.space
        evolution = Evolution(
            [len(decision.choices) for decision in space.decisions],
            objectives=1 + len(self.ledger.devices),
            constraints=len(self.limits),
            population=self.config.search.population,
            seed=self.config.seed,
        )
        while not self._is_over():
            asked = evolution.ask()
            if not asked:
                self.stopped_because = "every candidate of the space was looked at"
                break
            self._take(asked)
            known = self._candidates()
            everything = [p for p in known if not self.feasibility.failed(p)] or known
            evolution.tell(
                [p.candidate.choices for p in everything],
                self._objectives(everything),
                self.surrogates.upper_bounds(self.limits, everything),
            )
            self.marks.append(len(self.archive))
            if len(self.marks) % GENERATIONS_PER_FIT == 0:
                self._measure_doubtful()
            self._tell()
            self.spending.save()

    def settle(self) -> list[Proposal]:
        """Measure the front, then what stands right behind it, until the budget is spent.

        Predictions err: what they put behind the front may belong on it. Returns the front of what
        was measured, best score first. Raises InfeasibleError where nothing measured meets all
        limits.
        """
        self.reporter.stage("front")
        while (left := self._left()) > 0:
            hopeful = self._hopeful()
            taken = self.ledger.keys
            wanted = [p for p in self._front_of(hopeful) if p.key not in taken]
            wanted = wanted or self._front_of([p for p in hopeful if p.key not in taken])
            if not wanted:
                break
            self._measure(_spread(wanted, left))
        feasible = self._within(self.measured())
        if not feasible:
            raise InfeasibleError(self._why_nothing_fits())
        combined = self.combined_scores()
        return sorted(self._front_of(feasible), key=lambda p: (-combined[p.key], p.key))

    def measured(self) -> list[Proposal]:
        """The candidates that every profile has measured."""
        return [p for p in self.archive.values() if self.ledger.complete(p.key)]

    def combined_scores(self) -> dict[str, float]:
        """The log-rank of every scored candidate among all of them."""
        keys = list(self.archive)
        return dict(zip(keys, (float(s) for s in self.scorer.combined(keys)), strict=True))

    def hypervolumes(self, last: int | None = None) -> list[float]:
        """The course of the front: of the candidates that had scores after each generation, or
        after the `last` ones, the share of the box of objectives that those within limits dominate.

        Places among all scores and all latencies of today, so that early and late fronts compare.
        """
        proposals = list(self.archive.values())
        objectives = self._objectives(proposals)
        places = np.argsort(np.argsort(objectives, axis=0), axis=0) / len(proposals)
        places[~np.array(self.feasibility.met(proposals))] = 1.0
        return course(places, self.marks if last is None else self.marks[-last:])

    def _take(self, asked: Sequence[tuple[int, ...]]) -> None:
        """Score those of a generation, and of earlier ones, that can meet the limits."""
        fresh = self.proposer.fresh(Candidate(choices) for choices in asked)
        self.hopeless |= {p.key: p for p in fresh}
        # All of them: the last fit may have moved a bound below its limit.
        waiting = list(self.hopeless.values())
        bounds = self.surrogates.upper_bounds(self.limits, waiting)
        promising = [p for p, row in zip(waiting, bounds, strict=True) if (row <= 0).all()]
        self._score(promising[: self.config.budget.candidates - len(self.archive)])

    def _is_over(self) -> bool:
        """Whether the search ends after the generations made so far; says why."""
        budget, search = self.config.budget, self.config.search
        looked_at = len(self.archive) + len(self.hopeless)
        if len(self.archive) >= budget.candidates:
            why = f"all {budget.candidates} candidates of the budget have scores"
        elif looked_at >= PROPOSALS_PER_CANDIDATE * budget.candidates:
            why = f"of {looked_at} candidates most cannot meet the limits"
        elif self.spending.end("search", len(self.marks), self.spending.search_seconds_are_spent):
            why = f"the part of the {budget.minutes:g} minutes that is for the search is spent"
        elif self._has_converged():
            why = (
                f"the front's hypervolume gained less than {search.min_gain:.0%} in "
                f"{search.patience} generations"
            )
        else:
            return False
        self.stopped_because = why
        return True

    def _has_converged(self) -> bool:
        patience = self.config.search.patience
        if len(self.marks) <= patience:
            return False  # nothing to compare with yet, and a volume is dear
        volumes = self.hypervolumes(patience + 1)
        return is_converged(volumes, patience=patience, min_gain=self.config.search.min_gain)

    def _tell(self) -> None:
        """Say how the search stands."""
        hopeful = self._within(self.archive.values())
        if not hopeful:
            return
        combined = self.combined_scores()
        best = max(hopeful, key=lambda p: (combined[p.key], p.key))
        is_measured = best.key in self.ledger.keys
        kind = "measured" if is_measured else "predicted"
        names = [device.name for device in self.ledger.devices]
        latencies = dict(zip(names, self._latencies([best])[0].tolist(), strict=True))
        shown = ", ".join(f"{1e3 * s:.3g} ms on {name}" for name, s in latencies.items())
        facts = {
            "key": best.key,
            "text": best.text,
            "score": combined[best.key],
            "kind": kind,
            "latency_seconds": latencies,
            "scored": len(self.archive),
            "measured": len(self.ledger.keys),
        }
        self.reporter.found("best", facts, f"best score so far: {best.text}; {kind} {shown}")

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
        for profile, setting in self.surrogates.profiles.items():
            for target in setting.targets:
                predictions = self.surrogates.predict(profile, target, proposals)
                for proposal, prediction in zip(proposals, predictions, strict=True):
                    self.foretold[proposal.key, profile, target] = prediction
        self.ledger.measure(proposals)
        self._score([p for p in proposals if p.key not in self.archive])
        self.surrogates.fit(self.ledger, self.archive)

    def _measure_doubtful(self) -> None:
        """Spend a third of the free budget, evenly over the search, where it decides most.

        On the largest networks whose predicted values meet the limits and whose upper bounds do
        not, and on the front as it is expected.
        """
        budget = self.config.budget
        free = budget.measurements - budget.calibration
        due = math.ceil(free / 3 * min(1.0, len(self.archive) / budget.candidates))
        spent = len(self.ledger.keys) - budget.calibration
        count = min(due - spent, self._left())
        if count <= 0:
            return
        doubtful = [p for p in self.hopeless.values() if self.feasibility.may_be_met(p)]
        near = [p for p in self._front_of(self._hopeful()) if p.key not in self.ledger.keys]
        # The largest doubtful networks first: they gain most if the limit turns out to hold.
        doubtful.sort(key=lambda p: (-p.network.macs, p.key))
        wanted = [*doubtful[: (count + 1) // 2], *_spread(near, count)]
        chosen = list({p.key: p for p in wanted}.values())[:count]
        if chosen:
            self._measure(chosen)

    def _why_nothing_fits(self) -> str:
        known = [p for p in self._candidates() if not self.feasibility.failed(p)]
        if not self.limits or not known:
            return (
                "no candidate was measured on every device: see the failures above, or allow "
                "other networks in [space]"
            )
        misses = {p.text: self.feasibility.misses(p) for p in known}
        if any(all(miss.excess <= 0 for miss in found) for found in misses.values()):
            return (
                f"the measurements of the budget ({len(self.ledger.keys)} made) were spent before "
                "a candidate was found within all limits: raise measurements in [budget]"
            )
        return why_infeasible(misses)

    def _hopeful(self) -> list[Proposal]:
        """What should meet the limits: by the upper bounds, or where they leave nothing, by the
        predicted values. What was measured counts by that.
        """
        return self._within(self.archive.values()) or [
            p for p in self._candidates() if self.feasibility.may_be_met(p)
        ]

    def _front_of(self, proposals: Sequence[Proposal]) -> list[Proposal]:
        """Those that none of the others beats in score and in every latency."""
        if not proposals:
            return []
        return [proposals[index] for index in non_dominated(self._objectives(proposals))]

    def _within(self, proposals: Iterable[Proposal]) -> list[Proposal]:
        """Those that meet every limit."""
        asked = list(proposals)
        return [p for p, is_met in zip(asked, self.feasibility.met(asked), strict=True) if is_met]

    def _candidates(self) -> list[Proposal]:
        return [*self.archive.values(), *self.hopeless.values()]

    def _objectives(self, proposals: Sequence[Proposal]) -> Matrix:
        """Negative score, and latencies: as measured where they are, else as predicted.

        A candidate without a score ranks last.
        """
        combined = self.combined_scores()
        worst = min(combined.values()) - 1.0
        scores = [combined.get(p.key, worst) for p in proposals]
        return np.column_stack([-np.array(scores), self._latencies(proposals)])

    def _latencies(self, proposals: Sequence[Proposal]) -> Matrix:
        """A row a proposal, a column a profile: as measured where it is, else as predicted."""
        latencies = self.surrogates.latencies(proposals)
        for row, proposal in enumerate(proposals):
            for column, device in enumerate(self.ledger.devices):
                measured = self.ledger.value(proposal.key, device.name, "latency_seconds")
                if measured is not None:
                    latencies[row, column] = measured
        return latencies

    def _left(self) -> int:
        """How many candidates may still be measured."""
        made = len(self.ledger.keys)
        if self.ledger.has_lost:
            return 0
        if self.spending.end("measuring", made, self.spending.device_seconds_are_spent):
            return 0
        return self.config.budget.measurements - made


def _spread(proposals: Sequence[Proposal], count: int) -> list[Proposal]:
    """Up to `count` of them, evenly by size: both ends of a front and what lies between."""
    ordered = sorted(proposals, key=lambda p: (p.network.macs, p.key))
    if len(ordered) <= count:
        return ordered
    places = np.linspace(0, len(ordered) - 1, count).round().astype(int)
    return [ordered[index] for index in dict.fromkeys(places.tolist())]
