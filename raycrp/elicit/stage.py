"""Stage elicit: search for reaction types, choose the best trial of each task, keep its LLM-RT."""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from raycrp.choices import Scope, Search, Task
from raycrp.config import Config
from raycrp.elicit.basis import share_reactions
from raycrp.elicit.cards import write_cards
from raycrp.elicit.clusters import KMeansSettings
from raycrp.elicit.features import make_features
from raycrp.elicit.final import finish_tasks
from raycrp.elicit.llm_rt import LlmRtSettings
from raycrp.elicit.rows import TaskRows, check_settings, load_task_rows
from raycrp.elicit.search import SearchResult, search_by_halving, search_grid
from raycrp.elicit.select import Selection, choose_trials
from raycrp.elicit.sweep import SweepResources
from raycrp.elicit.trial import Record, Trial, TrialSettings, parse_trial
from raycrp.model.tuning import TuningSettings
from raycrp.run import RunFolder
from raycrp.schemas import TRIALS

logger = logging.getLogger(__name__)


def run_elicit(config: Config, run: RunFolder) -> dict[str, Any]:
    """Find the reaction types of every task (Algorithm 1).

    Args:
        config: The resolved configuration.
        run: The run folder, with the rows of the data stage and the vectors of the embed stage.

    Returns:
        Summary of the stage; that of each task is under ``tasks``.

    Raises:
        ElicitError: If the settings do not fit the data, or a trial fails.
    """
    started = time.monotonic()
    rows = _load_rows(config, run)
    selection = Selection(config.elicit.rule, config.elicit.accuracy_floor, config.elicit.scope)
    result = _search(config, rows=rows, selection=selection, run=run)
    best = _best_trials(result.records, tasks=list(rows), selection=selection)
    _write_trials(run, result.table, best)
    final = finish_tasks(
        best,
        rows=rows,
        settings=_trial_settings(config),
        run=run,
        num_folds=config.elicit.cross_fit_folds,
        cpus=config.elicit.cpus_per_trial,
        gpus=config.elicit.gpus_per_trial,
    )
    write_cards(best, rows=rows, run=run, seed=config.run.seed, cpus=config.elicit.cpus_per_trial)
    tasks = {
        task.value: _describe_task(best[task], result, final=final[task], rows=rows[task])
        for task in rows
    }
    run.write_json("elicit/summary.json", tasks)
    num_rows = sum(task_rows.num_rows for task_rows in rows.values())
    return {
        "rows_in": num_rows,
        "rows_out": num_rows,
        "rejected": 0,
        "seconds": time.monotonic() - started,
        **_describe_cost(result),
        "tasks": tasks,
    }


def list_trials(config: Config) -> list[Trial]:
    """All points of the search, in the order of the settings.

    Args:
        config: The resolved configuration.
    """
    return [
        Trial(task, encoding, num_clusters)
        for task in config.data.tasks
        for encoding in config.elicit.encodings
        for num_clusters in config.elicit.num_clusters
    ]


def _load_rows(config: Config, run: RunFolder) -> dict[Task, TaskRows]:
    settings = config.elicit
    features = make_features(
        run,
        encodings=settings.encodings,
        rows_per_shard=config.embed.rows_per_shard,
        num_actors=settings.num_feature_actors,
    )
    rows = load_task_rows(
        run,
        tasks=config.data.tasks,
        max_whole_rows=settings.full_kmeans_max_rows,
        features=features,
    )
    if settings.scope is Scope.REACTION:
        rows = share_reactions(rows)
    check_settings(rows, encodings=settings.encodings, num_clusters=settings.num_clusters)
    return rows


def _search(
    config: Config, *, rows: Mapping[Task, TaskRows], selection: Selection, run: RunFolder
) -> SearchResult:
    trials, settings, resources = list_trials(config), _trial_settings(config), _resources(config)
    if config.elicit.search is Search.GRID:
        return search_grid(
            trials,
            rows=rows,
            settings=settings,
            resources=resources,
            selection=selection,
            run=run,
        )
    return search_by_halving(
        trials,
        num_survivors=config.elicit.survivors,
        rows=rows,
        settings=settings,
        resources=resources,
        selection=selection,
        run=run,
    )


def _trial_settings(config: Config) -> TrialSettings:
    return TrialSettings(
        max_rounds=config.elicit.max_rounds,
        patience=config.elicit.patience,
        kmeans=KMeansSettings(
            num_init=config.elicit.kmeans_num_init,
            max_whole_rows=config.elicit.full_kmeans_max_rows,
        ),
        collapse_fraction=config.elicit.collapse_fraction,
        run_seed=config.run.seed,
        llm_rt=LlmRtSettings(
            kind=config.elicit.labeler,
            has_feedback=config.elicit.max_rounds > 1,
            tuning=TuningSettings(
                max_epochs=config.elicit.tuning_epochs,
                patience=config.elicit.patience,
                batch_size=config.elicit.tuning_batch_size,
                learning_rate=config.elicit.tuning_learning_rate,
            ),
            token_budget=config.embed.token_budget,
            max_tokens=config.embed.max_tokens,
            device=config.run.device,
        ),
    )


def _resources(config: Config) -> SweepResources:
    return SweepResources(
        cpus_per_trial=config.elicit.cpus_per_trial,
        gpus_per_trial=config.elicit.gpus_per_trial,
        max_concurrent_trials=config.elicit.max_concurrent_trials,
        max_failures=config.elicit.max_failures,
    )


def _best_trials(
    records: Sequence[Record], *, tasks: Sequence[Task], selection: Selection
) -> dict[Task, Trial]:
    chosen, _ = choose_trials(records, tasks=tasks, selection=selection)
    trials = [parse_trial(record) for record in records]
    return {trial.task: trial for trial in trials if trial.trial_id in chosen}


def _write_trials(run: RunFolder, records: Sequence[Record], best: Mapping[Task, Trial]) -> None:
    chosen = {trial.trial_id for trial in best.values()}
    table = [{**record, "is_best": record["trial_id"] in chosen} for record in records]
    columns = {name: [row[name] for row in table] for name in TRIALS.names}
    run.write_table("elicit/trials.parquet", pa.table(columns, schema=TRIALS))


def _describe_cost(result: SearchResult) -> dict[str, Any]:
    records = [*result.probes, *result.records]
    return {
        "num_trials": len(result.records),
        "num_probes": len(result.probes),
        "trial_seconds": sum(record["seconds"] for record in records),
        "trial_cpu_seconds": sum(record["cpu_seconds"] for record in records),
        "encoder_passes": {
            "shared": 1,
            "feedback": sum(record["encoder_passes"] for record in records),
        },
    }


def _describe_task(
    trial: Trial, result: SearchResult, *, final: Mapping[str, Any], rows: TaskRows
) -> dict[str, Any]:
    records = result.records
    record = next(record for record in records if record["trial_id"] == trial.trial_id)
    names = ("encoding", "num_clusters", *TRIALS.names[4:])
    return {
        "trial_id": trial.trial_id,
        **{name: record[name] for name in names if name in record},
        "num_train_rows": len(rows.train),
        "num_valid_rows": len(rows.valid),
        "num_test_rows": len(rows.test),
        "num_trials": sum(other["task"] == trial.task for other in records),
        **final,
    }
