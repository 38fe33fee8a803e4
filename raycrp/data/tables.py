"""Tables of the data stage, written as rows come: clean rows, rejects, splits, truth."""

from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raycrp.choices import Task
from raycrp.data.clean import CleanRow, RejectedRow
from raycrp.data.identity import Identities, ReactionIndex
from raycrp.data.rejects import UNCOUNTED, RejectReason
from raycrp.data.split import NO_SPLIT, SPLITS, TASKS, Fate, RowIndex, RtCode, SplitResult
from raycrp.run import RunFolder
from raycrp.schemas import REJECTS, TASK_ROWS, TRUTH, RtSplit

ROWS_DIR = "data/rows"
REJECTS_PATH = "data/rejects.parquet"
TRUTH_PATH = "data/truth.parquet"

_BATCH_ROWS = 4_096
_ROW_GROUP_ROWS = 1_024
_MAX_REJECT_CHARS = 4_000
_RT_SPLITS = {RtCode.TRAIN: RtSplit.TRAIN, RtCode.VALID: RtSplit.VALID, RtCode.TEST: RtSplit.TEST}
_FATE_REASONS = {
    Fate.LEAK: (RejectReason.LEAK, "its reaction is in a validation or test split"),
    Fate.DUPLICATE: (RejectReason.DUPLICATE, "an earlier row of the split says the same"),
    Fate.UNKNOWN_SPLIT: (RejectReason.UNKNOWN_SPLIT, "no split, though other rows have one"),
}
_CLEAN = pa.schema(
    [
        pa.field("source_row", pa.int64()),
        pa.field("source_id", pa.string()),
        pa.field("task", pa.string()),
        pa.field("input", pa.string()),
        pa.field("output", pa.string()),
        pa.field("mapped_reaction", pa.string()),
        pa.field("truth_names", pa.list_(pa.string())),
        pa.field("truth_values", pa.list_(pa.string())),
    ]
)


class CleanTable:
    """Clean rows on disk, and of each what splitting needs in memory.

    Args:
        path: File to write.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer = pa.ipc.new_stream(str(path), _CLEAN)
        self._rows: list[CleanRow] = []
        self._tasks = array("b")
        self._splits = array("b")
        self._contents = array("q")
        self._source_ids = array("q")
        self._reactions = ReactionIndex()
        self.num_repaired = 0

    def close(self) -> None:
        """Write what is left; rows can be read from then on."""
        self._flush()
        self._writer.close()

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, row: CleanRow) -> None:
        """Take in the next row."""
        self._rows.append(row)
        self._tasks.append(TASKS.index(row.task))
        self._splits.append(NO_SPLIT if row.split is None else SPLITS.index(row.split))
        self._contents.append(hash((row.task, row.text.input, row.text.output)))
        self._source_ids.append(hash((row.source_id, row.task if row.is_derived else None)))
        self._reactions.add(row.reaction, task=row.task, is_derived=row.is_derived)
        self.num_repaired += row.is_repaired
        if len(self._rows) >= _BATCH_ROWS:
            self._flush()

    @property
    def num_repeated_ids(self) -> int:
        """Rows whose identifier an earlier row has."""
        return len(self) - len(np.unique(np.array(self._source_ids, dtype=np.int64)))

    def index(self) -> RowIndex:
        """What splitting needs of all rows."""
        return RowIndex(
            tasks=np.array(self._tasks, dtype=np.int8),
            splits=np.array(self._splits, dtype=np.int8),
            contents=np.array(self._contents, dtype=np.int64),
            identities=self._reactions.resolve(),
        )

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows in the order they came."""
        with pa.ipc.open_stream(str(self._path)) as reader:
            yield from reader

    def _flush(self) -> None:
        columns = [
            [row.source_row for row in self._rows],
            [row.source_id for row in self._rows],
            [row.task for row in self._rows],
            [row.text.input for row in self._rows],
            [row.text.output for row in self._rows],
            [row.mapped_reaction for row in self._rows],
            [[name for name, _ in row.truth] for row in self._rows],
            [[value for _, value in row.truth] for row in self._rows],
        ]
        arrays = [pa.array(c, type=f.type) for c, f in zip(columns, _CLEAN, strict=True)]
        self._writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=_CLEAN))
        self._rows = []


class RejectTable:
    """Rejected rows on disk, counted by reason; in the run folder when it is closed.

    Args:
        path: File to write.
        run: The run folder that gets the table.
    """

    def __init__(self, path: Path, *, run: RunFolder) -> None:
        self._path = path
        self._run = run
        self._writer = pq.ParquetWriter(str(path), REJECTS)
        self._rows: list[dict[str, Any]] = []
        self.by_reason: Counter[RejectReason] = Counter()
        self.by_task: Counter[str] = Counter()
        self.examples: dict[RejectReason, str] = {}
        self.num_unusable = 0

    def close(self) -> None:
        """Write what is left, and put the table into the run folder."""
        self._flush()
        self._writer.close()
        self._run.write_bytes(REJECTS_PATH, self._path.read_bytes())

    def __len__(self) -> int:
        return self.by_reason.total()

    def add(self, row: RejectedRow) -> None:
        """Take in the next row."""
        is_missing_reagents = row.is_derived and row.reason is RejectReason.EMPTY_OUTPUT
        self.num_unusable += row.reason not in UNCOUNTED and not is_missing_reagents
        self.by_reason[row.reason] += 1
        self.by_task[row.task or "unknown"] += 1
        self.examples.setdefault(row.reason, f"row {row.source_row}: {row.detail}")
        self._rows.append(
            {
                "source_row": row.source_row,
                "source_id": row.source_id,
                "task": row.task,
                "split": row.split,
                "input": row.input[:_MAX_REJECT_CHARS],
                "output": row.output[:_MAX_REJECT_CHARS],
                "reject_reason": row.reason,
                "detail": row.detail,
            }
        )
        if len(self._rows) >= _BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=REJECTS))
        self._rows = []


