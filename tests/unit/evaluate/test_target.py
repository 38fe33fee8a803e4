import csv
import json
import os
import re
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from raycrp.choices import OutputFormat, Task
from raycrp.errors import DataError
from raycrp.evaluate.answers import Answer, Prediction, Rejection
from raycrp.evaluate.inputs import InputRow
from raycrp.evaluate.outputs import answers_table
from raycrp.evaluate.target import Outcome, PredictionTarget

ANSWERED = Prediction(
    "OCC",
    Task.FORWARD,
    answers=(
        Answer("CC=O", -0.25, True, False, confidence=0.5),
        Answer("C1", -1.5, False, False),
    ),
    reaction_type=1,
    reaction_type_probabilities=(0.25, 0.75),
    reaction_types_used=(1, 0),
    template_id="forward-03",
)
REJECTED = Prediction("xx", Task.FORWARD, rejection=Rejection("unparsable_molecule", "no input"))


def blocks():
    """Two blocks: an answered and a rejected row, then an answered one."""
    rows = [InputRow("OCC", "a"), InputRow("xx", "b")]
    yield answers_table([ANSWERED, REJECTED], rows=rows, first_row=0)
    yield answers_table([ANSWERED], rows=[InputRow("OCC")], first_row=2)


EXPECTED = Outcome(2, {"unparsable_molecule": 1})


def test_csv_has_a_line_an_answer(tmp_path):
    path = tmp_path / "out.csv"
    assert PredictionTarget(path, file_format=None).write(blocks()) == EXPECTED
    with path.open() as stream:
        lines = list(csv.DictReader(stream))
    assert [(line["row"], line["rank"], line["smiles"]) for line in lines] == [
        ("0", "1", "CC=O"),
        ("0", "2", "C1"),
        ("2", "1", "CC=O"),
        ("2", "2", "C1"),
    ]
    assert lines[0]["reaction_types"] == "F1:0.7500;F0:0.2500"
    assert (lines[0]["confidence"], lines[1]["confidence"]) == ("0.5", "")
    with (tmp_path / "out.rejects.csv").open() as stream:
        assert [line["id"] for line in csv.DictReader(stream)] == ["b"]


def test_json_lines_and_parquet_have_a_row_an_input(tmp_path):
    for name in ("out.jsonl", "out.parquet"):
        assert PredictionTarget(tmp_path / name, file_format=None).write(blocks()) == EXPECTED
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert lines == pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [line["row"] for line in lines] == [0, 2]
    assert lines[0]["reaction_types"][0] == {"name": "F1", "probability": 0.75}
    assert [answer["is_valid"] for answer in lines[0]["answers"]] == [True, False]


def test_a_folder_has_a_file_a_block(tmp_path):
    target = PredictionTarget(tmp_path / "out", file_format=OutputFormat.JSONL)
    assert target.write(blocks()) == EXPECTED
    names = sorted(str(p.relative_to(tmp_path / "out")) for p in tmp_path.rglob("*.jsonl"))
    assert names == ["_rejects/part-000000.jsonl", "part-000000.jsonl", "part-000001.jsonl"]


def test_without_rejects_there_is_no_file_of_them(tmp_path):
    table = answers_table([ANSWERED], rows=[InputRow("OCC")], first_row=0)
    PredictionTarget(tmp_path / "out.csv", file_format=None).write([table])
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_what_a_killed_job_was_writing_does_not_stay(tmp_path):
    for name in ("out.csv", "out.rejects.csv"):
        handle, _ = tempfile.mkstemp(prefix=f".{name}.", dir=tmp_path)
        os.close(handle)
    (tmp_path / ".out.csv.swp").touch()
    PredictionTarget(tmp_path / "out.csv", file_format=None).write(blocks())
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [".out.csv.swp", "out.csv", "out.rejects.csv"]


def test_rejects_of_a_job_before_do_not_stay(tmp_path):
    path = tmp_path / "out.csv"
    PredictionTarget(path, file_format=None).write(blocks())
    path.unlink()
    table = answers_table([ANSWERED], rows=[InputRow("OCC")], first_row=0)
    PredictionTarget(path, file_format=None).write([table])
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (Path("s3://bucket/folder"), "looks like a URI"),
        ("file:///folder/out.csv", "leave the ending '.csv' out"),
        ("s3://bucket/", "such as s3://bucket/predictions"),
        ("nowhere://bucket/folder", "cannot be opened"),
    ],
)
def test_a_uri_names_a_folder_on_storage_that_is_known(name, said):
    with pytest.raises(DataError, match=re.escape(said)):
        PredictionTarget(name, file_format=None)


def test_a_folder_at_a_uri_holds_what_one_on_a_disk_holds(tmp_path):
    for output in (tmp_path / "disk", f"file://{tmp_path}/uri/"):
        target = PredictionTarget(output, file_format=OutputFormat.JSONL)
        assert target.write(blocks()) == EXPECTED
    for path in (tmp_path / "disk").rglob("*.jsonl"):
        other = tmp_path / "uri" / path.relative_to(tmp_path / "disk")
        assert other.read_text() == path.read_text()
    assert len(list((tmp_path / "uri").rglob("*.jsonl"))) == 3


def test_files_without_rows_are_named_and_counted():
    few = Outcome(1, without_rows=("a.csv", "b.csv"))
    line = "1 rows = 1 answered + 0 rejected; 2 files without rows: a.csv, b.csv"
    assert few.describe() == line
    assert "; 1 file without rows: a.csv" in Outcome(1, without_rows=("a.csv",)).describe()
    many = Outcome(1, without_rows=tuple("abcdefg")).describe()
    assert many.endswith("; 7 files without rows: a, b, c, d, e and 2 more")


def test_what_breaks_leaves_nothing(tmp_path):
    def broken():
        yield next(blocks())
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        PredictionTarget(tmp_path / "out.csv", file_format=None).write(broken())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "file_format", "said"),
    [
        ("out.xls", None, "unknown ending '.xls'"),
        ("out.csv", OutputFormat.PARQUET, "cannot be written as parquet"),
        ("out", OutputFormat.TABLE, "cannot be written as table"),
    ],
)
def test_a_bad_target_is_named(tmp_path, name, file_format, said):
    with pytest.raises(DataError, match=said):
        PredictionTarget(tmp_path / name, file_format=file_format)


def test_every_row_is_accounted_for_in_words():
    outcome = Outcome(1_000, {"missing_input": 2, "arrow_missing": 1})
    expected = "1,003 rows = 1,000 answered + 3 rejected (arrow_missing 1, missing_input 2)"
    assert outcome.describe() == expected
    assert Outcome(5).describe() == "5 rows = 5 answered + 0 rejected"
