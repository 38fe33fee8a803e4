"""Figures of the report as SVG text, colour-blind safe, each with its own title for readers."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raycrp.choices import Encoding, SelectBy
from raycrp.tracking import best_validation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GRID = "#1f2933", "#d9dfe5"


@dataclass(frozen=True)
class LineStyle:
    """How a series is drawn, the same in figure and legend: never told by colour alone.

    Args:
        color: Hex colour of the palette of Okabe and Ito, darkened where white would swallow it.
        marker: Marker of matplotlib.
        dash: Lengths of dashes and gaps in points; none for a solid line.
    """

    color: str
    marker: str
    dash: tuple[float, ...] = ()


STYLES: Mapping[str, LineStyle] = {
    Encoding.OUTPUT.value: LineStyle("#0072b2", "o"),
    Encoding.DIFFERENCE.value: LineStyle("#d55e00", "s", (6, 2)),
    Encoding.CONCAT.value: LineStyle("#00795c", "D", (2, 1.5)),
    Encoding.INNER_PRODUCT.value: LineStyle("#a04581", "^", (7, 2, 1.5, 2)),
}
"""Style of the paper's encodings; others take one of ``SPARE_STYLES``."""

SPARE_STYLES = (
    LineStyle("#5b4b00", "v", (4, 1, 1, 1)),
    LineStyle("#3d3d3d", "P", (1, 1)),
    LineStyle("#8a1f11", "X", (8, 3)),
    LineStyle("#2b3f9e", "<", (3, 1, 1, 1, 1, 1)),
    LineStyle("#3f6b00", ">", (5, 3)),
    LineStyle("#6b3fa0", "p", (1, 3)),
    LineStyle("#00625e", "h", (6, 1, 1, 1)),
    LineStyle("#7a3b00", "d", (2, 2)),
)


def style_of(name: str) -> LineStyle:
    """Style of an encoding, the same in every figure."""
    if name in STYLES:
        return STYLES[name]
    others = [each.value for each in Encoding if each not in STYLES]
    place = others.index(name) if name in others else -1
    return SPARE_STYLES[place % len(SPARE_STYLES)]


def accuracy_figure(trials: Sequence[Mapping[str, Any]], *, title: str) -> str:
    """Annotation accuracy over N, one line an encoding, dotted the rate of the commonest RT.

    Args:
        trials: Rows of the table of trials, all of one task.
        title: What the figure shows, for readers that cannot see it.

    Returns:
        SVG text. The chosen trial has a ring.

    Source: the paper's Figure 3a.
    """
    names = list(dict.fromkeys(trial["encoding"] for trial in trials))
    with _new_figure(width=3.9, height=3.1) as figure:
        axes = figure.subplots()
        for name in names:
            points = sorted(
                (trial for trial in trials if trial["encoding"] == name),
                key=lambda trial: trial["num_clusters"],
            )
            _draw_encoding(axes, points, style=style_of(name))
        _ring_chosen(axes, trials)
        axes.set_xticks(sorted({trial["num_clusters"] for trial in trials}))
        axes.set_xlabel("N, number of reaction types")
        axes.set_ylabel("accuracy (share of rows)")
        _set_share_axis(axes, [trial["accuracy"] for trial in trials])
        return _to_svg(figure, title=title)


def loss_figure(
    points: Sequence[Mapping[str, float]],
    *,
    title: str,
    select_by: SelectBy = SelectBy.LOSS,
) -> str:
    """Training and validation loss over optimiser steps.

    Args:
        points: Lines of the training's metrics; lines without a loss are left out.
        select_by: Which validation is the best.
        title: What the figure shows, for readers that cannot see it.

    Returns:
        SVG text. The best validation, whose weights are kept, has a ring.
    """
    with _new_figure(width=7.2, height=3.3) as figure:
        axes = figure.subplots()
        series = (
            ("loss", "training", LineStyle("#0072b2", "", ())),
            ("validation_loss", "validation", LineStyle("#d55e00", "s", (6, 2))),
        )
        for key, label, style in series:
            steps = [point["step"] for point in points if key in point]
            values = [point[key] for point in points if key in point]
            if steps:
                _draw_line(axes, steps, values, style=style, label=label)
        best = best_validation(points, select_by=select_by)
        if best is not None:
            _ring(axes, best["step"], best["validation_loss"])
        axes.set_xlabel("optimiser steps")
        axes.set_ylabel("loss (nats per token)")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)
        return _to_svg(figure, title=title)


def interval_figure(
    series: Mapping[str, Sequence[tuple[str, float, float, float]]], *, label: str, title: str
) -> str:
    """Scores with their 95 % intervals, a group of rows for each series.

    Args:
        series: By name of the group: label, value, low and high of each row.
        label: Name of the axis.
        title: What the figure shows, for readers that cannot see it.

    Returns:
        SVG text.
    """
    rows = [(group, *row) for group, part in series.items() for row in part]
    with _new_figure(width=7.2, height=0.55 + 0.27 * len(rows) + 0.1 * len(series)) as figure:
        axes = figure.subplots()
        places = _grouped_places(list(series.values()))
        for place, (_, _, value, low, high) in zip(places, rows, strict=True):
            axes.plot([low, high], [place, place], color="#0072b2", linewidth=2.2, alpha=0.55)
            axes.plot([value], [place], color="#0072b2", marker="o", markersize=5.5)
        axes.set_yticks(places, [f"{group}, {name}" for group, name, *_ in rows])
        axes.set_ylim(places[-1] + 0.7 if places else 1, -0.7)
        axes.set_xlim(0, 1)
        axes.set_xlabel(label)
        axes.grid(axis="y", visible=False)
        return _to_svg(figure, title=title)


