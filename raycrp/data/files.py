"""Data files as streams of rows: packed or not, text or Parquet, never whole in memory.

Packing (gzip, zip) and Parquet are recognised by their first bytes; the rest is text, whose form
the name's ending tells. A line of JSON that is broken is a row like any other, to be rejected.
"""

import codecs
import csv
import glob
import gzip
import hashlib
import io
import json
import math
import re
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

from raycrp.errors import DataError, NoRowsError

Row = dict[str, Any]

_GZIP, _ZIP, _PARQUET = b"\x1f\x8b", b"PK\x03\x04", b"PAR1"
_CHUNK = 1 << 20
_MAX_ELEMENT = 1 << 26
_BATCH_ROWS = 1_024
# Bytes that are no UTF-8 cost the row that holds them alone.
_MARK, _MARKED = "surrogateescape", re.compile("[\udc80-\udcff]")
_DELIMITERS = ",;\t"
_BETWEEN_ELEMENTS = re.compile(r"[\s,]*")


@dataclass(frozen=True)
class BrokenRow:
    """A line or element that holds no row.

    Args:
        text: The text, shortened.
        detail: What is wrong with it.
    """

    text: str
    detail: str


@dataclass(frozen=True)
class DataFile:
    """A file, or a member of a zip archive, with its packing taken off.

    Args:
        name: What messages call it.
        suffix: Ending of the name without packing, lower case, such as ``.csv``.
        is_parquet: Whether it is Parquet.
        open: Opens it for reading bytes.
    """

    name: str
    suffix: str
    is_parquet: bool
    open: Callable[[], IO[bytes]]


def find_paths(patterns: Sequence[str]) -> list[str]:
    """The files that paths and globs name, each once, in order.

    Raises:
        DataError: If a path or glob finds no file.
    """
    found: dict[str, None] = {}
    for pattern in patterns:
        if "://" in pattern or Path(pattern).expanduser().is_file():
            found[pattern if "://" in pattern else str(Path(pattern).expanduser())] = None
            continue
        # Path.glob takes no absolute pattern.
        globbed = sorted(glob.glob(str(Path(pattern).expanduser()), recursive=True))  # noqa: PTH207
        matches = [path for path in globbed if Path(path).is_file()]
        if not matches:
            kind = "is a folder; name its files" if Path(pattern).is_dir() else "not found"
            raise DataError(
                f"data.paths: {pattern}: {kind} (a glob such as DIR/*.jsonl may be used)"
            )
        found.update(dict.fromkeys(matches))
    return list(found)


def digest_files(paths: Sequence[str]) -> str:
    """SHA-256 over the contents of files, in order.

    Raises:
        DataError: If one cannot be read.
    """
    total = hashlib.sha256()
    for path in paths:
        digest = hashlib.sha256()
        with _reading(path), _open_path(path) as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
        total.update(digest.digest())
    return total.hexdigest()


def iter_files(path: str, *, opener: Callable[[], IO[bytes]] | None = None) -> Iterator[DataFile]:
    """The data files of a path: itself, or the members of a zip archive.

    Args:
        path: A path or URI; what messages call it.
        opener: Opens it for reading bytes; found by the path if None.

    Raises:
        NoRowsError: If it is empty.
        DataError: If it is missing, or its packing is damaged.
    """
    opener = opener or partial(_open_path, path)
    with _reading(path), opener() as stream:
        if stream.read(len(_ZIP)) == _ZIP:
            with zipfile.ZipFile(stream) as archive:
                yield from _zip_members(archive, path)
            return
    # What follows the question mark of a URI are its options.
    name = path.partition("?")[0] if "://" in path else path
    yield _data_file(path, Path(name).name, opener)


def iter_json(file: DataFile) -> Iterator[Row | BrokenRow]:
    """Rows of a JSON array or of JSON Lines; which one shows in the first character.

    Raises:
        DataError: If the file is not text, or an array is not JSON.
    """
    with _reading(file.name), file.open() as stream:
        buffered = _buffered(stream)
        head = _check_text(buffered, file.name)
        if head.lstrip("\ufeff \t\r\n").startswith("["):
            text = io.TextIOWrapper(buffered, encoding="utf-8-sig")
            yield from _iter_array(text, file.name)
        else:
            yield from _iter_json_lines(buffered)


