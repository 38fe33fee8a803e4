import re
from xml.etree import ElementTree

import pytest

from raycrp.choices import Encoding, SelectBy
from raycrp.report.figures import (
    SPARE_STYLES,
    STYLES,
    accuracy_figure,
    interval_figure,
    legend_swatch,
    loss_figure,
    style_of,
)

TRIALS = [
    {
        "encoding": encoding,
        "num_clusters": number,
        "accuracy": 0.9 - number / 50,
        "majority_rate": 1 / number,
        "is_best": (encoding, number) == ("concat", 5),
    }
    for encoding in ("output", "concat", "something_new")
    for number in (3, 5, 12)
]


def texts_of(svg):
    return [node.text for node in ElementTree.fromstring(svg).iter() if node.tag.endswith("text")]


def colors_of(svg):
    return re.findall(r"stroke: (#[0-9a-f]{6})", svg)


def test_accuracy_figure_is_named_and_has_units():
    svg = accuracy_figure(TRIALS, title="Accuracy, <forward>")
    assert 'role="img" aria-label="Accuracy, &lt;forward>"' in svg
    texts = texts_of(svg)
    assert {"3", "5", "12", "N, number of reaction types", "accuracy (share of rows)"} <= set(texts)


def test_accuracy_figure_draws_two_lines_an_encoding_and_one_ring():
    svg = accuracy_figure(TRIALS, title="a")
    colors = colors_of(svg)
    for name in ("output", "concat"):
        assert colors.count(STYLES[name].color) >= 2
    assert colors.count(SPARE_STYLES[-1].color) >= 2
    without = accuracy_figure([{**trial, "is_best": False} for trial in TRIALS], title="a")
    assert len(svg) > len(without)


def test_the_same_trials_give_the_same_figure():
    assert accuracy_figure(TRIALS, title="a") == accuracy_figure(TRIALS, title="a")


def test_ids_of_two_figures_differ():
    ids = [
        set(re.findall(r'\bid="([^"]+)"', accuracy_figure(TRIALS, title=title)))
        for title in ("one", "two")
    ]
    assert ids[0]
    assert ids[0].isdisjoint(ids[1])
    svg = accuracy_figure(TRIALS, title="one")
    referred = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    assert referred <= ids[0]


def test_styles_differ_in_more_than_color():
    styles = [*STYLES.values(), *SPARE_STYLES]
    assert len({style_of(each.value) for each in Encoding}) == len(Encoding)
    assert len({style.marker for style in styles}) == len(styles)
    assert len({style.color for style in styles}) == len(styles)


@pytest.mark.parametrize("style", [*STYLES.values(), *SPARE_STYLES])
def test_lines_stand_out_from_white(style):
    # WCAG 2: contrast of graphics at least 3.
    channels = [int(style.color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    assert 1.05 / (luminance + 0.05) >= 3


def test_an_encoding_has_its_style_in_the_legend():
    assert style_of("concat").color in legend_swatch(style_of("concat"))
    assert style_of("something_new") == SPARE_STYLES[-1]


def test_legend_swatches_are_svg():
    for style in (*STYLES.values(), *SPARE_STYLES):
        root = ElementTree.fromstring(legend_swatch(style))
        assert len(root[1]) == 1


def test_loss_figure():
    points = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "validation_loss": 1.5}]
    texts = texts_of(loss_figure(points, title="Loss"))
    assert {"training", "validation", "optimiser steps", "loss (nats per token)"} <= set(texts)
    assert "validation" not in texts_of(loss_figure(points[:1], title="Loss"))


def test_the_ring_is_around_the_weights_that_were_kept():
    def point(step, loss, exact):
        return {"step": step, "validation_loss": loss, "validation_exact": exact}

    points = [point(1, 3.0, 0.1), point(2, 1.0, 0.2), point(3, 2.0, 0.9)]
    by_loss, by_exact = (loss_figure(points, title="Loss", select_by=rule) for rule in SelectBy)
    assert by_loss != by_exact
    swapped = [point(1, 3.0, 0.1), point(2, 1.0, 0.9), point(3, 2.0, 0.2)]
    assert loss_figure(swapped, title="Loss", select_by=SelectBy.EXACT) == by_loss


def test_interval_figure_names_every_row():
    series = {"forward": [("top 1", 0.5, 0.4, 0.6)], "all": [("top 1", 0.3, 0.2, 0.4)]}
    texts = texts_of(interval_figure(series, label="share", title="Exact"))
    assert {"forward, top 1", "all, top 1", "share"} <= set(texts)
