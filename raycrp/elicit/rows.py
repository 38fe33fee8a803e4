"""The training rows of each task with their shared vectors, as elicitation takes them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raycrp.config import Encoding, Task
from raycrp.elicit.clusters import count_distinct
from raycrp.elicit.encodings import encode_reactions
from raycrp.errors import ElicitError
from raycrp.run import RunFolder
from raycrp.schemas import RtSplit

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

ROWS = "data/rows/train"
VECTORS = "embed/train"


@dataclass(frozen=True)
class TaskRows:
    """D_train of one task. Arrow texts and NumPy arrays travel through Ray without a copy.

    Args:
        task: The task.
        row_ids: Ascending, shape ``(num_rows,)``.
        inputs: Input texts.
        outputs: Output texts.
        input_vectors: Round 0 vectors of the inputs, shape ``(num_rows, dim)``, float32.
        output_vectors: Round 0 vectors of the outputs, same shape.
        train: Indices of D'_train.
        valid: Indices of D'_valid, which decides when to stop and which trial is best.
        test: Indices of D'_test, which is scored once, for the chosen trial.
    """

    task: Task
    row_ids: IntArray
    inputs: pa.ChunkedArray
    outputs: pa.ChunkedArray
    input_vectors: FloatArray
    output_vectors: FloatArray
    train: IntArray
    valid: IntArray
    test: IntArray

    @property
    def num_rows(self) -> int:
        """Rows of D_train."""
        return len(self.row_ids)

    def digest(self) -> str:
        """Hex digest of everything trials depend on."""
        hasher = hashlib.blake2b(digest_size=16)
        hasher.update(self.task.encode())
        arrays = (self.row_ids, self.input_vectors, self.output_vectors)
        for array in (*arrays, self.train, self.valid, self.test):
            hasher.update(np.ascontiguousarray(array).view(np.uint8).data)
        return hasher.hexdigest()


def load_task_rows(run: RunFolder, *, tasks: Sequence[Task]) -> dict[Task, TaskRows]:
    """Read the rows of the data stage and the vectors of the embed stage, task by task.

    Args:
        run: The run folder.
        tasks: Tasks to read.

    Raises:
        ElicitError: If vectors are missing or not finite, or a task lacks D'_train or D'_valid.
    """
    columns = ["row_id", "task", "input", "output", "rt_split"]
    rows = run.read_table(ROWS, columns=columns).sort_by("row_id")
    return {
        task: _attach_vectors(run, task, rows.filter(pc.equal(rows["task"], task.value)))
        for task in tasks
    }


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
            num_distinct = _count_distinct(task_rows, encoding, limit=largest)
            if num_distinct < largest:
                raise ElicitError(
                    f"elicit.num_clusters asks for {largest} clusters, but the {task_rows.num_rows}"
                    f" training rows of task {task} have only {num_distinct} distinct vectors "
                    f"under encoding {encoding}; lower num_clusters or give more data"
                )


def _attach_vectors(run: RunFolder, task: Task, rows: pa.Table) -> TaskRows:
    row_ids = rows["row_id"].to_numpy().astype(np.int64)
    inputs, outputs = _read_vectors(run, task, row_ids)
    split = np.asarray(rows["rt_split"].to_pylist(), dtype=object)
    indices = {part: np.flatnonzero(split == part.value) for part in RtSplit}
    _check_parts(task, indices)
    return TaskRows(
        task=task,
        row_ids=row_ids,
        inputs=rows["input"],
        outputs=rows["output"],
        input_vectors=inputs,
        output_vectors=outputs,
        train=indices[RtSplit.TRAIN],
        valid=indices[RtSplit.VALID],
        test=indices[RtSplit.TEST],
    )


def _read_vectors(run: RunFolder, task: Task, row_ids: IntArray) -> tuple[FloatArray, FloatArray]:
    """Vectors of the rows, read file by file so that the whole table is never held twice."""
    names = run.list_names(VECTORS)
    if not names:
        raise ElicitError(f"{run.uri(VECTORS)} holds no vectors; run the embed stage first")
    dim = run.read_table(f"{VECTORS}/{names[0]}").schema.field("input_vector").type.list_size
    inputs, outputs = (np.full((len(row_ids), dim), np.nan, dtype=np.float32) for _ in range(2))
    for name in names:
        table = run.read_table(f"{VECTORS}/{name}")
        ids = table["row_id"].to_numpy()
        places = np.minimum(np.searchsorted(row_ids, ids), max(len(row_ids) - 1, 0))
        is_wanted = row_ids[places] == ids if len(row_ids) else np.zeros(len(ids), dtype=bool)
        inputs[places[is_wanted]] = _matrix(table["input_vector"], dim)[is_wanted]
        outputs[places[is_wanted]] = _matrix(table["output_vector"], dim)[is_wanted]
    is_bad = ~(np.isfinite(inputs).all(axis=1) & np.isfinite(outputs).all(axis=1))
    if is_bad.any():
        raise ElicitError(
            f"{int(is_bad.sum())} of {len(row_ids)} training rows of task {task} have no finite "
            f"vectors in {run.uri(VECTORS)}, the first is row {row_ids[is_bad][0]}; "
            "run the embed stage again"
        )
    return inputs, outputs


def _matrix(column: pa.ChunkedArray, dim: int) -> FloatArray:
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, dtype=np.float32).reshape(-1, dim)


def _check_parts(task: Task, indices: Mapping[RtSplit, IntArray]) -> None:
    fractions = {RtSplit.TRAIN: "more data", RtSplit.VALID: "a larger data.rt_valid_fraction"}
    for part, remedy in fractions.items():
        if len(indices[part]) == 0:
            raise ElicitError(
                f"task {task} has no rows in {part}, and LLM-RT needs some; give {remedy}"
            )


def _count_distinct(rows: TaskRows, encoding: Encoding, *, limit: int) -> int:
    """Distinct encodings, from a prefix of the rows that doubles until it holds enough."""
    size = 4 * limit
    while True:
        points = encode_reactions(
            encoding,
            input_vectors=rows.input_vectors[:size],
            output_vectors=rows.output_vectors[:size],
        )
        num_distinct = count_distinct(points, limit=limit)
        if num_distinct == limit or size >= rows.num_rows:
            return num_distinct
        size *= 2
