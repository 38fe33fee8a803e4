import csv
import gzip
import hashlib
import json
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raycrp.data.files as files
from raycrp.data.files import (
    BrokenRow,
    digest_files,
    find_paths,
    iter_csv,
    iter_files,
    iter_json,
    iter_lines,
    iter_parquet,
)
from raycrp.errors import DataError

ROWS = [{"id": 1, "text": "Zürich \u2013 [C]"}, {"id": 2, "text": 'a "quote", a ] and a }'}]


def read_json(path):
    return [row for file in iter_files(str(path)) for row in iter_json(file)]


def read_any(path):
    for file in iter_files(str(path)):
        list(iter_parquet(file) if file.is_parquet else iter_json(file))


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("chunk", [7, 1 << 20])
def test_json_array_in_any_layout_and_chunk_size(tmp_path, monkeypatch, indent, chunk):
    monkeypatch.setattr(files, "_CHUNK", chunk)
    path = tmp_path / "rows.json"
    path.write_text("\n " + json.dumps(ROWS, indent=indent), encoding="utf-8")
    assert read_json(path) == ROWS


def test_json_lines_with_broken_lines_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps(ROWS[0]), '{"id": 2, "te', "", "[1, 2]", json.dumps(ROWS[1])]
    content = b"\xef\xbb\xbf" + "\n".join(lines).encode() + b'\n{"id": "\xff\xfe"}\n' + b"[" * 9_999
    path.write_bytes(content)
    rows = read_json(path)
    assert [row for row in rows if isinstance(row, dict)] == ROWS
    broken = [row for row in rows if isinstance(row, BrokenRow)]
    assert [row.detail.split(":")[0] for row in broken] == [
        "not JSON",
        "a JSON list where a row belongs",
        "not UTF-8 text",
        "not JSON",
    ]
    assert broken[0].text == '{"id": 2, "te'


def test_packing_is_seen_in_the_bytes_whatever_the_name(tmp_path):
    text = "\n".join(map(json.dumps, ROWS))
    (tmp_path / "plain").write_text(text)
    (tmp_path / "odd.jsonl").write_bytes(gzip.compress(text.encode()))
    with zipfile.ZipFile(tmp_path / "odd.bin", "w") as archive:
        archive.writestr("a.jsonl", text)
        archive.writestr("inner/b.jsonl.gz", gzip.compress(text.encode()))
        archive.writestr("inner/", "")
        archive.writestr("__MACOSX/a.jsonl", "junk")
    assert read_json(tmp_path / "plain") == ROWS
    assert read_json(tmp_path / "odd.jsonl") == ROWS
    assert read_json(tmp_path / "odd.bin") == ROWS * 2


def test_parquet_by_its_bytes_plain_and_packed(tmp_path):
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    packed = gzip.compress((tmp_path / "a.parquet").read_bytes())
    (tmp_path / "b.parquet.gz").write_bytes(packed)
    for name in ("a.parquet", "b.parquet.gz"):
        [file] = iter_files(str(tmp_path / name))
        assert file.is_parquet
        assert list(iter_parquet(file)) == ROWS


def test_csv_rows_with_too_few_or_too_many_fields_are_broken(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('id,text\n1,"x, y"\n2\n3,b,c\n4,d\n')
    [file] = iter_files(str(path))
    rows = list(iter_csv(file))
    assert [row for row in rows if isinstance(row, dict)] == [
        {"id": "1", "text": "x, y"},
        {"id": "4", "text": "d"},
    ]
    assert [row.text for row in rows if isinstance(row, BrokenRow)] == ["2", "3,b,c"]


def test_csv_columns_may_be_without_a_name(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(",text\n0,x\n1\n2,y,z\n")
    [file] = iter_files(str(path))
    first, *others = iter_csv(file)
    assert first == {"": "0", "text": "x"}
    assert [row.text for row in others] == ["1", "2,y,z"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_fields_are_parted_as_the_names_of_columns_are(tmp_path, delimiter):
    path = tmp_path / "a.csv"
    lines = [["id", "text", "note"], ["1", "C,C;C", "x"], ["2", "C>>O |f:0.1,2.3|", "y"]]
    with path.open("w", newline="") as stream:
        csv.writer(stream, delimiter=delimiter).writerows(lines)
    [file] = iter_files(str(path))
    assert [list(row.values()) for row in iter_csv(file)] == lines[1:]


def test_lines_leave_out_blank_ones(tmp_path):
    path = tmp_path / "a.smi.gz"
    path.write_bytes(gzip.compress(b"C>>O 1\r\n\r\n \nN>>O\t2"))
    [file] = iter_files(str(path))
    assert file.suffix == ".smi"
    assert list(iter_lines(file)) == ["C>>O 1", "N>>O\t2"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (gzip.compress(b""), "the file is empty"),
        (b" \n\n", "the file holds no rows"),
        (bytes(range(256)) * 20, "not a text file"),
        (b"\x89PNG\r\n\x1a\n" + b"\x00" * 50, "not a text file"),
        ('{"id": 1}\n'.encode("utf-16"), "not a text file"),
        (gzip.compress(b'{"id": 1}\n' * 5_000)[:60], "damaged or cut short"),
        (b"PK\x03\x04 and nothing more", "damaged or cut short"),
        (b"PAR1 and nothing more", "not a readable Parquet file"),
        (b'[{"id": 1}, {"id": 2', "element 2 of the JSON array is broken"),
        (b'[{"id": 1}, {"id" 2}, {"id": 3}]', "element 2 of the JSON array is broken"),
    ],
    ids=lambda value: value if isinstance(value, str) else "file",
)
def test_files_that_hold_no_rows(tmp_path, content, message):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_any(path)
    assert str(path) in str(caught.value)


def test_paths_and_globs_give_each_file_once_in_order(tmp_path):
    for name in ("b.jsonl", "a.jsonl", "c.txt"):
        (tmp_path / name).write_text("x")
    patterns = [str(tmp_path / "c.txt"), str(tmp_path / "*.jsonl"), str(tmp_path / "a*")]
    assert find_paths(patterns) == [str(tmp_path / n) for n in ("c.txt", "a.jsonl", "b.jsonl")]


def test_a_path_that_finds_nothing_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.jsonl: not found"):
        find_paths([str(tmp_path / "none.jsonl")])
    with pytest.raises(DataError, match="is a folder"):
        find_paths([str(tmp_path)])


def test_a_path_may_be_a_file_system_uri(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROWS[0]))
    assert find_paths([path.as_uri()]) == [path.as_uri()]
    assert read_json(path.as_uri()) == ROWS[:1]


def test_the_digest_follows_the_contents(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").write_bytes(b"abd")
    parts = [hashlib.sha256(text).digest() for text in (b"abc", b"abd")]
    expected = hashlib.sha256(b"".join(parts)).hexdigest()
    assert digest_files([str(tmp_path / "a"), str(tmp_path / "b")]) == expected
