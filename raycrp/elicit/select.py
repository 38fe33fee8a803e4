"""The rule that picks the best trial among those of a sweep (METHOD section 6.3)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from raycrp.config import SelectionRule
from raycrp.errors import ElicitError

Rank = tuple[float, ...]


@dataclass(frozen=True)
class Selection:
    """What makes a trial the best of its task.

    ``accuracy`` takes the highest accuracy; ``floor`` the largest N whose accuracy is at least the
    floor, or the highest accuracy if none is; ``information`` the most bits. Ties go to the higher
    accuracy, then the smaller N, then the first in the table.

    Args:
        rule: What counts.
        accuracy_floor: Least accuracy of the rule ``floor``.
    """

    rule: SelectionRule
    accuracy_floor: float = 0.70


def select_trial(trials: Iterable[Mapping[str, Any]], *, selection: Selection) -> str:
    """Pick the best trial of one task.

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


def _rank(trial: Mapping[str, Any], selection: Selection) -> Rank:
    """Higher is better; it depends on the trial alone, so that a trial once beaten stays so."""
    accuracy, num_clusters = float(trial["accuracy"]), float(trial["num_clusters"])
    tie_break = (accuracy, -num_clusters)
    if selection.rule is SelectionRule.INFORMATION:
        return (float(trial["information_bits"]), *tie_break)
    if selection.rule is SelectionRule.FLOOR:
        reached = accuracy >= selection.accuracy_floor
        return (float(reached), num_clusters if reached else 0.0, *tie_break)
    return tie_break
