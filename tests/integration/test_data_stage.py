"""The data stage as a whole; it needs no Ray."""

import json
import os
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raycrp.config import load_config
from raycrp.data.stage import run_data
from raycrp.errors import DataError, RejectLimitError
from raycrp.run import RunFolder
from raycrp.schemas import REJECTS, TASK_ROWS, TRUTH

WORDS = ["Predict the product. The reaction type is"]
REAL_DATA = os.environ.get("RAYCRP_REAL_DATA")

needs_real_data = pytest.mark.skipif(REAL_DATA is None, reason="RAYCRP_REAL_DATA is not set")


def run_stage(tmp_path, *overrides, name="run"):
    run = RunFolder(str(tmp_path / "runs"), name)
    config = load_config([], ["data.num_processes=1", *overrides])
    return run, run_data(config, run, words=WORDS)


def sorted_sides(text):
    return ">>".join(".".join(sorted(side.split("."))) for side in text.split(">>"))


@needs_real_data
def test_every_row_of_the_dirty_sample_meets_its_expectation(tmp_path):
    path = Path(REAL_DATA) / "dirty_sample.jsonl"
    expected = [json.loads(line) for line in path.read_text().splitlines()]
    run, report = run_stage(
        tmp_path,
        "data.source=mol_instructions",
        "data.notation=smiles",
        f"data.paths=[{path}]",
        "data.max_reject_fraction=1",
        "data.leak_policy=report",
    )
    assert report["rows_in"] == len(expected)
    rejects = {r["source_row"]: r for r in run.read_table("data/rejects.parquet").to_pylist()}
    kept = iter(
        sorted(
            run.read_table("data/rows").to_pylist(),
            key=lambda row: row["row_id"],
        )
    )
    problems = []
    for number, row in enumerate(expected):
        wanted = row["expect"]
        got = rejects.get(number)
        if got is not None:
            if wanted["action"] == "keep":
                problems.append((row["case"], got["reject_reason"], got["detail"]))
            if wanted["action"] == "drop" and got["reject_reason"] != wanted["reason"]:
                problems.append((row["case"], got["reject_reason"], wanted["reason"]))
            continue
        clean = next(kept)
        if wanted["action"] == "drop":
            problems.append((row["case"], clean["input"], clean["output"]))
        for side in ("input", "output"):
            if wanted["as"] and sorted_sides(wanted["as"][side]) != clean[side]:
                problems.append((row["case"], side, clean[side], wanted["as"][side]))
    assert problems == []
    assert next(kept, None) is None
