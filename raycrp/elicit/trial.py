"""One trial of the sweep: Algorithm 1 for one task, encoding and N, and what is kept of it."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from raycrp.arrays import FloatArray, IntArray
from raycrp.choices import Encoding, Task
from raycrp.elicit.clusters import KMeansSettings
from raycrp.elicit.feedback import FeedbackSettings, LlmRt, RoundResult, derive_seed, run_rounds
from raycrp.elicit.llm_rt import LlmRtSettings, build_llm_rt
from raycrp.elicit.rows import TaskRows
from raycrp.run import RunFolder
from raycrp.schemas import REACTION_TYPES

logger = logging.getLogger(__name__)

Record = dict[str, Any]

DONE = "elicit/tune/done"
KEPT = "elicit/tune/kept"


@dataclass(frozen=True)
class Trial:
    """A point of the search: the same everywhere and every time.

    Args:
        task: The task.
        encoding: Which vectors describe a reaction.
        num_clusters: The N of the paper.
        is_probe: Whether it is the cheap first look at a pair.
    """

    task: Task
    encoding: Encoding
    num_clusters: int
    is_probe: bool = False

    @property
    def trial_id(self) -> str:
        """Name of the trial in tables, folders and logs."""
        name = f"{self.task}-{self.encoding}-n{self.num_clusters}"
        return f"{name}-probe" if self.is_probe else name

    @property
    def done_path(self) -> str:
        """The file that says the trial has finished, written last."""
        return f"{DONE}/{self.trial_id}.json"

    @property
    def types_path(self) -> str:
        """Reaction types of its best round."""
        return f"{KEPT}/{self.trial_id}/reaction_types.parquet"

    @property
    def labeler_path(self) -> str:
        """LLM-RT of its best round, where training changed the encoder."""
        return f"{KEPT}/{self.trial_id}/labeler"

    def seed(self, run_seed: int) -> int:
        """Seed of all random choices of the trial.

        Args:
            run_seed: The run's seed.
        """
        return derive_seed(run_seed, self.task, self.encoding, self.num_clusters)


@dataclass(frozen=True)
class TrialSettings:
    """What all trials of a sweep share.

    Args:
        max_rounds: Rounds at most; 1 is no feedback.
        patience: Rounds without a better accuracy before a trial stops.
        kmeans: How k-means runs.
        collapse_fraction: Share of round 0's effective reaction types below which a trial stops.
        run_seed: The run's seed.
        llm_rt: How LLM-RT is built and trained.
    """

    max_rounds: int
    patience: int
    kmeans: KMeansSettings
    collapse_fraction: float
    run_seed: int
    llm_rt: LlmRtSettings


def run_trial(
    trial: Trial,
    *,
    rows: TaskRows,
    settings: TrialSettings,
    run: RunFolder,
    fingerprint: str,
    report: Callable[[dict[str, Any]], None],
) -> Record:
    """Carry out a trial and keep its best round; its done file is written last.

    Args:
        trial: The point of the search.
        rows: D_train of the trial's task.
        settings: What all trials share.
        run: The run folder, with an absolute storage.
        fingerprint: Digest of all that the trial's result depends on.
        report: Called with the figures of each round as it ends.

    Returns:
        The contents of the done file.
    """
    started, cpu_started = time.monotonic(), time.process_time()
    llm_rt = build_llm_rt(rows, num_types=trial.num_clusters, settings=settings.llm_rt, run=run)
    rounds: list[RoundResult] = []
    for result in run_rounds(rows, llm_rt=llm_rt, settings=_feedback(trial, rows, settings)):
        rounds.append(result)
        if result.is_best:
            _keep_round(trial, rows=rows, result=result, llm_rt=llm_rt, run=run)
        report(result.metrics())
    record = {
        **describe_trial(trial),
        **_best_of(rounds),
        "seconds": time.monotonic() - started,
        "cpu_seconds": time.process_time() - cpu_started,
        "rounds": [result.metrics() for result in rounds],
        "fingerprint": fingerprint,
    }
    run.write_json(trial.done_path, record)
    return record


def describe_trial(trial: Trial) -> Record:
    """What tells a trial from all others, JSON-ready.

    Args:
        trial: The trial.
    """
    return {
        "trial_id": trial.trial_id,
        "task": trial.task.value,
        "encoding": trial.encoding.value,
        "num_clusters": trial.num_clusters,
        "is_probe": trial.is_probe,
    }


def parse_trial(values: Mapping[str, Any]) -> Trial:
    """The trial that ``describe_trial`` describes; other keys are let be.

    Args:
        values: Its description.
    """
    return Trial(
        Task(values["task"]),
        Encoding(values["encoding"]),
        num_clusters=values["num_clusters"],
        is_probe=values["is_probe"],
    )


def read_types(trial: Trial, *, run: RunFolder) -> IntArray:
    """Reaction types of all rows in the best round of a finished trial, by ascending row id.

    Args:
        trial: The trial.
        run: The run folder.
    """
    table = run.read_table(trial.types_path)
    return np.asarray(table["reaction_type"].to_numpy(), dtype=np.int64)


def read_distances(trial: Trial, *, run: RunFolder) -> FloatArray:
    """How far each row is from the centre of its reaction type, in the best round of a trial.

    Args:
        trial: The trial, finished.
        run: The run folder.

    Returns:
        Float32 by ascending row id; infinite where the reaction was not clustered.
    """
    table = run.read_table(trial.types_path, columns=["distance"])
    return np.asarray(table["distance"].to_numpy(), dtype=np.float32)


def types_table(trial: Trial, *, rows: TaskRows, labels: IntArray) -> pa.Table:
    """Reaction types of all rows as a table.

    Args:
        trial: The trial they come from.
        rows: D_train of its task.
        labels: Reaction types, shape ``(num_rows,)``.
    """
    columns = {
        "row_id": rows.row_ids,
        "task": [trial.task.value] * rows.num_rows,
        "reaction_type": labels.astype(np.int32),
    }
    return pa.table(columns, schema=REACTION_TYPES)


def _feedback(trial: Trial, rows: TaskRows, settings: TrialSettings) -> FeedbackSettings:
    clustered = replace(trial, task=trial.task if rows.basis is None else rows.basis.task)
    return FeedbackSettings(
        encoding=trial.encoding,
        num_clusters=trial.num_clusters,
        max_rounds=settings.max_rounds,
        patience=settings.patience,
        kmeans=settings.kmeans,
        collapse_fraction=settings.collapse_fraction,
        seed=trial.seed(settings.run_seed),
        kmeans_seed=derive_seed(clustered.seed(settings.run_seed), "kmeans"),
    )


def _keep_round(
    trial: Trial, *, rows: TaskRows, result: RoundResult, llm_rt: LlmRt, run: RunFolder
) -> None:
    table = types_table(trial, rows=rows, labels=result.clusters.labels)
    distances = pa.array(result.clusters.distances)
    run.write_table(trial.types_path, table.append_column("distance", distances))
    if llm_rt.learns_vectors:
        with run.new_local_dir(trial.labeler_path) as folder:
            llm_rt.save(folder)


def _best_of(rounds: list[RoundResult]) -> Mapping[str, Any]:
    best = next(result for result in reversed(rounds) if result.is_best)
    metrics = best.metrics()
    for name in ("round", "agreement", "has_collapsed", "is_best", "encoder_passes", "seconds"):
        metrics.pop(name)
    return {
        **metrics,
        "num_rounds": len(rounds),
        "best_round": best.number,
        "has_collapsed": rounds[-1].has_collapsed,
        "encoder_passes": sum(result.encoder_passes for result in rounds),
    }
