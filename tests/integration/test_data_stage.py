"""The data stage as a whole; it needs no Ray."""

import csv
import json
import os
import random
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import selfies
from rdkit import Chem

from raycrp.chem.reactions import reaction_key
from raycrp.choices import Task
from raycrp.config import load_config
from raycrp.data.stage import run_data
from raycrp.errors import DataError, RejectLimitError
from raycrp.run import RunFolder
from raycrp.schemas import REJECTS, TASK_ROWS, TRUTH

WORDS = ["Predict the product. The reaction type is"]
REAL_DATA = os.environ.get("RAYCRP_REAL_DATA")
TASK_NAMES = {
    Task.FORWARD: "forward reaction prediction",
    Task.RETROSYNTHESIS: "retrosynthesis",
    Task.REAGENT: "reagent prediction",
}

needs_real_data = pytest.mark.skipif(REAL_DATA is None, reason="RAYCRP_REAL_DATA is not set")


def run_stage(tmp_path, *overrides, name="run"):
    run = RunFolder(str(tmp_path / "runs"), name)
    config = load_config([], ["data.num_processes=1", *overrides])
    return run, run_data(config, run, words=WORDS)


def sorted_sides(text):
    return ">>".join(".".join(sorted(side.split("."))) for side in text.split(">>"))


def ester(acid, alcohol):
    """Canonical acid, alcohol, ester and reagent, from the lengths of two carbon chains."""
    acid_text = "C" * acid + "C(=O)O"
    alcohol_text = "C" * alcohol + "O"
    product = Chem.CanonSmiles("C" * acid + "C(=O)O" + "C" * alcohol)
    return Chem.CanonSmiles(acid_text), Chem.CanonSmiles(alcohol_text), product, "O=S(=O)(O)O"


def instruction_rows(acid, alcohol, split, *, number, tasks=tuple(Task)):
    a, b, product, reagent = ester(acid, alcohol)
    texts = {
        Task.FORWARD: (f"{a}.{b}.{reagent}", product),
        Task.RETROSYNTHESIS: (product, f"{a}.{b}"),
        Task.REAGENT: (f"{a}.{b}>>{product}", reagent),
    }
    return [
        {
            "instruction": "?",
            "input": texts[task][0],
            "output": texts[task][1],
            "metadata": {"task": TASK_NAMES[task], "split": split},
            "id": number * 3 + n,
        }
        for n, task in enumerate(tasks)
    ]


def write_lines(path, rows):
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def clean_set():
    """60 training reactions, 4 for validation, 6 for testing, three rows each."""
    pairs = [(a, b) for a in range(1, 8) for b in range(1, 11)]
    splits = ["test"] * 6 + ["valid"] * 4 + ["train"] * 60
    return [
        row
        for number, ((a, b), split) in enumerate(zip(pairs, splits, strict=True))
        for row in instruction_rows(a, b, split, number=number)
    ]


def instructions_stage(tmp_path, rows, *overrides, name="run"):
    path = write_lines(tmp_path / f"{name}.jsonl", rows)
    settings = ["data.source=mol_instructions", "data.notation=smiles", f"data.paths=[{path}]"]
    return run_stage(tmp_path, *settings, *overrides, name=name)


def read_rows(run):
    rows = run.read_table("data/rows").to_pylist()
    return sorted(rows, key=lambda row: row["row_id"])