def legend_swatch(style: LineStyle) -> str:
    """A piece of line with its marker as inline SVG, for a legend in the page."""
    dash = f' stroke-dasharray="{" ".join(map(str, style.dash))}"' if style.dash else ""
    shapes = {
        "o": '<circle cx="20" cy="7" r="4"/>',
        "s": '<rect x="16" y="3" width="8" height="8"/>',
        "D": '<path d="M20 2l5 5-5 5-5-5z"/>',
        "^": '<path d="M20 2l5 9h-10z"/>',
        "v": '<path d="M20 12l5-9h-10z"/>',
        "P": '<path d="M18 2h4v3h3v4h-3v3h-4v-3h-3v-4h3z"/>',
        "X": '<path d="M16 3l4 3 4-3-3 4 3 4-4-3-4 3 3-4z"/>',
        "<": '<path d="M15 7l9-5v10z"/>',
        ">": '<path d="M25 7l-9-5v10z"/>',
        "p": '<path d="M20 2l5 4-2 6h-6l-2-6z"/>',
        "h": '<path d="M20 2l5 2.5v5l-5 2.5-5-2.5v-5z"/>',
        "d": '<path d="M20 1l3 6-3 6-3-6z"/>',
    }
    return (
        '<svg class="swatch" width="40" height="14" viewBox="0 0 40 14" aria-hidden="true">'
        f'<path d="M1 7h38" stroke="{style.color}" stroke-width="2"{dash}/>'
        f'<g fill="{style.color}">{shapes.get(style.marker, "")}</g></svg>'
    )


def _draw_encoding(axes: "Axes", points: Sequence[Mapping[str, Any]], *, style: LineStyle) -> None:
    counts = [point["num_clusters"] for point in points]
    _draw_line(axes, counts, [point["accuracy"] for point in points], style=style)
    axes.plot(
        counts,
        [point["majority_rate"] for point in points],
        color=style.color,
        linewidth=1.1,
        linestyle=(0, (1, 2.2)),
        alpha=0.85,
    )


def _draw_line(
    axes: "Axes",
    places: Sequence[float],
    values: Sequence[float],
    *,
    style: LineStyle,
    label: str | None = None,
) -> None:
    axes.plot(
        places,
        values,
        color=style.color,
        marker=style.marker if len(places) <= 60 else "",
        markersize=4.5,
        linewidth=1.8,
        linestyle=(0, style.dash) if style.dash else "-",
        label=label,
    )


def _ring_chosen(axes: "Axes", trials: Sequence[Mapping[str, Any]]) -> None:
    for trial in trials:
        if trial["is_best"]:
            _ring(axes, trial["num_clusters"], trial["accuracy"])


def _ring(axes: "Axes", place: float, value: float) -> None:
    axes.plot(
        [place],
        [value],
        marker="o",
        markersize=13,
        markerfacecolor="none",
        markeredgecolor=INK,
        markeredgewidth=1.6,
    )


def _set_share_axis(axes: "Axes", values: Sequence[float]) -> None:
    axes.set_ylim(0, max(1.02, *values) if values else 1.02)
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])


def _grouped_places(groups: Sequence[Sequence[object]], *, gap: float = 0.4) -> list[float]:
    places: list[float] = []
    for number, group in enumerate(groups):
        start = (places[-1] + 1 + gap) if number else 0.0
        places += [start + row for row in range(len(group))]
    return places


@contextmanager
def _new_figure(*, width: float, height: float) -> "Iterator[Figure]":
    """A figure in inches at 100 points an inch, text left as text."""
    import matplotlib
    from matplotlib.figure import Figure

    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "raycrp",
        "font.family": "sans-serif",
        "font.size": 9.5,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": "#8896a4",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": GRID,
        "grid.linewidth": 0.8,
        "xtick.color": INK,
        "ytick.color": INK,
    }
    with matplotlib.rc_context(settings):
        yield Figure(figsize=(width, height), layout="constrained")


def _to_svg(figure: "Figure", *, title: str) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="[a-z_]+\d*_\d+"', "", svg)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 system-ui, sans-serif", svg)
    return label_svg(_prefix_ids(svg, title), title=title)


def label_svg(svg: str, *, title: str) -> str:
    """Give an SVG the role of a picture and a name.

    Args:
        svg: SVG text that starts with ``<svg``.
        title: Its name.
    """
    end = svg.index(">")
    return f'{svg[:end]} role="img" aria-label="{_escape(title)}"{svg[end:]}'


def _prefix_ids(svg: str, title: str) -> str:
    """Keep ids of several pictures in one page apart."""
    prefix = re.sub(r"\W+", "-", title.lower())
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", svg)
    return re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', svg)


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
