"""From the options of a command line to scores of a population, whatever is done with them."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.proxies.judging import averaged, ensembles_of, merits_of
from benchmarks.proxies.options import asked, settings_of
from benchmarks.proxies.population import Population, population
from benchmarks.proxies.score_file import ScoreFile
from benchmarks.proxies.scoring import gathered, score_missing
from benchmarks.proxies.setting import Setting
from benchmarks.proxies.timing import cpu_milliseconds
from cost_models.nnls import FloatArray
from host.proxies.base import Proxy


@dataclass(frozen=True)
class Collected:
    """A population and its scores in the settings of each column."""

    population: Population
    proxies: tuple[Proxy, ...]
    settings: dict[str, list[Setting]]
    scores: dict[str, dict[str, FloatArray]]
    """By column, then by proxy; of several inits the mean rank."""
    failures: dict[str, str]
    """What proxies that raised said last."""

    def merits(self, column: str) -> dict[str, FloatArray]:
        """The merits of proxies and ensembles for a column, by name."""
        return merits_of(self.scores[column], self.proxies)

    def cpu_milliseconds(self, networks: int) -> dict[str, float]:
        """CPU time a network by proxy and ensemble, all inits together; see `timing`."""
        groups: dict[str, tuple[str, ...]] = {one.name: (one.name,) for one in self.proxies}
        groups |= {one.name: one.members for one in ensembles_of(self.proxies)}
        known = [one for one in self.population.candidates if one is not None]
        settings = next(iter(self.settings.values()))
        # Cells stand in no order that has to do with what they cost.
        few = list(dict.fromkeys(known))[:networks]
        once = cpu_milliseconds(groups, few, settings[0])
        return {name: len(settings) * spent for name, spent in once.items()}

    def described(self) -> list[str]:
        """The population and the setting in words."""
        found = self.population
        inits = next(iter(self.settings.values()))
        one = inits[0]
        cells = (
            f"{found.path}: {len(found.cells):,} cells of protocol {found.protocol!r}, "
            f"{found.distinct:,} distinct graphs, {found.dead} cells without a path"
        )
        setting = (
            f"batch of {one.batch_size} {one.images} images of {one.resolution}x{one.resolution}; "
            f"{one.cells} cells a stage are looked at; {len(inits)} init(s) from seed {one.seed}"
        )
        return [
            cells,
            setting,
            *(
                f"{name} raised on some networks, which count as nan: {why}"
                for name, why in self.failures.items()
            ),
        ]


def collect(arguments: argparse.Namespace, proxies: Sequence[Proxy]) -> Collected:
    """Score what the file of the options lacks, and read the rest.

    Raises TableError, ScoreFileError, and UsageError for a batch that does not suit.
    """
    wanted = asked(arguments)
    sample = None if arguments.all else arguments.sample
    found = population(
        wanted.table,
        list(wanted.classes),
        arguments.protocol,
        sample=sample,
        seed=arguments.seed,
    )
    path: Path | None = arguments.scores
    file = ScoreFile.opened(path)
    failures: dict[str, str] = {}
    settings: dict[str, list[Setting]] = {}
    scores: dict[str, dict[str, FloatArray]] = {}
    for column, classes in wanted.classes.items():
        settings[column] = settings_of(arguments, classes)
        failures |= score_missing(found, proxies, settings[column], file, arguments.processes)
        scores[column] = averaged(gathered(found, proxies, settings[column], file), proxies)
    return Collected(found, tuple(proxies), settings, scores, failures)
