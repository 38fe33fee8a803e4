"""The run folder's own account of a sweep: what has finished, each round, the best so far."""

import json
import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

from ray import tune

from raycrp.elicit.select import Selection, choose_trials
from raycrp.elicit.trial import Record, Trial, describe_trial
from raycrp.errors import ElicitError
from raycrp.prometheus import observe, set_gauge, set_round
from raycrp.run import RunFolder

logger = logging.getLogger(__name__)

ROUNDS = "elicit/rounds.jsonl"

_WRITE_INTERVAL_S = 2.0
_ROUND_FIELDS = (
    "round",
    "num_rows",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "majority_rate",
    "kappa",
    "information_bits",
    "calibration_error",
    "effective_types",
    "smallest_share",
    "agreement",
    "has_collapsed",
    "is_best",
    "encoder_passes",
    "seconds",
)


class SweepBoard(tune.Callback):
    """Follows a sweep on the driver.

    Args:
        trials: All points of the search, those of earlier attempts included.
        run: The run folder.
        selection: Which trial of a task is the best.
        fingerprint: Digest of all that results depend on.
        before: Records of an earlier sweep, for the rounds file.

    Raises:
        ElicitError: If a done file has another fingerprint.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        *,
        run: RunFolder,
        selection: Selection,
        fingerprint: str,
        before: Sequence[Record] = (),
    ) -> None:
        self._trials = {trial.trial_id: trial for trial in trials}
        self._before = before
        self._run = run
        self._selection = selection
        self._records: dict[str, Record] = {}
        self._running: dict[str, list[Record]] = {}
        self._failed: set[str] = set()
        self._dropped: set[str] = set()
        self._tasks = {trial.task.value for trial in trials}
        self._written_at = 0.0
        for trial in trials:
            if run.exists(trial.done_path):
                self._records[trial.trial_id] = _read_done(run, trial, fingerprint)
        self._show_counts()

    def missing_trials(self) -> list[Trial]:
        """Trials that have not finished."""
        return [trial for name, trial in self._trials.items() if name not in self._records]

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Count it as running."""
        self._running.setdefault(str(trial), [])
        self._failed.discard(str(trial))
        self._show_counts()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Count it as failed: Tune gives it up."""
        self._running.pop(str(trial), None)
        self._failed.add(str(trial))
        self._show_counts()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Show a round as metrics, and add it to the rounds file, at most every few seconds."""
        name = str(trial)
        metrics = {field: result.get(field) for field in _ROUND_FIELDS}
        earlier = self._running.get(name, [])
        self._running[name] = [*earlier[: result["round"]], metrics]
        set_round(describe_trial(self._trials[name]) | metrics, run=self._run.name)
        if time.monotonic() - self._written_at > _WRITE_INTERVAL_S:
            self._write_rounds()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Take in a finished trial and drop the LLM-RTs that have lost."""
        name = str(trial)
        record = self._run.read_json(self._trials[name].done_path)
        self._records[name] = record
        self._running.pop(name, None)
        self._drop_losers()
        self._show_counts()
        observe("raycrp_trial_seconds", record["seconds"], run=self._run.name)
        logger.info(
            "elicit: %d/%d %s: accuracy %.3f (%.3f to %.3f), kappa %.3f, %.2f bits, %.1f s",
            len(self._records),
            len(self._trials),
            name,
            record["accuracy"],
            record["accuracy_low"],
            record["accuracy_high"],
            record["kappa"],
            record["information_bits"],
            record["seconds"],
        )

    def finish(self) -> list[Record]:
        """Write the rounds file for the last time.

        Returns:
            The records of all trials, in the order of the search.
        """
        self._running.clear()
        self._write_rounds()
        self._drop_losers()
        return [self._records[name] for name in self._trials]

    def _show_counts(self) -> None:
        counts = {
            "done": len(self._records),
            "running": len(self._running),
            "failed": len(self._failed),
        }
        counts["waiting"] = len(self._trials) - sum(counts.values())
        for state, number in counts.items():
            set_gauge("raycrp_trials", number, run=self._run.name, state=state)

    def _drop_losers(self) -> None:
        # In the order of the search: which of two equal trials wins must not depend on timing.
        records = [self._records[name] for name in self._trials if name in self._records]
        _, beaten = choose_trials(records, tasks=self._tasks, selection=self._selection)
        for name in beaten - self._dropped:
            self._run.delete(self._trials[name].labeler_path)
        self._dropped |= beaten

    def _write_rounds(self) -> None:
        lines = (json.dumps(line) + "\n" for line in self._round_lines())
        self._run.write_bytes(ROUNDS, "".join(lines).encode())
        self._written_at = time.monotonic()

    def _round_lines(self) -> Iterator[Record]:
        for record in self._before:
            yield from _lines(record, record["rounds"])
        for name, trial in self._trials.items():
            done = self._records[name]["rounds"] if name in self._records else []
            yield from _lines(describe_trial(trial), done or self._running.get(name, []))


def _lines(trial: Record, rounds: Sequence[Record]) -> Iterator[Record]:
    names = ("trial_id", "task", "encoding", "num_clusters", "is_probe")
    for metrics in rounds:
        yield {**{name: trial[name] for name in names}, **metrics}


def _read_done(run: RunFolder, trial: Trial, fingerprint: str) -> Record:
    record: Record = run.read_json(trial.done_path)
    if record["fingerprint"] != fingerprint:
        raise ElicitError(
            f"{run.uri(trial.done_path)} was made with other settings or data; "
            "give the run another name, or delete its elicit folder"
        )
    return record
