"""The rule that picks the best trial among those of a sweep."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raycrp.choices import Scope, SelectionRule
from raycrp.errors import ElicitError

Rank = tuple[float, ...]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Selection:
    """What makes a trial the best of its task.

    ``accuracy`` takes the highest accuracy; ``floor`` the largest N whose accuracy is at least the
    floor, or the highest accuracy if none is; ``information`` the most bits. Ties go to the higher
    accuracy, then the smaller N, then the first in the table.

    Args:
        rule: What counts.
        accuracy_floor: Least accuracy of the rule ``floor``.
        scope: ``task`` picks a trial for each task, ``reaction`` one encoding and N for all tasks,
            by the mean of what the rule looks at.
    """

    rule: SelectionRule
    accuracy_floor: float = 0.70
    scope: Scope = Scope.TASK


def choose_trials(
    trials: Sequence[Row], *, tasks: Collection[str], selection: Selection
) -> tuple[set[str], set[str]]:
    """Pick the best trial of each task among those that have finished.

    Args:
        trials: Rows with ``trial_id``, ``task``, ``encoding``, ``num_clusters``, ``accuracy`` and
            ``information_bits``.
        tasks: Tasks of the search.
        selection: What makes a trial the best.

    Returns:
        Ids of the best, and of those that have lost to them; a trial is in neither while others
        must finish before it can be judged.
    """
    chosen: set[str] = set()
    beaten: set[str] = set()
    for candidates in _contests(trials, tasks, selection):
        rows = [{"trial_id": place, **_mean(c)} for place, c in enumerate(candidates)]
        best = int(select_trial(rows, selection=selection))
        for place, candidate in enumerate(candidates):
            ids = {str(row["trial_id"]) for row in candidate}
            (chosen if place == best else beaten).update(ids)
    return chosen, beaten


def select_trial(trials: Iterable[Row], *, selection: Selection) -> str:
    """Pick the best of some trials.

    Args:
        trials: Rows with ``trial_id``, ``accuracy``, ``information_bits`` and ``num_clusters``.
        selection: What makes a trial the best.

    Returns:
        The trial's id.

    Raises:
        ElicitError: If there is no trial.
    """
    rows = list(trials)
    if not rows:
        raise ElicitError("no trial has finished, so that none can be selected; run elicit again")
    return str(max(rows, key=lambda row: _rank(row, selection))["trial_id"])


def _rank(trial: Row, selection: Selection) -> Rank:
    """Higher is better; it depends on the trial alone, so that a trial once beaten stays so."""
    accuracy, num_clusters = float(trial["accuracy"]), float(trial["num_clusters"])
    tie_break = (accuracy, -num_clusters)
    if selection.rule is SelectionRule.INFORMATION:
        return (float(trial["information_bits"]), *tie_break)
    if selection.rule is SelectionRule.FLOOR:
        reached = accuracy >= selection.accuracy_floor
        return (float(reached), num_clusters if reached else 0.0, *tie_break)
    return tie_break


def _contests(
    trials: Sequence[Row], tasks: Collection[str], selection: Selection
) -> Iterator[list[list[Row]]]:
    """Groups of candidates of which one wins; a candidate is a trial or a pair's trials."""
    if selection.scope is Scope.TASK:
        for task in tasks:
            if of_task := [[row] for row in trials if row["task"] == task]:
                yield of_task
        return
    pairs: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in trials:
        pairs[row["encoding"], row["num_clusters"]].append(row)
    if complete := [pair for pair in pairs.values() if len(pair) == len(tasks)]:
        yield complete


def _mean(rows: Sequence[Row]) -> dict[str, float]:
    names = ("accuracy", "information_bits", "num_clusters")
    return {name: sum(row[name] for row in rows) / len(rows) for name in names}
