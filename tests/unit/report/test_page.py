import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from raycrp.report.contents import gather_contents
from raycrp.report.page import render_page
from raycrp.report.stage import run_report

from .conftest import settings

VOID = {"meta", "link", "br", "img", "hr", "input"}


BOARD = "board.html"
"""The page beside this one."""


class Outline(HTMLParser):
    """Collects what the tests ask for, and makes sure that every tag is closed."""

    def __init__(self, page):
        super().__init__()
        self.open, self.ids, self.links, self.sources, self.text = [], [], [], [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values["href"]] if tag == "a" and values["href"] != BOARD else []
        self.sources += [values[k] for k in ("src", "xlink:href") if k in values]
        assert tag not in ("script", "link", "iframe", "img", "object")
        assert not [name for name in values if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)


@pytest.fixture(scope="module")
def contents(template_run):
    return gather_contents(settings(), template_run)


@pytest.fixture(scope="module")
def page(contents):
    return render_page(contents)


@pytest.fixture
def quick_figures(monkeypatch):
    """Leaves out the drawing, where a test looks at something else."""
    for name in ("accuracy_figure", "interval_figure", "loss_figure"):
        monkeypatch.setattr(f"raycrp.report.contents.{name}", lambda *_, **__: "<svg></svg>")


def words_of(page):
    return " ".join(" ".join(Outline(page).text).split())


def test_the_page_stands_alone(page):
    outline = Outline(page)
    assert all(link.startswith("#") for link in [*outline.links, *outline.sources])
    assert "@import" not in page
    urls = set(re.findall(r"https?://[^\s\"'<>)]+", page))
    assert urls <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "url(http" not in page


def test_ids_are_single_and_links_lead_somewhere(page):
    outline = Outline(page)
    assert len(outline.ids) == len(set(outline.ids))
    assert {link.removeprefix("#") for link in outline.links} <= set(outline.ids)


def test_the_page_tells_what_was_done(page):
    words = words_of(page)
    for said in (
        "demo-run",
        "seed 0",
        "raycrp 1.2.3",
        "feedfeedfeedfeed",
        "1,200 rows read from mol instructions: 1,100 kept, 100 rejected",
        "Share of unknown tokens: 0.025 %",
        "unparsable molecule 12",
        "test forward train reagent 44 0",
        "1,131",
        "Chosen: concat, N = 4",
        "on rows held out of the choice 0.625",
        "concat, N = 4",
        "k-means, training rows 8 2 1.000",
        "Training ended after 20 steps (patience)",
        "data 1,200 1,100 100 1 min 15 s",
        "Symmetric similarity",
        "BLEU",
        "right at rank 2",
        "named by LLM-RT from the row's input alone",
        "training prompts carry the cluster",
    ):
        assert said in words, said


def test_verdicts_have_a_word_and_a_sign(page):
    words = words_of(page)
    for said in ("✔ right", "✖ wrong", "⚠", "∅ empty"):
        assert said in words.replace("\N{MULTIPLICATION X}", "✖"), said


def test_foreign_text_is_escaped(contents):
    hostile = replace(contents, run_name="<script>alert(1)</script>", config_yaml="</pre><b>x")
    page = render_page(hostile)
    Outline(page)
    assert "&lt;script&gt;alert(1)" in page
    assert "</pre><b>x" not in page
    assert "&lt;b&gt;row&lt;/b&gt; 9" in page


def test_an_empty_run_gives_a_short_page(empty_run):
    page = render_page(gather_contents(settings(), empty_run))
    words = words_of(page)
    assert "What the numbers rest on" in words
    assert "Scores on the test split" not in words
    outline = Outline(page)
    assert {link.removeprefix("#") for link in outline.links} <= set(outline.ids)


@pytest.mark.parametrize(
    "missing",
    [
        "config.yaml",
        "environment.json",
        "data/report.json",
        "data/truth.parquet",
        "data/_SUCCESS.json",
        "elicit/trials.parquet",
        "elicit/rt_cards.parquet",
        "elicit/summary.json",
        "train/metrics.jsonl",
        "train/_SUCCESS.json",
        "annotate",
        "evaluate/predictions",
        "evaluate/scores.parquet",
        "report/_STARTED.json",
    ],
)
def test_anything_may_be_missing(finished_run, missing, quick_figures):
    finished_run.delete(missing)
    Outline(render_page(gather_contents(settings(), finished_run)))


def test_notes_follow_the_settings(template_run, quick_figures):
    changed = settings(prompt={"use_reaction_type": False}, data={"leak_policy": "report"})
    words = words_of(render_page(gather_contents(changed, template_run)))
    assert "prompts carry no reaction type" in words
    assert "scores are too good" in words
    assert "other spellings of right molecules count as wrong" not in words
    aligned = settings(train={"spelling": "aligned"})
    words = words_of(render_page(gather_contents(aligned, template_run)))
    assert "other spellings of right molecules count as wrong" in words
    predicted = settings(prompt={"train_reaction_type": "predicted"})
    words = words_of(render_page(gather_contents(predicted, template_run)))
    assert "that LLM-RT names from the input; prompts of other rows" in words


def test_the_stage_writes_the_page(finished_run):
    summary = run_report(settings(), finished_run)
    page = finished_run.read_bytes("report/index.html")
    assert summary["size_bytes"] == len(page) < 3_000_000
    assert (summary["rows_in"], summary["rejected"]) == (5, 0)


def test_reaction_types_and_probes_are_shown(page):
    text = " ".join(Outline(page).text)
    assert "C-O made, ester gained" in text
    assert "96\N{NO-BREAK SPACE}%" in text
    assert "C-O made, ester gained <b>" in text
    assert text.count("probe") >= 3


def test_an_audit_is_shown_where_there_was_one(contents):
    audit = {
        "verdict": ".250 of the gain survives.",
        "leak_verdict": "No leak found.",
        "source_table": [["RT", "forward"], ["predicted", ".350 [.100, .600]"]],
        "difference_table": [["RT", "forward"], ["none", "-.100 [-.200, .000]"]],
        "leak_table": [["labels", "leak"], ["RTs of <test> prompts", "no"]],
    }
    outline = Outline(render_page(replace(contents, audit=audit)))
    text = "".join(outline.text)
    assert "audit" in outline.ids
    assert ".250 of the gain survives. No leak found." in text
    assert "-.100 [-.200, .000]" in " ".join(text.split())
    assert "RTs of <test> prompts" in text
    assert "audit" not in Outline(render_page(replace(contents, audit=None))).ids
