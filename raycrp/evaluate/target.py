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
from raycrp.errors import DataError
from raycrp.evaluate.outputs import encode_answers, encode_rejects, split_rejects
from raycrp.run import RunFolder, whole_file

_SUFFIXES = {
    ".csv": OutputFormat.CSV,
    ".jsonl": OutputFormat.JSONL,
    ".json": OutputFormat.JSONL,
    ".parquet": OutputFormat.PARQUET,
}

# Of the names that ``tempfile`` makes.
_NUM_RANDOM_CHARS = 8
# A path is without the second of the two slashes.
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


@dataclass(frozen=True)
class Outcome:
    """Rows of a job or call.

    Args:
        num_answered: Rows with answers.
        reasons: Rejected rows by reason.
    """

    num_answered: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

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
        """One line that accounts for every row."""
        total = self.num_answered + self.num_rejected
        named = ", ".join(f"{reason} {count:,}" for reason, count in sorted(self.reasons.items()))
        line = f"{total:,} rows = {self.num_answered:,} answered + {self.num_rejected:,} rejected"
        return f"{line} ({named})" if named else line


class PredictionTarget:
    """Where answers go: one file, whose ending tells its form, or a folder of files.

    Args:
        output: The file or folder.
        file_format: Form of the files of a folder; Parquet if None.

    Raises:
        DataError: If it is a URI, the ending is unknown, or says otherwise than the form.
    """

    def __init__(self, output: Path, *, file_format: OutputFormat | None) -> None:
        if _URI.match(str(output)):
            raise DataError(
                f"{output} looks like a URI; give a file or folder on a disk that all nodes see"
            )
        self.path = output.expanduser().resolve()
        by_suffix = _SUFFIXES.get(self.path.suffix.lower())
        self._is_file = by_suffix is not None
        if self.path.suffix and by_suffix is None:
            raise DataError(
                f"{output}: unknown ending '{self.path.suffix}'; known: {', '.join(_SUFFIXES)}, or "
                "none for a folder"
            )
        self._format = by_suffix or file_format or OutputFormat.PARQUET
        if file_format not in (None, self._format) or self._format is OutputFormat.TABLE:
            raise DataError(f"{output} cannot be written as {file_format}; leave --format out")

    def write(self, blocks: Iterable[pa.Table]) -> Outcome:
        """Write answers and, beside them, the rejected rows with their reasons.

        Args:
            blocks: Tables of the schema ``ANSWERED``, in the order of their rows.
        """
        return self._write_file(blocks) if self._is_file else self._write_folder(blocks)

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
        folder = RunFolder(str(self.path.parent), self.path.name)
        outcome = Outcome()
        for number, table in enumerate(blocks):
            outcome = outcome.plus(table)
            kept, rejected = split_rejects(table)
            name = f"part-{number:06d}.{self._format}"
            folder.write_bytes(name, encode_answers(kept, file_format=self._format))
            if rejected.num_rows:
                data = encode_rejects(rejected, file_format=self._format)
                folder.write_bytes(f"_rejects/{name}", data)
        return outcome


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
