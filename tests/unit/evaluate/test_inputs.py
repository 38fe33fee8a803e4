import gzip
import io
import json
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raycrp.errors import DataError, NoRowsError
from raycrp.evaluate.inputs import InputRow, InputSource, iter_inputs


def read(path, **columns):
    return list(iter_inputs(InputSource(path=str(path), **columns)))


ETHANOL, AMINE = InputRow("CCO", "a"), InputRow("CCN", "b")


def write_csv(path):
    path.write_text("id,smiles,yield\na,CCO,1\nb,CCN,2\n")


def write_spreadsheet(path):
    path.write_bytes('\ufeff"Name";"Smiles ";Preis\r\n"a";CCO;1,5\r\nb;CCN;\r\n'.encode())


def write_tsv(path):
    path.write_text("name\tinput\na\tCCO\nb\tCCN\n")


def write_lines(path):
    path.write_text("CCO a\n\nCCN\tb\n")


def write_json_lines(path):
    rows = [{"id": "a", "input": "CCO"}, {"id": "b", "input": "CCN"}]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def write_parquet(path):
    pq.write_table(pa.table({"SMILES": ["CCO", "CCN"], "ID": ["a", "b"]}), path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("x.csv", write_csv),
        ("x.csv", write_spreadsheet),
        ("x.tsv", write_tsv),
        ("x.smi", write_lines),
        ("x.jsonl", write_json_lines),
        ("x.parquet", write_parquet),
    ],
)
def test_every_form_is_read(tmp_path, name, write):
    write(tmp_path / name)
    assert read(tmp_path / name) == [ETHANOL, AMINE]


def test_given_inputs_and_plain_lines(tmp_path):
    (tmp_path / "x.txt").write_text("CCO and more\nCCN\n")
    source = InputSource(("C",), str(tmp_path / "x.txt"))
    assert [row.text for row in iter_inputs(source)] == ["C", "CCO and more", "CCN"]


def test_extensions_of_lines_are_no_part_of_names(tmp_path):
    (tmp_path / "x.smi").write_text("CCO |f:0.1, c:2| a\nCCN\t|$R1;$|\tb\nC |f:0.1|\nCO a|b\n")
    assert read(tmp_path / "x.smi") == [ETHANOL, AMINE, InputRow("C"), InputRow("CO", "a|b")]


def test_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"CCO\nCCN\n")))
    assert [row.text for row in iter_inputs(InputSource(path="-"))] == ["CCO", "CCN"]


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "2.txt").write_text("CCN\n")
    (tmp_path / "a.txt").write_text("CCO\n")
    (tmp_path / "_SUCCESS.txt").write_text("done\n")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "x.txt").write_text("C\n")
    assert [row.text for row in read(tmp_path)] == ["CCO", "CCN"]


def test_files_of_a_folder_that_hold_no_rows_are_named_and_cost_no_others(tmp_path):
    (tmp_path / "1.txt").write_text("CCO\n")
    (tmp_path / "2.csv").write_bytes(b"")
    (tmp_path / "3.csv").write_text("smiles\n")
    (tmp_path / "4.smi").write_text("\n \n")
    (tmp_path / "5.json").write_text("[]")
    pq.write_table(pa.table({"smiles": pa.array([], pa.string())}), tmp_path / "6.parquet")
    with gzip.open(tmp_path / "7.csv.gz", "wb"):
        pass
    with zipfile.ZipFile(tmp_path / "8.zip", "w") as archive:
        archive.writestr("a.csv.gz", gzip.compress(b""))
        archive.writestr("b.csv", "smiles\n")
        archive.writestr("c.csv", "smiles\nCCN\n")
    with zipfile.ZipFile(tmp_path / "9.zip", "w") as archive:
        archive.writestr("a.csv", "")
    names: list[str] = []
    rows = iter_inputs(InputSource(path=str(tmp_path)), without_rows=names)
    assert [row.text for row in rows] == ["CCO", "CCN"]
    empty = ["2.csv", "3.csv", "4.smi", "5.json", "6.parquet", "7.csv.gz", "9.zip"]
    assert names == [f"{tmp_path}/{name}" for name in empty]
    for name in ("1.txt", "8.zip"):
        (tmp_path / name).unlink()
    with pytest.raises(NoRowsError, match="none of the folder's 7 files holds a row"):
        read(tmp_path)


