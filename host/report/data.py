"""A check of data for the terminal."""

from collections import Counter
from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from host.data.check import DataCheck, ImageFacts, SignalFacts
from host.data.split import SUBSETS
from host.report.data_advice import advice, remarks

FILES_SHOWN = 20
SIZES_SHOWN = 4
PAIRS_SHOWN = 10


def check_block(check: DataCheck) -> RenderableType:
    """Counts, what was left out, what looks alike, what to do, and whether training could start."""
    where = check.root if check.table is None else check.table
    lines = [*_facts(check), *_left_out(check), *_alike(check)]
    return Group(
        Text(f"Data in {where}", style="bold"),
        _counts(check),
        *map(Text, lines),
        *(Text(f"warning: {sentence}", style="yellow") for sentence in advice(check)),
        *(Text(f"note: {sentence}") for sentence in remarks(check)),
        *(Text(f"problem: {sentence}", style="bold red") for sentence in check.problems),
        Text(verdict(check), style="bold"),
    )


def verdict(check: DataCheck) -> str:
    """Whether a training could start."""
    return "training cannot start" if check.problems else "training can start"


def _counts(check: DataCheck) -> Table:
    """A row for each class, and one for all."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    noun = "images" if check.kind == "images" else "windows"
    table.add_column("class", overflow="fold")
    table.add_column(noun, justify="right")
    if check.signals is not None:
        table.add_column("recordings", justify="right")
    for subset in SUBSETS:
        table.add_column(f"{subset}{' (given)' if subset in check.given else ''}", justify="right")
    if check.groups is not None:
        table.add_column("groups\ntrain / val / test", justify="right")
    for name in check.classes:
        cells = [str(check.counts[name])]
        if check.signals is not None:
            cells.append(str(check.signals.recordings[name]))
        cells += [str(check.parts[subset][name]) for subset in SUBSETS]
        if check.groups is not None:
            cells.append(" / ".join(str(check.groups.by_part[s][name]) for s in SUBSETS))
        table.add_row(Text(name), *cells)
    totals = [str(sum(check.counts.values()))]
    if check.signals is not None:
        totals.append(str(sum(check.signals.recordings.values())))
    totals += [str(sum(check.parts[subset].values())) for subset in SUBSETS]
    table.add_row(Text("all", style="italic"), *totals)
    return table


def _facts(check: DataCheck) -> Iterator[str]:
    counts = [count for count in check.counts.values() if count]
    if len(counts) > 1:
        yield f"largest class : smallest class = {max(counts) / min(counts):.1f} : 1"
    if check.groups is not None:
        yield f"{check.groups.count} groups; none stands in two parts"
    if check.images is not None:
        yield from _image_lines(check.images)
    if check.signals is not None:
        yield from _signal_lines(check.signals)
    yield f"divided by seed {check.seed}; fingerprint {check.fingerprint[:16]}"


def _image_lines(facts: ImageFacts) -> Iterator[str]:
    sizes = sum(facts.sizes.values(), Counter[tuple[int, int]]())
    shown = [f"{w}x{h}: {count}" for (w, h), count in sizes.most_common(SIZES_SHOWN)]
    if len(sizes) > SIZES_SHOWN:
        shown.append(f"and {len(sizes) - SIZES_SHOWN} other sizes")
    yield f"sizes, width x height: {', '.join(shown) or 'none'}"
    grey, total = sum(facts.grey.values()), sum(sizes.values())
    modes = ", ".join(f"{mode}: {count}" for mode, count in facts.modes.most_common())
    yield f"colour: {grey} grey, {total - grey} in colour; stored as {modes or 'none'}"


def _signal_lines(facts: SignalFacts) -> Iterator[str]:
    yield f"channels: {', '.join(facts.channels) or 'none'}"
    yield (
        f"windows of {facts.length} samples, one every {facts.step}; recordings have "
        f"{facts.shortest} to {facts.longest} samples"
    )


def _left_out(check: DataCheck) -> Iterator[str]:
    for file in check.excluded[:FILES_SHOWN]:
        yield f"left out {file.path}: {file.reason}"
    if len(check.excluded) > FILES_SHOWN:
        yield f"and {len(check.excluded) - FILES_SHOWN} more, see --json"


def _alike(check: DataCheck) -> Iterator[str]:
    if check.images is None:
        return
    for pair in check.images.alike[:PAIRS_SHOWN]:
        (one, other), (part, other_part) = pair.paths, pair.parts
        yield f"alike, {pair.correlation:.3f}: {one} ({part}) and {other} ({other_part})"
    if check.images.alike_count > PAIRS_SHOWN:
        yield f"and {check.images.alike_count - PAIRS_SHOWN} more pairs, see --json"
