"""What is kept of the chosen trial: its reaction types, its LLM-RT, and one look at D'_test."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import ray

from raycrp.config import Task
from raycrp.elicit.feedback import derive_seed
from raycrp.elicit.llm_rt import build_llm_rt
from raycrp.elicit.rows import TaskRows
from raycrp.elicit.scores import score_naming
from raycrp.elicit.trial import Trial, TrialSettings, read_types
from raycrp.model.labeler import load_labeler
from raycrp.run import RunFolder

IntArray = npt.NDArray[np.int64]
Scores = dict[str, Any]

TYPES = "elicit/reaction_types"
LABELERS = "elicit/labelers"


def finish_tasks(
    best: Mapping[Task, Trial],
    *,
    rows: Mapping[Task, TaskRows],
    settings: TrialSettings,
    run: RunFolder,
    cpus: float,
    gpus: float,
) -> dict[Task, Scores | None]:
    """Write reaction types and LLM-RT of each task's best trial, and score it on D'_test.

    Args:
        best: The chosen trial of each task.
        rows: D_train by task.
        settings: What all trials share.
        run: The run folder, with an absolute storage.
        cpus: CPUs for each task.
        gpus: GPUs for each task.

    Returns:
        Scores on D'_test by task; None where it has no rows.
    """
    remote: Any = ray.remote
    job = remote(num_cpus=cpus, num_gpus=gpus)(finish_task)
    scores = {
        task: job.remote(trial, rows=ray.put(rows[task]), settings=settings, run=run)
        for task, trial in best.items()
    }
    return {task: ray.get(reference) for task, reference in scores.items()}


def finish_task(
    trial: Trial, *, rows: TaskRows, settings: TrialSettings, run: RunFolder
) -> Scores | None:
    """Keep the best trial of one task.

    Args:
        trial: The chosen trial.
        rows: D_train of its task.
        settings: What all trials share.
        run: The run folder, with an absolute storage.

    Returns:
        Scores on D'_test, None if it has no rows.
    """
    labels = read_types(trial, run=run)
    run.write_table(f"{TYPES}/{trial.task}.parquet", run.read_table(trial.types_path))
    with run.new_local_dir(f"{LABELERS}/{trial.task}") as folder:
        _fill_labeler(folder, trial, labels=labels, rows=rows, settings=settings, run=run)
        return _score_test(folder, labels=labels, rows=rows, settings=settings)


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


def _score_test(
    folder: Path, *, labels: IntArray, rows: TaskRows, settings: TrialSettings
) -> Scores | None:
    if len(rows.test) == 0:
        return None
    labeler = load_labeler(folder, device=settings.llm_rt.device)
    named = labeler.predict(rows.inputs.take(rows.test).to_pylist()).argmax(axis=1)
    majority_type = int(np.bincount(labels[rows.train]).argmax())
    return asdict(score_naming(labels[rows.test], named=named, majority_type=majority_type))
