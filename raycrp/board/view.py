"""The parts of the board as Dash components, the same in the served page and in the file."""

import math
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from dash import html

from raycrp.board.search import SearchView
from raycrp.board.snapshot import Snapshot
from raycrp.board.stages import DONE, UNDER_WAY, WAITING
from raycrp.board.sweep import TrialState, TrialView
from raycrp.board.training import Line, best_score, seconds_left
from raycrp.plan import Stage

Children = list[Any]

_STATE_ORDER = (TrialState.RUNNING, TrialState.DONE, TrialState.STOPPED, TrialState.WAITING)
_STAGE_SIGNS = {DONE: "\N{HEAVY CHECK MARK}", UNDER_WAY: "\N{HORIZONTAL ELLIPSIS}"}
_COLUMNS = (
    "trial",
    "state",
    "accuracy",
    "commonest",
    "kappa",
    "bits",
    "effective",
    "smallest",
    "rounds",
    "time",
)


def header_children(snapshot: Snapshot) -> Children:
    """Name, place and the few numbers at the top.

    Args:
        snapshot: The run.
    """
    seen = time.strftime("%H:%M:%S", time.localtime(snapshot.seen_at))
    facts = [fact for fact in (_trials_fact(snapshot), *_training_facts(snapshot)) if fact]
    return [
        html.P("raycrp board", className="kicker"),
        html.H1(snapshot.run_name),
        html.P(
            [
                html.Span(["folder ", html.Code(snapshot.run_uri)]),
                html.Span(["last change seen ", html.B(seen)]),
            ],
            className="meta",
        ),
        html.Dl([_fact(*fact) for fact in facts], className="facts") if facts else None,
    ]


def stage_children(snapshot: Snapshot) -> Children:
    """The stages in order, each with its state.

    Args:
        snapshot: The run.
    """
    items = []
    for view in snapshot.stages:
        rows = view.summary.get("rows_out")
        note = f"{rows:,} rows" if isinstance(rows, int) and view.state == DONE else view.state
        items.append(
            html.Li(
                [
                    html.Span(_STAGE_SIGNS.get(view.state, ""), **{"aria-hidden": "true"}),
                    html.B(view.stage.value),
                    html.Small(note),
                ],
                className=f"stage {view.state.replace(' ', '-')}",
            )
        )
    return items


def notice_children(snapshot: Snapshot) -> Children:
    """What could not be read this time.

    Args:
        snapshot: The run.
    """
    if not snapshot.problems:
        return []
    names = ", ".join(snapshot.problems[:3])
    return [html.P(f"Not readable just now, shown as last read: {names}", className="notice")]


def choice_children(snapshot: Snapshot, *, task: str) -> Children:
    """What the rule picks for a task, and why.

    Args:
        snapshot: The run.
        task: The task.
    """
    sweep, choice = snapshot.sweep, snapshot.sweep.choices.get(task)
    rule = f"rule: {sweep.selection.rule}"
    if choice is None:
        return [_empty("No round has ended yet. The first results of a trial appear here.")]
    title = "Chosen" if choice.is_final else "Present choice"
    best = choice.trial.best or {}
    numbers = (
        ("accuracy", f"{best['accuracy']:.3f}", _interval(best)),
        ("commonest type", f"{best['majority_rate']:.3f}", "what a guess reaches"),
        ("kappa", f"{best['kappa']:.3f}", "0 is chance"),
        ("bits", f"{best['information_bits']:.2f}", "what the name tells"),
        ("effective types", _number(best.get("effective_types"), 1), _smallest(best)),
    )
    return [
        html.P([title, html.Span(rule, className="tag")], className="kicker"),
        html.P(_words(choice.trial), className="pick"),
        html.P(choice.reason),
        html.Dl([_fact(*number) for number in numbers], className="facts small"),
    ]


