"""Vectors of the embed stage, read file by file: whole, or as blocks of Ray's object store."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray

from raycrp.arrays import FloatArray, IntArray
from raycrp.choices import Encoding
from raycrp.elicit.features import features_dir
from raycrp.elicit.vectors import ArrayVectors, Block, Vectors
from raycrp.errors import ElicitError
from raycrp.run import RunFolder

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
        """The blocks, in the order of the files; none for a file of other tasks' rows alone."""
        for reference in self.references:
            block = ray.get(reference)
            if len(block.places):
                yield block

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


def load_vectors(
    run: RunFolder,
    *,
    row_ids: IntArray,
    max_whole_rows: int,
    features: Sequence[Encoding] = (),
) -> Vectors:
    """Vectors of some rows; above a number of them, no process holds them all.

    Args:
        run: The run folder, with an absolute storage.
        row_ids: The rows, ascending, at least one.
        max_whole_rows: Above this many rows, blocks stay in the object store.
        features: Encodings whose own vectors are read too.

    Raises:
        ElicitError: If vectors are missing or not finite.
    """
    names = run.list_names(VECTORS)
    if not names:
        raise ElicitError(f"{run.uri(VECTORS)} holds no vectors; run the embed stage first")
    reader = _BlockReader(run, row_ids, tuple(features))
    vectors = _store_blocks if len(row_ids) > max_whole_rows else _read_whole
    return vectors(reader, names)


@dataclass(frozen=True)
class _BlockReader:
    """Reads the vectors of some rows from one file of each kind."""

    run: RunFolder
    row_ids: IntArray
    features: tuple[Encoding, ...]

    def read(self, name: str) -> tuple[Block, IntArray]:
        """The block, and the places of its rows whose vectors are finite."""
        table = self.run.read_table(f"{VECTORS}/{name}")
        ids = table["row_id"].to_numpy()
        places = np.minimum(np.searchsorted(self.row_ids, ids), len(self.row_ids) - 1)
        is_wanted = self.row_ids[places] == ids
        block = Block(
            places=places[is_wanted],
            inputs=_matrix(table["input_vector"])[is_wanted],
            outputs=_matrix(table["output_vector"])[is_wanted],
            features={
                encoding: self._read_features(encoding, name, ids)[is_wanted]
                for encoding in self.features
            },
        )
        arrays = (block.inputs, block.outputs, *block.features.values())
        is_finite = np.logical_and.reduce([np.isfinite(a).all(axis=1) for a in arrays])
        return block, block.places[is_finite]

    def _read_features(self, encoding: Encoding, name: str, ids: IntArray) -> FloatArray:
        path = f"{features_dir(encoding)}/{name}"
        table = self.run.read_table(path)
        if not np.array_equal(table["row_id"].to_numpy(), ids):
            raise ElicitError(f"{self.run.uri(path)} holds other rows than {VECTORS}/{name}")
        return _matrix(table["vector"])

    def check_complete(self, is_present: npt.NDArray[np.bool_]) -> None:
        """Refuse rows without finite vectors."""
        if not is_present.all():
            raise ElicitError(
                f"{int((~is_present).sum())} of {len(is_present)} training rows have no finite "
                f"vectors in {self.run.uri(VECTORS)}, the first is row "
                f"{self.row_ids[~is_present][0]}; run the embed stage again"
            )


def _read_whole(reader: _BlockReader, names: Sequence[str]) -> Vectors:
    num_rows = len(reader.row_ids)
    is_present = np.zeros(num_rows, dtype=bool)
    whole: dict[str, FloatArray] = {}
    for name in names:
        block, finite_places = reader.read(name)
        parts = [("inputs", block.inputs), ("outputs", block.outputs), *block.features.items()]
        for key, part in parts:
            array = whole.setdefault(key, np.zeros((num_rows, part.shape[1]), dtype=np.float32))
            array[block.places] = part
        is_present[finite_places] = True
    reader.check_complete(is_present)
    features = {encoding: whole[encoding] for encoding in reader.features}
    return ArrayVectors(whole["inputs"], whole["outputs"], features=features)


def _store_blocks(reader: _BlockReader, names: Sequence[str]) -> Vectors:
    remote: Any = ray.remote
    job = remote(num_cpus=1, num_returns=2)(_BlockReader.read)
    shared_reader = ray.put(reader)
    results = [job.remote(shared_reader, name) for name in names]
    is_present = np.zeros(len(reader.row_ids), dtype=bool)
    for _, finite_places in results:
        is_present[ray.get(finite_places)] = True
    reader.check_complete(is_present)
    return StoredVectors(tuple(block for block, _ in results), num_rows=len(is_present))


def _matrix(column: pa.ChunkedArray) -> FloatArray:
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, dtype=np.float32).reshape(-1, column.type.list_size)
