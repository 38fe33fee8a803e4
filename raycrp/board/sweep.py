"""The sweep as its files show it: every trial and its state, its rounds, the rule's choice."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from raycrp.choices import Scope, Search, SelectionRule, Task
from raycrp.elicit.select import Selection, choose_trials

Line = Mapping[str, Any]
Pair = tuple[str, str, int]


class TrialState(StrEnum):
    """Where a trial stands."""

    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    WAITING = "waiting"


@dataclass(frozen=True)
class TrialView:
    """One point of the search.

    Args:
        trial_id: Its name; that of its probe where only that was made.
        task: The task.
        encoding: Which vectors describe a reaction.
        num_clusters: The N of the paper.
        state: Where it stands; ``stopped`` is one that collapsed or lost as a probe.
        note: Why it stopped, or that it is a probe; else empty.
        rounds: Lines of its rounds, in order.
        best: The line of its best round; None before the first has ended.
    """

    trial_id: str
    task: str
    encoding: str
    num_clusters: int
    state: TrialState
    note: str = ""
    rounds: Sequence[Line] = ()
    best: Line | None = None


@dataclass(frozen=True)
class Choice:
    """What the rule picks for a task among the trials with results.

    Args:
        trial: The best trial.
        reason: Why, in a sentence or two.
        is_final: Whether the sweep is over.
    """

    trial: TrialView
    reason: str
    is_final: bool


@dataclass(frozen=True)
class SweepView:
    """The whole search.

    Args:
        tasks: Its tasks, in order.
        encodings: Its encodings, in order.
        counts: Its values of N, ascending.
        selection: What makes a trial the best.
        trials: All trials, those that wait included.
        choices: By task; none for a task without results.
    """

    tasks: Sequence[str] = ()
    encodings: Sequence[str] = ()
    counts: Sequence[int] = ()
    selection: Selection = field(default_factory=lambda: Selection(SelectionRule.ACCURACY))
    trials: Sequence[TrialView] = ()
    choices: Mapping[str, Choice] = field(default_factory=dict)

    def of_task(self, task: str) -> list[TrialView]:
        """Trials of one task."""
        return [trial for trial in self.trials if trial.task == task]

    def num_in(self, state: TrialState) -> int:
        """Trials in a state."""
        return sum(trial.state is state for trial in self.trials)

    def seconds_left(self, seconds: float) -> float | None:
        """Until the last trial ends, if the rest take as long as those that have ended.

        Args:
            seconds: Since the sweep started.

        Returns:
            Seconds; None before the first has ended.
        """
        ended = self.num_in(TrialState.DONE) + self.num_in(TrialState.STOPPED)
        return seconds / ended * (len(self.trials) - ended) if ended else None


def build_sweep(
    settings: Line,
    *,
    lines: Iterable[Line],
    finished: Collection[str],
    started: Collection[str],
    is_over: bool,
) -> SweepView:
    """Put the files of a sweep together.

    Args:
        settings: The resolved configuration, as read from YAML.
        lines: Lines of ``elicit/rounds.jsonl``.
        finished: Ids of trials with a done file.
        started: Ids of trials that Ray Tune has made a folder for.
        is_over: Whether the stage has finished.
    """
    elicit = settings["elicit"]
    rounds: dict[str, list[Line]] = {}
    for line in lines:
        rounds.setdefault(line["trial_id"], []).append(line)
    pairs = _pairs(settings, rounds)
    ids = {_pair_id(pair): pair for pair in pairs}
    is_full = any(name in ids for name in rounds)
    builder = _Builder(
        rounds=rounds,
        finished=finished,
        started=started,
        survivors=elicit["survivors"] if elicit["search"] == Search.HALVING else None,
        full=Counter((t, n) for name, (t, _, n) in ids.items() if name in {*rounds, *started}),
        is_over=is_over,
    )
    trials = [builder.build(pair) for pair in pairs]
    selection = Selection(
        SelectionRule(elicit["rule"]), elicit["accuracy_floor"], Scope(elicit["scope"])
    )
    tasks = tuple(dict.fromkeys(pair[0] for pair in pairs))
    rivals = [t for t in trials if t.best is not None and not (is_full and t.best.get("is_probe"))]
    return SweepView(
        tasks=tasks,
        encodings=tuple(dict.fromkeys(pair[1] for pair in pairs)),
        counts=tuple(sorted({pair[2] for pair in pairs})),
        selection=selection,
        trials=trials,
        choices=_choose(rivals, tasks=tasks, selection=selection, is_over=is_over),
    )


@dataclass(frozen=True)
class _Builder:
    rounds: Mapping[str, Sequence[Line]]
    finished: Collection[str]
    started: Collection[str]
    survivors: int | None
    full: Mapping[tuple[str, int], int]
    is_over: bool

    def build(self, pair: Pair) -> TrialView:
        """View of a pair's whole trial, or of its probe while that is all there is."""
        name, probe = _pair_id(pair), f"{_pair_id(pair)}-probe"
        is_probe = name not in self.rounds and (probe in self.rounds or self.survivors is not None)
        trial_id = probe if is_probe else name
        lines = self.rounds.get(trial_id, ())
        state, note = self._state(pair, trial_id, lines, is_probe=is_probe)
        best = max(lines, key=_accuracy) if lines else None
        return TrialView(trial_id, *pair, state, note, lines, best)

    def _state(
        self, pair: Pair, trial_id: str, lines: Sequence[Line], *, is_probe: bool
    ) -> tuple[TrialState, str]:
        task, _, num_clusters = pair
        if is_probe and trial_id in self.finished:
            full = _pair_id(pair)
            if full in self.started:
                return TrialState.RUNNING, ""
            is_decided = self.full[task, num_clusters] >= (self.survivors or 0)
            if self.is_over or is_decided:
                return TrialState.STOPPED, "lost as a probe"
            return TrialState.WAITING, "probed"
        if trial_id in self.finished or (self.is_over and lines):
            if lines and lines[-1].get("has_collapsed"):
                return TrialState.STOPPED, "reaction types collapsed"
            return TrialState.DONE, ""
        if lines or trial_id in self.started:
            return TrialState.RUNNING, "probe" if is_probe else ""
        return TrialState.WAITING, ""


