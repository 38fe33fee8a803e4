import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raycrp.choices import Notation, Task
from raycrp.config import Config
from raycrp.data.read import inputs_digest, read_rows
from raycrp.data.rejects import RejectReason
from raycrp.errors import DataError
from raycrp.schemas import Split

FORWARD = {"task": "forward reaction prediction", "split": "train"}


def data_config(path, **settings):
    values = {"source": "mol_instructions", "notation": "smiles", "paths": [str(path)]}
    return Config.model_validate({"data": {**values, **settings}}).data


def read_instructions(tmp_path, rows, **settings):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return list(read_rows(data_config(path, **settings), seed=0))


def instruction(**fields):
    return {"instruction": "?", "input": "C", "output": "O", "metadata": FORWARD, "id": 1, **fields}


def test_a_published_row(tmp_path):
    row = instruction(id=7, reaction_label=3, note=None, metadata={**FORWARD, "split": "test"})
    [got] = read_instructions(tmp_path, [row])
    assert (got.number, got.source_id, got.task, got.split) == (0, "7", Task.FORWARD, Split.TEST)
    assert (got.input, got.output, got.notation) == ("C", "O", Notation.SMILES)
    assert got.truth == (("reaction_label", "3"), ("note", None))
    assert (got.fault, got.is_reaction) == (None, False)


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("forward reaction prediction", Task.FORWARD),
        ("retrosynthesis", Task.RETROSYNTHESIS),
        ("reagent prediction", Task.REAGENT),
        ("Forward_Reaction_Prediction", Task.FORWARD),
        ("reagent", Task.REAGENT),
    ],
)
def test_task_names(tmp_path, name, task):
    [got] = read_instructions(tmp_path, [instruction(metadata={"task": name, "split": "train"})])
    assert got.task is task


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", Split.TRAIN),
        (" TRAIN ", Split.TRAIN),
        ("valid", Split.VALIDATION),
        ("val", Split.VALIDATION),
        ("dev", Split.VALIDATION),
        ("test", Split.TEST),
        ("", None),
        (None, None),
    ],
)
def test_split_names(tmp_path, name, split):
    [got] = read_instructions(tmp_path, [instruction(metadata={**FORWARD, "split": name})])
    assert (got.split, got.fault) == (split, None)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"metadata": None}, RejectReason.BAD_METADATA),
        ({"metadata": "forward reaction prediction"}, RejectReason.BAD_METADATA),
        ({"metadata": {}}, RejectReason.BAD_METADATA),
        ({"metadata": {**FORWARD, "task": None}}, RejectReason.UNKNOWN_TASK),
        ({"metadata": {**FORWARD, "task": 3}}, RejectReason.UNKNOWN_TASK),
        ({"metadata": {**FORWARD, "task": "yield prediction"}}, RejectReason.UNKNOWN_TASK),
        ({"metadata": {**FORWARD, "task": "property prediction"}}, RejectReason.OTHER_TASK),
        ({"metadata": {**FORWARD, "split": "holdout"}}, RejectReason.UNKNOWN_SPLIT),
        ({"metadata": {**FORWARD, "split": ["test"]}}, RejectReason.UNKNOWN_SPLIT),
        ({"id": 1.5}, RejectReason.BAD_ID),
        ({"id": ["1"]}, RejectReason.BAD_ID),
        ({"input": None}, RejectReason.MISSING_FIELD),
        ({"output": 5}, RejectReason.MISSING_FIELD),
        ({"notation": "inchi"}, RejectReason.BAD_NOTATION),
    ],
)
def test_rows_with_a_fault_are_kept_with_its_name(tmp_path, fields, reason):
    good, bad = read_instructions(tmp_path, [instruction(), instruction(**fields)])
    assert good.fault is None
    assert bad.fault[0] is reason
    assert bad.number == 1


def test_broken_lines_are_rows_with_a_fault(tmp_path):
    broken, _ = read_instructions(tmp_path, ['{"input": "C', instruction()])
    assert broken.fault[0] is RejectReason.BROKEN_ROW
    assert broken.input == '{"input": "C'


def test_whole_numbers_that_pandas_made_floats_are_ids(tmp_path):
    rows = [{**instruction(), "id": number} for number in (1.0, float("nan"), 12.0)]
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    found = list(read_rows(data_config(path), seed=0))
    assert [row.fault for row in found] == [None] * 3
    assert [row.source_id for row in found] == ["1", "row-1", "12"]


