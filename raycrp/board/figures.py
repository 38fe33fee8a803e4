"""Figures of the board as Plotly's JSON: the same in the served page and in the file."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raycrp.board.sweep import SweepView, TrialState, TrialView
from raycrp.board.training import TrainingView
from raycrp.choices import SelectionRule, Task
from raycrp.report.figures import GRID, INK, LineStyle, style_of

Figure = dict[str, Any]

SOFT = "#52606d"

_SYMBOLS = {
    "o": "circle",
    "s": "square",
    "D": "diamond",
    "^": "triangle-up",
    "v": "triangle-down",
    "P": "cross",
    "X": "x",
    "<": "triangle-left",
    ">": "triangle-right",
    "p": "pentagon",
    "": "circle",
}
_TASK_STYLES = {
    Task.FORWARD: LineStyle("#0072b2", "o"),
    Task.RETROSYNTHESIS: LineStyle("#d55e00", "s", (6, 2)),
    Task.REAGENT: LineStyle("#00795c", "D", (2, 2)),
}
_STATE_MARKS = {
    TrialState.RUNNING: " \N{HORIZONTAL ELLIPSIS}",
    TrialState.STOPPED: " \N{MULTIPLICATION SIGN}",
}
_CIVIDIS_LIGHT_ABOVE = 0.55
NONE_YET = "nothing in the log yet"
_MAX_LABELLED_COLUMNS = 18


@dataclass(frozen=True)
class Metric:
    """A figure of a trial that the board can show.

    Args:
        name: Its name in the rounds file.
        title: For people.
        axis: With its unit.
        text: How a value is written.
    """

    name: str
    title: str
    axis: str
    text: str


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "accuracy", "accuracy (share of rows)", "{:.2f}"),
        Metric("information_bits", "bits", "mutual information (bits)", "{:.2f}"),
        Metric("kappa", "kappa", "Cohen's kappa", "{:.2f}"),
        Metric("effective_types", "effective types", "effective number of types", "{:.1f}"),
    )
}
"""What the heat map and the lines can show."""


def heat_figure(sweep: SweepView, *, task: str, metric: Metric) -> Figure:
    """A metric of every trial of a task, encoding by N.

    Args:
        sweep: The sweep.
        task: The task.
        metric: What the colour shows.
    """
    trials = {(t.encoding, t.num_clusters): t for t in sweep.of_task(task)}
    counts, names = list(sweep.counts), list(sweep.encodings)
    values = [[_value(trials.get((name, n)), metric) for n in counts] for name in names]
    heat = {
        "type": "heatmap",
        "x": [str(n) for n in counts],
        "y": [name.replace("_", " ") for name in names],
        "z": values,
        "customdata": [[_describe(trials.get((name, n))) for n in counts] for name in names],
        "hovertemplate": "<b>%{y}, N = %{x}</b><br>%{customdata}<extra></extra>",
        "hoverongaps": True,
        "colorscale": "Cividis",
        "xgap": 2 if len(counts) <= _MAX_LABELLED_COLUMNS else 0,
        "ygap": 2,
        "colorbar": {"title": {"text": metric.title, "side": "right"}, "thickness": 12},
    }
    is_labelled = len(counts) <= _MAX_LABELLED_COLUMNS
    layout = _layout(
        x={"title": {"text": "N, number of reaction types"}, "type": "category"},
        y={"autorange": "reversed", "type": "category", "automargin": True},
    )
    for axis in ("xaxis", "yaxis"):
        layout[axis] |= {"showgrid": False, "showline": False, "ticks": ""}
    layout |= {
        "annotations": _cell_texts(values, trials, sweep, metric) if is_labelled else [],
        "shapes": _chosen_box(sweep, task),
        "plot_bgcolor": "#eef1f4",
        "hovermode": "closest",
    }
    return {"data": [heat], "layout": layout}


def lines_figure(sweep: SweepView, *, task: str, metric: Metric) -> Figure:
    """A metric over N, one line an encoding; for accuracy dotted the rate of the commonest type.

    Args:
        sweep: The sweep.
        task: The task.
        metric: What is shown.

    Source: the paper's Figure 3a.
    """
    data: list[dict[str, Any]] = []
    for name in sweep.encodings:
        points = [t for t in sweep.of_task(task) if t.encoding == name and t.best]
        points.sort(key=lambda trial: trial.num_clusters)
        if not points:
            continue
        style = style_of(name)
        places = [trial.num_clusters for trial in points]
        heights = [_value(trial, metric) for trial in points]
        title = name.replace("_", " ")
        texts = [_describe(trial) for trial in points]
        data.append(_line(places, heights, style=style, name=title, texts=texts))
        if metric.name == "accuracy":
            rates = [trial.best["majority_rate"] for trial in points if trial.best]
            data.append(_dots(places, rates, color=style.color, name=title))
    shapes = []
    is_floored = sweep.selection.rule is SelectionRule.FLOOR and metric.name == "accuracy"
    if is_floored:
        shapes.append(_level(sweep.selection.accuracy_floor))
    data.append(_chosen_ring(sweep, task, metric))
    layout = _layout(
        x={"title": {"text": "N, number of reaction types"}, **_count_ticks(sweep.counts)},
        y={"title": {"text": metric.axis}, "rangemode": "tozero"},
    )
    layout |= {"shapes": shapes, "hovermode": "closest"}
    if metric.name == "accuracy":
        layout["yaxis"]["range"] = [0, 1.03]
    return {"data": data, "layout": layout}


def loss_figure(training: TrainingView) -> Figure:
    """Training and validation loss over steps; a ring marks the weights that are kept.

    Args:
        training: The training log.
    """
    data = [
        _step_line(training.steps, "loss", style=LineStyle("#0072b2", ""), name="training"),
        _step_line(
            training.validations,
            "validation_loss",
            style=LineStyle("#d55e00", "s", (6, 2)),
            name="validation",
        ),
    ]
    if training.best is not None:
        x, y = [training.best["step"]], [training.best["validation_loss"]]
        data.append(_ring(x, y, name="best"))
    return {"data": data, "layout": _step_layout("loss (nats per token)", data)}


def validation_figure(training: TrainingView) -> Figure:
    """Validation loss of each task over steps.

    Args:
        training: The training log.
    """
    data = [
        _step_line(training.validations, f"validation_loss_{task}", style=style, name=task.value)
        for task, style in _TASK_STYLES.items()
    ]
    data = [line for line in data if line["x"]]
    return {"data": data, "layout": _step_layout("validation loss (nats per token)", data)}


def speed_figure(training: TrainingView) -> Figure:
    """Training rows per second over steps.

    Args:
        training: The training log.
    """
    style = LineStyle("#00795c", "")
    line = _step_line(training.steps, "samples_per_s", style=style, name="rows/s")
    return {"data": [line], "layout": _step_layout("rows per second, all workers", [line])}


def workers_figure(training: TrainingView) -> Figure:
    """Training workers at work over steps.

    Args:
        training: The training log.
    """
    style = LineStyle("#a04581", "")
    line = _step_line(training.steps, "workers", style=style, name="workers")
    line["line"]["shape"] = "hv"
    layout = _step_layout("workers", [line])
    highest = max(line["y"], default=1)
    layout["yaxis"] |= {"range": [0, 1.15 * highest], "tickformat": "d"}
    if highest < 8:
        layout["yaxis"]["dtick"] = 1
    return {"data": [line], "layout": layout}


def _value(trial: TrialView | None, metric: Metric) -> float | None:
    value = trial.best.get(metric.name) if trial is not None and trial.best else None
    return None if value is None or not math.isfinite(value) else float(value)


def _describe(trial: TrialView | None) -> str:
    if trial is None:
        return "not part of the search"
    state = f"{trial.state}{', ' + trial.note if trial.note else ''}"
    if trial.best is None:
        return state
    best = trial.best
    low, high = best.get("accuracy_low"), best.get("accuracy_high")
    interval = f" [{low:.3f}, {high:.3f}]" if low is not None and high is not None else ""
    return (
        f"accuracy {best['accuracy']:.3f}{interval}<br>commonest type {best['majority_rate']:.3f}"
        f"<br>kappa {best['kappa']:.3f}, {best['information_bits']:.2f} bits"
        f"<br>effective types {best.get('effective_types', math.nan):.1f}"
        f"<br>{state}, round {best['round']} of {len(trial.rounds)}"
    )


def _cell_texts(
    values: Sequence[Sequence[float | None]],
    trials: Mapping[tuple[str, int], TrialView],
    sweep: SweepView,
    metric: Metric,
) -> list[dict[str, Any]]:
    known = [value for row in values for value in row if value is not None]
    low, high = min(known, default=0.0), max(known, default=1.0)
    texts = []
    # On an axis of categories, places count from zero.
    for y, (row, name) in enumerate(zip(values, sweep.encodings, strict=True)):
        for x, (value, count) in enumerate(zip(row, sweep.counts, strict=True)):
            trial = trials.get((name, count))
            mark = _STATE_MARKS.get(trial.state, "") if trial else ""
            text = ("" if value is None else metric.text.format(value)) + mark
            place = 1.0 if value is None or high <= low else (value - low) / (high - low)
            color = INK if place > _CIVIDIS_LIGHT_ABOVE else "#ffffff"
            if text:
                spot = {"x": x, "y": y, "text": text, "showarrow": False}
                texts.append({**spot, "font": {"color": color, "size": 12}})
    return texts


def _chosen_box(sweep: SweepView, task: str) -> list[dict[str, Any]]:
    choice = sweep.choices.get(task)
    if choice is None:
        return []
    x = list(sweep.counts).index(choice.trial.num_clusters)
    y = list(sweep.encodings).index(choice.trial.encoding)
    place = {"type": "rect", "x0": x - 0.5, "x1": x + 0.5, "y0": y - 0.5, "y1": y + 0.5}
    return [
        {**place, "line": {"color": color, "width": width}}
        for color, width in ((INK, 6), ("#ffffff", 2.5))
    ]


def _chosen_ring(sweep: SweepView, task: str, metric: Metric) -> dict[str, Any]:
    choice = sweep.choices.get(task)
    chosen = [choice.trial] if choice else []
    places = [trial.num_clusters for trial in chosen]
    return _ring(places, [_value(trial, metric) for trial in chosen], name="chosen")


def _ring(x: Sequence[Any], y: Sequence[Any], *, name: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": list(x),
        "y": list(y),
        "marker": {
            "symbol": "circle-open",
            "size": 17,
            "color": INK,
            "line": {"color": INK, "width": 2},
        },
        "name": name,
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _line(
    x: Sequence[Any],
    y: Sequence[Any],
    *,
    style: LineStyle,
    name: str,
    texts: Sequence[str] | None = None,
) -> dict[str, Any]:
    has_markers = bool(style.marker) and len(x) <= 60
    line: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines+markers" if has_markers or len(x) == 1 else "lines",
        "x": list(x),
        "y": list(y),
        "name": name,
        "line": {"color": style.color, "width": 2, "dash": _dash(style)},
        "marker": {"symbol": _SYMBOLS[style.marker], "size": 8, "color": style.color},
    }
    if texts is not None:
        line["text"] = list(texts)
        line["hovertemplate"] = f"<b>{name}, N = %{{x}}</b><br>%{{text}}<extra></extra>"
    return line


def _dots(x: Sequence[Any], y: Sequence[Any], *, color: str, name: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": list(x),
        "y": list(y),
        "name": f"{name}, commonest type",
        "line": {"color": color, "width": 1.3, "dash": "1px,3px"},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _step_line(
    points: Sequence[Mapping[str, Any]], key: str, *, style: LineStyle, name: str
) -> dict[str, Any]:
    kept = [point for point in points if _is_number(point.get(key))]
    steps, values = [point["step"] for point in kept], [point[key] for point in kept]
    line = _line(steps, values, style=style, name=name)
    line["hovertemplate"] = f"{name} %{{y:.4~g}}<extra></extra>"
    return line


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _dash(style: LineStyle) -> str:
    return ",".join(f"{1.4 * part:g}px" for part in style.dash) if style.dash else "solid"


def _level(height: float) -> dict[str, Any]:
    line = {"color": SOFT, "width": 1.5, "dash": "dash"}
    label = {"text": f"floor {height:.2f}", "textposition": "start", "font": {"color": SOFT}}
    place = {"xref": "paper", "x0": 0, "x1": 1, "y0": height, "y1": height}
    return {"type": "line", **place, "line": line, "label": label}


def _count_ticks(counts: Sequence[int]) -> dict[str, Any]:
    return {"tickvals": list(counts)} if len(counts) <= _MAX_LABELLED_COLUMNS else {}


def _step_layout(title: str, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    layout = _layout(
        x={"title": {"text": "optimiser steps"}, "rangemode": "tozero", "tickformat": "~s"},
        y={"title": {"text": title}, "rangemode": "tozero"},
    )
    layout["hovermode"] = "x unified"
    if not any(line["x"] for line in lines):
        place = {"xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5, "showarrow": False}
        layout["annotations"] = [{**place, "text": NONE_YET, "font": {"color": SOFT}}]
    return layout


def _layout(*, x: Mapping[str, Any], y: Mapping[str, Any]) -> dict[str, Any]:
    axis = {
        "gridcolor": GRID,
        "zeroline": False,
        "linecolor": "#8896a4",
        "showline": True,
        "ticks": "outside",
        "tickcolor": "#8896a4",
    }
    return {
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 62, "r": 14, "t": 34, "b": 52},
        "xaxis": {**axis, **x},
        "yaxis": {**axis, **y},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "xanchor": "left"},
        "hoverlabel": {"bgcolor": "#ffffff", "bordercolor": "#8896a4", "align": "left"},
        # Zooms survive an update.
        "uirevision": "same",
    }