def test_a_clean_set_comes_out_whole(tmp_path):
    rows = clean_set()
    run, report = instructions_stage(tmp_path, rows)
    assert (report["rows_in"], report["rows_out"], report["rejected"]) == (210, 210, 0)
    got = read_rows(run)
    assert [row["source_id"] for row in got] == [str(row["id"]) for row in rows]
    assert [row["row_id"] for row in got] == list(range(210))
    assert [(sorted_sides(r["input"]), sorted_sides(r["output"])) for r in rows] == [
        (row["input"], row["output"]) for row in got
    ]
    acid, alcohol, product, _ = ester(1, 1)
    first_key = reaction_key(".".join(sorted([acid, alcohol])), product=product)
    assert {row["reaction_key"] for row in got[:3]} == {first_key}
    assert Counter((row["split"], row["rt_split"]) for row in got) == {
        ("train", "rt_train"): 174,
        ("train", "rt_valid"): 3,
        ("train", "rt_test"): 3,
        ("validation", None): 12,
        ("test", None): 18,
    }
    for path, schema in (
        ("data/rows/test/part-00000.parquet", TASK_ROWS),
        ("data/rejects.parquet", REJECTS),
        ("data/truth.parquet", TRUTH),
    ):
        assert pq.read_schema(run.path(path)).equals(schema)
    assert report["splits"]["test"] == {"reactions": 6, "rows": dict.fromkeys(Task, 6)}
    assert report["leak_table"] == []
    assert report["unk_rate"] == 0
    assert json.loads(run.read_bytes("data/report.json")) == json.loads(json.dumps(report))


def planted_leaks():
    """Training rows of the first test reaction, each in disguise."""
    acid, alcohol, product, reagent = ester(1, 1)
    same, retro, agent = instruction_rows(1, 1, "train", number=900)
    mixed = ".".join([reagent, alcohol, acid])
    reordered = {**same, "input": mixed, "id": "reordered"}
    respelled = {**retro, "input": "O(C)C(C)=O", "output": "OC.OC(C)=O", "id": "respelled"}
    other_notation = {
        **agent,
        "input": ">>".join(
            ".".join(selfies.encoder(part) for part in side.split("."))
            for side in (f"{acid}.{alcohol}", product)
        ),
        "output": selfies.encoder(reagent),
        "notation": "selfies",
        "id": "other notation",
    }
    other_reagent = {**same, "input": f"{acid}.{alcohol}.[Na+]", "id": "another reagent"}
    assert Chem.CanonSmiles("O(C)C(C)=O") == product
    return [same, reordered, respelled, other_notation, other_reagent]


def test_a_test_reaction_hidden_in_train_is_found_in_any_disguise(tmp_path):
    leaks = planted_leaks()
    run, report = instructions_stage(tmp_path, leaks + clean_set())
    rejects = run.read_table("data/rejects.parquet").to_pylist()
    assert [(row["source_id"], row["reject_reason"]) for row in rejects] == [
        (str(row["id"]), "leak") for row in leaks
    ]
    assert (report["rows_in"], report["rows_out"], report["leaks"]) == (215, 210, 5)
    assert report["unusable"] == 0
    keys = {split: set() for split in ("train", "validation", "test")}
    for row in read_rows(run):
        keys[row["split"]].add(row["reaction_key"])
    assert not keys["train"] & (keys["validation"] | keys["test"])
    assert {"splits", "tasks", "shared_reactions", "left"} == set(report["leak_table"][0])
    assert {row["left"] for row in report["leak_table"]} == {0}


def test_a_test_reaction_hidden_in_the_file_of_another_task(tmp_path):
    rows = [row for row in clean_set() if row["metadata"]["task"] == "forward reaction prediction"]
    retro = [
        row
        for number in range(30)
        for row in instruction_rows(
            1 + number // 10, 1 + number % 10, "train", number=number, tasks=[Task.RETROSYNTHESIS]
        )
    ]
    _, report = instructions_stage(tmp_path, rows + retro, "data.tasks=[forward,retrosynthesis]")
    assert report["leaks"] == 10
    assert report["splits"]["train"]["rows"]["retrosynthesis"] == 20


