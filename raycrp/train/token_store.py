"""A run's token ids as flat files on a node's own disk, which all workers of the node map.

The shards that Ray Data wrote stream through the first worker of each node that wants them, a few
at a time; what the workers read afterwards is one copy in the node's page cache. The stores of the
last few runs stay for the next start, in ``raycrp-tokens-USER`` of the folder for temporary files
(``TMPDIR``), 4 bytes a token and some tens of bytes a row.
"""

import errno
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import dataset

from raycrp.arrays import IntArray
from raycrp.errors import TrainError
from raycrp.node_disk import digest, filled_folder, locked_folder
from raycrp.run import RunFolder
from raycrp.schemas import Split
from raycrp.train.tokens import TOKENS, TOKENS_DIR, Texts, TokenArray, TokenTable

_VERSION = 1
_KEPT_RUNS = 4
_SHARDS_AHEAD = 4
_SPLITS = (Split.TRAIN, Split.VALIDATION)
_INDEX = "index.npy"

logger = logging.getLogger(__name__)


def read_tokens(run: RunFolder, split: Split) -> TokenTable:
    """A split's token table, mapped from this node's store, which is built where it is missing.

    Args:
        run: The run folder, with the token tables written.
        split: Training or validation.

    Raises:
        TrainError: If the split has no rows, or the node's disk no room.
    """
    with locked_folder("tokens") as folder:
        store = folder / _store_name(run)
        if not store.exists():
            _tidy(folder, run)
            _build(run, store=store)
        os.utime(store)
        table = _map_table(store / split)
    if not table.num_rows:
        raise TrainError(f"the {split} split has no rows; give more data or a larger share of it")
    return table


def _store_name(run: RunFolder) -> str:
    """Other shards, or those of another place, have another name."""
    shards = [(file.base_name, file.size, file.mtime_ns) for file in run.list_files(TOKENS_DIR)]
    return f"{_run_name(run)}-{digest([_VERSION, shards])}"


def _run_name(run: RunFolder) -> str:
    return digest(run.uri(TOKENS_DIR))


