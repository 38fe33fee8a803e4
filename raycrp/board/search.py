"""The search over step size and batch as its folders show it: how far each trial is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from raycrp.board.sweep import TrialState
from raycrp.board.training import Line, TrainingLog, rule_of
from raycrp.choices import SelectBy
from raycrp.run import RunFolder
from raycrp.tracking import validation_cost
from raycrp.train.trials import RESULT_FILE, STOPPED_FILE, trial_name, trial_run


@dataclass(frozen=True)
class SearchTrialView:
    """One point of the search.

    Args:
        name: Its folder.
        state: Where it stands.
        step: Optimiser steps done; 0 before its first line.
        best: The line of its best validation; None before the first.
    """

    name: str
    state: TrialState
    step: int = 0
    best: Line | None = None


@dataclass(frozen=True)
class SearchView:
    """The whole search; without trials where none is asked for.

    Args:
        trials: All trials, those that wait included, in the order in which they start.
        select_by: Which validation, and with it which trial, is the best.
    """

    trials: Sequence[SearchTrialView] = ()
    select_by: SelectBy = SelectBy.LOSS

    def num_in(self, state: TrialState) -> int:
        """Trials in a state."""
        return sum(trial.state is state for trial in self.trials)

    @property
    def num_ended(self) -> int:
        """Trials that finished or were stopped."""
        return self.num_in(TrialState.DONE) + self.num_in(TrialState.STOPPED)

    @property
    def best(self) -> SearchTrialView | None:
        """The trial with the best validation so far."""
        known = [trial for trial in self.trials if trial.best is not None]
        return min(
            known,
            key=lambda trial: validation_cost(trial.best or {}, select_by=self.select_by),
            default=None,
        )


class SearchLog:
    """Follows the trials' folders; what has not changed is not read again.

    Args:
        run: The run folder of the search.
    """

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._trials: dict[str, tuple[RunFolder, TrainingLog]] = {}

    def read(self, settings: Mapping[str, Any]) -> SearchView:
        """The search as it is now.

        Args:
            settings: The resolved configuration, as read from YAML.
        """
        section = settings["train"].get("search")
        if not section:
            return SearchView()
        points = product(section["learning_rate"], section["batch_size"])
        names = [trial_name(learning_rate=rate, batch_size=batch) for rate, batch in points]
        rule = rule_of(settings)
        return SearchView(tuple(self._read_trial(name, rule) for name in names), rule)

    def _read_trial(self, name: str, rule: SelectBy) -> SearchTrialView:
        if name not in self._trials:
            run = trial_run(self._run, name)
            self._trials[name] = (run, TrainingLog(run))
        run, log = self._trials[name]
        view = log.read(select_by=rule)
        lines = [line for line in (view.last, *view.validations[-1:]) if line is not None]
        step = max((int(line["step"]) for line in lines), default=0)
        return SearchTrialView(name, _state(run, is_started=bool(lines)), step, view.best)


def _state(run: RunFolder, *, is_started: bool) -> TrialState:
    if run.exists(RESULT_FILE):
        return TrialState.DONE
    if run.exists(STOPPED_FILE):
        return TrialState.STOPPED
    return TrialState.RUNNING if is_started else TrialState.WAITING
