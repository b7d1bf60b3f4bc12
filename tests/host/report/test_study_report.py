"""The report of a study: complete in both languages, right in its numbers, safe with any name."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from string import Formatter

import pytest

from host.report.study import Usage, study_page, words_of, write_study
from host.report.study_sentences import SENTENCES
from host.report.study_texts import LABELS
from host.study.finalist import RankAgreement, Score, TrialsReport
from host.study.front import LimitLine

LANGUAGES = ("en", "ja")
USAGE = Usage.at_rate(2.0, 4000, price_per_kwh=27.5, currency="JPY")


class Reader(HTMLParser):
    """The visible text of a page, block by block, and whatever could load or run something."""

    VOID = frozenset({"meta", "br", "hr", "img", "link", "input"})
    CLOSES = frozenset({"td", "th", "p", "li", "h1", "h2", "h3", "caption", "text", "dd", "dt"})

    def __init__(self, page, *, quoted=True):
        super().__init__()
        self.blocks, self.tags, self.attributes = [""], [], []
        self.ids, self.open, self.quoted = [], [], quoted
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append((tag, dict(attrs).get("lang")))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag, f"{tag} is closed out of order"
        if tag in self.CLOSES:
            self.blocks.append("")

    def handle_data(self, data):
        inside = [tag for tag, _ in self.open]
        own_language = [language for _, language in self.open[1:] if language]
        if "style" not in inside and (self.quoted or not (own_language or "pre" in inside)):
            self.blocks[-1] += data

    @property
    def text(self):
        joined = "\n".join(" ".join(block.split()) for block in self.blocks)
        return re.sub(r"\n+", "\n", joined)


def read(report, language="en", **options):
    return Reader(study_page(report, language), **options).text


def doubtful(make):
    """A study in which everything that can be wrong is wrong."""
    row = make.on_device(
        "panel",
        latency_kind="derived",
        verdict="REJECT",
        verdict_reasons=["The CPU was slowed down."],
        latency_p90_seconds=None,
        agreement=None,
        predicted=False,
    )
    low = Score(value=0.71, low=0.65, high=0.76, n=120)
    choice = make.finalist(["panel"]).choices[0].model_copy(update={"within_limits": False})
    finalist = make.finalist(
        ["panel"],
        forms=[make.form("onnx-int8", [row], accuracy=low)],
        choices=[choice],
        bundles=[],
    )
    power = LimitLine(
        quantity="power_watts", device="panel", maximum=9.0, text="max_power_w = 9 on panel"
    )
    rate = LimitLine(
        quantity="latency_seconds", device="panel", maximum=0.05, text="rate_hertz = 20 on panel"
    )
    front = make.front(["panel", "kiosk"])
    kept = [one.model_copy(update={"devices": one.devices[:1]}) for one in front.rows]
    front = front.model_copy(update={"rows": kept, "limits": [*front.limits, power, rate]})
    return make.report(
        ["panel", "kiosk"],
        front=front,
        finalists=[finalist],
        trials=None,
        data=None,
        usage=Usage.at_rate(200.0, 4000, price_per_kwh=27.5, currency="JPY"),
    )


def no_doubts(make):
    """A study in which everything was measured and nothing is wrong."""
    quiet = make.on_device("panel", 0.005, joules=0.09)
    finalist = make.finalist(["panel"])
    forms = [form.model_copy(update={"devices": [quiet]}) for form in finalist.forms]
    row = make.row(0, ["panel"]).model_copy(update={"devices": [quiet]})
    return make.report(
        ["panel"],
        front=make.front(["panel"], rows=[row]),
        finalists=[finalist.model_copy(update={"forms": forms})],
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_stands_alone_and_says_its_language(make, language):
    page = study_page(make.report(usage=USAGE), language)
    reader = Reader(page)

    assert not re.search(r"[a-z]+://", page.split("</style>")[1])
    assert not re.search(r"https?:|url\((?!#)|@import", page)
    assert f'<html lang="{language}">' in page
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    assert not {"script", "img", "link", "iframe", "object"} & set(reader.tags)
    assert not [name for name, _ in reader.attributes if name.startswith("on") or name == "src"]
    assert all(value.startswith("#") for name, value in reader.attributes if name == "href")
    assert reader.open == []


def test_pictures_share_no_id_and_every_reference_has_one(make):
    reader = Reader(study_page(make.report()))

    references = {value[1:] for name, value in reader.attributes if name == "href"}
    references |= {
        found for _, value in reader.attributes for found in re.findall(r"url\(#([^)]+)\)", value)
    }
    assert references
    assert references <= set(reader.ids)
    assert len(reader.ids) == len(set(reader.ids))


def test_the_same_study_gives_the_same_page_byte_by_byte(make):
    assert study_page(make.report(), "ja") == study_page(make.report(), "ja")


def test_every_text_exists_in_both_languages_with_the_same_fields():
    def fields(text):
        return {field for _, field, _, _ in Formatter().parse(text) if field}

    for texts in (LABELS, SENTENCES):
        assert texts["en"].keys() == texts["ja"].keys()
        for key, english in texts["en"].items():
            assert fields(english) == fields(texts["ja"][key]), key
    assert not LABELS["en"].keys() & SENTENCES["en"].keys()


@pytest.mark.parametrize("made", ["plain", "doubtful", "empty"])
def test_no_english_sentence_is_left_in_japanese(make, made):
    report = {
        "plain": make.report(usage=USAGE),
        "doubtful": doubtful(make),
        "empty": make.report(front=make.front(rows=[], others=[]), finalists=[], trials=None),
    }[made]

    text = read(report, "ja", quoted=False)

    english = re.findall(r"[A-Za-z]{2,}(?:[ ,]+[a-z]{2,}){2,}", text)
    assert [found for found in english if not found.startswith("genba ")] == []


class Recorded(dict[str, str]):
    """Words that remember which of them were asked for."""

    def __init__(self, words):
        super().__init__(words)
        self.asked = set()

    def __getitem__(self, key):
        self.asked.add(key)
        return super().__getitem__(key)

    def get(self, key, default=None):
        self.asked.add(key)
        return super().get(key, default)


def test_every_word_of_the_page_is_used_by_some_study(make, monkeypatch):
    words = Recorded(words_of("en"))
    monkeypatch.setattr("host.report.study.words_of", lambda _: words)
    beyond = make.finalist(["panel"])
    choices = [one.model_copy(update={"within_limits": False}) for one in beyond.choices]
    open_ended = make.on_device(
        "panel", joules=0.09, bounded=False, agreement=0.9, latency_kind="estimated", verdict=None
    )
    limits = [
        LimitLine(quantity=quantity, device="panel", maximum=1e9, text=quantity)
        for quantity in ("energy_per_inference_joules", "peak_rss_bytes", "latency_p90_seconds")
    ]
    limits.append(LimitLine(quantity="power_watts", device="panel", maximum=9.0, text="power"))
    several = make.finalist(
        ["panel"],
        forms=[make.form("onnx-int8", [make.on_device("panel")], auroc=None, inspection=None)],
        train_seconds=30.0,
    )
    unsure = [
        make.trials().model_copy(
            update={"agreement": RankAgreement(n=4, epochs=3, kendall=0.1, low=low, high=high)}
        )
        for low, high in ((None, None), (-0.5, 0.5), (-0.9, -0.1))
    ]
    reports = [
        make.report(usage=USAGE),
        doubtful(make),
        make.report(front=make.front(rows=[], others=[]), finalists=[], trials=None),
        make.report(finalists=[], usage=Usage(1e6)),
        make.report(["panel"], front=make.front(["panel"], limits=[]), usage=Usage(1e6)),
        make.report(["panel"], finalists=[beyond.model_copy(update={"choices": choices})]),
        make.report(["panel", "kiosk"], finalists=[make.finalist(["panel"])]),
        make.report(
            ["panel"],
            front=make.front(["panel"], limits=limits),
            finalists=[
                make.finalist(
                    ["panel"], forms=[make.form("onnx-int8", [open_ended])], train_seconds=9000.0
                )
            ],
        ),
        make.report(["panel"], finalists=[several], trials=TrialsReport(trials=[], agreement=None)),
        *(make.report(["panel"], trials=trials) for trials in unsure),
        make.report(["panel"], trials=unsure[0].model_copy(update={"agreement": None})),
        no_doubts(make),
    ]
    unfinished = replace(reports[0].origin, finished_at=None, stopped_because="kiosk is lost")

    for report in [*reports, replace(reports[0], origin=unfinished)]:
        study_page(report)

    elsewhere = {"plot.title"}  # of the picture of all devices
    assert words.keys() - words.asked - elsewhere == set()


def test_the_headings_come_in_the_order_of_the_questions_a_manager_has(make):
    titles = re.findall(r"<h2>(\d)\. ", study_page(make.report()))

    assert titles == [str(number) for number in range(1, 9)]


def test_the_answer_names_the_finalist_its_quality_and_the_tightest_latency(make):
    text = read(make.report())

    assert "Recommended: finalist 1. On every device (panel, kiosk, gateway)" in text
    assert "AUROC 0.981 [0.967, 0.992] n=500 on test samples" in text
    assert "a median latency of 17.2 ms on gateway (limit 40 ms)" in text
    assert "\n3 / 3" in text


def test_a_device_without_a_finalist_within_limits_is_named_in_the_answer(make):
    finalist = make.finalist()
    choices = [
        choice.model_copy(update={"within_limits": choice.device != "kiosk"})
        for choice in finalist.choices
    ]
    report = make.report(finalists=[finalist.model_copy(update={"choices": choices})])

    text = read(report)

    assert "Recommended for panel, gateway: finalist 1." in text
    assert "Nothing can be recommended for kiosk." in text
    assert "\n2 / 3" in text
    assert "yes, but beyond a limit" in text


def test_the_cost_of_a_year_stands_in_the_table_with_where_it_comes_from(make):
    text = read(make.report(usage=USAGE))

    # 49.5 mJ x 28.8 million = 0.396 kWh, at 27.5 JPY
    assert "Taken: 2 inferences a second on each device, 4,000 hours a year" in text
    assert "28,800,000 inferences a year (derived)" in text
    assert re.search(r"panel\n1\nonnx-int8\n49\.5\nmeasured: rapl\n1\.4\n0\.396\n10\.9", text)


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_beyond_every_limit_gives_no_figure_to_boast_with(make, language):
    page = study_page(doubtful(make), language)

    figures = re.findall(r'<strong class="(\w+)">([^<]*)</strong>', page)
    assert figures == [("bad", "0 / 2")]


@pytest.mark.parametrize("language", LANGUAGES)
def test_energy_that_was_not_measured_has_no_figure_for_a_year(make, language):
    finalist = make.finalist(["panel"])
    forms = [
        form.model_copy(update={"devices": [make.on_device("panel", 0.00677)]})
        for form in finalist.forms
    ]
    dark = finalist.model_copy(update={"forms": forms})
    words = words_of(language)

    text = read(make.report(["panel"], finalists=[dark], usage=USAGE), language)

    absent = re.escape(words["not_measured"])
    assert re.search(rf"panel\n1\nonnx-int8\n{absent}\n–\n1\.4\n{absent}\n{absent}", text)
    assert " ".join(words["cost.dark"].split()) in text
    assert "no <sensor> here" in text


def test_without_a_rate_there_is_energy_and_no_cost(make):
    text = read(make.report())

    assert "How often the devices will be asked in a year was not given" in text
    assert "kWh a year" not in text


def test_inspection_is_told_by_counts_and_by_rates(make):
    text = read(make.report(["panel"]))

    assert "6 / 150 (4.0 %)" in text
    assert "10 / 350 (2.9 %)" in text
    assert "a miss costs 10, a false alarm 1; class of defects: bad" in text
    assert "94.0 [89.0, 97.0] n=150" in text
    assert "6.0 [3.0, 11.0] n=150" in text  # missed: one less the found


def test_many_classes_have_a_confusion_instead_of_an_inspection(make):
    finalist = make.finalist(
        ["panel"],
        classes=["ok", "scratch", "dent"],
        forms=[
            make.form(
                "onnx-int8",
                [make.on_device("panel")],
                auroc=None,
                inspection=None,
                confusion=[[90, 5, 5], [2, 38, 0], [0, 0, 0]],
            )
        ],
    )

    text = read(make.report(["panel"], finalists=[finalist]))

    assert "scratch\n2\n38\n0\n95.0" in text
    assert "dent\n0\n0\n0\n–" in text
    assert "accuracy 96.8 % [94.9, 98.0] n=500 on test samples" in text


def test_int8_that_is_slower_is_told_with_both_figures(make):
    text = read(make.report())

    assert "tflite-fp32 17.2 ms, tflite-int8 22.4 ms (1.3 times as long)" in text
    assert "AUROC on validation samples: 0.983 against 0.978" in text


@pytest.mark.parametrize(
    ("low", "high", "meaning"),
    [
        (0.2, 0.9, "better than chance"),
        (-0.1, 0.7, "cannot tell the score from chance"),
        (-0.8, -0.1, "the score misled here"),
        (None, None, "With n = 9 there is no interval"),
    ],
)
def test_the_agreement_is_put_into_plain_words(make, low, high, meaning):
    trials = make.trials()
    agreement = RankAgreement(n=9, epochs=3, kendall=0.5, low=low, high=high)
    report = make.report(trials=trials.model_copy(update={"agreement": agreement}))

    text = read(report)

    assert "after 3 epochs is 0.50 (n = 9" in text
    assert "of 100 pairs of candidates, about 75 are in the same order" in text
    assert meaning in text


def test_whatever_is_doubtful_is_said(make):
    text = read(doubtful(make))

    for said in (
        "panel: the best, onnx-int8 of finalist 1, is beyond a limit.",
        "onnx-int8 of finalist 1 has the verdict REJECT",
        "were not compared with those on the host",
        "may be no better than always answering the most frequent class (70.0 %)",
        "held against this limit here: mean power at the line's rate ≤ 9 W",
        "would be busy 246.0 % of the time",
        "kiosk: there is no finalist that was measured there",
        "kiosk: 3 of 3 candidates on the front were not measured",
        "panel: finalist 1 has no form onnx-fp32",
        "kiosk: onnx-int8 of finalist 1 was not measured",
        "panel: finalist 1 has no bundle",
        "Counts of the data were not kept",
        "panel: REJECT, measurements: 1. The CPU was slowed down.",
        "the latency of 1 of 4 measurements is derived",
        "no energy in 4 of 4 measurements. no <sensor> here",
        "line of 20 pieces a second (median latency ≤ 50 ms)",
        "Nothing can be recommended: no trained network meets every limit on any of the 2 devices",
    ):
        assert said in text


def test_a_study_without_doubts_says_so(make):
    text = read(no_doubts(make))

    assert "Nothing: every figure was measured, and every verdict is OK." in text


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    "name",
    [
        "<script>alert('x')</script>",
        "ライン3 検査PC「東」",
        "x" * 400,
        "$\\frac{a}{b}$ & {braces} %s",
        '"><img src=x onerror=alert(1)>',
        "{{ 7 * 7 }}",
    ],
)
def test_hostile_names_are_shown_and_never_understood(make, language, name):
    row = make.row(0, [name]).model_copy(update={"text": name})
    data = make.data(classes=[name, "bad"], folder=name)
    finalist = make.finalist([name], text=name, classes=[name, "bad"])
    report = make.report(
        [name], front=make.front([name], rows=[row]), finalists=[finalist], data=data
    )

    page = study_page(report, language)

    reader = Reader(page)
    assert " ".join(name.split()) in reader.text
    assert not {"script", "img"} & set(reader.tags)
    assert not [key for key, _ in reader.attributes if key.startswith("on")]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_front_with_nothing_on_it_has_a_page_that_says_so(make, language):
    report = make.report(
        front=make.front(rows=[], others=[], hypervolume=[], spent=[]),
        finalists=[],
        trials=TrialsReport(trials=[], agreement=None),
        data=None,
    )

    text = read(report, language)

    words = words_of(language)
    for key in ("answer.no_front", "front.empty", "finalists.none", "agreement.nothing"):
        assert " ".join(words[key].split()) in text


def test_many_finalists_are_all_there(make):
    finalists = [make.finalist(["panel"], n) for n in range(20)]

    text = read(make.report(["panel"], finalists=finalists))

    assert all(f"\nFinalist {n}: r64 w0.5 d2 e{n - 1}\n" in text for n in range(1, 21))


def test_a_device_without_limits_is_not_said_to_keep_them(make):
    report = make.report(["panel"], front=make.front(["panel"], limits=[]))

    text = read(report)

    assert "6.77 ms on panel (there is no limit)" in text
    assert "yes; there are no limits" in text


def test_commands_hashes_seed_and_fingerprint_are_there_to_do_it_again(make):
    text = read(make.report())

    assert "Seed: 7" in text
    assert "genba search resume housings" in text
    assert "genba bundle verify /plant/studies/housings/bundles/0-onnx.zip" in text
    assert "ab" * 32 in text
    assert "5f" * 32 in text


def test_the_file_is_named_after_its_language(make, tmp_path):
    path = write_study(make.report(["panel"]), tmp_path / "new", "ja")

    assert path.name == "report-ja.html"
    assert "推論時間" in path.read_text(encoding="utf-8")


def test_a_study_that_stopped_says_why(make):
    report = make.report(["panel"])
    origin = replace(report.origin, finished_at=None, stopped_because="kiosk is lost")

    text = read(replace(report, origin=origin))

    assert "The study is not finished. It stopped because: kiosk is lost" in text
    assert "Not finished yet" in text


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_runtime_is_named_once_and_facts_that_are_not_known_leave_no_brackets(make, language):
    profile = make.profile("panel")
    bare = profile.model_copy(update={"runtime_version": "", "cpu": "", "architecture": ""})
    known = read(make.report(["panel"]), language)

    unknown = read(make.report(["panel"], front=make.front(["panel"], profiles=[bare])), language)

    assert "onnxruntime 1.23.2" in known
    assert "onnx onnxruntime" not in known
    assert "panel-pc (Intel(R) Core(TM)2 Duo, x86_64)" in known
    assert "panel-pc" in unknown
    assert "(, )" not in unknown
    assert "panel-pc (" not in unknown


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_name_with_control_characters_is_drawn(make, language):
    name = "pa\x08nel\x1b[0m"
    front = make.front(["panel"], profiles=[make.profile(name)])

    assert "pa\ufffdnel\ufffd[0m" in read(make.report(["panel"], front=front), language)


@pytest.mark.parametrize(("language", "said"), [("en", "or one quality"), ("ja", "すべて同じ値")])
def test_equal_qualities_are_named_as_a_reason_why_there_is_no_agreement(make, language, said):
    equal = [trial.model_copy(update={"rounds": [(3, 0.9)]}) for trial in make.trials(6).trials]
    trials = TrialsReport(trials=equal, agreement=None)

    assert said in read(make.report(["panel"], trials=trials), language)


def test_a_latency_beside_its_limit_is_the_upper_end_of_its_interval(make):
    assert "(here: at most 6.9 ms, by the 95 % interval)" in read(make.report(["panel"]))
