"""What a person should do about data before a training: sentences, the gravest first."""

from collections import Counter
from collections.abc import Iterator

from host.data.check import DataCheck
from host.data.dealing import TEST_FRACTION
from host.data.listing import Why
from host.training.metrics import wilson_interval

ENOUGH_IN_TEST = 30
FEW_GROUPS = 5
LARGE_IMBALANCE = 10
UNLIKE_SHAPES = 1.1
OFF_SHARE = 2.0
_SHARE_FOUND = 0.9  # of a class, as an example of what a test may show

_CONFLICTS: dict[Why, str] = {
    "two classes": "left out for standing in two classes, such as {first}: decide for one class "
    "and remove the other copy",
    "later part": "left out of an earlier part as copies of held-back ones, such as {first}: "
    "remove them, or the test would ask what was learnt by heart",
    "group in a later part": "left out because their group is held back in a later part, such as "
    "{first}: move whole groups into one part",
}


def advice(check: DataCheck) -> list[str]:
    """Every warning that the facts call for; empty where there is nothing to do."""
    return [
        *_about_files(check),
        *_about_likeness(check),
        *_about_sizes_of_classes(check),
        *_about_parts(check),
        *_about_images(check),
        *_about_signals(check),
    ]


def remarks(check: DataCheck) -> list[str]:
    """What is worth knowing and asks for nothing."""
    said = []
    if check.groups is None:
        said.append(
            "no groups are known: where several pictures show one part, name the parts with "
            "--group, so that none of them is learnt from and tested on"
        )
    if check.copies:
        files = sum(len(same) for same in check.copies)
        said.append(
            f"{files} files are {len(check.copies)} {_samples(check)} saved several times, such as "
            f"{' and '.join(check.copies[0][:2])}: they stay in one part"
        )
    if check.groups is not None and check.groups.mixed:
        name, classes = next(iter(check.groups.mixed.items()))
        said.append(
            f"{len(check.groups.mixed)} of {check.groups.count} groups hold several classes, such "
            f'as "{name}" with {" and ".join(classes)}: shares of classes may be uneven'
        )
    return said


def interval_width(count: int) -> tuple[int, float, float]:
    """How many of so many samples are nine of ten, and the 95 % interval of that share."""
    found = round(_SHARE_FOUND * count)
    return found, *wilson_interval(found, count)


def _about_files(check: DataCheck) -> Iterator[str]:
    unusable = [file for file in check.excluded if file.why == "unusable"]
    if unusable:
        yield (
            f"{_counted(len(unusable), 'file')} cannot be used and {_are(len(unusable))} left out, "
            f"such as {unusable[0].path} ({unusable[0].reason}): repair or remove "
            f"{'it' if len(unusable) == 1 else 'them'}"
        )
    for why, text in _CONFLICTS.items():
        files = [file for file in check.excluded if file.why == why]
        if files:
            yield f"{_counted(len(files), 'file')} {text.format(first=files[0].path)}"
    if check.unlisted:
        yield (
            f"{check.unlisted} files below the folder are not in the table {check.table}: add rows "
            "for them, or leave them out on purpose"
        )


def _about_likeness(check: DataCheck) -> Iterator[str]:
    if check.images is None or not check.images.alike:
        return
    pairs, count = check.images.alike, check.images.alike_count
    one, other = pairs[0].paths
    yield (
        f"{_counted(count, 'pair')} of pictures in different parts {_verb(count, 'look')} "
        f"alike, such as {one} ({pairs[0].parts[0]}) and {other} ({pairs[0].parts[1]}): where they "
        "show one part or one moment, put them into one group with --group, or remove one; a test "
        "on them flatters"
    )
    contrary = next((pair for pair in pairs if pair.classes[0] != pair.classes[1]), None)
    if contrary is not None:
        one, other = contrary.paths
        several = check.images.alike_contrary
        yield (
            f"{several} of these pairs {_are(several)} of different classes, such as {one} "
            f"and {other}: look whether one of them is labelled wrongly"
        )


def _about_sizes_of_classes(check: DataCheck) -> Iterator[str]:
    counts = {name: count for name, count in check.counts.items() if count}
    if len(counts) < 2:
        return
    largest, smallest = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    ratio = counts[largest] / counts[smallest]
    if ratio >= LARGE_IMBALANCE:
        yield (
            f'class "{largest}" has {ratio:.0f} times as many {_samples(check)} as '
            f'"{smallest}": training weights classes against that, but judge by AUROC or balanced '
            f'accuracy, not by accuracy, and collect more of "{smallest}"'
        )