def _pairs(settings: Line, rounds: Mapping[str, Sequence[Line]]) -> list[Pair]:
    """Points that the settings ask for, then those that only the rounds know."""
    elicit = settings["elicit"]
    planned = [
        (str(task), str(encoding), int(num_clusters))
        for task in settings["data"]["tasks"]
        for encoding in elicit["encodings"]
        for num_clusters in elicit["num_clusters"]
    ]
    found = [(x[0]["task"], x[0]["encoding"], x[0]["num_clusters"]) for x in rounds.values()]
    return list(dict.fromkeys([*planned, *found]))


def _pair_id(pair: Pair) -> str:
    return "{}-{}-n{}".format(*pair)


def _accuracy(line: Line) -> float:
    return float(line["accuracy"])


def _choose(
    rivals: Sequence[TrialView], *, tasks: Sequence[str], selection: Selection, is_over: bool
) -> dict[str, Choice]:
    rows = [{**trial.best, "trial_id": trial.trial_id} for trial in rivals if trial.best]
    chosen, _ = choose_trials(rows, tasks=list(map(Task, tasks)), selection=selection)
    return {
        trial.task: Choice(trial, _reason(trial, rivals, selection), is_over)
        for trial in rivals
        if trial.trial_id in chosen
    }


def _reason(trial: TrialView, rivals: Sequence[TrialView], selection: Selection) -> str:
    others = [
        other
        for other in rivals
        if other.task == trial.task and other.trial_id != trial.trial_id and other.best
    ]
    best = trial.best or {}
    if selection.scope is Scope.REACTION:
        return f"Best mean over the tasks by the rule '{selection.rule}'; one pair serves them all."
    if selection.rule is SelectionRule.INFORMATION:
        most = f"Names the most bits: {best['information_bits']:.2f} of {len(others) + 1} trials."
        return most + _runner_up(others, "information_bits")
    if selection.rule is SelectionRule.FLOOR and best["accuracy"] >= selection.accuracy_floor:
        return (
            f"Largest N whose accuracy is at least {selection.accuracy_floor:.2f}: "
            f"{best['accuracy']:.3f}." + _larger(trial, others)
        )
    missed = ""
    if selection.rule is SelectionRule.FLOOR:
        missed = f"No trial reaches the floor of {selection.accuracy_floor:.2f}, so: "
    most = f"Highest accuracy of {len(others) + 1} trials: {best['accuracy']:.3f}."
    return missed + most + _runner_up(others, "accuracy", low=best.get("accuracy_low"))


def _runner_up(others: Sequence[TrialView], name: str, *, low: float | None = None) -> str:
    ranked = sorted(others, key=lambda other: -_value(other, name))
    if not ranked:
        return ""
    value = _value(ranked[0], name)
    text = f" Next: {_words(ranked[0])}, with {value:.3f}"
    if low is not None and value >= low:
        return text + ", inside the interval of the best."
    return text + "."


def _larger(trial: TrialView, others: Sequence[TrialView]) -> str:
    larger = [other for other in others if other.num_clusters > trial.num_clusters]
    if not larger:
        return " No larger N has been tried."
    best = max(larger, key=lambda other: _value(other, "accuracy"))
    return f" Above it the best is {_words(best)}, with {_value(best, 'accuracy'):.3f}."


def _value(trial: TrialView, name: str) -> float:
    return float(trial.best[name]) if trial.best else 0.0


def _words(trial: TrialView) -> str:
    return f"{trial.encoding.replace('_', ' ')}, N = {trial.num_clusters}"