def write_rows(
    run: RunFolder,
    *,
    clean: CleanTable,
    identities: Identities,
    result: SplitResult,
    rejects: RejectTable,
    rows_per_file: int,
) -> int:
    """Write the kept rows of each split and their truth; the others go to the rejects.

    Args:
        run: The run folder.
        clean: All clean rows.
        identities: The reaction of each row.
        result: Where each row goes.
        rejects: Takes leaks, duplicates and rows without a split.
        rows_per_file: Rows of one file.

    Returns:
        Number of rows written.
    """
    run.delete(ROWS_DIR)
    writers = {split: _PartWriter(run, f"{ROWS_DIR}/{split}", rows_per_file) for split in SPLITS}
    truth: list[pa.Table] = []
    key_array = pa.array(identities.keys, type=pa.string())
    num_seen = num_kept = 0
    for batch in clean.batches():
        rows = slice(num_seen, num_seen + batch.num_rows)
        num_seen += batch.num_rows
        is_kept = result.fates[rows] == Fate.KEPT
        _reject_rows(batch, result.fates[rows], result.splits[rows], rejects)
        kept = batch.filter(pa.array(is_kept))
        row_ids = np.arange(num_kept, num_kept + kept.num_rows, dtype=np.int64)
        num_kept += kept.num_rows
        splits = result.splits[rows][is_kept]
        table = _task_rows(
            kept,
            row_ids=row_ids,
            reaction_keys=key_array.take(pa.array(identities.codes[rows][is_kept])),
            splits=splits,
            rt_splits=result.rt_splits[rows][is_kept],
        )
        for code, split in enumerate(SPLITS):
            writers[split].add(table.filter(pa.array(splits == code)))
        truth.append(_truth_rows(kept, row_ids))
    for writer in writers.values():
        writer.close()
    run.write_table(TRUTH_PATH, pa.concat_tables([TRUTH.empty_table(), *truth]))
    return num_kept


class _PartWriter:
    """Writes a table as numbered files of a fixed number of rows."""

    def __init__(self, run: RunFolder, folder: str, rows_per_file: int) -> None:
        self._run = run
        self._folder = folder
        self._rows_per_file = rows_per_file
        self._waiting = TASK_ROWS.empty_table()
        self._num_files = 0

    def add(self, table: pa.Table) -> None:
        """Take in the next rows, and write the files that they fill."""
        self._waiting = pa.concat_tables([self._waiting, table])
        while self._waiting.num_rows >= self._rows_per_file:
            self._write(self._waiting.slice(0, self._rows_per_file))
            self._waiting = self._waiting.slice(self._rows_per_file)

    def close(self) -> None:
        """Write what is left; a table without rows gets one empty file."""
        if self._waiting.num_rows or not self._num_files:
            self._write(self._waiting)

    def _write(self, table: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, row_group_size=_ROW_GROUP_ROWS)
        path = f"{self._folder}/part-{self._num_files:05d}.parquet"
        self._run.write_bytes(path, sink.getvalue().to_pybytes())
        self._num_files += 1


def _task_rows(
    batch: pa.RecordBatch,
    *,
    row_ids: NDArray[np.int64],
    reaction_keys: pa.Array,
    splits: NDArray[np.int8],
    rt_splits: NDArray[np.int8],
) -> pa.Table:
    columns = [
        pa.array(row_ids),
        batch["source_id"],
        reaction_keys,
        batch["task"],
        pa.array([SPLITS[code] for code in splits], type=pa.string()),
        pa.array([_RT_SPLITS.get(RtCode(code)) for code in rt_splits], type=pa.string()),
        batch["input"],
        batch["output"],
        batch["mapped_reaction"],
    ]
    return pa.Table.from_arrays(columns, schema=TASK_ROWS)


def _truth_rows(batch: pa.RecordBatch, row_ids: NDArray[np.int64]) -> pa.Table:
    names = batch["truth_names"]
    columns = [
        pa.array(np.repeat(row_ids, names.value_lengths().to_numpy(zero_copy_only=False))),
        names.flatten(),
        batch["truth_values"].flatten(),
    ]
    return pa.Table.from_arrays(columns, schema=TRUTH)


def _reject_rows(
    batch: pa.RecordBatch,
    fates: NDArray[np.int8],
    splits: NDArray[np.int8],
    rejects: RejectTable,
) -> None:
    for fate, (reason, detail) in _FATE_REASONS.items():
        chosen = np.flatnonzero(fates == fate)
        if not len(chosen):
            continue
        for code, row in zip(splits[chosen], batch.take(pa.array(chosen)).to_pylist(), strict=True):
            rejects.add(
                RejectedRow(
                    source_row=row["source_row"],
                    source_id=row["source_id"],
                    task=Task(row["task"]),
                    split=None if code == NO_SPLIT else SPLITS[code],
                    input=row["input"],
                    output=row["output"],
                    reason=reason,
                    detail=detail,
                    is_derived=False,
                )
            )
