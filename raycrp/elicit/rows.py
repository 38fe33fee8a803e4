"""The training rows of each task with their shared vectors, as elicitation takes them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raycrp.arrays import IntArray
from raycrp.choices import Encoding, Task
from raycrp.elicit.clusters import count_distinct
from raycrp.elicit.stored_vectors import load_vectors
from raycrp.elicit.vectors import Vectors
from raycrp.errors import ElicitError
from raycrp.run import RunFolder
from raycrp.schemas import RtSplit

ROWS = "data/rows/train"


@dataclass(frozen=True)
class Basis:
    """What is clustered in place of a task's own rows: the reactions, as one task writes them.

    Args:
        task: That task.
        vectors: Its vectors.
        places: Its row of each row's reaction, shape ``(num_rows,)``; -1 where there is none.
    """

    task: Task
    vectors: Vectors
    places: IntArray


@dataclass(frozen=True)
class TaskRows:
    """D_train of one task. Arrow texts and NumPy arrays travel through Ray without a copy.

    Args:
        task: The task.
        row_ids: Ascending, shape ``(num_rows,)``.
        reaction_keys: Which reaction each row is of.
        inputs: Input texts.
        outputs: Output texts.
        vectors: Round 0 vectors, shared by all trials.
        train: Indices of D'_train.
        valid: Indices of D'_valid, which decides when to stop and which trial is best.
        test: Indices of D'_test, which is scored once, for the chosen trial.
        basis: What is clustered; the task's own rows if None.
    """

    task: Task
    row_ids: IntArray
    reaction_keys: pa.ChunkedArray
    inputs: pa.ChunkedArray
    outputs: pa.ChunkedArray
    vectors: Vectors
    train: IntArray
    valid: IntArray
    test: IntArray
    basis: Basis | None = None

    @property
    def num_rows(self) -> int:
        """Rows of D_train."""
        return len(self.row_ids)

    @property
    def clustered_vectors(self) -> Vectors:
        """Round 0 vectors of what is clustered."""
        return self.vectors if self.basis is None else self.basis.vectors

    def digest(self) -> str:
        """Hex digest of everything trials depend on."""
        hasher = hashlib.blake2b(digest_size=16)
        hasher.update(self.task.encode())
        for block in self.vectors.blocks():
            for array in (block.places, block.inputs, block.outputs, *block.features.values()):
                hasher.update(np.ascontiguousarray(array).data)
        for texts in (self.inputs, self.outputs):
            hasher.update("\n".join(texts.to_pylist()).encode())
        places = () if self.basis is None else (self.basis.places,)
        for array in (self.row_ids, self.train, self.valid, self.test, *places):
            hasher.update(array.data)
        return hasher.hexdigest()


def load_task_rows(
    run: RunFolder,
    *,
    tasks: Sequence[Task],
    max_whole_rows: int,
    features: Sequence[Encoding] = (),
) -> dict[Task, TaskRows]:
    """Read the rows of the data stage and the vectors of the embed stage, task by task.

    Args:
        run: The run folder, with an absolute storage.
        tasks: Tasks to read.
        max_whole_rows: Above this many rows of a task, vectors stay in the object store.
        features: Encodings whose own vectors are read too.

    Raises:
        ElicitError: If vectors are missing or not finite, or a task lacks D'_train or D'_valid.
    """
    columns = ["row_id", "reaction_key", "task", "input", "output", "rt_split"]
    rows = run.read_table(ROWS, columns=columns).sort_by("row_id")
    return {
        task: _load_task(
            run, task, rows.filter(pc.equal(rows["task"], task.value)), max_whole_rows, features
        )
        for task in tasks
    }


def check_parts(task: Task, *, train: IntArray, valid: IntArray) -> None:
    """Refuse a task without rows to train on or to measure on.

    Args:
        task: The task.
        train: Indices of D'_train.
        valid: Indices of D'_valid.

    Raises:
        ElicitError: Naming the part that is empty.
    """
    remedies = {RtSplit.TRAIN: "more data", RtSplit.VALID: "a larger data.rt_valid_fraction"}
    for part, indices in ((RtSplit.TRAIN, train), (RtSplit.VALID, valid)):
        if len(indices) == 0:
            raise ElicitError(
                f"task {task} has no rows in {part}, and LLM-RT needs some; give {remedies[part]}"
            )


def check_settings(
    rows: Mapping[Task, TaskRows], *, encodings: Sequence[Encoding], num_clusters: Sequence[int]
) -> None:
    """Refuse a search that no k-means could carry out.

    Raises:
        ElicitError: If N exceeds the number of distinct vectors of an encoding.
    """
    largest = max(num_clusters)
    for task, task_rows in rows.items():
        for encoding in encodings:
            vectors = task_rows.clustered_vectors
            num_distinct = count_distinct(vectors, encoding=encoding, limit=largest)
            if num_distinct < largest:
                raise ElicitError(
                    f"elicit.num_clusters asks for {largest} clusters, but the {vectors.num_rows}"
                    f" training rows of task {task} have only {num_distinct} distinct vectors "
                    f"under encoding {encoding}; lower num_clusters or give more data"
                )


def _load_task(
    run: RunFolder, task: Task, rows: pa.Table, max_whole_rows: int, features: Sequence[Encoding]
) -> TaskRows:
    split = np.asarray(rows["rt_split"].to_pylist(), dtype=object)
    train, valid, test = (
        np.flatnonzero(split == part.value) for part in (RtSplit.TRAIN, RtSplit.VALID, RtSplit.TEST)
    )
    check_parts(task, train=train, valid=valid)
    row_ids = rows["row_id"].to_numpy().astype(np.int64)
    return TaskRows(
        task=task,
        row_ids=row_ids,
        reaction_keys=rows["reaction_key"],
        inputs=rows["input"],
        outputs=rows["output"],
        vectors=load_vectors(
            run, row_ids=row_ids, max_whole_rows=max_whole_rows, features=features
        ),
        train=train,
        valid=valid,
        test=test,
    )
