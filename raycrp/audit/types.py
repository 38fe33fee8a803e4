"""Reaction types of the test rows of an audit, named in every way there is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from raycrp.arrays import FloatArray, IntArray
from raycrp.audit.oracle import fit_oracle
from raycrp.audit.rows import part_of
from raycrp.choices import Task
from raycrp.config import Config
from raycrp.errors import RunError
from raycrp.run import RunFolder
from raycrp.schemas import Split


@dataclass(frozen=True)
class TestTypes:
    """Reaction types of the test rows of one task, each of shape ``(num_rows,)``.

    Args:
        predicted: What the run's test prompts carry.
        renamed: What the exported LLM-RT names from the input alone, made anew.
        oracle: The cluster of the true pair.
        constant: The most frequent type of the training rows.
        consistency: Share of training rows that the oracle names as k-means did.
    """

    predicted: IntArray
    renamed: IntArray
    oracle: IntArray
    constant: int
    consistency: float


def name_test_rows(config: Config, run: RunFolder, rows: pa.Table) -> dict[Task, TestTypes]:
    """Reaction types of the test rows of each task.

    Args:
        config: Settings of the run.
        run: The run folder.
        rows: Rows of the audit, described, with the training rows to learn the oracle from.
    """
    return {task: _name_task(run, rows, task) for task in config.model_tasks}


def read_clusters(run: RunFolder, task: Task, *, row_ids: Sequence[int]) -> IntArray:
    """Clusters of some training rows, in their order.

    Args:
        run: The run folder, with the elicit stage done.
        task: Their task.
        row_ids: Their numbers.

    Raises:
        RunError: If a row has no cluster.
    """
    table = run.read_table(f"elicit/reaction_types/{task}.parquet")
    return _look_up(table, row_ids, folder=f"elicit/reaction_types, task {task}")


def matrix(column: pa.ChunkedArray) -> FloatArray:
    """A column of vectors of equal length, shape ``(num_rows, dim)``."""
    return np.array(column.to_pylist(), dtype=np.float32)


def _name_task(run: RunFolder, rows: pa.Table, task: Task) -> TestTypes:
    train = part_of(rows, split=Split.TRAIN, task=task)
    test = part_of(rows, split=Split.TEST, task=task)
    clusters = read_clusters(run, task, row_ids=train["row_id"].to_pylist())
    oracle = fit_oracle(matrix(train["code"]), labels=clusters)
    prompts = run.read_table(f"prompt/{Split.TEST}", columns=["row_id", "reaction_type"])
    return TestTypes(
        predicted=_look_up(prompts, test["row_id"].to_pylist(), folder="prompt/test"),
        renamed=test["named"].to_numpy().astype(np.int64),
        oracle=oracle.name(matrix(test["code"])),
        constant=int(np.bincount(clusters).argmax()),
        consistency=oracle.consistency,
    )


def _look_up(table: pa.Table, row_ids: Sequence[int], *, folder: str) -> IntArray:
    known: Mapping[int, int] = dict(
        zip(table["row_id"].to_pylist(), table["reaction_type"].to_pylist(), strict=True)
    )
    missing = [row_id for row_id in row_ids if known.get(row_id) is None]
    if missing:
        raise RunError(
            f"{folder} has no reaction type for {len(missing)} of {len(row_ids)} rows, first "
            f"row_id {missing[0]}; run that stage again"
        )
    return np.array([known[row_id] for row_id in row_ids], dtype=np.int64)
