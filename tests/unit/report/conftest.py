"""A small finished run, made up by hand."""

import json
import shutil
from dataclasses import asdict

import pyarrow as pa
import pytest

from raycrp.config import Config, dump_yaml
from raycrp.evaluate.tables import AnsweredRow, score_tasks
from raycrp.run import RunFolder
from raycrp.schemas import ANNOTATIONS, PREDICTIONS, REACTION_TYPES, RT_CARDS, SCORES, TRIALS, TRUTH

ROWS = [
    # row, task, input, right answer, answers, class
    (0, "forward", "CC(=O)O.CCO", "CCOC(C)=O", ["CCOC(C)=O", "CC"], "acylation"),
    (1, "forward", "CCBr.CCN", "CCNCC", ["CC", "C(C)NCC", "C1"], "alkylation"),
    (2, "retrosynthesis", "CCOC(C)=O", "CC(=O)O.CCO", ["C(=O", "CC"], "acylation"),
    (3, "retrosynthesis", "CCNCC", "CCBr.CCN", ["", "CC"], "alkylation"),
    (4, "reagent", "CCBr.CCN>>CCNCC", "[K+].[OH-]", ["[OH-].[K+]", "O"], "alkylation"),
]


CARDS = [
    {
        "task": task,
        "encoding": "concat",
        "num_types": 1,
        "reaction_type": 0,
        "name": f"C-O made, ester gained{mark}",
        "size": 8,
        "share": 1.0,
        "frequent_changes": [
            {"name": "C-O made", "kind": "bond made", "share": 0.96},
            {"name": "ester gained", "kind": "group gained", "share": 0.75},
        ],
        "specific_changes": [
            {"name": "ester gained", "kind": "group gained", "lift": 12.5, "share": 0.75}
        ],
        "central": ["CC(=O)O.CCO>>CCOC(C)=O"],
    }
    for task, mark in (("forward", ""), ("retrosynthesis", ""), ("reagent", " <b>"))
]


def settings(name="demo run", **sections):
    return Config.model_validate({"run": {"name": name.replace(" ", "-")}, **sections})


@pytest.fixture
def empty_run(tmp_path):
    return RunFolder(str(tmp_path), "empty")


@pytest.fixture
def finished_run(template_run, tmp_path):
    """A copy of its own, for tests that change it."""
    shutil.copytree(template_run.path(), tmp_path / "finished")
    return RunFolder(str(tmp_path), "finished")


@pytest.fixture(scope="session")
def template_run(tmp_path_factory):
    run = RunFolder(str(tmp_path_factory.mktemp("runs")), "finished")
    write_markers(run)
    write_elicitation(run)
    write_answers(run)
    lines = [{"step": step, "loss": 2 / step} for step in range(1, 21)]
    lines += [{"step": 10, "validation_loss": 0.5}, {"step": 20, "validation_loss": 0.6}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    run.write_bytes("train/metrics.jsonl", text.encode())
    return run


def write_markers(run):
    run.write_bytes("config.yaml", dump_yaml(settings()).encode())
    packages = {"raycrp": "1.2.3", "ray": "2.60.0"}
    run.write_json("environment.json", {"python": "3.11.4", "packages": packages})
    run.write_json("report/_STARTED.json", {"digest": "feed" * 16})
    summary = {"rows_in": 1200, "rows_out": 1100, "rejected": 100, "seconds": 75.2}
    run.write_json("data/_SUCCESS.json", {"digest": "x", "summary": summary})
    result = {"step": 20, "stop_reason": "patience"}
    run.write_json("train/_SUCCESS.json", {"digest": "x", "summary": {**summary, "result": result}})
    counts = {"forward": 500, "retrosynthesis": 400, "reagent": 200}
    report = {
        "source": "mol_instructions",
        "rows_in": 1200,
        "rows_out": 1100,
        "rejected": 100,
        "rejected_by_reason": {"leak": 88, "unparsable_molecule": 12},
        "reject_examples": {"leak": "row 7", "unparsable_molecule": "<b>row</b> 9"},
        "splits": {"train": {"reactions": 480, "rows": counts}},
        "leak_table": [
            {
                "splits": ["test", "train"],
                "tasks": ["forward", "reagent"],
                "shared_reactions": 44,
                "left": 0,
            }
        ],
        "tokens": {"forward": {"input": {"p50": 31, "p90": 55, "p99": 80, "max": 1131}}},
        "unk_rate": 0.00025,
    }
    run.write_json("data/report.json", report)


def write_elicitation(run):
    trials = [
        {
            **dict.fromkeys(TRIALS.names, 0),
            "has_collapsed": False,
            "is_probe": (encoding, number) == ("output", 5),
            "trial_id": f"{task}-{encoding}-{number}",
            "task": task,
            "encoding": encoding,
            "num_clusters": number,
            "accuracy": 0.9 - number / 100,
            "majority_rate": 0.3,
            "is_best": (encoding, number) == ("concat", 4),
        }
        for task in ("forward", "retrosynthesis", "reagent")
        for encoding in ("output", "concat")
        for number in (3, 4, 5)
    ]
    run.write_table("elicit/trials.parquet", pa.Table.from_pylist(trials, schema=TRIALS))
    run.write_table("elicit/rt_cards.parquet", pa.Table.from_pylist(CARDS, schema=RT_CARDS))
    run.write_json("elicit/summary.json", {"forward": {"test": {"accuracy": 0.625}}})
    types = [{"row_id": row, "task": "forward", "reaction_type": row % 2} for row in range(10, 18)]
    run.write_table(
        "elicit/reaction_types/forward.parquet", pa.Table.from_pylist(types, REACTION_TYPES)
    )
    truth = [
        {"row_id": row, "name": "reaction_class", "value": "odd" if row % 2 else "even"}
        for row in range(10, 18)
    ]
    truth += [{"row_id": row[0], "name": "reaction_class", "value": row[5]} for row in ROWS]
    truth += [{"row_id": row, "name": "constant", "value": "same"} for row in range(10, 18)]
    run.write_table("data/truth.parquet", pa.Table.from_pylist(truth, TRUTH))


def write_answers(run):
    rows = [
        {
            "row_id": row,
            "reaction_key": f"k{row}",
            "task": task,
            "reaction_type": 0 if kind == "acylation" else 1,
            "template_id": f"{task}-03",
            "input": left,
            "output": right,
            "predictions": answers,
            "log_probabilities": [-0.5 - place for place in range(len(answers))],
            "source_id": "s",
            "split": "test",
            "rt_split": None,
            "mapped_reaction": None,
            "probabilities": [0.5, 0.5],
        }
        for row, task, left, right, answers, kind in ROWS
    ]
    run.write_table(
        "evaluate/predictions/shard-000000.parquet", pa.Table.from_pylist(rows, PREDICTIONS)
    )
    run.write_table("annotate/test/shard-000000.parquet", pa.Table.from_pylist(rows, ANNOTATIONS))
    answered = [AnsweredRow(f"k{r[0]}", r[1], r[3], tuple(r[4])) for r in ROWS]
    scores = score_tasks(answered, num_answers=5, num_resamples=100, seed=0)
    table = [{**asdict(score.interval), **asdict(score)} for score in scores]
    run.write_table("evaluate/scores.parquet", pa.Table.from_pylist(table, SCORES))
