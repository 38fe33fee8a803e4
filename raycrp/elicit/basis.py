"""One clustering for all tasks: each reaction gets its type once."""

import logging
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import ray

from raycrp.arrays import IntArray
from raycrp.choices import Task
from raycrp.elicit.rows import Basis, TaskRows, check_parts
from raycrp.elicit.stored_vectors import StoredVectors
from raycrp.elicit.vectors import Vectors

logger = logging.getLogger(__name__)


def share_reactions(rows: Mapping[Task, TaskRows]) -> dict[Task, TaskRows]:
    """Let all tasks cluster the reactions of one of them, the first of the run's tasks.

    Args:
        rows: D_train by task, in the order of ``Task``.

    Returns:
        The same rows; those whose reaction has no row in the first task are no longer trained or
        measured on, and LLM-RT names them in the end.

    Raises:
        ElicitError: If a task is left without D'_train or D'_valid.
    """
    first = next(task for task in Task if task in rows)
    vectors = _store(rows[first].vectors)
    keys = rows[first].reaction_keys.to_pylist()
    place_of = {key: place for place, key in reversed(list(enumerate(keys)))}
    return {
        task: _attach_basis(task_rows, place_of, task=first, vectors=vectors)
        for task, task_rows in rows.items()
    }


def _attach_basis(
    rows: TaskRows, place_of: Mapping[str, int], *, task: Task, vectors: Vectors
) -> TaskRows:
    keys = rows.reaction_keys.to_pylist()
    places = np.array([place_of.get(key, -1) for key in keys], dtype=np.int64)
    num_missing = int((places < 0).sum())
    if num_missing:
        logger.warning(
            "elicit: %d of %d rows of task %s have no row of their reaction in task %s; "
            "LLM-RT names them from the input",
            num_missing,
            rows.num_rows,
            rows.task,
            task,
        )
    attached = replace(
        rows,
        basis=Basis(task=task, vectors=vectors, places=places),
        train=_with_basis(rows.train, places),
        valid=_with_basis(rows.valid, places),
        test=_with_basis(rows.test, places),
    )
    check_parts(rows.task, train=attached.train, valid=attached.valid)
    return attached


def _with_basis(indices: IntArray, places: IntArray) -> IntArray:
    return indices[places[indices] >= 0]


def _store(vectors: Vectors) -> StoredVectors:
    """The vectors in the object store, where all tasks find the same ones."""
    if isinstance(vectors, StoredVectors):
        return vectors
    return StoredVectors(
        references=tuple(ray.put(block) for block in vectors.blocks()), num_rows=vectors.num_rows
    )