def iter_csv(file: DataFile, *, delimiter: str | None = None) -> Iterator[Row | BrokenRow]:
    """Rows of a table with a header line.

    Args:
        file: The table.
        delimiter: What parts fields. If None, what parts the names of the columns: a comma, or as
            in many countries' spreadsheets a semicolon, or a tab.

    Raises:
        DataError: If the file is not text.
    """
    csv.field_size_limit(min(sys.maxsize, 1 << 30))
    with _reading(file.name), file.open() as stream:
        buffered = _buffered(stream)
        head = _check_text(buffered, file.name)
        delimiter = delimiter or _delimiter_of(head.lstrip("\ufeff\r\n").splitlines()[0])
        text = io.TextIOWrapper(buffered, encoding="utf-8-sig", errors=_MARK, newline="")
        rows = csv.DictReader(text, delimiter=delimiter, strict=True)
        if not all(map(_is_text, rows.fieldnames or ())):
            raise DataError(f"{file.name}: not UTF-8 text: the names of its columns")
        for row in rows:
            if None in row or None in row.values():
                detail = "more or fewer fields than the header has"
                yield BrokenRow(_shorten(_readable(delimiter.join(_flat(row)))), detail)
            elif not all(map(_is_text, row.values())):
                yield _not_text(delimiter.join(row.values()))
            else:
                yield row


def iter_lines(file: DataFile) -> Iterator[str | BrokenRow]:
    """Lines of a text file that are not blank.

    Raises:
        DataError: If the file is not text.
    """
    with _reading(file.name), file.open() as stream:
        buffered = _buffered(stream)
        _check_text(buffered, file.name)
        for line in io.TextIOWrapper(buffered, encoding="utf-8-sig", errors=_MARK):
            if line.strip():
                yield line.rstrip("\r\n") if _is_text(line) else _not_text(line)


