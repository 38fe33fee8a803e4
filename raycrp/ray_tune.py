"""A sweep as one Ray Tune run in the run folder: one trial a point, all errors raised."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ray import tune

from raycrp.errors import RaycrpError
from raycrp.run import RunFolder


def run_trials(
    trainable: Callable[..., None],
    *,
    points: Sequence[Any],
    name_of: Callable[[Any], str],
    resources: Mapping[str, float],
    tune_config: tune.TuneConfig,
    callback: tune.Callback,
    run: RunFolder,
    folder: str,
    error: type[RaycrpError],
    max_failures: int = 0,
) -> None:
    """Run a trial for each point, and wait for all of them.

    Ray Tune starts anew under a name of its own each time: what has finished, callers know from
    their own files.

    Args:
        trainable: What a trial runs, given ``{"trial": point}``.
        points: JSON-ready.
        name_of: Name of a point's trial, in logs and folders.
        resources: What each trial asks of the cluster.
        tune_config: Metric, and how many trials run at once.
        callback: Hears how trials go, on the driver.
        run: The run folder.
        folder: Where Ray Tune keeps its state, relative to the run folder.
        error: Raised, with the reason of the first trial, when some have failed.
        max_failures: Times a trial is started again after its worker was lost.

    Raises:
        KeyboardInterrupt: If someone stopped it before all trials had ended.
    """

    def trial_name(trial: Any) -> str:
        """Name of a trial by what it tries, and of its folder."""
        return name_of(trial.config["trial"])

    # Ray Tune's newer output prints its settings and paths even where it is to print nothing.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    tuner = tune.Tuner(
        tune.with_resources(trainable, dict(resources)),
        param_space={"trial": tune.grid_search(list(points))},
        tune_config=replace(
            tune_config, trial_name_creator=trial_name, trial_dirname_creator=trial_name
        ),
        run_config=tune.RunConfig(
            name=f"attempt-{len(run.list_names(folder)):03d}",
            storage_path=run.path(folder),
            storage_filesystem=run.filesystem,
            failure_config=tune.FailureConfig(max_failures=max_failures),
            callbacks=[callback],
            verbose=0,
        ),
    )
    results = tuner.fit()
    errors = results.errors
    if errors:
        reason = str(errors[0]).strip().splitlines()[-1]
        raise error(
            f"{len(errors)} of {len(points)} trials failed, the first with: {reason}; what has "
            "finished is kept, so that the same command goes on"
        ) from errors[0]
    if results.num_terminated < len(points):
        # Ray Tune takes the first interrupt for itself, and returns as if all were done.
        raise KeyboardInterrupt