def _tidy(folder: Path, run: RunFolder) -> None:
    """Make room: cut-off builds, this run's older store, and those of runs longest unused go.

    A worker that has mapped one keeps it until it ends.
    """
    stores = [path for path in folder.iterdir() if path.is_dir()]
    old = [path for path in stores if path.name.startswith((".", _run_name(run)))]
    others = sorted(set(stores) - set(old), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in [*old, *others[_KEPT_RUNS - 1 :]]:
        shutil.rmtree(path, ignore_errors=True)


def _build(run: RunFolder, *, store: Path) -> None:
    started = time.monotonic()
    try:
        with filled_folder(store) as scratch:
            num_rows = _write(run, scratch)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise TrainError(
            f"{store.parent} has no room for the token ids of {run.uri(TOKENS_DIR)}; set TMPDIR "
            "to a folder on a disk of this node with more room"
        ) from error
    finally:
        pa.default_memory_pool().release_unused()
    seconds = time.monotonic() - started
    logger.info("train: %d rows of token ids on this node's disk, %.1f s", num_rows, seconds)


def _write(run: RunFolder, folder: Path) -> int:
    num_rows = 0
    with ExitStack() as stack:
        writers = {split: stack.enter_context(_writer(folder / split)) for split in _SPLITS}
        for rows in _stream(run):
            num_rows += rows.num_rows
            for split, writer in writers.items():
                writer.add(rows.filter(pc.equal(rows["split"], split.value)))
    return num_rows


def _stream(run: RunFolder) -> Iterator[pa.RecordBatch]:
    """The rows of all shards, few of them in memory at a time."""
    shards = dataset.dataset(
        [file.path for file in run.list_files(TOKENS_DIR)],
        schema=TOKENS,
        filesystem=run.filesystem,
        format="parquet",
    )
    batches: Iterator[pa.RecordBatch] = shards.to_batches(
        batch_readahead=_SHARDS_AHEAD, fragment_readahead=_SHARDS_AHEAD
    )
    return batches


@contextmanager
def _writer(folder: Path) -> Iterator["_SplitWriter"]:
    folder.mkdir()
    with (
        (folder / "inputs.bin").open("wb") as inputs,
        (folder / "targets.bin").open("wb") as targets,
    ):
        writer = _SplitWriter(inputs, targets)
        yield writer
        with (folder / _INDEX).open("wb") as index:
            np.save(index, writer.index())
            for stream in (inputs, targets, index):
                stream.flush()
                os.fsync(stream.fileno())


class _SplitWriter:
    """Appends token ids to flat files, and notes where each text lies."""

    def __init__(self, inputs: BinaryIO, targets: BinaryIO) -> None:
        self._streams = {"input": inputs, "target": targets}
        self._num_tokens = {"input": 0, "target": 0}
        self._parts: list[Any] = [np.zeros(0, dtype=_record(1))]

    def add(self, rows: pa.RecordBatch) -> None:
        """Append rows of the token table."""
        if not rows.num_rows:
            return
        places = {kind: self._append(rows[f"{kind}_ids"], kind) for kind in self._streams}
        part = np.zeros(rows.num_rows, dtype=_record(places["input"][1].shape[1]))
        for name in ("row_id", "task", "template", "is_aligned"):
            part[name] = rows[name].to_numpy(zero_copy_only=False)
        part["reaction_type"] = rows["reaction_type"].fill_null(-1).to_numpy(zero_copy_only=False)
        for kind, (starts, lengths) in places.items():
            part[f"{kind}_starts"], part[f"{kind}_lengths"] = starts, lengths
        self._parts.append(part)

    def index(self) -> Any:
        """One record a row, by rising row id."""
        parts = self._parts[1:] or self._parts
        index = np.concatenate(parts)
        return index[np.argsort(index["row_id"], kind="stable")]

    def _append(self, column: pa.ListArray, kind: str) -> tuple[IntArray, IntArray]:
        texts = column.flatten()
        tokens = texts.flatten().to_numpy()
        self._streams[kind].write(tokens.tobytes())
        lengths = np.diff(texts.offsets.to_numpy()).astype(np.int64)
        starts = self._num_tokens[kind] + np.cumsum(lengths) - lengths
        self._num_tokens[kind] += len(tokens)
        return starts.reshape(len(column), -1), lengths.reshape(len(column), -1)


def _record(num_spellings: int) -> np.dtype[Any]:
    texts = [
        (f"{kind}_{name}", number_type, (num_spellings,))
        for kind in ("input", "target")
        for name, number_type in (("starts", np.int64), ("lengths", np.int32))
    ]
    numbers = [
        ("row_id", np.int64),
        ("reaction_type", np.int32),
        ("task", np.int8),
        ("template", np.int8),
        ("is_aligned", np.bool_),
    ]
    return np.dtype([*numbers, *texts], align=True)


def _map_table(folder: Path) -> TokenTable:
    index = np.load(folder / _INDEX, mmap_mode="r").view(np.ndarray)
    return TokenTable(
        row_ids=np.array(index["row_id"]),
        tasks=index["task"].astype(np.int64),
        templates=index["template"].astype(np.int64),
        reaction_types=index["reaction_type"].astype(np.int64),
        inputs=_map_texts(folder / "inputs.bin", index, "input"),
        targets=_map_texts(folder / "targets.bin", index, "target"),
        num_aligned=int(index["is_aligned"].sum()),
    )


def _map_texts(path: Path, index: Any, kind: str) -> Texts:
    return Texts(_map_tokens(path), index[f"{kind}_starts"], index[f"{kind}_lengths"])


def _map_tokens(path: Path) -> TokenArray:
    if not path.stat().st_size:
        return np.zeros(0, dtype=np.int32)
    return np.memmap(path, dtype=np.int32, mode="r").view(np.ndarray)
