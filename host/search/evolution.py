"""Proposes candidates by NSGA-II (Deb et al. 2002, doi:10.1109/4235.996017), asked and told.

Scores are ranks among all candidates seen, so every new candidate moves the objectives of all.
Therefore `tell` takes the whole archive anew, and parents are chosen from it: survival, tournament
and crowding are pymoo's.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.evaluator import Evaluator
from pymoo.core.mutation import Mutation
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.operators.crossover.ux import UniformCrossover
from pymoo.operators.sampling.rnd import IntegerRandomSampling
from pymoo.problems.static import StaticProblem
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

Choices = tuple[int, ...]
Matrix = npt.NDArray[np.float64]
_LARGEST_VIOLATION = 1e6
_DRAWS_PER_PLACE = 1000


class Evolution:
    """Genetic search over vectors of choices; a pure function of the seed and of what it is told.

    `cardinalities` holds how many choices each decision has.
    """

    def __init__(
        self,
        cardinalities: Sequence[int],
        *,
        objectives: int,
        constraints: int,
        population: int,
        seed: int,
    ) -> None:
        self._problem = Problem(
            n_var=len(cardinalities),
            n_obj=objectives,
            n_ieq_constr=constraints,
            xl=np.zeros(len(cardinalities)),
            xu=np.array(cardinalities) - 1,
            vtype=int,
        )
        self._algorithm = NSGA2(
            pop_size=population,
            sampling=IntegerRandomSampling(),
            crossover=UniformCrossover(prob=0.9),
            mutation=_Resample(),
            seed=seed,
        )
        self._algorithm.setup(self._problem)
        self._parents: Any = None
        self._seen: set[Choices] = set()
        self._size = math.prod(cardinalities)

    def ask(self) -> list[Choices]:
        """Up to a population of new vectors, none of them asked before; empty when none is left."""
        algorithm = self._algorithm
        if self._parents is None:
            proposed = algorithm.initialization.do(
                self._problem,
                algorithm.pop_size,
                algorithm=algorithm,
                random_state=algorithm.random_state,
            )
        else:
            proposed = algorithm.mating.do(
                self._problem,
                self._parents,
                algorithm.pop_size,
                algorithm=algorithm,
                random_state=algorithm.random_state,
            )
        fresh = self._unseen(proposed.get("X"))
        # Mating knows only the parents: where it repeats itself, new blood fills the generation.
        for _ in range(_DRAWS_PER_PLACE * algorithm.pop_size):
            if len(fresh) == algorithm.pop_size or len(self._seen) >= self._size:
                break
            drawn = algorithm.random_state.integers(self._problem.xl, self._problem.xu + 1)
            fresh += self._unseen([drawn])
        return fresh

    def _unseen(self, rows: Any) -> list[Choices]:
        fresh = []
        for row in rows:
            choices = tuple(int(choice) for choice in row)
            if choices not in self._seen:
                self._seen.add(choices)
                fresh.append(choices)
        return fresh

    def tell(self, archive: Sequence[Choices], objectives: Matrix, constraints: Matrix) -> None:
        """Choose the next parents from all candidates known.

        `objectives` (candidates, objectives) are minimised; a candidate is feasible where its row
        of `constraints` holds nothing above zero.
        """
        violations = np.minimum(constraints, _LARGEST_VIOLATION)
        population = Population.new("X", np.array(archive, dtype=int))
        Evaluator().eval(StaticProblem(self._problem, F=objectives, G=violations), population)
        self._seen.update(archive)
        self._parents = self._algorithm.survival.do(
            self._problem,
            population,
            n_survive=min(self._algorithm.pop_size, len(population)),
            algorithm=self._algorithm,
            random_state=self._algorithm.random_state,
        )


def non_dominated(objectives: Matrix) -> list[int]:
    """Indices of the rows that no other row dominates; all columns are minimised."""
    if len(objectives) == 0:
        return []
    front = NonDominatedSorting().do(objectives, only_non_dominated_front=True)
    return sorted(int(index) for index in front)


class _Resample(Mutation):  # type: ignore[misc]
    """Draws each decision anew with probability one over their number: choices have no order."""

    def _do(self, problem: Any, X: Any, *_: Any, random_state: Any, **__: Any) -> Any:  # noqa: N803
        drawn = random_state.integers(problem.xl, problem.xu + 1, size=X.shape)
        mutated = random_state.random(X.shape) < 1.0 / problem.n_var
        return np.where(mutated, drawn, X)
