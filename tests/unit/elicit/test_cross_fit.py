from dataclasses import replace

import numpy as np
import pyarrow as pa

from raycrp.elicit.cross_fit import cross_fit

LABELS = np.array([i % 2 for i in range(40)])


class Recorder:
    """Names type 1 for rows it was trained or stopped on, type 0 for all others."""

    def __init__(self, rows, seen):
        self.rows = rows
        self.seen = seen

    def train(self, labels, *, seed):
        assert len(self.rows.train)
        assert len(self.rows.valid)
        texts = self.rows.inputs.to_pylist()
        self.known = {texts[i] for i in (*self.rows.train, *self.rows.valid)}
        self.seen.append(self.known)

    def name(self, indices):
        texts = self.rows.inputs.to_pylist()
        return np.eye(2)[[int(texts[i] in self.known) for i in indices]]


def run_cross_fit(rows, num_folds=4):
    seen = []
    probabilities = cross_fit(
        rows,
        labels=LABELS,
        num_types=2,
        num_folds=num_folds,
        build=lambda fold_rows: Recorder(fold_rows, seen),
        seed=0,
    )
    return probabilities, seen


def with_inputs(rows, texts):
    return replace(rows, inputs=pa.chunked_array([texts]))


def test_no_row_is_named_by_what_saw_it(task_rows):
    rows = with_inputs(task_rows, [f"in{i}" for i in range(40)])
    probabilities, seen = run_cross_fit(rows)
    assert probabilities[:, 0].tolist() == [1.0] * 40
    assert len(seen) == 4


def test_rows_of_the_same_input_share_a_fold(task_rows):
    # 40 rows of 10 inputs: were a twin in another fold, its input would have been seen.
    rows = with_inputs(task_rows, [f"in{i % 10}" for i in range(40)])
    probabilities, _ = run_cross_fit(rows)
    assert probabilities[:, 0].tolist() == [1.0] * 40


def test_a_tiny_valid_part_still_leaves_rows_to_stop_on(task_rows):
    rows = with_inputs(task_rows, [f"in{i}" for i in range(40)])
    probabilities, _ = run_cross_fit(replace(rows, valid=rows.valid[:1]))
    assert probabilities[:, 0].tolist() == [1.0] * 40
