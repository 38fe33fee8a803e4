"""Inputs to answer, as a stream: given, from standard input, from files or a folder of files."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from raycrp.chem.reactions import ARROW
from raycrp.data.files import (
    BrokenRow,
    DataFile,
    Row,
    id_text,
    iter_csv,
    iter_files,
    iter_json,
    iter_lines,
    iter_parquet,
)
from raycrp.errors import DataError
from raycrp.evaluate.ranking import read_answer

STANDARD_INPUT = "-"
_INPUT_COLUMNS = ("input", "smiles", "SMILES", "reaction")
_ID_COLUMNS = ("id", "ID", "name")
_NAMED_LINES, _PLAIN_LINES = (".smi", ".smiles"), (".txt", "")
_TABLES: Mapping[str, Callable[[DataFile], Iterator[Row | BrokenRow]]] = {
    ".csv": partial(iter_csv, delimiter=","),
    ".tsv": partial(iter_csv, delimiter="\t"),
    ".json": iter_json,
    ".jsonl": iter_json,
    ".ndjson": iter_json,
}


@dataclass(frozen=True, slots=True)
class InputRow:
    """One row of input.

    Args:
        text: The input; None where there is none.
        id: What the file calls the row; None where it has no name.
        broken: Why the row cannot be read; None where it can.
    """

    text: str | None
    id: str | None = None
    broken: str | None = None


@dataclass(frozen=True)
class InputSource:
    """Where inputs come from: either given or from a path.

    Args:
        given: Inputs themselves.
        path: A file, a folder of files, a URI, or ``-`` for standard input, one SMILES a line.
        column: Column of the input in tables; found by its usual names if None.
        id_column: Column of the row's name; found by its usual names if None.
    """

    given: Sequence[str] = ()
    path: str | None = None
    column: str | None = None
    id_column: str | None = None


def iter_inputs(source: InputSource) -> Iterator[InputRow]:
    """The rows of a source, in order, one at a time.

    Raises:
        DataError: If a file is missing, empty, not readable, or lacks the column.
    """
    yield from (InputRow(text) for text in source.given)
    if source.path is not None:
        for file in _find_files(source.path):
            yield from _iter_file(file, source)


def _find_files(path: str) -> Iterator[DataFile]:
    if path == STANDARD_INPUT:
        yield DataFile("standard input", "", False, lambda: sys.stdin.buffer)
        return
    folder = Path(path).expanduser()
    if "://" in path or not folder.is_dir():
        yield from iter_files(path if "://" in path else str(folder))
        return
    found = sorted(each for each in folder.rglob("*") if each.is_file())
    shown = [
        each
        for each in found
        if not any(part.startswith((".", "_")) for part in each.relative_to(folder).parts)
    ]
    if not shown:
        raise DataError(f"{path}: the folder holds no files")
    for each in shown:
        yield from iter_files(str(each))


def _iter_file(file: DataFile, source: InputSource) -> Iterator[InputRow]:
    if file.is_parquet:
        yield from _iter_table(iter_parquet(file), file, source)
    elif file.suffix in _TABLES:
        yield from _iter_table(_TABLES[file.suffix](file), file, source)
    elif file.suffix in _NAMED_LINES:
        for line in iter_lines(file):
            text, _, name = line.strip().replace("\t", " ").partition(" ")
            yield InputRow(text, name.strip() or None)
    elif file.suffix in _PLAIN_LINES:
        yield from (InputRow(line) for line in iter_lines(file))
    else:
        known = ", ".join([*_NAMED_LINES, ".txt", *_TABLES, ".parquet"])
        raise DataError(f"{file.name}: unknown file ending '{file.suffix}'; known: {known}")


def _iter_table(
    rows: Iterator[Row | BrokenRow], file: DataFile, source: InputSource
) -> Iterator[InputRow]:
    column: str | None = None
    id_column: str | None = None
    num_rows = 0
    for num_rows, row in enumerate(rows, start=1):  # noqa: B007
        if isinstance(row, BrokenRow):
            yield InputRow(row.text, broken=row.detail)
            continue
        if column is None:
            column = _find_column(row, source.column, file=file)
            id_column = _find_id_column(row, source.id_column, file=file)
        name = None if id_column is None else id_text(row.get(id_column))
        yield _table_row(row.get(column), name=name)
    if not num_rows:
        raise DataError(f"{file.name}: the file holds no rows")


def _table_row(value: Any, *, name: str | None) -> InputRow:
    if value is None or isinstance(value, str):
        return InputRow(value, name)
    return InputRow(None, name, broken=f"the input is of type {type(value).__name__}, not text")


def _find_column(row: Row, wanted: str | None, *, file: DataFile) -> str:
    candidates = _INPUT_COLUMNS if wanted is None else (wanted,)
    found = next((name for name in candidates if name in row), None)
    if found is None and wanted is None and len(row) == 1:
        return _lone_column(next(iter(row)), file=file)
    if found is None:
        raise DataError(
            f"{file.name}: no column {' or '.join(repr(name) for name in candidates)}; found "
            f"{', '.join(map(repr, row)) or 'none'}; name it with --column"
        )
    return found


def _lone_column(name: str, *, file: DataFile) -> str:
    """The only column, unless its name shows that the file begins with its first input."""
    is_headed = file.is_parquet or file.suffix not in (".csv", ".tsv")
    if is_headed or not all(read_answer(side)[1] for side in name.split(ARROW)):
        return name
    raise DataError(
        f"{file.name}: the first line, '{name}', is an input where the column's name belongs; put "
        "the line 'smiles' before it, or give the file the ending .smi"
    )


def _find_id_column(row: Row, wanted: str | None, *, file: DataFile) -> str | None:
    if wanted is not None and wanted not in row:
        raise DataError(f"{file.name}: no column '{wanted}'; found {', '.join(map(repr, row))}")
    return wanted or next((name for name in _ID_COLUMNS if name in row), None)
