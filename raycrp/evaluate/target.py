"""The output of predictions: a file that appears whole, or a folder of one file a block."""

import glob
import re
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from raycrp.choices import OutputFormat
from raycrp.errors import DataError, RunError
from raycrp.evaluate.outputs import encode_answers, encode_rejects, split_rejects
from raycrp.run import RunFolder, reachable, split_folder, whole_file

_SUFFIXES = {
    ".csv": OutputFormat.CSV,
    ".jsonl": OutputFormat.JSONL,
    ".json": OutputFormat.JSONL,
    ".parquet": OutputFormat.PARQUET,
}

_SHOWN_FILES = 5
# Of the names that ``tempfile`` makes.
_NUM_RANDOM_CHARS = 8
# A path that was a URI is without the second of its two slashes.
_CUT_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/(?!/)")


@dataclass(frozen=True)
class Outcome:
    """Rows of a job or call.

    Args:
        num_answered: Rows with answers.
        reasons: Rejected rows by reason.
        without_rows: Files of the folder of inputs that hold no rows.
    """

    num_answered: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    without_rows: tuple[str, ...] = ()

    @property
    def num_rejected(self) -> int:
        """Rows without answers."""
        return sum(self.reasons.values())

    def plus(self, table: pa.Table) -> "Outcome":
        """The outcome with the rows of one more table of answers."""
        reasons = dict(self.reasons)
        for reason in table["reject_reason"].drop_null().to_pylist():
            reasons[reason] = reasons.get(reason, 0) + 1
        num_rejected = sum(reasons.values()) - self.num_rejected
        return Outcome(self.num_answered + table.num_rows - num_rejected, reasons)

    def describe(self) -> str:
        """One line that accounts for every row, and names files that hold none."""
        total = self.num_answered + self.num_rejected
        named = ", ".join(f"{reason} {count:,}" for reason, count in sorted(self.reasons.items()))
        line = f"{total:,} rows = {self.num_answered:,} answered + {self.num_rejected:,} rejected"
        line = f"{line} ({named})" if named else line
        if not self.without_rows:
            return line
        shown = ", ".join(self.without_rows[:_SHOWN_FILES])
        more = len(self.without_rows) - _SHOWN_FILES
        shown += f" and {more:,} more" if more > 0 else ""
        noun = "file" if len(self.without_rows) == 1 else "files"
        return f"{line}; {len(self.without_rows):,} {noun} without rows: {shown}"


class PredictionTarget:
    """Where answers go: one file, whose ending tells its form, or a folder of files.

    Args:
        output: The file, or the folder as a path or a ``pyarrow.fs`` URI.
        file_format: Form of the files of a folder; Parquet if None.

    Raises:
        DataError: If the ending is unknown, says otherwise than the form, or is that of a file
            where a URI takes a folder alone; if the URI cannot be opened.
    """

    def __init__(self, output: Path | str, *, file_format: OutputFormat | None) -> None:
        self.folder = _locate(str(output))
        suffix = Path(self.folder.name).suffix
        by_suffix = _SUFFIXES.get(suffix.lower())
        self.is_file = by_suffix is not None
        if self.is_file and "://" in str(output):
            raise DataError(
                f"{output}: at a URI answers are a folder of files; leave the ending '{suffix}' "
                "out, and name the form with --format"
            )
        if suffix and by_suffix is None:
            raise DataError(
                f"{output}: unknown ending '{suffix}'; known: {', '.join(_SUFFIXES)}, or "
                "none for a folder"
            )
        self._format = by_suffix or file_format or OutputFormat.PARQUET
        if file_format not in (None, self._format) or self._format is OutputFormat.TABLE:
            raise DataError(f"{output} cannot be written as {file_format}; leave --format out")

    @property
    def path(self) -> Path:
        """The file or folder on a disk."""
        return Path(self.folder.path())

    def write(self, blocks: Iterable[pa.Table]) -> Outcome:
        """Write answers and, beside them, the rejected rows with their reasons.

        Args:
            blocks: Tables of the schema ``ANSWERED``, in the order of their rows.
        """
        return self._write_file(blocks) if self.is_file else self._write_folder(blocks)

    def _write_file(self, blocks: Iterable[pa.Table]) -> Outcome:
        rejects_path = self.path.with_name(f"{self.path.stem}.rejects{self.path.suffix}")
        for path in (self.path, rejects_path):
            _delete_unfinished(path)
        outcome = Outcome()
        with ExitStack() as files:
            answers = _FileWriter(self.path, encode_answers, self._format, files=files)
            rejects = _FileWriter(rejects_path, encode_rejects, self._format, files=files)
            for table in blocks:
                outcome = outcome.plus(table)
                kept, rejected = split_rejects(table)
                answers.add(kept)
                if rejected.num_rows:
                    rejects.add(rejected)
            if not outcome.num_rejected:
                # Those of another job, whose answers are gone.
                rejects_path.unlink(missing_ok=True)
        return outcome

    def _write_folder(self, blocks: Iterable[pa.Table]) -> Outcome:
        outcome = Outcome()
        for number, table in enumerate(blocks):
            outcome = outcome.plus(table)
            kept, rejected = split_rejects(table)
            name = f"part-{number:06d}.{self._format}"
            self.folder.write_bytes(name, encode_answers(kept, file_format=self._format))
            if rejected.num_rows:
                data = encode_rejects(rejected, file_format=self._format)
                self.folder.write_bytes(f"_rejects/{name}", data)
        return outcome


def _locate(output: str) -> RunFolder:
    """The output as a name in a folder that is there or will be."""
    if _CUT_URI.match(output):
        raise DataError(f"{output} looks like a URI, but these have two slashes; give it as text")
    if "://" not in output:
        path = Path(output).expanduser().resolve()
        return RunFolder(str(path.parent), path.name)
    storage, name = split_folder(output)
    if not name:
        base = output.partition("?")[0].rstrip("/")
        raise DataError(f"{output}: name a folder in it, such as {base}/predictions")
    try:
        return reachable(RunFolder(storage, name))
    except RunError as error:
        raise DataError(f"{output} cannot be written: {error}") from error


def _delete_unfinished(path: Path) -> None:
    """Delete what a job leaves beside a file that it is killed in writing; see ``whole_file``."""
    for scratch in path.parent.glob(f".{glob.escape(path.name)}.{'?' * _NUM_RANDOM_CHARS}"):
        scratch.unlink()


class _FileWriter:
    """Tables one behind the other in one file: begun with the first, there once ``files`` close."""

    def __init__(
        self,
        path: Path,
        encode: Callable[..., bytes],
        file_format: OutputFormat,
        *,
        files: ExitStack,
    ) -> None:
        self._path = path
        self._encode = encode
        self._format = file_format
        self._files = files
        self._stream: BinaryIO | None = None
        self._parquet: pq.ParquetWriter | None = None

    def add(self, table: pa.Table) -> None:
        """Append a table's rows."""
        is_first = self._stream is None
        if self._stream is None:
            self._stream = self._files.enter_context(whole_file(self._path))
        if self._format is not OutputFormat.PARQUET:
            self._stream.write(self._encode(table, file_format=self._format, has_header=is_first))
            return
        if self._parquet is None:
            writer = pq.ParquetWriter(self._stream, table.schema)
            self._parquet = self._files.enter_context(writer)
        self._parquet.write_table(table)