def count_children(snapshot: Snapshot) -> Children:
    """How many trials are in each state, as a bar and in words.

    Args:
        snapshot: The run.
    """
    sweep = snapshot.sweep
    if not sweep.trials:
        return []
    counts = [(state, sweep.num_in(state)) for state in _STATE_ORDER]
    pieces = [
        html.Span(style={"width": f"{100 * n / len(sweep.trials):.2f}%"}, className=state.value)
        for state, n in counts
        if n
    ]
    words = [
        html.Li([html.Span(className=f"chip {state.value}"), f"{n:,} {state.value}"])
        for state, n in counts
    ]
    left_s = _sweep_left_s(snapshot)
    if left_s is not None:
        words.append(html.Li(f"about {_span(left_s)} left"))
    return [
        html.Div(pieces, className="states", **{"aria-hidden": "true"}),
        html.Ul(words, className="legend"),
    ]


def trial_children(snapshot: Snapshot, *, task: str) -> Children:
    """All trials of a task as a table, the best first.

    Args:
        snapshot: The run.
        task: The task.
    """
    trials = sorted(snapshot.sweep.of_task(task), key=_table_order)
    if not trials:
        return [_empty("The sweep has no trials yet.")]
    choice = snapshot.sweep.choices.get(task)
    chosen = choice.trial.trial_id if choice else None
    head = html.Thead(html.Tr([html.Th(name, scope="col") for name in _COLUMNS]))
    body = html.Tbody([_trial_row(trial, is_chosen=trial.trial_id == chosen) for trial in trials])
    return [html.Table([head, body])]


def progress_text(snapshot: Snapshot) -> str:
    """One line on training, for under its title.

    Args:
        snapshot: The run.
    """
    training = snapshot.training
    if training.last is None:
        return ""
    stride = "" if training.stride == 1 else f" One line of the log in {training.stride:,} shown."
    return f"Loss of LLM-CRP on the target tokens; the ring marks the best validation.{stride}"


def empty_sweep(snapshot: Snapshot) -> str:
    """What stands in place of a sweep that has not started; nothing once it has results."""
    if any(trial.best for trial in snapshot.sweep.trials):
        return ""
    if not snapshot.settings:
        return "This run folder is empty so far. The board fills as the run goes on."
    view = snapshot.stage(Stage.ELICIT)
    if view is None or view.state == WAITING:
        return "The sweep has not started. Its trials appear here as soon as one has a result."
    return "The sweep has started. The first results appear here in a moment."


def empty_training(snapshot: Snapshot) -> str:
    """What stands in place of training that has no line yet; nothing once it has."""
    if snapshot.training.last is not None or snapshot.training.validations:
        return ""
    view = snapshot.stage(Stage.TRAIN)
    search = snapshot.search
    if search.num_ended or search.num_in(TrialState.RUNNING):
        return _search_text(search)
    if view is not None and view.state == UNDER_WAY:
        return "Training has started. Its first line appears here in a moment."
    return "Training has not started."


def _search_text(search: SearchView) -> str:
    text = f"Searching step size and batch: {search.num_ended} of {len(search.trials)} trials done."
    best = search.best
    if best is None or best.best is None:
        return text
    name, value = best_score(best.best, select_by=search.select_by)
    return f"{text} {name.capitalize()} so far {value}, {best.name}."


def _trials_fact(snapshot: Snapshot) -> tuple[str, str, str] | None:
    sweep = snapshot.sweep
    if not sweep.trials:
        return None
    ended = sweep.num_in(TrialState.DONE) + sweep.num_in(TrialState.STOPPED)
    note = ", ".join(
        f"{sweep.num_in(state):,} {state.value}" for state in _STATE_ORDER if sweep.num_in(state)
    )
    return "trials ended", f"{ended:,} of {len(sweep.trials):,}", note


def _training_facts(snapshot: Snapshot) -> list[tuple[str, str, str]]:
    training, facts = snapshot.training, []
    if training.last is not None:
        facts.append(_step_fact(training.last, snapshot))
    if training.best is not None:
        note = f"at step {training.best['step']:,}"
        facts.append((*best_score(training.best, select_by=training.select_by), note))
    if training.last is not None:
        workers = training.last.get("workers")
        note = f"{workers:g} worker{'' if workers == 1 else 's'}" if workers else ""
        speed = f"{training.last['samples_per_s']:.1f}"
        facts.append(("training rows per second", speed, note))
    if snapshot.restarts:
        lost = sum(restart.steps_lost for restart in snapshot.restarts)
        facts.append(("restarts", f"{len(snapshot.restarts):,}", f"{lost:,} steps done again"))
    return facts


