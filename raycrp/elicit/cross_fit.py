"""Cross-fitting: training rows named by an LLM-RT that did not see them."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from raycrp.arrays import FloatArray, IntArray
from raycrp.elicit.feedback import LlmRt, derive_seed
from raycrp.elicit.rows import TaskRows


def cross_fit(
    rows: TaskRows,
    *,
    labels: IntArray,
    num_types: int,
    num_folds: int,
    build: Callable[[TaskRows], LlmRt],
    seed: int,
) -> FloatArray:
    """Name every row of D_train by an LLM-RT trained on the folds without it.

    Args:
        rows: D_train of the task.
        labels: Reaction types of all rows.
        num_types: The N of the paper.
        num_folds: Folds, at least 2; rows of the same input are in the same fold.
        build: Makes a fresh LLM-RT for the rows it may see.
        seed: Seed of every random choice.

    Returns:
        Probabilities of the reaction types, shape ``(num_rows, num_types)``.
    """
    probabilities = np.zeros((rows.num_rows, num_types), dtype=np.float32)
    for number, (fold, seen) in enumerate(_folds(rows, num_folds)):
        llm_rt = build(seen)
        llm_rt.train(labels, seed=derive_seed(seed, "cross-fit", number))
        probabilities[fold] = llm_rt.name(fold)
    return probabilities


def _folds(rows: TaskRows, num_folds: int) -> Iterator[tuple[IntArray, TaskRows]]:
    """Rows of each fold, and the rows as an LLM-RT may see them that will name the fold."""
    texts = rows.inputs.to_pylist()
    fold_of = {text: derive_seed(text) % num_folds for text in set(texts)}
    folds = np.array([fold_of[text] for text in texts])
    for number in range(num_folds):
        fold = np.flatnonzero(folds == number)
        if len(fold) == 0:
            continue
        train = rows.train[folds[rows.train] != number]
        valid = rows.valid[folds[rows.valid] != number]
        if len(valid) == 0:
            # A D'_valid as small as a fold: a tenth of D'_train says when to stop instead.
            train, valid = train[len(train) // 10 :], train[: max(1, len(train) // 10)]
        yield fold, replace(rows, train=train, valid=valid)
