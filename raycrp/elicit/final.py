"""What is kept of the chosen trial: its reaction types, its LLM-RT, and one look at D'_test."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from raycrp.arrays import FloatArray, IntArray
from raycrp.choices import Task
from raycrp.elicit.cross_fit import cross_fit
from raycrp.elicit.feedback import NO_TYPE, derive_seed, majority_type
from raycrp.elicit.llm_rt import build_llm_rt
from raycrp.elicit.rows import TaskRows
from raycrp.elicit.scores import score_naming
from raycrp.elicit.trial import Trial, TrialSettings, read_types, types_table
from raycrp.model.labeler import Labeler, load_labeler
from raycrp.run import RunFolder
from raycrp.schemas import REACTION_TYPES

Scores = dict[str, Any]

TYPES = "elicit/reaction_types"
LABELERS = "elicit/labelers"
CROSS_FITTED = "elicit/cross_fitted"

CROSS_FITTED_TYPES = pa.schema(
    [*REACTION_TYPES, pa.field("probabilities", pa.list_(pa.float32()), nullable=False)]
)
"""Reaction types named by an LLM-RT that did not see the row; D_train rows only."""


def finish_tasks(
    best: Mapping[Task, Trial],
    *,
    rows: Mapping[Task, TaskRows],
    settings: TrialSettings,
    run: RunFolder,
    num_folds: int,
    cpus: float,
    gpus: float,
) -> dict[Task, Scores]:
    """Write reaction types and LLM-RT of each task's best trial, and score it on D'_test.

    Args:
        best: The chosen trial of each task.
        rows: D_train by task.
        settings: What all trials share.
        run: The run folder, with an absolute storage.
        num_folds: Folds of cross-fitting; 0 for none.
        cpus: CPUs for each task.
        gpus: GPUs for each task.

    Returns:
        What ``finish_task`` returns, by task.
    """
    remote: Any = ray.remote
    job = remote(num_cpus=cpus, num_gpus=gpus)(finish_task)
    scores = {
        task: job.remote(
            trial, rows=ray.put(rows[task]), settings=settings, run=run, num_folds=num_folds
        )
        for task, trial in best.items()
    }
    return {task: ray.get(reference) for task, reference in scores.items()}


def finish_task(
    trial: Trial, *, rows: TaskRows, settings: TrialSettings, run: RunFolder, num_folds: int
) -> Scores:
    """Keep the best trial of one task.

    Args:
        trial: The chosen trial.
        rows: D_train of its task.
        settings: What all trials share.
        run: The run folder, with an absolute storage.
        num_folds: Folds of cross-fitting; 0 for none.

    Returns:
        Scores of the kept LLM-RT on D'_test under ``test``, None if it has no rows; those of
        cross-fitting on all clustered rows under ``cross_fit``, None without it.
    """
    labels = read_types(trial, run=run)
    with run.new_local_dir(f"{LABELERS}/{trial.task}") as folder:
        _fill_labeler(folder, trial, labels=labels, rows=rows, settings=settings, run=run)
        labeler = load_labeler(folder, device=settings.llm_rt.device)
    labels = _name_unclustered(labels, labeler, rows=rows)
    run.write_table(f"{TYPES}/{trial.task}.parquet", types_table(trial, rows=rows, labels=labels))
    test = _score_test(labeler, labels=labels, rows=rows)
    crossed = None
    if num_folds:
        crossed = _cross_fit(trial, num_folds, labels, rows=rows, settings=settings, run=run)
    return {"test": test, "cross_fit": crossed}


def _fill_labeler(
    folder: Path,
    trial: Trial,
    *,
    labels: IntArray,
    rows: TaskRows,
    settings: TrialSettings,
    run: RunFolder,
) -> None:
    """Copy the trial's LLM-RT, or train it again where that is cheaper than keeping every one."""
    if run.exists(trial.labeler_path):
        shutil.copytree(run.local_dir(trial.labeler_path), folder, dirs_exist_ok=True)
        return
    llm_rt = build_llm_rt(rows, num_types=trial.num_clusters, settings=settings.llm_rt, run=run)
    llm_rt.train(labels, seed=derive_seed(trial.seed(settings.run_seed), "train", 0))
    llm_rt.save(folder)


def _name_unclustered(labels: IntArray, labeler: Labeler, *, rows: TaskRows) -> IntArray:
    places = np.flatnonzero(labels == NO_TYPE)
    if len(places) == 0:
        return labels
    named = labels.copy()
    named[places] = labeler.predict(rows.inputs.take(places).to_pylist()).argmax(axis=1)
    return named


def _score_test(labeler: Labeler, *, labels: IntArray, rows: TaskRows) -> Scores | None:
    if len(rows.test) == 0:
        return None
    probabilities = labeler.predict(rows.inputs.take(rows.test).to_pylist())
    return _score(rows.test, probabilities, labels=labels, rows=rows)


def _cross_fit(
    trial: Trial,
    num_folds: int,
    labels: IntArray,
    *,
    rows: TaskRows,
    settings: TrialSettings,
    run: RunFolder,
) -> Scores:
    num_types = trial.num_clusters
    probabilities = cross_fit(
        rows,
        labels=labels,
        num_types=num_types,
        num_folds=num_folds,
        build=lambda seen: build_llm_rt(
            seen, num_types=num_types, settings=settings.llm_rt, run=run
        ),
        seed=trial.seed(settings.run_seed),
    )
    table = {
        "row_id": rows.row_ids,
        "task": [trial.task.value] * rows.num_rows,
        "reaction_type": probabilities.argmax(axis=1).astype(np.int32),
        "probabilities": list(probabilities),
    }
    run.write_table(
        f"{CROSS_FITTED}/{trial.task}.parquet", pa.table(table, schema=CROSS_FITTED_TYPES)
    )
    clustered = np.sort(np.concatenate([rows.train, rows.valid, rows.test]))
    return _score(clustered, probabilities[clustered], labels=labels, rows=rows)


def _score(
    places: IntArray, probabilities: FloatArray, *, labels: IntArray, rows: TaskRows
) -> Scores:
    most_frequent = majority_type(rows, labels=labels)
    return asdict(
        score_naming(labels[places], probabilities=probabilities, majority_type=most_frequent)
    )