def test_a_folder_at_a_uri_is_read_as_one_on_a_disk(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a b.csv").write_text("id,smiles\na,CCO\n")
    (tmp_path / "x.smi.gz").write_bytes(gzip.compress(b"CCN b\n"))
    (tmp_path / "_rejects").mkdir()
    (tmp_path / "_rejects" / "x.txt").write_text("C\n")
    uri = f"file://{tmp_path}"
    assert read(uri) == read(f"{uri}/") == read(tmp_path) == [ETHANOL, AMINE]
    assert read(f"{uri}/x.smi.gz") == [AMINE]
    with pytest.raises(DataError, match="nowhere://x/y: cannot be opened"):
        read("nowhere://x/y")


def test_broken_rows_and_missing_values_are_rows(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"input": "CCO"}\nnot json\n{"input": null}\n{"input": 5}\n')
    rows = read(tmp_path / "x.jsonl")
    assert [row.text for row in rows] == ["CCO", "not json", None, None]
    assert [row.broken is None for row in rows] == [True, False, True, False]


@pytest.mark.parametrize(
    ("name", "head"), [("x.csv", b"smiles,yield\n"), ("x.smi", b""), ("x.txt", b"")]
)
def test_bytes_that_are_no_text_cost_their_own_row_alone(tmp_path, name, head):
    end = b",1\r\n" if head else b"\r\n"
    lines = [b"CCO" + end] * 400 + [b"C\xff\xfeC" + end] + [b"CCN" + end] * 400
    (tmp_path / name).write_bytes(head + b"".join(lines))
    rows = read(tmp_path / name)
    assert [row.text for row in rows if row.broken is None] == ["CCO"] * 400 + ["CCN"] * 400
    [broken] = [row for row in rows if row.broken is not None]
    assert broken == rows[400]
    assert (broken.broken, broken.text[:4]) == ("not UTF-8 text", "C\ufffd\ufffdC")


def test_columns_are_named(tmp_path):
    (tmp_path / "x.csv").write_text("left,right\nCCO,CCN\n")
    assert read(tmp_path / "x.csv", column="right", id_column="left") == [InputRow("CCN", "CCO")]
    with pytest.raises(DataError, match=r"found 'left', 'right'; name it with --column"):
        read(tmp_path / "x.csv")
    with pytest.raises(DataError, match="no column 'middle'"):
        read(tmp_path / "x.csv", column="middle")
    with pytest.raises(DataError, match="no column 'middle'"):
        read(tmp_path / "x.csv", column="left", id_column="middle")


def test_a_lone_column_needs_no_name(tmp_path):
    (tmp_path / "x.csv").write_text("molecule\nCCO\n")
    assert read(tmp_path / "x.csv") == [InputRow("CCO")]


@pytest.mark.parametrize("first", ["CCO", "CCO.CCN>>CC"])
def test_a_first_input_is_not_taken_for_the_name_of_the_column(tmp_path, first):
    (tmp_path / "x.csv").write_text(f"{first}\nCCN\n")
    with pytest.raises(DataError, match=f"'{first}', is an input where the column's name"):
        read(tmp_path / "x.csv")
    assert read(tmp_path / "x.csv", column=first) == [InputRow("CCN")]


def test_names_that_are_numbers(tmp_path):
    values = pa.array([1.0, None, 2.5])
    pq.write_table(pa.table({"smiles": ["C", "CC", "CCC"], "id": values}), tmp_path / "x.parquet")
    pq.write_table(pa.table({"smiles": ["C"], "id": [float("nan")]}), tmp_path / "y.parquet")
    assert [row.id for row in read(tmp_path / "x.parquet")] == ["1", None, "2.5"]
    assert [row.id for row in read(tmp_path / "y.parquet")] == [None]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.txt", b"", "empty"),
        ("x.csv", b"smiles\n", "the file holds no rows"),
        ("x.csv", b"smiles,\xe9\n" + b"CCO,1\n" * 99, "not UTF-8 text: the names"),
        ("x.xls", b"text", "unknown file ending"),
        ("x.txt", bytes(range(256)) * 9, "not a text file"),
        ("x.parquet", b"PAR1 and no more", "not a readable Parquet"),
    ],
)
def test_a_bad_file_is_named(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said) as found:
        read(tmp_path / name)
    assert name in str(found.value)
    assert "\n" not in str(found.value)


def test_a_missing_file_and_an_empty_folder_are_named(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        read(tmp_path / "nowhere.csv")
    with pytest.raises(DataError, match="holds no files"):
        read(tmp_path)
