"""Inputs to answer, as a stream: given, from standard input, from files or a folder of files."""

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

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
from raycrp.errors import DataError, NoRowsError
from raycrp.evaluate.ranking import read_answer

STANDARD_INPUT = "-"
# In any case, as in "SMILES" or "Smiles".
_INPUT_COLUMNS = ("input", "smiles", "reaction")
_ID_COLUMNS = ("id", "name")
_EXTENSION = re.compile(r"^\s*\|[^|]*\|")  # Of CXSMILES, between the SMILES and the name.
_NAMED_LINES, _PLAIN_LINES = (".smi", ".smiles"), (".txt", "")
_TABLES: Mapping[str, Callable[[DataFile], Iterator[Row | BrokenRow]]] = {
    ".csv": iter_csv,
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
        path: A file or a folder of files, as a path or a URI, or ``-`` for standard input, one
            SMILES a line.
        column: Column of the input in tables; found by its usual names if None.
        id_column: Column of the row's name; found by its usual names if None.
    """

    given: Sequence[str] = ()
    path: str | None = None
    column: str | None = None
    id_column: str | None = None


def iter_inputs(
    source: InputSource, *, without_rows: list[str] | None = None
) -> Iterator[InputRow]:
    """The rows of a source, in order, one at a time.

    Args:
        source: Where inputs come from.
        without_rows: Gets the names of those files of a folder that hold no rows.

    Raises:
        DataError: If a file is missing, not readable, or lacks the column; if a file that is given
            by itself, or all files of a folder, hold no rows.
    """
    yield from (InputRow(text) for text in source.given)
    if source.path is None:
        return
    folder = find_folder(source.path)
    if folder is not None:
        yield from _iter_folder(folder, source, [] if without_rows is None else without_rows)
        return
    for file in _find_files(source.path):
        yield from _iter_file(file, source)


def find_folder(path: str) -> tuple[Any, str] | None:
    """The ``pyarrow.fs`` file system of a folder and its path there; None for what is no folder.

    Args:
        path: A path or URI, or ``-``.

    Raises:
        DataError: If a URI cannot be opened.
    """
    if path == STANDARD_INPUT:
        return None
    import pyarrow as pa
    from pyarrow import fs

    if "://" not in path:
        local = Path(path).expanduser().resolve()
        return (fs.LocalFileSystem(), str(local)) if local.is_dir() else None
    try:
        filesystem, inner = fs.FileSystem.from_uri(path)
        is_folder = filesystem.get_file_info(inner.rstrip("/")).type == fs.FileType.Directory
    except (pa.ArrowException, OSError) as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"{path}: cannot be opened: {line}") from error
    return (filesystem, inner.rstrip("/")) if is_folder else None


def _find_files(path: str) -> Iterator[DataFile]:
    if path == STANDARD_INPUT:
        yield DataFile("standard input", "", False, lambda: sys.stdin.buffer)
        return
    yield from iter_files(path if "://" in path else str(Path(path).expanduser()))


def _iter_folder(
    folder: tuple[Any, str], source: InputSource, without_rows: list[str]
) -> Iterator[InputRow]:
    files = list(_list_folder(*folder))
    if not files:
        raise DataError(f"{source.path}: the folder holds no files")
    base = str(source.path)
    base = base.partition("?")[0] if "://" in base else base
    first = len(without_rows)
    for name, opener in files:
        shown = f"{base.rstrip('/')}/{name}"
        num_rows = 0
        try:
            for file in iter_files(shown, opener=opener):
                for row in _iter_member(file, source):
                    num_rows += 1
                    yield row
        except NoRowsError:
            pass  # Counted below, as are archives of files without rows.
        if not num_rows:
            without_rows.append(shown)
    if len(without_rows) - first == len(files):
        raise NoRowsError(f"{source.path}: none of the folder's {len(files):,} files holds a row")


def _iter_member(file: DataFile, source: InputSource) -> Iterator[InputRow]:
    """Rows of one of many files, which may be none."""
    with suppress(NoRowsError):
        yield from _iter_file(file, source)


def _list_folder(filesystem: Any, folder: str) -> Iterator[tuple[str, Callable[[], IO[bytes]]]]:
    """Files at any depth by their names, but for hidden ones and marks such as ``_SUCCESS``."""
    from pyarrow import fs

    infos = filesystem.get_file_info(fs.FileSelector(folder, recursive=True))
    paths = (info.path for info in infos if info.type == fs.FileType.File)
    names = (path.removeprefix(f"{folder}/") for path in paths)
    # Folder by folder, as a file manager shows them.
    for name in sorted(names, key=lambda each: each.split("/")):
        if not any(part.startswith((".", "_")) for part in name.split("/")):
            yield name, partial(filesystem.open_input_file, f"{folder}/{name}")


def _iter_file(file: DataFile, source: InputSource) -> Iterator[InputRow]:
    if file.is_parquet:
        yield from _iter_table(iter_parquet(file), file, source)
    elif file.suffix in _TABLES:
        yield from _iter_table(_TABLES[file.suffix](file), file, source)
    elif file.suffix in _NAMED_LINES:
        for line in iter_lines(file):
            if isinstance(line, BrokenRow):
                yield _broken_input(line)
                continue
            text, _, rest = line.strip().replace("\t", " ").partition(" ")
            yield InputRow(text, _EXTENSION.sub("", rest).strip() or None)
    elif file.suffix in _PLAIN_LINES:
        for line in iter_lines(file):
            yield InputRow(line) if isinstance(line, str) else _broken_input(line)
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
            yield _broken_input(row)
            continue
        if column is None:
            column = _find_column(row, source.column, file=file)
            id_column = _find_id_column(row, source.id_column, file=file)
        name = None if id_column is None else id_text(row.get(id_column))
        yield _table_row(row.get(column), name=name)
    if not num_rows:
        raise NoRowsError(f"{file.name}: the file holds no rows")


def _broken_input(row: BrokenRow) -> InputRow:
    return InputRow(row.text, broken=row.detail)


def _table_row(value: Any, *, name: str | None) -> InputRow:
    if value is None or isinstance(value, str):
        return InputRow(value, name)
    return InputRow(None, name, broken=f"the input is of type {type(value).__name__}, not text")


def _find_column(row: Row, wanted: str | None, *, file: DataFile) -> str:
    found = _usual_column(row, _INPUT_COLUMNS) if wanted is None else wanted
    if found is None and len(row) == 1:
        return _lone_column(next(iter(row)), file=file)
    if found is None or found not in row:
        candidates = _INPUT_COLUMNS if wanted is None else (wanted,)
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
    return wanted or _usual_column(row, _ID_COLUMNS)


def _usual_column(row: Row, names: Sequence[str]) -> str | None:
    found = {column.strip().lower(): column for column in reversed(row)}
    return next((found[name] for name in names if name in found), None)
