"""The page of a bundle that people read first, in English or Japanese."""

from collections.abc import Iterator, Sequence

from host.export.contents import (
    BundleAccuracy,
    BundleConfusion,
    BundleContents,
    BundleInspection,
)
from host.export.forms import Form
from host.export.model_card_devices import devices_section, limits_section
from host.export.model_card_gaps import not_measured
from host.export.model_card_texts import Language
from host.export.model_card_words import Words, code, number, percent, plain, table
from host.preprocessing import Preprocessing

_PACKAGES = {"onnx": "onnxruntime", "tflite": "ai-edge-litert", "ncnn": "ncnn"}


def model_card(contents: BundleContents, language: Language = "en") -> str:
    """What the model is for, how good, how fast, and where each number is from; Markdown."""
    words = Words.of(contents, language)
    sections = [
        f"# {contents.name}",
        *_purpose(contents, words),
        *_forms(contents, words),
        *_input(contents, words),
        *_accuracy(contents, words),
        *_inspection(contents, words),
        *devices_section(contents, words),
        *limits_section(contents, words),
        f"## {words('not_measured')}",
        "\n".join(f"- {sentence}" for sentence in not_measured(contents, language)),
        *_origin(contents, words),
        *_run(contents, words),
        *_verify(contents, words),
    ]
    return "\n\n".join(sections) + "\n"


def _purpose(contents: BundleContents, words: Words) -> Iterator[str]:
    yield f"## {words('purpose')}"
    inspection = contents.inspection(contents.shipped)
    if inspection is None:
        classes = words.listed(map(plain, contents.classes))
        task = words("task", count=len(contents.classes), classes=classes)
    else:
        (good,) = (name for name in contents.classes if name != inspection.defect_class)
        task = words("task_inspection", defect=plain(inspection.defect_class), good=plain(good))
    profiles = words.listed(plain(profile.name) for profile in contents.profiles)
    yield "\n".join(
        f"- {sentence}"
        for sentence in (
            task,
            words("for_class", device_class=contents.device_class, profiles=profiles),
            words("ships", form=contents.shipped),
            words("known_for"),
        )
    )


def _forms(contents: BundleContents, words: Words) -> Iterator[str]:
    yield f"## {words('forms')}"
    rows = [
        [
            code(contents.model_path(model.form)),
            model.form,
            number(len(model.content) / 1e6),
            words.listed(map(plain, model.float_layers)) or "–",
            words("yes") if model.form == contents.shipped else "–",
        ]
        for model in contents.models
    ]
    heads = ("file", "form", "size", "float_layers", "shipped")
    yield table([words(head) for head in heads], rows)


def _input(contents: BundleContents, words: Words) -> Iterator[str]:
    yield f"## {words('input')}"
    spec = contents.preprocessing
    if isinstance(spec, Preprocessing):
        colour = words(spec.colour_order)
        read = words("input_image", colour=colour, width=spec.width, height=spec.height)
        shape = _image_shape(contents, spec, words)
    else:
        read = words("input_signal", length=spec.length, channels=spec.channels)
        shape = words("window", length=spec.length)
    mean, std = (words.listed(map(number, values)) for values in (spec.mean, spec.std))
    lines = (
        read,
        words("scale", mean=mean, std=std),
        words("file_input", shape=shape, logits=_with_batch(contents, [len(contents.classes)])),
    )
    yield "\n".join(f"- {line}" for line in lines)


def _image_shape(contents: BundleContents, spec: Preprocessing, words: Words) -> str:
    places = [f"{words('height')} {spec.height}", f"{words('width')} {spec.width}"]
    channel = [f"{words('channel')} {spec.channels}"]
    axes = [*places, *channel] if contents.runtime == "tflite" else [*channel, *places]
    return _with_batch(contents, axes)


def _with_batch(contents: BundleContents, axes: Sequence[object]) -> str:
    """A shape in a file: of one example, and ncnn knows no batch."""
    batch = [] if contents.runtime == "ncnn" else [1]
    return f"({', '.join(map(str, [*batch, *axes]))})"


def _accuracy(contents: BundleContents, words: Words) -> Iterator[str]:
    yield f"## {words('accuracy')}"
    if not contents.accuracies:
        yield words("none")
        return
    head = [words(key) for key in ("form", "subset", "figure", "value", "interval")]
    rows = [_accuracy_row(accuracy, words) for accuracy in contents.accuracies]
    yield table([*head, "n", words("majority")], rows)
    yield words("accuracy_note")
    for confusion in contents.confusions:
        if confusion.form == contents.shipped:
            yield from _confusion(contents, confusion, words)