def test_damage_is_rejected_by_name_and_counted(tmp_path):
    rows = clean_set()
    damaged = [
        '{"input": "CC',
        {**rows[-1], "metadata": None},
        {**rows[-1], "output": "C1C"},
        {**rows[-1], "metadata": {"task": TASK_NAMES[Task.REAGENT], "split": None}},
        rows[-1],
        {**rows[-2], "output": rows[-2]["output"] + "\u200b", "input": " " + rows[-2]["input"]},
    ]
    run, report = instructions_stage(tmp_path, rows + damaged)
    assert report["rejected_by_reason"] == {
        "broken_row": 1,
        "bad_metadata": 1,
        "unparsable_molecule": 1,
        "unknown_split": 1,
        "duplicate": 2,
    }
    assert (report["rows_in"], report["rows_out"], report["rejected"]) == (216, 210, 6)
    assert (report["unusable"], report["duplicates"], report["repeated_ids"]) == (4, 2, 3)
    rejects = {row["source_row"]: row for row in run.read_table("data/rejects.parquet").to_pylist()}
    assert rejects[210]["input"] == '{"input": "CC'
    assert rejects[212]["output"] == "C1C"
    assert "unclosed ring" in rejects[212]["detail"] or "C1C" in rejects[212]["detail"]


def test_too_many_unusable_rows_stop_the_run_and_leave_the_table(tmp_path):
    rows = clean_set()
    bad = [{**row, "output": "C1C"} for row in rows[:70]]
    with pytest.raises(RejectLimitError) as caught:
        instructions_stage(tmp_path, rows + bad)
    message = str(caught.value)
    assert "70 of 280 rows (25.0%)" in message
    assert "data.max_reject_fraction=0.2" in message
    assert "unparsable_molecule 70" in message
    path = tmp_path / "runs/run/data/rejects.parquet"
    assert str(path) in message
    assert pq.read_metadata(path).num_rows == 70


def test_nothing_left_and_tasks_without_rows_are_refused(tmp_path):
    forward = instruction_rows(1, 1, "train", number=0, tasks=[Task.FORWARD])
    with pytest.raises(DataError, match=r"no usable row of the task .*data\.tasks=\[forward\]"):
        instructions_stage(tmp_path, forward)
    bad = [{**row, "output": "C1C"} for row in forward]
    with pytest.raises(DataError, match=r"none of 1 rows is left: unparsable_molecule 1"):
        instructions_stage(tmp_path, bad, "data.max_reject_fraction=1")


def test_sampling_counts_what_it_leaves_out(tmp_path):
    run, report = instructions_stage(tmp_path, clean_set(), "data.max_reactions=35")
    assert (report["rows_in"], report["rows_out"], report["not_sampled"]) == (210, 105, 105)
    assert {s: report["splits"][s]["reactions"] for s in report["splits"]} == {
        "train": 30,
        "validation": 2,
        "test": 3,
    }
    assert set(Counter(row["reaction_key"] for row in read_rows(run)).values()) == {3}


def test_an_interrupted_attempt_ends_like_an_unbroken_one(tmp_path):
    rows = clean_set()
    whole, _ = instructions_stage(tmp_path, rows, "data.rows_per_file=50")
    again, _ = instructions_stage(tmp_path, rows, "data.rows_per_file=50")
    parts = [f"data/rows/train/{name}" for name in whole.list_names("data/rows/train")]
    assert len(parts) == 4
    expected = [whole.read_bytes(part) for part in parts]
    whole.delete(parts[1])
    whole.write_bytes(parts[2], b"cut")
    whole.write_bytes("data/rows/train/part-00009.parquet", b"stale")
    again, _ = instructions_stage(tmp_path, rows, "data.rows_per_file=50")
    assert [again.read_bytes(part) for part in parts] == expected
    assert len(again.list_names("data/rows/train")) == 4


def mapped_reactions(num_reactions):
    """Esterifications with atom maps, reagents written among the precursors."""
    rows = []
    for number in range(num_reactions):
        acid, alcohol = 1 + number % 9, 1 + number // 9
        chain = "".join(f"[CH2:{n}]" for n in range(20, 20 + acid))
        tail = "".join(f"[CH2:{n}]" for n in range(60, 60 + alcohol))
        acid_text, alcohol_text = f"C{chain}[C:1](=[O:2])[OH:3]", f"C{tail}[OH:4]"
        product = f"C{chain}[C:1](=[O:2])[O:4]{tail}C"
        text = f"Cl.{acid_text}.{alcohol_text}>CN(C)C=O>{product}"
        rows.append({"rxn": text, "name": f"r{number}", "class": str(acid)})
    return rows


