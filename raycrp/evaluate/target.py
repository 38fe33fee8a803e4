"""The output of predictions: a file that appears whole, or a folder of one file a block."""

import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from raycrp.choices import OutputFormat
from raycrp.errors import DataError
from raycrp.evaluate.outputs import encode_answers, encode_rejects, split_rejects
from raycrp.run import RunFolder

_SUFFIXES = {
    ".csv": OutputFormat.CSV,
    ".jsonl": OutputFormat.JSONL,
    ".json": OutputFormat.JSONL,
    ".parquet": OutputFormat.PARQUET,
}


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
        DataError: If the ending is unknown, or says otherwise than the form.
    """

    def __init__(self, output: Path, *, file_format: OutputFormat | None) -> None:
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
        outcome = Outcome()
        with (
            _WholeFile(self.path, self._format) as answers,
            _WholeFile(rejects_path, self._format) as rejects,
        ):
            for table in blocks:
                outcome = outcome.plus(table)
                kept, rejected = split_rejects(table)
                answers.add(kept, encode_answers)
                rejects.add(rejected, encode_rejects)
            if not outcome.num_rejected:
                rejects.discard()
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


class _WholeFile:
    """A file written piece by piece under another name, which it loses when all is there."""

    def __init__(self, path: Path, file_format: OutputFormat) -> None:
        self._path = path
        self._format = file_format
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        self._stream = os.fdopen(handle, "wb")
        self._scratch = Path(scratch)
        self._parquet: pq.ParquetWriter | None = None
        self._is_empty = True
        self._is_wanted = True

    def add(self, table: pa.Table, encode: Callable[..., bytes]) -> None:
        """Append a table's rows."""
        if self._format is OutputFormat.PARQUET:
            if self._parquet is None:
                self._parquet = pq.ParquetWriter(self._stream, table.schema)
            self._parquet.write_table(table)
            return
        data = encode(table, file_format=self._format, has_header=self._is_empty)
        self._is_empty = False
        self._stream.write(data)

    def discard(self) -> None:
        """Leave no file."""
        self._is_wanted = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._parquet is not None:
            self._parquet.close()
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        if kind is None and self._is_wanted:
            self._scratch.chmod(0o644)
            self._scratch.replace(self._path)
        else:
            self._scratch.unlink()
