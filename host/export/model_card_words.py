"""Numbers, names and tables as a model card shows them in one language."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from host.export.contents import BundleContents, BundleMeasurement
from host.export.forms import Form
from host.export.model_card_texts import TEXTS, Language
from host.measurement.samples import NumberKind
from host.preprocessing import Preprocessing

# What Markdown would read as its own; a device says what its CPU is called, and may say anything.
_SPECIAL = re.compile(r"[\\`*\[\]<>|]")
_SCALES = {
    "latency_seconds": ("p50", 1e-3),
    "latency_p90_seconds": ("p90", 1e-3),
    "peak_rss_bytes": ("memory", 1e6),
    "energy_per_inference_joules": ("energy", 1e-3),
    "power_watts": ("power", 1.0),
    "model_bytes": ("model_size", 1e6),
}


@dataclass(frozen=True)
class Words:
    """One language, and whether the models read images or signals."""

    language: Language
    reads_images: bool

    @classmethod
    def of(cls, contents: BundleContents, language: Language) -> "Words":
        """The words for a bundle."""
        return cls(language, isinstance(contents.preprocessing, Preprocessing))

    def __call__(self, key: str, **values: object) -> str:
        """The text of that key, with what it has places for."""
        text = TEXTS[self.language][key]
        return text.format(**{"kind": self.kind} | values)

    @property
    def kind(self) -> str:
        """What the models read, in the plural."""
        return TEXTS[self.language]["images" if self.reads_images else "signals"]

    def subset(self, name: str) -> str:
        """A part of the data."""
        key = f"subset.{name}"
        return self(key) if key in TEXTS[self.language] else plain(name)

    def metric(self, name: str) -> str:
        """A figure of quality."""
        return TEXTS[self.language].get(f"metric.{name}") or plain(name)

    def quantity(self, name: str) -> str:
        """A quantity with its unit, as a heading."""
        return self(_SCALES[name][0]) if name in _SCALES else plain(name)

    def between(self, low: float, high: float | None) -> str:
        """An interval whose ends are in the unit of the heading."""
        if high is None:
            return self("from", low=number(low))
        return self("to", low=number(low), high=number(high))

    def shares(self, low: float | None, high: float | None) -> str:
        """An interval between 0 and 1."""
        if low is None or high is None:
            return self("no_interval")
        return self("to", low=f"{low:.3f}", high=f"{high:.3f}")

    def listed(self, items: Iterable[str]) -> str:
        """Several in a row."""
        return self("comma").join(items)

    def marked(self, text: str, kind: NumberKind | None) -> str:
        """A figure with the remark that it was not measured as such."""
        return text + self(f"kind.{kind or 'measured'}")


def scaled(quantity: str, value: float) -> float:
    """A value in SI units as its heading has it: ms, mJ, MB, W."""
    return value / _SCALES[quantity][1] if quantity in _SCALES else value


def number(value: float) -> str:
    """Four digits that count, more before the point where there are more."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    places = max(0, 3 - math.floor(math.log10(abs(value))))
    return f"{value:.{places}f}"


def percent(share: float) -> str:
    """A share as people read it."""
    return f"{100 * share:.4g} %"


def plain(text: str) -> str:
    """A name or a sentence of others on one line, which Markdown shows as it is."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return _SPECIAL.sub(r"\\\g<0>", line)


def code(text: str) -> str:
    """A name in the letters of a typewriter."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return f"`{line.replace('`', chr(39))}`"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; the cells are in it already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def measured_value(
    contents: BundleContents, form: Form, profile: str, quantity: str
) -> tuple[float, NumberKind] | None:
    """What was measured of a form on a profile, in SI units, and how; None where it was not."""
    if quantity == "model_bytes":
        model = next(model for model in contents.models if model.form == form)
        return float(len(model.content)), "measured"
    found = next((m for m in contents.measurements if (m.form, m.profile) == (form, profile)), None)
    return None if found is None else _of_measurement(found, quantity)


def _of_measurement(found: BundleMeasurement, quantity: str) -> tuple[float, NumberKind] | None:
    energy_kind = found.energy_kind or "measured"
    values: dict[str, tuple[float | None, NumberKind]] = {
        "latency_seconds": (found.latency_seconds, found.latency_kind),
        "latency_p90_seconds": (found.latency_p90_seconds, found.latency_kind),
        "peak_rss_bytes": (float(found.peak_rss_bytes), "measured"),
        "energy_per_inference_joules": (found.energy_per_inference_joules, energy_kind),
        "power_watts": (found.power_watts, energy_kind),
    }
    value, kind = values.get(quantity, (None, "measured"))
    return None if value is None else (value, kind)
