"""The search over step size and batch: Ray Train inside Ray Tune trials, the weak ones stopped.

Each trial trains in a folder of its own, ``train/search/TRIAL``, and can be resumed there like any
training. When a killed search starts anew, a trial first tells Tune again what it had told before
and then goes on, so that ASHA judges as if nothing had happened.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

import pyarrow as pa
from ray import tune
from ray.train import UserCallback

from raycrp.choices import Launcher, SelectBy
from raycrp.config import SearchConfig, TrainConfig
from raycrp.errors import DivergedError, TrainError
from raycrp.ray_session import check_only_ray_here
from raycrp.ray_tune import run_trials
from raycrp.run import RunFolder, copy_folder
from raycrp.schemas import Split
from raycrp.tracking import (
    best_validation,
    copy_metrics,
    is_validation,
    read_metrics,
    validation_cost,
)
from raycrp.train.checks import check_resources, check_settings
from raycrp.train.setup import WorkerSettings
from raycrp.train.trials import (
    RESULT_FILE,
    SEARCH_DIR,
    STOPPED_FILE,
    TRIALS_FILE,
    trial_name,
    trial_run,
)
from raycrp.train.worker import BEST_DIR, EVENTS_DIR

_RAY_DIR = f"{SEARCH_DIR}/ray"
_MAX_FAILURES = 3
"""Times that a trial goes on after its node was lost."""
_LOSS = "validation_loss"
_EXACT = "validation_exact"
_COST = "cost"
_ROWS = "rows_seen"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SearchTrial:
    """One point of the search.

    Args:
        learning_rate: Peak step size.
        batch_size: Global batch in rows.
    """

    learning_rate: float
    batch_size: int

    @property
    def name(self) -> str:
        """Folder of the trial."""
        return trial_name(learning_rate=self.learning_rate, batch_size=self.batch_size)

    def settings(self, settings: WorkerSettings) -> WorkerSettings:
        """Settings of this trial's training, in its own folder."""
        train = settings.train.model_copy(
            update={
                "learning_rate": self.learning_rate,
                "batch_size": self.batch_size,
                "search": None,
            }
        )
        run = trial_run(settings.run, self.name)
        return replace(settings, run=run, inputs=settings.run, train=train)


def search_training(settings: WorkerSettings) -> TrainConfig:
    """Train every point of the search, or as far as ASHA lets it, and keep the best one's model.

    Args:
        settings: What to train and how, with ``train.search`` set; the run folder has the token
            tables.

    Returns:
        The settings of the best trial, whose files are now where a plain training leaves them.

    Raises:
        TrainError: If the settings cannot work, or no trial finished.
    """
    section = settings.train.search
    if section is None:
        raise ValueError("train.search is not set")
    trials = search_trials(section)
    _check(settings, trials)
    if not settings.run.exists(TRIALS_FILE):
        _run_tune(settings, trials, section=section)
    best = _choose(settings, trials)
    _take_over(settings.run, best.settings(settings).run)
    return best.settings(settings).train


def search_trials(section: SearchConfig) -> list[SearchTrial]:
    """All points of the search, in the order in which they start.

    Args:
        section: The values to try.
    """
    return [SearchTrial(*values) for values in product(section.learning_rate, section.batch_size)]


def _check(settings: WorkerSettings, trials: Sequence[SearchTrial]) -> None:
    if settings.train.launcher is not Launcher.RAY:
        raise TrainError("train.search needs train.launcher ray; found local")
    for trial in trials:
        check_settings(trial.settings(settings).train)
    check_resources(settings.train)
    check_only_ray_here(who="train.search")


def _run_tune(
    settings: WorkerSettings, trials: Sequence[SearchTrial], *, section: SearchConfig
) -> None:
    run = settings.run
    num_rows = run.num_rows(f"prompt/{Split.TRAIN}")
    most_rows = max(_rows_to_see(settings.train, trial, num_rows=num_rows) for trial in trials)
    scheduler = tune.schedulers.ASHAScheduler(
        time_attr=_ROWS,
        # ASHA kills a trial that reaches its end before training has cleaned up after itself.
        max_t=most_rows + 1,
        grace_period=max(1, round(section.first_rung * most_rows)),
        reduction_factor=section.reduction,
    )
    concurrent = section.max_concurrent_trials or _trials_that_fit(settings.train)
    logger.info("train: searching %d trials, %d at once", len(trials), concurrent)
    by_name = {trial.name: trial for trial in trials}
    run_trials(
        tune.with_parameters(_run_trial, settings=settings, trials=by_name),
        points=list(by_name),
        name_of=str,
        # The workers take the CPUs; the trial only waits, but Tune wants it to ask for something.
        resources={"cpu": 0, "memory": 1},
        tune_config=tune.TuneConfig(
            metric=_COST, mode="min", scheduler=scheduler, max_concurrent_trials=concurrent
        ),
        callback=_Follower(settings, by_name),
        run=run,
        folder=_RAY_DIR,
        error=TrainError,
        max_failures=_MAX_FAILURES,
    )