def _accuracy_row(accuracy: BundleAccuracy, words: Words) -> list[str]:
    return [
        accuracy.form,
        words.subset(accuracy.subset),
        words.metric(accuracy.metric),
        f"{accuracy.value:.3f}",
        words.shares(accuracy.low, accuracy.high),
        str(accuracy.n),
        "–" if accuracy.baseline is None else f"{accuracy.baseline:.3f}",
    ]


def _confusion(contents: BundleContents, confusion: BundleConfusion, words: Words) -> Iterator[str]:
    yield f"**{words('confusion', form=confusion.form, subset=words.subset(confusion.subset))}**"
    names = [plain(name) for name in contents.classes]
    rows = [[name, *map(str, counts)] for name, counts in zip(names, confusion.counts, strict=True)]
    yield table([words("true"), *names], rows)


def _inspection(contents: BundleContents, words: Words) -> Iterator[str]:
    if not contents.inspections:
        return
    yield f"## {words('inspection')}"
    first = contents.inspections[0]
    yield words(
        "inspection_note",
        defect=plain(first.defect_class),
        miss=f"{first.cost_of_miss:g}",
        false_alarm=f"{first.cost_of_false_alarm:g}",
    )
    yield f"**{words('cheapest')}**"
    heads = ("form", "threshold", "good", "false_alarms", "misses", "found", "cost")
    rows = [_cheapest_row(found) for found in contents.inspections]
    yield table([words(head) for head in heads], rows)
    yield f"**{words('at_rate', limit=percent(first.false_alarm_rate_limit))}**"
    interval = words("interval")
    head = [words("form"), words("recall"), interval, "n", words("false_alarm_rate"), interval, "n"]
    yield table(head, [_at_rate_row(found, words) for found in contents.inspections])


def _cheapest_row(found: BundleInspection) -> list[str]:
    counts = [str(count) for row in found.confusion for count in row]
    threshold = f"{found.threshold_probability:.4f}"
    return [found.form, threshold, *counts, number(found.cost_per_sample)]


def _at_rate_row(found: BundleInspection, words: Words) -> list[str]:
    cells: list[str] = [found.form]
    for share in (found.recall, found.false_alarm_rate):
        cells += [f"{share.value:.3f}", words.shares(share.low, share.high), str(share.n)]
    return cells


def _origin(contents: BundleContents, words: Words) -> Iterator[str]:
    yield f"## {words('origin')}"
    counts = words.listed(
        f"{words.subset(name)} {count}" for name, count in contents.data_counts.items()
    )
    rows = [
        ("made_by", words("made", version=contents.genba_version, when=contents.created_at)),
        ("study", code(contents.study)),
        ("space", code(contents.space)),
        ("candidate", code(contents.candidate)),
        ("seed", str(contents.seed)),
        ("data", counts),
        ("fingerprint", code(contents.data_fingerprint)),
        ("licence", plain(contents.data_licence) or words("not_stated")),
    ]
    yield "\n".join(f"- {words(key)}: {value}" for key, value in rows)


def _run(contents: BundleContents, words: Words) -> Iterator[str]:
    yield f"## {words('run')}"
    reads_images = isinstance(contents.preprocessing, Preprocessing)
    yield words("run_image" if reads_images else "run_signal")
    packages = f"numpy {_PACKAGES[contents.runtime]}{' pillow' if reads_images else ''}"
    file = "photo.png" if reads_images else "window.csv"
    commands = [f"pip install {packages}", f"python run.py {file}"]
    others: list[Form] = [form for form in contents.forms if form != contents.shipped]
    if others:
        commands.append(f"python run.py {file} {contents.model_path(others[0])}")
    yield _shell(*commands)
    if others:
        yield words("run_other")
    if contents.inspection(contents.shipped) is not None:
        yield words("run_inspection")


def _verify(contents: BundleContents, words: Words) -> Iterator[str]:
    yield f"## {words('verify')}"
    yield words("verify_genba")
    yield _shell(f"genba bundle verify {contents.name}-{contents.device_class}-*.zip --key KEY.pem")
    yield words("verify_openssl")
    yield _shell(
        "openssl pkeyutl -verify -pubin -inkey KEY.pem -rawin -in manifest.json"
        " -sigfile manifest.sig"
    )


def _shell(*commands: str) -> str:
    return "\n".join(("```sh", *commands, "```"))