def iter_parquet(file: DataFile) -> Iterator[Row]:
    """Rows of a Parquet file, one batch in memory at a time.

    Raises:
        DataError: If the file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _reading(file.name), file.open() as stream:
        source = stream if stream.seekable() else pa.BufferReader(stream.read())
        try:
            with pq.ParquetFile(source) as table:
                for batch in table.iter_batches(batch_size=_BATCH_ROWS):
                    yield from batch.to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{file.name}: not a readable Parquet file: {_line(error)}") from error


def id_text(value: Any) -> str | None:
    """A row's identifier as text; None where it is missing.

    A whole number may come as 1.0: where some are missing, pandas makes all of them floats.

    Args:
        value: As the file holds it.
    """
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    is_whole = isinstance(value, float) and value.is_integer()
    return str(int(value) if is_whole else value)


def _open_path(path: str) -> IO[bytes]:
    if "://" not in path:
        return Path(path).open("rb")
    from pyarrow import fs

    filesystem, inner = fs.FileSystem.from_uri(path)
    stream: IO[bytes] = filesystem.open_input_file(inner)
    return stream


def _zip_members(archive: zipfile.ZipFile, path: str) -> Iterator[DataFile]:
    members = [
        info
        for info in archive.infolist()
        if not info.is_dir() and not info.filename.startswith("__MACOSX/")
    ]
    if not members:
        raise DataError(f"{path}: the archive holds no file")
    for info in members:
        if info.file_size:
            name = f"{path}:{info.filename}"
            with suppress(NoRowsError):
                yield _data_file(name, info.filename, partial(archive.open, info))


def _data_file(name: str, file_name: str, opener: Callable[[], IO[bytes]]) -> DataFile:
    suffixes = [suffix.lower() for suffix in Path(file_name).suffixes]
    with opener() as stream:
        head = stream.read(4)
    if head[:2] == _GZIP:
        opener = partial(_open_gzip, opener)
        suffixes = [suffix for suffix in suffixes if suffix != ".gz"]
        with opener() as stream:
            head = stream.read(4)
    if not head:
        raise NoRowsError(f"{name}: the file is empty")
    return DataFile(name, suffixes[-1] if suffixes else "", head == _PARQUET, opener)


@contextmanager
def _reading(name: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{name}: file not found") from error
    except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile) as error:
        raise DataError(f"{name}: the archive is damaged or cut short: {_line(error)}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: not UTF-8 text: {_line(error)}") from error
    except csv.Error as error:
        raise DataError(f"{name}: not a readable table: {_line(error)}") from error
    except (OSError, RuntimeError) as error:
        raise DataError(f"{name}: cannot be read: {_line(error)}") from error


def _open_gzip(opener: Callable[[], IO[bytes]]) -> IO[bytes]:
    stream: IO[bytes] = gzip.open(opener())  # type: ignore[assignment]  # noqa: SIM115
    return stream


def _buffered(stream: IO[bytes]) -> "io.BufferedReader[Any]":
    return io.BufferedReader(cast("Any", stream))


def _check_text(stream: "io.BufferedReader[Any]", name: str) -> str:
    head = stream.peek(io.DEFAULT_BUFFER_SIZE)[: io.DEFAULT_BUFFER_SIZE]
    # Incremental: the last character may be cut in two where the peek ends.
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(head)
    if "\x00" in text or text.count("\ufffd") > len(text) // 100:
        raise DataError(f"{name}: not a text file (nor gzip, zip or Parquet)")
    if not text.strip("\ufeff \t\r\n"):
        raise NoRowsError(f"{name}: the file holds no rows")
    return text


def _delimiter_of(header: str) -> str:
    return max(_DELIMITERS, key=header.count)


def _is_text(text: str) -> bool:
    return text.isascii() or not _MARKED.search(text)


def _not_text(text: str) -> BrokenRow:
    return BrokenRow(_shorten(_readable(text)), "not UTF-8 text")


def _readable(text: str) -> str:
    return _MARKED.sub("\ufffd", text)


def _iter_json_lines(stream: "io.BufferedReader[Any]") -> Iterator[Row | BrokenRow]:
    for line in stream:
        if line.strip():
            yield _json_line(line)


def _json_line(line: bytes) -> Row | BrokenRow:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return BrokenRow(_shorten(line.decode("utf-8", errors="replace")), "not UTF-8 text")
    except (ValueError, RecursionError) as error:
        return BrokenRow(_shorten(line.decode("utf-8-sig")), f"not JSON: {_line(error)}")
    return _json_row(value)


def _json_row(value: Any) -> Row | BrokenRow:
    if isinstance(value, dict):
        return value
    return BrokenRow(_shorten(str(value)), f"a JSON {type(value).__name__} where a row belongs")


def _iter_array(stream: io.TextIOWrapper, name: str) -> Iterator[Row | BrokenRow]:
    decoder = json.JSONDecoder()
    buffer = stream.read(_CHUNK)
    position = buffer.index("[") + 1
    num_rows, is_end = 0, False
    while True:
        position = _BETWEEN_ELEMENTS.match(buffer, position).end()  # type: ignore[union-attr]
        if buffer.startswith("]", position):
            return
        try:
            value, position = decoder.raw_decode(buffer, position)
        except (ValueError, RecursionError) as error:
            if is_end or len(buffer) - position > _MAX_ELEMENT:
                what = f"element {num_rows + 1} of the JSON array is broken"
                raise DataError(f"{name}: {what}: {_line(error)}") from error
            more = stream.read(max(_CHUNK, len(buffer) - position))
            is_end = not more
            buffer, position = buffer[position:] + more, 0
            continue
        num_rows += 1
        yield _json_row(value)


def _flat(row: Row) -> list[str]:
    values: list[str] = []
    for value in row.values():
        values.extend(value if isinstance(value, list) else [] if value is None else [value])
    return values


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _shorten(text: str, max_chars: int = 500) -> str:
    stripped = text.strip()
    return stripped if len(stripped) <= max_chars else stripped[: max_chars - 3] + "..."
