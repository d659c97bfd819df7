"""The page: self-contained, escaped, complete, and whole whatever is missing."""

import io
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from neoseg.report.content import (
    ADC_CAUTIONS,
    CaseResult,
    CaseRow,
    Curve,
    Evaluation,
    LabelVolume,
    PlanEntry,
    ReportContent,
    ScoreRow,
    StageRecord,
    StageWarning,
    System,
)
from neoseg.report.html import config_groups, duration, interval, millilitres, number, percent, signed, write_report
from neoseg.report.scores import metric_notes, score_lines
from neoseg.report.summary import by_burden, false_positives, paired_difference, summarise

HOSTILE = '<script>alert("x")</script>&<img src=http://evil.example/a.png>'


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.urls, self.heads, self.text, self.open = [], [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in ("meta", "img", "br", "link", "input"):
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "srcset", "action", "data", "poster"):
                self.urls.append(value)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("h2", "h3"):
            self.heads.append(data.strip())
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


def picture():
    stream = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(stream, "png")
    return stream.getvalue()


def system(name, scores, detail="", against=None):
    rng, worst = np.random.default_rng(0), [0.0] * len(scores)
    return System(
        name=name,
        detail=detail,
        score=summarise(scores, worst, generator=rng),
        by_burden=by_burden(scores, worst, [0.5, 3.0, 12.0][: len(scores)], generator=rng),
        false_positives=false_positives([0.0, 0.7]),
        difference=paired_difference(against, scores, rng) if against else None,
    )


def result(case, dice, true_ml=2.0, predicted_ml=0.4):
    return CaseResult(
        case=case,
        group="Held-out cases",
        scores={"Dice": dice},
        risk=dice,
        panel=picture(),
        volumes=(
            LabelVolume(
                label="lesion", true_ml=true_ml, predicted_ml=predicted_ml, true_percent=0.5, predicted_percent=0.1
            ),
        ),
    )


