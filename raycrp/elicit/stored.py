"""Vectors of the embed stage, read file by file: whole, or as blocks of Ray's object store."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray

from raycrp.elicit.vectors import ArrayVectors, Block, Vectors
from raycrp.errors import ElicitError
from raycrp.run import RunFolder

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

VECTORS = "embed/train"


@dataclass(frozen=True)
class StoredVectors:
    """Vectors as blocks of Ray's object store, which spills to disk; one is held at a time.

    Args:
        references: The blocks.
        num_rows: Rows in all.
    """

    references: tuple["ray.ObjectRef[Block]", ...]
    num_rows: int

    def blocks(self) -> Iterator[Block]:
        """The blocks, in the order of the files."""
        for reference in self.references:
            yield ray.get(reference)

    def take_inputs(self, places: IntArray) -> FloatArray:
        """Input vectors of some rows."""
        order = np.argsort(places, kind="stable")
        taken: FloatArray | None = None
        for block in self.blocks():
            if taken is None:
                taken = np.empty((len(places), block.inputs.shape[1]), dtype=np.float32)
            rows = np.argsort(block.places, kind="stable")
            found = np.searchsorted(block.places[rows], places[order])
            found = rows[np.minimum(found, len(rows) - 1)]
            is_here = block.places[found] == places[order]
            taken[order[is_here]] = block.inputs[found[is_here]]
        assert taken is not None, "a task has rows"
        return taken


def load_vectors(run: RunFolder, *, row_ids: IntArray, max_whole_rows: int) -> Vectors:
    """Vectors of some rows; above a number of them, no process holds them all.

    Args:
        run: The run folder, with an absolute storage.
        row_ids: The rows, ascending, at least one.
        max_whole_rows: Above this many rows, blocks stay in the object store.

    Raises:
        ElicitError: If vectors are missing or not finite.
    """
    names = run.list_names(VECTORS)
    if not names:
        raise ElicitError(f"{run.uri(VECTORS)} holds no vectors; run the embed stage first")
    if len(row_ids) > max_whole_rows:
        return _store_blocks(run, names, row_ids)
    return _read_whole(run, names, row_ids)


def _read_whole(run: RunFolder, names: Sequence[str], row_ids: IntArray) -> Vectors:
    arrays: tuple[FloatArray, FloatArray] | None = None
    is_present = np.zeros(len(row_ids), dtype=bool)
    for name in names:
        block = _read_block(run, name, row_ids)
        if arrays is None:
            shape = (len(row_ids), block.inputs.shape[1])
            arrays = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
        arrays[0][block.places] = block.inputs
        arrays[1][block.places] = block.outputs
        is_present[_finite_places(block)] = True
    _check_present(run, row_ids, is_present)
    assert arrays is not None, "there is a file"
    return ArrayVectors(*arrays)


def _store_blocks(run: RunFolder, names: Sequence[str], row_ids: IntArray) -> Vectors:
    remote: Any = ray.remote
    job = remote(num_cpus=1, num_returns=2)(_read_block_and_check)
    shared_ids = ray.put(row_ids)
    results = [job.remote(run, name, shared_ids) for name in names]
    is_present = np.zeros(len(row_ids), dtype=bool)
    for _, finite_places in results:
        is_present[ray.get(finite_places)] = True
    _check_present(run, row_ids, is_present)
    return StoredVectors(tuple(block for block, _ in results), num_rows=len(row_ids))


def _read_block_and_check(run: RunFolder, name: str, row_ids: IntArray) -> tuple[Block, IntArray]:
    block = _read_block(run, name, row_ids)
    return block, _finite_places(block)


def _read_block(run: RunFolder, name: str, row_ids: IntArray) -> Block:
    table = run.read_table(f"{VECTORS}/{name}")
    ids = table["row_id"].to_numpy()
    places = np.minimum(np.searchsorted(row_ids, ids), len(row_ids) - 1)
    is_wanted = row_ids[places] == ids
    return Block(
        places=places[is_wanted],
        inputs=_matrix(table["input_vector"])[is_wanted],
        outputs=_matrix(table["output_vector"])[is_wanted],
    )


def _matrix(column: pa.ChunkedArray) -> FloatArray:
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, dtype=np.float32).reshape(-1, column.type.list_size)


def _finite_places(block: Block) -> IntArray:
    is_finite = np.isfinite(block.inputs).all(axis=1) & np.isfinite(block.outputs).all(axis=1)
    return block.places[is_finite]


def _check_present(run: RunFolder, row_ids: IntArray, is_present: npt.NDArray[np.bool_]) -> None:
    if not is_present.all():
        raise ElicitError(
            f"{int((~is_present).sum())} of {len(row_ids)} training rows have no finite vectors "
            f"in {run.uri(VECTORS)}, the first is row {row_ids[~is_present][0]}; "
            "run the embed stage again"
        )
