"""The board's page: its sections, and what fills them."""

from collections.abc import Mapping
from typing import Any

from dash import dcc, html

from raycrp.board import figures, view
from raycrp.board.cards import card_children
from raycrp.board.figures import METRICS, Figure
from raycrp.board.snapshot import Snapshot

FIRST_METRIC = "accuracy"

_GRAPHS = {
    "heat": "Heat map of all trials: encoding by N",
    "lines": "Lines over N, one for each encoding",
    "loss": "Training and validation loss over steps",
    "validation": "Validation loss of each task over steps",
    "speed": "Training rows per second over steps",
    "workers": "Training workers over steps",
}
GRAPH_SETTINGS = {"displayModeBar": False, "responsive": True}
"""Of Plotly; dragging zooms, a double click goes back."""


def sweep_figures(snapshot: Snapshot, *, task: str, metric: str) -> dict[str, Figure]:
    """Figures that depend on task and metric, by the id of their place.

    Args:
        snapshot: The run.
        task: The task.
        metric: A name in ``figures.METRICS``.
    """
    chosen = METRICS[metric]
    return {
        "heat": figures.heat_figure(snapshot.sweep, task=task, metric=chosen),
        "lines": figures.lines_figure(snapshot.sweep, task=task, metric=chosen),
    }


def training_figures(snapshot: Snapshot) -> dict[str, Figure]:
    """Figures of training, by the id of their place.

    Args:
        snapshot: The run.
    """
    return {
        "loss": figures.loss_figure(snapshot.training),
        "validation": figures.validation_figure(snapshot.training),
        "speed": figures.speed_figure(snapshot.training),
        "workers": figures.workers_figure(snapshot.training),
    }


def task_parts(snapshot: Snapshot, *, task: str) -> dict[str, Any]:
    """Texts and tables of one task, by the id of their place.

    Args:
        snapshot: The run.
        task: The task.
    """
    return {
        "choice": view.choice_children(snapshot, task=task),
        "trials": view.trial_children(snapshot, task=task),
        "cards": card_children(snapshot, task=task),
    }


def shared_parts(snapshot: Snapshot) -> dict[str, Any]:
    """Texts that no choice of the viewer changes, by the id of their place.

    Args:
        snapshot: The run.
    """
    return {
        "head": view.header_children(snapshot),
        "notice": view.notice_children(snapshot),
        "stages": view.stage_children(snapshot),
        "counts": view.count_children(snapshot),
        "sweep-empty": view.empty_sweep(snapshot),
        "training-empty": view.empty_training(snapshot),
        "training-lead": view.progress_text(snapshot),
    }


def page_children(parts: Mapping[str, Any], *, tasks: list[str], graphs: Mapping[str, Any]) -> Any:
    """The whole page.

    Args:
        parts: Contents by the id of their place.
        tasks: Tasks to choose from.
        graphs: Figures by the id of their place.

    Returns:
        Components from the top of the page to its end.
    """
    return [
        html.A("Skip to the sweep", href="#sweep", className="skip"),
        html.Header(html.Div(parts["head"], id="head", className="wrap")),
        html.Nav(
            html.Div(html.Ul([_link(name) for name in _SECTIONS]), className="wrap"),
            **{"aria-label": "Sections"},
        ),
        html.Main(
            html.Div(
                [
                    html.Div(parts["notice"], id="notice", role="status"),
                    html.Ol(parts["stages"], id="stages", className="stages"),
                    *_sections(parts, tasks, graphs),
                ],
                className="wrap",
            )
        ),
    ]


_SECTIONS = {
    "sweep": ("Which encoding, how many reaction types", "Sweep"),
    "types": ("What the types mean", "Reaction types"),
    "rounds": ("Trials and their rounds", "Trials"),
    "training": ("Training", "Training"),
}
"""Title and short name of each."""


def _link(name: str) -> Any:
    return html.Li(html.A(_SECTIONS[name][1], href=f"#{name}"))


def _sections(parts: Mapping[str, Any], tasks: list[str], graphs: Mapping[str, Any]) -> list[Any]:
    controls = [
        _switch("task", "Task", {task: task for task in tasks}, tasks[0] if tasks else None),
        _switch("metric", "Shown", {m.name: m.title for m in METRICS.values()}, FIRST_METRIC),
    ]
    figure_row = html.Div([_graph("heat", graphs), _graph("lines", graphs)], className="columns")
    keys = html.Ul(
        [
            html.Li([html.Span(className="box"), "chosen"]),
            html.Li([html.Span(className="dots"), "rate of the commonest type"]),
            html.Li("\N{HORIZONTAL ELLIPSIS} running"),
            html.Li("\N{MULTIPLICATION SIGN} stopped"),
        ],
        className="legend",
    )
    sweep = [
        html.Div(controls, className="controls"),
        html.P(parts["sweep-empty"], id="sweep-empty", className="empty"),
        html.Div([figure_row, keys], id="sweep-figures", className="figures"),
        html.Div(parts["choice"], id="choice", className="choice"),
    ]
    table = html.Div(
        parts["trials"],
        id="trials",
        className="scroll tall",
        role="region",
        tabIndex=0,
        **{"aria-label": "All trials of the task"},
    )
    plots = [_graph(name, graphs) for name in ("loss", "validation", "speed", "workers")]
    training = [
        html.P(parts["training-lead"], id="training-lead", className="lead"),
        html.P(parts["training-empty"], id="training-empty", className="empty"),
        html.Div(plots, id="training-figures", className="columns figures"),
    ]
    return [
        _section("sweep", sweep),
        _section("types", [html.Div(parts["cards"], id="cards")]),
        _section("rounds", [html.Div(parts["counts"], id="counts"), table]),
        _section("training", training),
    ]


def _section(name: str, children: list[Any]) -> Any:
    title = html.H2(_SECTIONS[name][0], id=f"{name}-title")
    label = {"aria-labelledby": f"{name}-title"}
    return html.Section([title, *children], id=name, **label)


def _switch(name: str, title: str, options: Mapping[str, str], value: str | None) -> Any:
    choices = [{"label": label, "value": key} for key, label in options.items()]
    radios = dcc.RadioItems(options=choices, value=value, id=name, className="switch", inline=True)
    return html.Fieldset([html.Legend(title), radios])


def _graph(name: str, graphs: Mapping[str, Any]) -> Any:
    graph = dcc.Graph(id=name, figure=graphs[name], config=GRAPH_SETTINGS, className="graph")
    return html.Div(graph, role="group", **{"aria-label": _GRAPHS[name]})
