import sys
from types import ModuleType, SimpleNamespace

import pyarrow as pa
import pytest

from raycrp.report import names
from raycrp.report.agreement import NAMES_TRUTH, measure_agreement
from raycrp.report.names import name_reactions
from raycrp.schemas import TASK_ROWS

KNOWN = {
    "CC(=O)Cl.CN>>CNC(C)=O": "Amidation using Acyl Halides | Primary Amine to Amide",
    "CC(=O)O.CO>>COC(C)=O": "Esterification | From Acid",
    "CCBr.N>>CCN": None,
}


class Classifier:
    """Answers as the package does."""

    def classify(self, reaction):
        return SimpleNamespace(reaction_name=KNOWN[reaction])


@pytest.fixture
def package(monkeypatch):
    module = ModuleType(names.PACKAGE)
    module.ReactionClassifier = Classifier
    monkeypatch.setitem(sys.modules, names.PACKAGE, module)
    monkeypatch.setattr(names, "find_spec", lambda name: object())


@pytest.fixture
def run(finished_run):
    """Rows 10 to 17 of the training split are the known reactions by turns."""
    rows = [
        {
            **dict.fromkeys(("source_id", "reaction_key"), str(row)),
            "row_id": row,
            "task": "forward",
            "split": "train",
            "rt_split": "rt_train",
            **dict(zip(("input", "output"), list(KNOWN)[row % 3].split(">>"), strict=True)),
        }
        for row in range(10, 18)
    ]
    table = pa.Table.from_pylist(rows, schema=TASK_ROWS)
    finished_run.write_table("data/rows/train/part-00000.parquet", table)
    return finished_run


def test_confirmed_names_are_the_broadest(run, package):
    found = name_reactions(run, rows=range(10, 18), num_rows=100, seed=0)
    assert found == {
        row: ["Amidation using Acyl Halides", "Esterification"][row % 3]
        for row in range(10, 18)
        if row % 3 != 2
    }


def test_so_many_rows_are_tried_as_asked_for(run, package):
    assert len(name_reactions(run, rows=range(10, 18), num_rows=3, seed=0)) <= 3
    assert name_reactions(run, rows=range(10, 18), num_rows=0, seed=0) == {}


def test_names_are_one_more_truth(run, package):
    found = measure_agreement(run, seed=0, num_named=100)
    (named,) = [each for each in found if each.truth == NAMES_TRUTH]
    assert (named.task, named.num_rows, named.num_classes) == ("forward", 5, 2)


def test_without_the_package_there_are_none(run, monkeypatch):
    monkeypatch.setattr(names, "find_spec", lambda name: None)
    assert name_reactions(run, rows=range(10, 18), num_rows=100, seed=0) == {}