def test_a_row_without_id_is_named_by_its_place(tmp_path):
    rows = read_instructions(tmp_path, [instruction(id=None), instruction(id="x")])
    assert [row.source_id for row in rows] == ["row-0", "x"]


def test_a_row_may_declare_its_own_notation(tmp_path):
    rows = read_instructions(tmp_path, [instruction(notation="selfies"), instruction()])
    assert [row.notation for row in rows] == [Notation.SELFIES, Notation.SMILES]


def test_a_file_without_any_json_row_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"rows\.jsonl: .* none of its 2 lines is a JSON row"):
        read_instructions(tmp_path, ["hello", "world"])


def test_a_file_of_other_rows_is_refused_with_what_it_has(tmp_path):
    with pytest.raises(DataError, match=r"expected rows with input, .* found rxn, year"):
        read_instructions(tmp_path, [{"rxn": "C>>O", "year": 1}])


def read_reactions(path, **columns):
    return list(read_rows(data_config(path, source="reactions", columns=columns), seed=0))


def test_reaction_lines_with_names_and_extensions(tmp_path):
    path = tmp_path / "a.smi"
    path.write_text("C>N>O\nC>>O rxn 7\nC.N>>O |f:0.1|\tUS123\nC.N>>O |f:0.1| US 9\n")
    rows = read_reactions(path)
    assert [row.input for row in rows] == ["C>N>O", "C>>O", "C.N>>O", "C.N>>O"]
    assert [row.source_id for row in rows] == ["row-0", "rxn 7", "US123", "US 9"]
    assert all(row.is_reaction for row in rows)


def test_reaction_lines_need_no_column_names(tmp_path):
    path = tmp_path / "a.smi"
    path.write_text("C.N>>O US9\n")
    [row] = read_reactions(path, reaction="rxn_smiles", id="patent")
    assert (row.input, row.source_id, row.fault) == ("C.N>>O", "US9", None)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_reaction_tables_by_role_columns(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    rows = [
        {"name": "r1", "left": "C.N", "with": "O", "right": "CN", "set": "val", "class": "1"},
        {"name": "r2", "left": "C", "with": "", "right": "CO", "set": "test", "class": "2"},
    ]
    if suffix == ".parquet":
        rows[1]["with"] = None
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        delimiter = ";" if suffix == ".csv" else "\t"
        lines = [list(rows[0]), *(list(row.values()) for row in rows)]
        path.write_text("\n".join(delimiter.join(line) for line in lines))
    names = {"reactants": "left", "reagents": "with", "product": "right"}
    first, second = read_reactions(path, **names, split="set", id="name", truth=["class"])
    assert (first.input, second.input) == ("C.N>O>CN", "C>>CO")
    assert (first.split, second.split) == (Split.VALIDATION, Split.TEST)
    assert (first.source_id, first.truth) == ("r1", (("class", "1"),))


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("rxn,year\nC>>O,1999\n")
    with pytest.raises(DataError, match=r"no column reactants, product; it has rxn, year"):
        read_reactions(path)
    [row] = read_reactions(path, reaction="rxn", truth=["year"])
    assert (row.input, row.truth) == ("C>>O", (("year", "1999"),))


def test_a_table_with_another_header_than_rows_is_refused_with_the_reason(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("rxn\tyear\n1\tC>>O\t1999\n2\tC>>N\t2000\n")
    with pytest.raises(DataError, match=r"none of its 2 rows .* more or fewer fields"):
        read_reactions(path, reaction="rxn")


def test_an_unknown_ending_is_refused(tmp_path):
    path = tmp_path / "a.xlsx"
    path.write_text("C>>O")
    with pytest.raises(DataError, match=r"unknown file ending '\.xlsx'"):
        read_reactions(path)


def test_reactions_without_the_product_are_kept_with_a_fault(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"reactants": "C", "product": null}\n{"reactants": "C", "product": "O"}')
    bad, good = read_reactions(path)
    assert bad.fault == (RejectReason.MISSING_FIELD, "product: expected text, found nothing")
    assert good.fault is None


def test_the_inputs_digest_follows_contents_or_pinned_identity(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("a")
    first = inputs_digest(data_config(path))
    path.write_text("b")
    assert inputs_digest(data_config(path)) != first
    hub = {"source": "hub", "notation": "selfies"}
    digests = {
        inputs_digest(
            Config.model_validate({"data": {**hub, "hub": {"revision": commit * 40}}}).data
        )
        for commit in "ab"
    }
    assert len(digests) == 2