def _step_fact(last: Line, snapshot: Snapshot) -> tuple[str, str, str]:
    settings, view = snapshot.settings["train"], snapshot.stage(Stage.TRAIN)
    note = f"epoch {last['epoch']:.2f} of {settings['max_epochs']}"
    left_s = seconds_left(snapshot.training, train=settings)
    if view is not None and view.state == UNDER_WAY and left_s is not None:
        note += f", at most {_span(left_s)} left"
    return "training step", f"{last['step']:,}", note


def _fact(label: str, value: str, note: str) -> Any:
    parts = [html.Dt(label), html.Dd(value, className="value"), html.Dd(note, className="note")]
    return html.Div(parts, className="fact")


def _trial_row(trial: TrialView, *, is_chosen: bool) -> Any:
    name = html.Th(_words(trial), scope="row")
    text = f"{trial.state.value}{f': {trial.note}' if trial.note else ''}"
    state = html.Td([html.Span(className=f"chip {trial.state.value}"), text], className="left")
    kind = "chosen" if is_chosen else ""
    if trial.best is None:
        return html.Tr([name, state, *[html.Td("") for _ in _COLUMNS[2:]]], className=kind)
    best = trial.best
    accuracy = [f"{best['accuracy']:.3f} ", html.Span(_interval(best), className="interval")]
    cells: Sequence[Any] = (
        accuracy,
        _number(best["majority_rate"], 3),
        _number(best["kappa"], 3),
        _number(best["information_bits"], 2),
        _number(best.get("effective_types"), 1),
        _percent(best.get("smallest_share")),
        _rounds_cell(trial),
        _span(sum(line.get("seconds") or 0 for line in trial.rounds)),
    )
    return html.Tr([name, state, *map(html.Td, cells)], className=kind)


def _rounds_cell(trial: TrialView) -> Children:
    values = [float(line["accuracy"]) for line in trial.rounds]
    if len(values) == 1:
        return ["1"]
    text = "accuracy by round: " + ", ".join(f"{value:.3f}" for value in values)
    return [f"{len(values)} ", html.Img(src=_sparkline(values), alt=text, title=text)]


def _sparkline(values: Sequence[float]) -> str:
    low, span = min(values), max(max(values) - min(values), 1e-9)
    places = [
        (3 + 54 * i / (len(values) - 1), 15 - 12 * (value - low) / span)
        for i, value in enumerate(values)
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    x, y = places[values.index(max(values))]
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="60" height="18" viewBox="0 0 60 18">'
        f'<polyline points="{line}" fill="none" stroke="#4f8fba" stroke-width="1.5"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="#1f2933"/></svg>'
    )
    return "data:image/svg+xml," + quote(svg)


def _table_order(trial: TrialView) -> tuple[bool, int, float]:
    """Those that run on top, then by accuracy, then those that wait."""
    accuracy = float(trial.best["accuracy"]) if trial.best else 0.0
    return trial.best is None, trial.state is not TrialState.RUNNING, -accuracy


def _sweep_left_s(snapshot: Snapshot) -> float | None:
    view = snapshot.stage(Stage.ELICIT)
    if view is None or view.state != UNDER_WAY or view.started_at is None:
        return None
    return snapshot.sweep.seconds_left(time.time() - view.started_at)


def _interval(best: Mapping[str, Any]) -> str:
    low, high = best.get("accuracy_low"), best.get("accuracy_high")
    return "" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"


def _smallest(best: Mapping[str, Any]) -> str:
    return f"smallest {_percent(best.get('smallest_share'))}"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.3g} %"


def _words(trial: TrialView) -> str:
    return f"{trial.encoding.replace('_', ' ')}, N = {trial.num_clusters}"


def _span(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    return str(timedelta(seconds=math.ceil(seconds)))


def _empty(text: str) -> Any:
    return html.P(text, className="empty")
