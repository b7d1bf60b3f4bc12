"""The targets of `--check` and whether they are reached."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.cost_models.protocols import (
    Figures,
    HelpFigures,
    few_shot,
    help_columns,
    help_protocol,
)
from benchmarks.cost_models.speed import Speed, speed
from benchmarks.cost_models.tables import TableError, number_columns, read_table

HELP_EVERY, HELP_TRIMMED = 0.975, 0.960
RASPI4, RASPI4_BAR, RASPI4_N = "raspi4_latency_ms", 0.95, 20
EDGEGPU, EDGEGPU_BAR, EDGEGPU_N = "edgegpu_latency_ms", 0.975, 100
COVERAGE_BAR, COVERAGE_N, COVERAGE_SEEDS = (0.88, 0.93), 100, 30
PREDICTIONS_BAR, FIT_SECONDS_BAR = 20_000.0, 1.0
EXACT_WIDTH = 1e-3
"""An interval narrower than this says that a device is predicted exactly: analytic columns are
additive without noise, and what share of their rounding errors it holds says nothing."""
_SEEDS = 5


@dataclass(frozen=True)
class Check:
    """Every figure that has a target; `coverage` holds one entry for each device."""

    help: HelpFigures
    raspi4: Figures
    edgegpu: Figures
    coverage: tuple[Figures, ...]
    speed: Speed

    @property
    def exact(self) -> list[Figures]:
        """The devices that are predicted exactly, analytic ones; see EXACT_WIDTH."""
        return [figures for figures in self.coverage if figures.width < EXACT_WIDTH]

    @property
    def covering(self) -> list[Figures]:
        """Of the others, those whose 90 % intervals hold between 88 and 93 % of the values."""
        low, high = COVERAGE_BAR
        inside = [figures for figures in self.coverage if low <= figures.coverage <= high]
        return [figures for figures in inside if figures not in self.exact]

    @property
    def astray(self) -> list[Figures]:
        """The devices whose intervals hold too few or too many."""
        fine = [*self.exact, *self.covering]
        return [figures for figures in self.coverage if figures not in fine]

    @property
    def missed(self) -> list[str]:
        """The targets that are not reached, each in words."""
        edgegpu, raspi4 = self.edgegpu.rho or 0.0, self.raspi4.rho or 0.0
        bars = {
            f"HELP N=10 all >= {HELP_EVERY}": self.help.mean_every >= HELP_EVERY,
            f"HELP N=10 trimmed >= {HELP_TRIMMED}": self.help.mean_trimmed >= HELP_TRIMMED,
            f"raspi4 N={RASPI4_N} >= {RASPI4_BAR}": raspi4 >= RASPI4_BAR,
            f"edgegpu N={EDGEGPU_N} >= {EDGEGPU_BAR}": edgegpu >= EDGEGPU_BAR,
            "coverage 88-93 % on every device": not self.astray,
            f">= {PREDICTIONS_BAR:,.0f} predictions a second": self.speed.predictions_per_second
            >= PREDICTIONS_BAR,
            f"fit at N=100 <= {FIT_SECONDS_BAR:.0f} s": self.speed.fit_seconds <= FIT_SECONDS_BAR,
        }
        return [name for name, holds in bars.items() if not holds]

    def as_json(self) -> dict[str, Any]:
        """For `--json`, in SI units but for the values of the table."""
        means = {"mean_all": self.help.mean_every, "mean_trimmed": self.help.mean_trimmed}
        return {
            **asdict(self),
            "help": asdict(self.help) | means,
            "devices_covering": len(self.covering),
            "devices_exact": len(self.exact),
            "missed": self.missed,
        }


def check(path: Path) -> Check:
    """All figures on the table of HELP's and HW-NAS-Bench's devices; raises TableError."""
    names = number_columns(path)
    six = help_columns(names)
    for wanted in (RASPI4, EDGEGPU):
        if wanted not in names:
            raise TableError(f"{path} has no column {wanted!r}, which --check needs")
    table = read_table(path, names)

    def one(column: str, count: int, seeds: int = _SEEDS) -> Figures:
        return few_shot(table, column, [count], seeds, "d-optimal")[0]

    return Check(
        help=help_protocol(table, six, [10], _SEEDS, "d-optimal")[0],
        raspi4=one(RASPI4, RASPI4_N),
        edgegpu=one(EDGEGPU, EDGEGPU_N),
        coverage=tuple(one(name, COVERAGE_N, COVERAGE_SEEDS) for name in names),
        speed=speed(),
    )
