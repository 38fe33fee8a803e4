"""An ablation as one Ray Tune run: shared stages once, then a model a trial, resumable."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import ray.data
import torch
from ray import tune

from raycrp.ablate.tables import write_tables
from raycrp.ablate.trials import (
    PROMPT_KINDS,
    Trial,
    describe_trial,
    list_trials,
    make_second_folder,
    make_trial_folder,
    parse_trial,
    run_folder,
    second_config,
    trial_config,
)
from raycrp.config import Config
from raycrp.data.read import inputs_digest
from raycrp.errors import RunError
from raycrp.pipeline import run_pipeline
from raycrp.plan import Stage, stage_statuses
from raycrp.ray_session import connected_ray
from raycrp.ray_tune import run_trials
from raycrp.run import RunFolder

RAY_STORAGE = "ablate/tune"
_TRIAL_MEMORY_BYTES = 2**20
# Ray Tune asks for some resource; where a trial holds no CPU, its stages' workers have them all.

logger = logging.getLogger(__name__)


def run_ablation(config: Config) -> RunFolder:
    """Train and score all models of the tables, then write the tables.

    Data, vectors, reaction types and annotations are made once and shared. Each model has a run
    folder of its own, so that a trial that was cut off goes on where its stages stand, and one
    that has finished is not run again.

    Args:
        config: The resolved configuration.

    Returns:
        The run folder, with the tables under ``ablate``.

    Raises:
        RunError: If a trial fails.
    """
    config = _with_absolute_storage(config)
    digest = inputs_digest(config.data)
    trials = list_trials(config)
    with connected_ray(num_cpus=config.run.num_cpus):
        run = run_pipeline(config, until=Stage.ANNOTATE, known_inputs=digest)
        if any(PROMPT_KINDS[trial.row].is_second for trial in trials):
            make_second_folder(config)
            run_pipeline(second_config(config), until=Stage.ANNOTATE, known_inputs=digest)
        missing = [trial for trial in trials if not _is_done(config, trial, digest)]
        logger.info("ablate: %d of %d models to train", len(missing), len(trials))
        if missing:
            _run_tune(config, missing, run=run, digest=digest, num_done=len(trials) - len(missing))
    write_tables(config, run, trials=trials)
    return run


def _with_absolute_storage(config: Config) -> Config:
    """Trials run in other processes, in other folders."""
    run = run_folder(config)
    if not run.is_local:
        return config
    storage = run.root.rpartition("/")[0]
    return config.model_copy(update={"run": config.run.model_copy(update={"storage": storage})})


def _is_done(config: Config, trial: Trial, digest: str) -> bool:
    folder = make_trial_folder(config, trial)
    statuses = stage_statuses(trial_config(config, trial), folder, inputs_digest=digest)
    return next(status.is_done for status in statuses if status.stage is Stage.EVALUATE)


def _run_tune(
    config: Config, trials: Sequence[Trial], *, run: RunFolder, digest: str, num_done: int
) -> None:
    section = config.ablate
    trainable = tune.with_parameters(_run_in_tune, settings=config, digest=digest)
    run_trials(
        trainable,
        points=[describe_trial(trial) for trial in trials],
        name_of=lambda point: parse_trial(point).trial_id,
        resources={"cpu": section.cpus_per_trial, "memory": _TRIAL_MEMORY_BYTES},
        tune_config=tune.TuneConfig(
            metric="exact_top1",
            mode="max",
            max_concurrent_trials=section.max_concurrent_trials,
            reuse_actors=True,
        ),
        callback=_ProgressLines(num_done, num_done + len(trials)),
        run=run,
        folder=RAY_STORAGE,
        error=RunError,
        max_failures=section.max_failures,
    )


def _run_in_tune(config: Mapping[str, Any], *, settings: Config, digest: str) -> None:
    trial = parse_trial(config["trial"])
    # Bars of trials that run at once would write over each other.
    ray.data.DataContext.get_current().enable_progress_bars = False
    torch.set_num_threads(max(1, int(settings.ablate.cpus_per_trial)))
    make_trial_folder(settings, trial)
    mine = trial_config(settings, trial)
    run = run_pipeline(mine, until=Stage.EVALUATE, known_inputs=digest)
    scores = run.read_json("evaluate/scores.json")
    best_known = scores.get("all") or next(iter(scores.values()))
    tune.report({"exact_top1": best_known["strict"]["exact_top1"]["value"]})


class _ProgressLines(tune.Callback):
    """One line a finished model."""

    def __init__(self, num_done: int, num_trials: int) -> None:
        self._num_done = num_done
        self._num_trials = num_trials

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Say which model has finished, and how it scores."""
        self._num_done += 1
        result = trial.last_result or {}
        logger.info(
            "ablate: %d of %d models done, %s: exact match %.3f",
            self._num_done,
            self._num_trials,
            str(trial),
            result.get("exact_top1", float("nan")),
        )