def full():
    network = [0.7, 0.8, 0.9]
    rows = [
        ScoreRow(case=str(i), label="lesion", metric=m, value=v, worst=w, unit=u, better=b)
        for i, value in enumerate(network)
        for m, v, w, u, b in (("Dice", value, 0.0, "", "higher"), ("MASD", [1.0, None, 2.0][i], 90.0, "mm", "lower"))
    ]
    evaluation = Evaluation(
        title="Held-out cases",
        how="Predicted by the ensemble.",
        network=system("UNETR++", network),
        rules=(
            system("Z rule", [0.3, 0.4, 0.4], "Z < −2.1", network),
            system("ADC rule", [0.1, 0.2, 0.3], "", network),
        ),
        lines=score_lines(rows, generator=np.random.default_rng(0)),
    )
    return ReportContent(
        title="demo",
        created="2026-01-02",
        evaluations=(evaluation,),
        config={"seed": 3, "network": {"kind": "unetr_pp", "stem": {"stride": [4, 4, 2]}}},
        cases=(
            CaseRow(
                case=HOSTILE, subject="s1", site="A", group="patient", split="test", grid=(128, 128, 16),
                spacing_mm=(1.4, 1.4, 4.0), volume_ml=2.0, share_percent=0.5,
            ),
        ),
        plan=(PlanEntry(name="patch", value="64 × 64 × 16", reason="fits the budget"),),
        curves=(Curve(name="fold 0", epochs=(1, 2), loss=(1.0, 0.5), dice=(0.1, 0.4), best_epoch=2),),
        results=(
            result("unscored", None, 0.0, 0.0),
            result("fine", 0.9, 0.2, 0.3),
            result("worst", 0.1),
            result(HOSTILE, 0.5, 2.0, 2.2),
        ),
        warnings=(StageWarning(stage="prepare", case=HOSTILE, text="low similarity"),),
        stages=(StageRecord(name="train", seconds=312.0), StageRecord(name="check", seconds=0.4)),
        metrics=metric_notes(["dice", "masd"]),
        cautions=ADC_CAUTIONS,
        versions={"neoseg": "0.1.0"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, full())
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


def test_page_is_well_formed_and_has_every_section(page):
    parsed = Page(page)
    assert parsed.open == []
    assert len(parsed.ids) == len(set(parsed.ids))
    for section in (
        "headline", "warnings", "scores", "cases", "training", "data", "plan", "configuration", "stages", "methods",
    ):  # fmt: skip
        assert section in parsed.ids
    assert {url[1:] for url in parsed.urls if url.startswith("#")} <= set(parsed.ids)
    assert "Research use only — not a medical device" in parsed.words


def test_page_asks_nothing_of_the_world(page):
    parsed = Page(page)
    assert parsed.urls and all(url.startswith(("data:", "#")) for url in parsed.urls)
    assert "link" not in parsed.tags and "iframe" not in parsed.tags
    style = page[page.index("<style>") : page.index("</style>")]
    assert "@import" not in style and "url(" not in style
    assert "default-src 'none'" in page


def test_hostile_names_are_text(page):
    parsed = Page(page)
    assert parsed.tags.count("script") == 1
    assert "<script>alert" not in page
    assert '<script>alert("x")</script>&' in " ".join(parsed.text)


def test_headline_numbers_stand_beside_the_rules(page):
    words = Page(page).words
    assert "0.800" in words and "0.367" in words
    assert "Network minus better rule +0.433" in words
    assert "above zero: the network is better" in words
    assert "1 of 2" in words
    assert "Z < −2.1" in words


def test_subjects_with_several_cases_are_told_and_have_a_mean_of_their_own(page, tmp_path):
    assert "subjects" not in Page(page).words
    (one,) = full().evaluations
    network, rule = [0.7, 0.9], [0.3, 0.5]

    def grouped(found, own):
        seeded = np.random.default_rng
        gap = paired_difference(network, own, seeded(0)) if found.difference else None
        return replace(found, by_subject=summarise(own, [0.0, 0.0], generator=seeded(0)), difference_by_subject=gap)

    evaluation = replace(
        one,
        network=grouped(one.network, network),
        rules=tuple(grouped(r, rule) for r in one.rules),
        cases=3,
        subjects=2,
    )
    write_report(tmp_path / "report.html", replace(full(), evaluations=(evaluation,)))
    parsed = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert parsed.open == []
    words = parsed.words
    assert "3 cases of 2 subjects." in words and "each interval is drawn over subjects" in words
    assert "mean over subjects 0.800, 95 %: 0.700 to 0.900" in words
    assert "mean over subjects +0.400, 95 %: 0.400 to 0.400" in words
    assert "n = 3 cases with any lesion of 2 subjects" in words
    assert "or over subjects where they have several cases" in words
    assert "network minus this, over subjects" in words


def test_both_means_of_an_undefined_score_are_shown(page):
    words = Page(page).words
    assert "1.50 mm" in words  # undefined left out
    assert "31.00 mm" in words  # (1 + 90 + 2) / 3


def test_cases_come_worst_first_and_large_volumes_are_flagged(page):
    heads = [head for head in Page(page).heads if head in ("fine", "worst", "unscored", HOSTILE)]
    assert heads == ["worst", HOSTILE, "fine", "unscored"]
    words = Page(page).words
    assert "truth alone > 1 mL" in words
    assert page.count('class="flag"') == 4  # two cases, in the table and above the picture
    assert "deep grey" in words


def test_stages_config_and_plan_are_readable(page):
    words = Page(page).words
    assert "5 min 12 s" in words and "stem.stride 4, 4, 2" in words and "fits the budget" in words


@pytest.mark.parametrize(
    "content",
    [
        ReportContent(title="nothing", created=""),
        ReportContent(
            title="prediction only",
            created="",
            flag_ml=None,
            results=(
                CaseResult(case="new", group="Prediction", volumes=(LabelVolume(label="lesion", predicted_ml=3.0),)),
            ),
        ),
        ReportContent(
            title="classes, no rules, no burden",
            created="",
            structure="hippocampus",
            flag_ml=None,
            evaluations=(
                Evaluation(
                    title="Cross-validation",
                    how="",
                    network=System(name="U-Net", score=summarise([None], [0.0], generator=np.random.default_rng(0))),
                ),
            ),
            results=(
                CaseResult(
                    case="h1",
                    group="Cross-validation",
                    scores={"Dice anterior": 0.8, "Dice posterior": None},
                    risk=0.8,
                    volumes=(
                        LabelVolume(label="anterior", predicted_ml=1.5, true_ml=1.4),
                        LabelVolume(label="posterior", predicted_ml=1.1, true_ml=1.2),
                    ),
                ),
            ),
            curves=(Curve(name="fold 0", epochs=(), loss=(), dice=()),),
        ),
    ],
    ids=lambda content: content.title,
)
def test_page_is_whole_whatever_is_missing(content, tmp_path):
    write_report(tmp_path / "report.html", content)
    parsed = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert parsed.open == []
    assert "headline" in parsed.ids and "methods" in parsed.ids
    assert "nan" not in parsed.words.lower().split() and "None" not in parsed.words
    if content.results:
        assert content.results[0].case in parsed.words
        assert parsed.words.count("> 1 mL") == 0
    if not content.evaluations:
        assert "nothing could be scored" in parsed.words


def test_predictions_that_wait_for_their_scores_are_no_cases_without_labels(tmp_path):
    write_report(tmp_path / "report.html", ReportContent(title="later", created="", results=(result("a", None),)))
    words = Page((tmp_path / "report.html").read_text(encoding="utf-8")).words
    assert "were not scored yet" in words and "neoseg evaluate" in words and "reference label, so" not in words


def test_agreement_is_drawn_for_one_evaluation_and_for_what_the_network_learns(tmp_path, monkeypatch):
    drawn = []

    def keep(true, predicted, flag_ml, unit):
        drawn.append((true, predicted))
        return "<svg/>"

    monkeypatch.setattr("neoseg.report.charts.bland_altman", keep)
    score = summarise([0.5], [0.0], generator=np.random.default_rng(0))
    groups = ("Held-out cases", "Cross-validation")
    results = [
        CaseResult(
            case=f"{group} {number}",
            group=group,
            volumes=(
                LabelVolume(label="whole", true_ml=10.0 * place + number, predicted_ml=1.0),
                LabelVolume(label="core", true_ml=99.0, predicted_ml=99.0, target=False),
                LabelVolume(label="unknown", predicted_ml=3.0),
            ),
        )
        for place, group in enumerate(groups)
        for number in range(2)
    ]
    evaluations = tuple(Evaluation(title=g, how="", network=System(name="U-Net", score=score)) for g in groups)
    content = ReportContent(title="regions", created="", evaluations=evaluations, results=tuple(results))
    write_report(tmp_path / "report.html", content)
    assert drawn == [((0.0, 1.0), (1.0, 1.0)), ((10.0, 11.0), (1.0, 1.0))]
    words = Page((tmp_path / "report.html").read_text(encoding="utf-8")).words
    for group in groups:
        assert f"{group}: whole. Left: each dot a case, on the line" in words


def test_numbers_for_people():
    assert number(None) == "–" and number(-0.5, 1) == "−0.5" and signed(0.25, 2) == "+0.25"
    assert interval((-0.1, 0.25), 2) == "−0.10 to 0.25" and interval(None) == "–"
    assert [millilitres(v) for v in (0, 0.001, 0.4, 12.34, 412.1)] == ["0", "< 0.01", "0.40", "12.3", "412"]
    assert percent(0.631) == "0.63 %" and percent(None) == "–"
    assert [duration(s) for s in (0.42, 9.96, 59.7, 185, 3599.8, 3725)] == [
        "0.4 s", "10 s", "1 min 00 s", "3 min 05 s", "1 h 00 min", "1 h 02 min",
    ]  # fmt: skip


def test_config_is_flattened_into_sections():
    groups = config_groups({"seed": 1, "loss": {"dice": {"weight": 0.5}, "parts": []}, "none": {}})
    assert groups == [("run", [("seed", "1")]), ("loss", [("dice.weight", "0.5"), ("parts", "(none)")])]