def reactions_stage(tmp_path, rows, *overrides, name="run"):
    path = tmp_path / f"{name}.csv"
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    columns = ["data.columns.reaction=rxn", "data.columns.id=name", "data.columns.truth=[class]"]
    settings = ["data.source=reactions", f"data.paths=[{path}]", *columns]
    return run_stage(tmp_path, *settings, *overrides, name=name)


def test_mapped_reactions_give_three_rows_truth_and_maps(tmp_path):
    source = mapped_reactions(360)
    run, report = reactions_stage(tmp_path, source)
    assert (report["rows_in"], report["rows_out"]) == (1_080, 1_080)
    assert report["derived_splits"] == ["validation", "test"]
    assert {s: report["splits"][s]["reactions"] for s in report["splits"]} == {
        "train": 335,
        "validation": 7,
        "test": 18,
    }
    rows = read_rows(run)
    forward, retro, agent = rows[:3]
    assert forward["input"] == "CCC(=O)O.CCO.CN(C)C=O.Cl"
    assert (retro["input"], retro["output"]) == ("CCOC(=O)CC", "CCC(=O)O.CCO")
    assert (agent["input"], agent["output"]) == ("CCC(=O)O.CCO>>CCOC(=O)CC", "CN(C)C=O.Cl")
    assert forward["mapped_reaction"] == (
        "C[CH2:20][C:1](=[O:2])[OH:3].C[CH2:60][OH:4]>Cl.CN(C)C=O>"
        "C[CH2:20][C:1](=[O:2])[O:4][CH2:60]C"
    )
    assert not any(":" in row["input"] + row["output"] for row in rows)
    truth = {
        row["row_id"]: row["value"] for row in run.read_table("data/truth.parquet").to_pylist()
    }
    classes = {row["name"]: row["class"] for row in source}
    assert [truth[row["row_id"]] for row in rows] == [classes[row["source_id"]] for row in rows]
    with pq.ParquetFile(run.path("data/rows/train/part-00000.parquet")) as file:
        assert file.metadata.num_rows == 1_005
        sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    assert max(sizes) <= 1_024


def test_the_order_of_the_source_does_not_change_the_splits(tmp_path):
    source = mapped_reactions(60)
    split_of = []
    for name in ("sorted", "shuffled"):
        run, _ = reactions_stage(tmp_path, source, name=name)
        split_of.append({r["reaction_key"]: (r["split"], r["rt_split"]) for r in read_rows(run)})
        random.Random(0).shuffle(source)
    assert split_of[0] == split_of[1]


def test_reactions_without_reagents_name_the_setting_to_change(tmp_path):
    rows = [{"rxn": "C>>O", "name": "a", "class": "1"}, {"rxn": "CC>>O", "name": "b", "class": "1"}]
    with pytest.raises(DataError, match=r"no reaction has reagents .*data\.tasks=\[forward,retro"):
        reactions_stage(tmp_path, rows)


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


@needs_real_data
def test_both_notations_of_real_reactions_give_the_same_rows(tmp_path):
    tables = []
    for notation in ("smiles", "selfies"):
        lines = [
            line
            for path in sorted((Path(REAL_DATA) / "small").glob(f"*.{notation}.jsonl"))
            for line in path.read_text().splitlines()[:200]
        ]
        run, report = instructions_stage(
            tmp_path, lines, f"data.notation={notation}", name=notation
        )
        assert (report["rows_in"], report["rows_out"]) == (600, 600)
        assert sum(counts["reactions"] for counts in report["splits"].values()) == 200
        tables.append(read_rows(run))
    assert tables[0] == tables[1]
