"""The search over encoding and N as one Ray Tune run for all tasks.

A finished trial is known by its own done file, not by Ray Tune's state: a killed driver goes on
with the trials that have none, whatever became of ``tuner.pkl``.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import ray
from ray import tune

from raycrp.choices import Task
from raycrp.elicit.progress import SweepBoard
from raycrp.elicit.rows import TaskRows
from raycrp.elicit.select import Selection
from raycrp.elicit.trial import Record, Trial, TrialSettings, describe_trial, parse_trial, run_trial
from raycrp.errors import ElicitError
from raycrp.ray_tune import run_trials
from raycrp.run import RunFolder

logger = logging.getLogger(__name__)

RAY_STORAGE = "elicit/tune/ray"
RESULT_FORMAT = 2
"""Counts up when what a trial leaves in the run folder changes."""


@dataclass(frozen=True)
class SweepResources:
    """What trials run on.

    Args:
        cpus_per_trial: CPUs of each trial.
        gpus_per_trial: GPUs of each trial.
        max_concurrent_trials: Trials at once; as many as fit if None.
        max_failures: Times a trial is started again after its worker was lost.
    """

    cpus_per_trial: float
    gpus_per_trial: float
    max_concurrent_trials: int | None
    max_failures: int


def run_sweep(
    rows: Mapping[Task, TaskRows],
    *,
    trials: Sequence[Trial],
    settings: TrialSettings,
    resources: SweepResources,
    selection: Selection,
    run: RunFolder,
    before: Sequence[Record] = (),
) -> list[Record]:
    """Run the trials that have not finished yet and return all of them.

    Args:
        rows: D_train by task; each is put into the object store once.
        trials: The points of the search.
        settings: What all trials share.
        resources: What they run on.
        selection: The rule; LLM-RTs of trials that have lost by it are deleted as the sweep runs.
        run: The run folder, with an absolute storage.
        before: Records of an earlier sweep, for the file of rounds.

    Returns:
        The records of all trials, in the order of ``trials``.

    Raises:
        ElicitError: If a trial fails, the sweep is interrupted, or done files belong to other
            settings or data.
    """
    fingerprint = sweep_fingerprint(rows, settings)
    board = SweepBoard(trials, run=run, selection=selection, fingerprint=fingerprint, before=before)
    missing = board.missing_trials()
    if missing:
        logger.info("elicit: %d of %d trials to run", len(missing), len(trials))
        trainable = tune.with_parameters(
            _run_in_tune,
            rows={task: ray.put(task_rows) for task, task_rows in rows.items()},
            settings=settings,
            run=run,
            fingerprint=fingerprint,
        )
        _warn_if_too_large(resources)
        _run_tune(trainable, missing, resources=resources, run=run, board=board)
    if unfinished := board.missing_trials():
        raise ElicitError(
            f"the sweep ended with {len(unfinished)} of {len(trials)} trials to run; "
            "what has finished is kept, so that the same command runs the rest"
        )
    return board.finish()


def _run_in_tune(
    config: Mapping[str, Any],
    *,
    rows: Mapping[Task, "ray.ObjectRef[TaskRows]"],
    settings: TrialSettings,
    run: RunFolder,
    fingerprint: str,
) -> None:
    trial = parse_trial(config["trial"])
    run_trial(
        trial,
        rows=ray.get(rows[trial.task]),
        settings=settings,
        run=run,
        fingerprint=fingerprint,
        report=tune.report,
    )


def _run_tune(
    trainable: Any,
    trials: Sequence[Trial],
    *,
    resources: SweepResources,
    run: RunFolder,
    board: SweepBoard,
) -> None:
    run_trials(
        trainable,
        points=[describe_trial(trial) for trial in trials],
        name_of=lambda point: parse_trial(point).trial_id,
        resources={"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial},
        tune_config=tune.TuneConfig(
            metric="accuracy",
            mode="max",
            max_concurrent_trials=resources.max_concurrent_trials,
            reuse_actors=True,
        ),
        callback=board,
        run=run,
        folder=RAY_STORAGE,
        error=ElicitError,
        max_failures=resources.max_failures,
    )


def _warn_if_too_large(resources: SweepResources) -> None:
    """Tune waits without end for what no node has; an autoscaler may yet bring one."""
    fits = any(
        node["Resources"].get("CPU", 0) >= resources.cpus_per_trial
        and node["Resources"].get("GPU", 0) >= resources.gpus_per_trial
        for node in ray.nodes()
        if node["Alive"]
    )
    if not fits:
        logger.warning(
            "elicit: no node has the %g CPUs and %g GPUs of a trial; waiting for one to join, "
            "or lower elicit.cpus_per_trial and elicit.gpus_per_trial",
            resources.cpus_per_trial,
            resources.gpus_per_trial,
        )


def sweep_fingerprint(rows: Mapping[Task, TaskRows], settings: TrialSettings) -> str:
    """Digest of all that the results of trials depend on.

    Args:
        rows: D_train by task.
        settings: What all trials share; where models run does not count.
    """
    values = asdict(settings)
    del values["llm_rt"]["device"]
    parts = {
        "format": RESULT_FORMAT,
        "settings": values,
        "rows": {task.value: task_rows.digest() for task, task_rows in sorted(rows.items())},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