def _run_trial(
    config: Mapping[str, Any],
    *,
    settings: WorkerSettings,
    trials: Mapping[str, SearchTrial],
) -> None:
    from raycrp.train.trainer import train_model

    own = trials[config["trial"]].settings(settings)
    for line in read_metrics(own.run):
        if is_validation(line):
            tune.report(_report_of(line, own.train))
    if not any(own.run.exists(path) for path in (RESULT_FILE, STOPPED_FILE)):
        try:
            train_model(own, callbacks=[_Reporter(own.train)])
        except DivergedError as error:
            # A step size that is too large is an answer, and no reason to end the search.
            step = max((line["step"] for line in read_metrics(own.run)), default=0)
            own.run.write_json(STOPPED_FILE, {"step": step, "reason": str(error)})
    if own.run.exists(STOPPED_FILE):
        stopped = own.run.read_json(STOPPED_FILE)
        if "reason" in stopped:
            tune.report(_report_of({_LOSS: math.inf, "step": stopped["step"]}, own.train))


class _Reporter(UserCallback):
    """Carries validations from the training workers to Tune; lives in Train's controller."""

    def __init__(self, train: TrainConfig) -> None:
        from ray.train._internal.session import get_session

        # Ray's own callback sends every report, those without a validation too, which ASHA refuses.
        session = get_session()
        if session is None:
            raise RuntimeError("a search's training runs inside a Tune trial")
        self._queue = session._get_or_create_inter_actor_queue()
        self._train = train
        self._step = -1

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any
    ) -> None:
        """Send on what the first worker reported, once for each validation."""
        line = metrics[0]
        if _LOSS in line and line["validated_step"] > self._step:
            self._step = line["validated_step"]
            self._queue.put(_report_of(line | {"step": self._step}, self._train))


class _Follower(tune.Callback):
    """Notes on the driver how trials end, so that a later start leaves stopped ones alone."""

    def __init__(self, settings: WorkerSettings, trials: Mapping[str, SearchTrial]) -> None:
        self._settings = settings
        self._trials = trials
        self._num_ended = 0

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Write the mark of a stopped trial, and a line for people."""
        name = str(trial)
        run = self._trials[name].settings(self._settings).run
        is_finished = run.exists(RESULT_FILE)
        if not is_finished and not run.exists(STOPPED_FILE):
            run.write_json(STOPPED_FILE, {"step": trial.last_result["step"]})
        self._num_ended += 1
        logger.info(
            "train: %d/%d %s: validation loss %.4f, exact answers %.3f, %s at step %d",
            self._num_ended,
            len(self._trials),
            name,
            trial.last_result[_LOSS],
            trial.last_result[_EXACT],
            "finished" if is_finished else "stopped",
            trial.last_result["step"],
        )


@dataclass(frozen=True)
class _Ended:
    trial: SearchTrial
    run: RunFolder
    select_by: SelectBy

    @cached_property
    def best(self) -> Mapping[str, Any]:
        """The line of its best validation; empty where there is none."""
        return best_validation(read_metrics(self.run), select_by=self.select_by) or {}

    @property
    def cost(self) -> float:
        """What the best trial has least of."""
        return validation_cost(self.best, select_by=self.select_by)

    @cached_property
    def row(self) -> dict[str, Any]:
        """The trial's row of the table of trials."""
        lines = [line for line in read_metrics(self.run) if is_validation(line)]
        return {
            "trial": self.trial.name,
            "learning_rate": self.trial.learning_rate,
            "batch_size": self.trial.batch_size,
            "is_finished": self.run.exists(RESULT_FILE),
            "step": lines[-1]["step"] if lines else self.run.read_json(STOPPED_FILE)["step"],
            "best_step": self.best.get("step"),
            "best_loss": self.best.get(_LOSS),
            "best_exact": self.best.get(_EXACT),
        }


def _choose(settings: WorkerSettings, trials: Sequence[SearchTrial]) -> SearchTrial:
    rule = settings.train.select_by
    ended = [_Ended(trial, trial.settings(settings).run, rule) for trial in trials]
    finished = [each for each in ended if each.row["is_finished"]]
    if not finished:
        raise TrainError(
            "no trial of train.search finished; raise train.search.first_rung or look at "
            f"{settings.run.uri(SEARCH_DIR)}"
        )
    table = pa.Table.from_pylist([each.row for each in ended])
    settings.run.write_table(TRIALS_FILE, table)
    best = min(finished, key=lambda each: each.cost)
    logger.info("train: best of %d trials is %s", len(trials), best.trial.name)
    return best.trial


def _take_over(run: RunFolder, source: RunFolder) -> None:
    """Put the best trial's files where a plain training leaves them; its result last."""
    run.delete(BEST_DIR)
    run.delete(EVENTS_DIR)
    for folder in (BEST_DIR, EVENTS_DIR):
        target = (run.filesystem, run.path(folder))
        copy_folder(source.filesystem, source.path(folder), target=target)
    copy_metrics(source, run)
    run.write_bytes(RESULT_FILE, source.read_bytes(RESULT_FILE))


def _report_of(line: Mapping[str, Any], train: TrainConfig) -> dict[str, Any]:
    return {
        _COST: validation_cost(line, select_by=train.select_by),
        _LOSS: line.get(_LOSS, math.inf),
        _EXACT: line.get(_EXACT, 0.0),
        "step": int(line["step"]),
        _ROWS: int(line["step"]) * train.batch_size,
    }


def _rows_to_see(train: TrainConfig, trial: SearchTrial, *, num_rows: int) -> int:
    by_epochs = train.max_epochs * num_rows
    return (
        by_epochs if train.max_steps is None else min(by_epochs, train.max_steps * trial.batch_size)
    )


def _trials_that_fit(train: TrainConfig) -> int:
    import ray

    kind, each = ("GPU", 1.0) if train.use_gpu else ("CPU", train.cpus_per_worker)
    return max(1, int(ray.cluster_resources().get(kind, 0) // (each * train.max_workers)))
