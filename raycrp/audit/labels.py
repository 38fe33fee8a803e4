"""Leak tests on the labels of a run, and on labels that came with the data."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raycrp.arrays import FloatArray, IntArray
from raycrp.audit.leak import NUM_FOLDS, LabelledRows, LeakTest, find_leak
from raycrp.audit.rows import part_of
from raycrp.audit.types import TestTypes, matrix, read_clusters
from raycrp.chem.text_fingerprints import text_fingerprints
from raycrp.choices import Task
from raycrp.run import RunFolder
from raycrp.schemas import Split

LABEL_COLUMN = "reaction_label"
"""The column in which the paper's authors published their RTs; the data stage keeps it apart."""

TEST_RTS = "RTs of test prompts"
ORACLE_RTS = "oracle RTs"
_TRUTH_PATH = "data/truth.parquet"
_ALL_REPRODUCED = 0.995
_MIN_FIT_ROWS = 50


@dataclass(frozen=True)
class LabelTest:
    """The leak test on one kind of label of one task.

    Args:
        task: The task.
        labels: What the labels are.
        test: What probes read.
        reproduced: Share of the labels that LLM-RT names again from the input alone; None where
            there is no such LLM-RT.
    """

    task: str
    labels: str
    test: LeakTest
    reproduced: float | None = None

    @property
    def leaks(self) -> bool:
        """Whether the labels tell about the answer what the input does not.

        A label that the input alone reproduces cannot, whatever small probes make of it.
        """
        is_reproduced = self.reproduced is not None and self.reproduced >= _ALL_REPRODUCED
        return self.test.leaks and not is_reproduced


def find_run_leaks(
    run: RunFolder,
    rows: pa.Table,
    *,
    types: Mapping[Task, TestTypes],
    num_resamples: int,
    seed: int,
) -> list[LabelTest]:
    """Test the RTs of the run's test prompts, and as a control the oracle's, which must leak.

    Probes learn from clusters of training rows.

    Args:
        run: The run folder.
        rows: Rows of the audit, described.
        types: Reaction types of the test rows.
        num_resamples: Bootstrap draws behind each interval.
        seed: Seed of probes and draws.
    """
    tests = []
    for task, named in types.items():
        train = part_of(rows, split=Split.TRAIN, task=task)
        test = part_of(rows, split=Split.TEST, task=task)
        clusters = read_clusters(run, task, row_ids=train["row_id"].to_pylist())
        if len(np.unique(clusters)) < 2 or not test.num_rows:
            continue
        fit = _labelled(train, clusters)
        for labels, values in ((TEST_RTS, named.predicted), (ORACLE_RTS, named.oracle)):
            found = find_leak(
                _labelled(test, values), fit=fit, num_resamples=num_resamples, seed=seed
            )
            is_named = labels == TEST_RTS
            share = float((named.renamed == named.predicted).mean()) if is_named else None
            tests.append(LabelTest(task.value, labels, found, reproduced=share))
    return tests


def has_labels(run: RunFolder) -> bool:
    """Whether the data arrived with RT labels."""
    if not run.exists(_TRUTH_PATH):
        return False
    names = run.read_table(_TRUTH_PATH, columns=["name"])["name"]
    return bool(pc.any(pc.equal(names, LABEL_COLUMN)).as_py())


def find_label_leaks(
    run: RunFolder, rows: pa.Table, *, num_resamples: int, seed: int
) -> list[LabelTest]:
    """Test the RT labels that came with the data, on validation and test rows.

    Probes learn from labelled training rows, or where those are few, from other held-out rows.

    Args:
        run: The run folder.
        rows: Rows of the audit, described, validation rows among them.
        num_resamples: Bootstrap draws behind each interval.
        seed: Seed of probes and draws.
    """
    truth = run.read_table(_TRUTH_PATH)
    truth = truth.filter(pc.equal(truth["name"], LABEL_COLUMN))
    values = dict(zip(truth["row_id"].to_pylist(), truth["value"].to_pylist(), strict=True))
    classes = {value: number for number, value in enumerate(sorted(set(values.values()) - {None}))}
    tests = []
    for task in Task:
        train = _with_label(part_of(rows, split=Split.TRAIN, task=task), values)
        parts = [part_of(rows, split=each, task=task) for each in (Split.VALIDATION, Split.TEST)]
        held_out = _with_label(pa.concat_tables(parts), values)
        fit, known = (
            _labelled(part, np.array([classes[values[i]] for i in part["row_id"].to_pylist()]))
            for part in (train, held_out)
        )
        has_fit = len(fit.labels) >= _MIN_FIT_ROWS and len(np.unique(fit.labels)) > 1
        can_fold = len(set(known.reactions)) >= NUM_FOLDS and len(np.unique(known.labels)) > 1
        if not len(known.labels) or not (has_fit or can_fold):
            continue
        found = find_leak(
            known, fit=fit if has_fit else None, num_resamples=num_resamples, seed=seed
        )
        tests.append(LabelTest(task.value, f"labels of the data ({LABEL_COLUMN})", found))
    return tests


def _with_label(rows: pa.Table, values: Mapping[int, str | None]) -> pa.Table:
    is_known = [values.get(row_id) is not None for row_id in rows["row_id"].to_pylist()]
    return rows.filter(pa.array(is_known, pa.bool_()))


def _labelled(rows: pa.Table, labels: IntArray) -> LabelledRows:
    return LabelledRows(
        labels=labels.astype(np.int64),
        reactions=rows["reaction_key"].to_pylist(),
        inputs=_features(rows, "input"),
        outputs=_features(rows, "output"),
    )


def _features(rows: pa.Table, side: str) -> FloatArray:
    """What a probe sees of a text: its substructures, and LLM-RT's vector of it."""
    texts = text_fingerprints(rows[side].to_pylist())
    if not rows.num_rows:
        return texts
    return np.concatenate([texts, matrix(rows[f"{side}_vector"])], axis=1)