def _about_parts(check: DataCheck) -> Iterator[str]:
    for name, count in check.parts["test"].items():
        if 0 < count < ENOUGH_IN_TEST:
            found, low, high = interval_width(count)
            enough = (
                f"bring test to {ENOUGH_IN_TEST} of it"
                if "test" in check.given
                else f"collect it up to {ENOUGH_IN_TEST / TEST_FRACTION:.0f} in all, which brings "
                f"{ENOUGH_IN_TEST} into test"
            )
            yield (
                f'class "{name}" has {count} {_samples(check)} in test: if {found} of them are '
                f"found, the true share is somewhere between {low:.0%} and {high:.0%} (95 % "
                f"interval, {100 * (high - low):.0f} points wide); {enough}"
            )
    yield from _about_groups(check)


def _about_groups(check: DataCheck) -> Iterator[str]:
    if check.groups is None:
        return
    for name, count in check.groups.by_part["test"].items():
        if 0 < count < FEW_GROUPS and check.parts["test"][name] > count:
            yield (
                f'class "{name}" has {check.parts["test"][name]} {_samples(check)} in test, but of '
                f"{_groups(check, count)}: what is of one is alike, so intervals there promise too "
                f"much; bring test to {FEW_GROUPS} at least"
            )
    if check.given:
        return
    for name, total in check.counts.items():
        share = check.parts["test"][name] / total if total else 0.0
        if share and not TEST_FRACTION / OFF_SHARE < share < TEST_FRACTION * OFF_SHARE:
            yield (
                f'test holds {share:.0%} of class "{name}" instead of {TEST_FRACTION:.0%}, because '
                "whole groups go there: collect more groups, or make them smaller"
            )


def _about_images(check: DataCheck) -> Iterator[str]:
    facts = check.images
    if facts is None:
        return
    shapes = Counter(
        size for sizes in facts.sizes.values() for size in sizes.elements() if all(size)
    )
    ratios = {size: size[0] / size[1] for size in shapes}
    if ratios and max(ratios.values()) > UNLIKE_SHAPES * min(ratios.values()):
        flat, tall = max(ratios, key=ratios.__getitem__), min(ratios, key=ratios.__getitem__)
        yield (
            f"pictures have different shapes, from {tall[0]}x{tall[1]} to {flat[0]}x{flat[1]}, and "
            "all are squeezed into one: crop them alike first"
        )
    occurring = {name: set(sizes) for name, sizes in facts.sizes.items() if sizes}
    if len(occurring) > 1 and not set.intersection(*occurring.values()):
        yield (
            "no size of picture occurs in every class: a network may tell classes by how the "
            "pictures were taken; take all in one way"
        )
    shares = {name: grey / n for name, grey in facts.grey.items() if (n := check.counts[name])}
    if shares and max(shares.values()) == 1.0 and min(shares.values()) == 0.0:
        grey = next(name for name, share in shares.items() if share == 1.0)
        coloured = next(name for name, share in shares.items() if share == 0.0)
        yield (
            f'class "{grey}" is all grey and class "{coloured}" all in colour: a network would '
            "tell them by that; take all in one way, or set the colour to grey"
        )


def _about_signals(check: DataCheck) -> Iterator[str]:
    facts = check.signals
    if facts is None:
        return
    for name in facts.rising:
        yield (
            f'channel "{name}" rises with every sample of every recording, as a clock does: leave '
            "it out with --channels"
        )
    for name in facts.flat:
        yield (
            f'channel "{name}" never changes in any recording: leave it out with --channels, or '
            "look at the sensor"
        )
    if facts.step < facts.length:
        yield (
            f"windows of {facts.length} samples every {facts.step} overlap, so there are fewer "
            "independent ones than counted, and intervals promise too much"
        )


def _samples(check: DataCheck) -> str:
    return "pictures" if check.kind == "images" else "windows"


def _groups(check: DataCheck, count: int) -> str:
    noun = "recording" if check.kind == "signals" else "group"
    return f"{_counted(count, noun)} only"


def _counted(count: int, noun: str) -> str:
    return f"1 {noun}" if count == 1 else f"{count} {noun}s"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _verb(count: int, plural: str) -> str:
    return f"{plural}s" if count == 1 else plural
