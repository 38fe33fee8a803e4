"""Vectors of what reactions change, made once before the search by a Ray Data job.

A source of such vectors is a member of ``Encoding`` and an entry in ``FEATURES`` and ``DIMS``.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

import pyarrow as pa

from raycrp.arrays import FloatArray
from raycrp.chem.changes import NUM_FEATURES, change_vectors
from raycrp.chem.fingerprints import DIM, difference_fingerprints
from raycrp.chem.reactions import Reaction, task_reaction
from raycrp.choices import Encoding, Task
from raycrp.elicit.encodings import sources
from raycrp.ray_data import map_shards
from raycrp.run import RunFolder

ROWS = "data/rows/train"

FEATURES: Mapping[Encoding, Callable[[Sequence[Reaction]], FloatArray]] = {
    Encoding.FINGERPRINT: difference_fingerprints,
    Encoding.CHANGE: change_vectors,
}
"""Functions of reactions alone, so that shards can be made anywhere in any order."""

DIMS: Mapping[Encoding, int] = {Encoding.FINGERPRINT: DIM, Encoding.CHANGE: NUM_FEATURES}


def features_dir(encoding: Encoding) -> str:
    """Folder of an encoding's vectors, relative to the run folder.

    Args:
        encoding: A key of ``FEATURES``.
    """
    return f"elicit/features/{encoding}"


def make_features(
    run: RunFolder, *, encodings: Collection[Encoding], rows_per_shard: int, num_actors: int
) -> tuple[Encoding, ...]:
    """Make the vectors of the encodings that have a function of their own.

    Args:
        run: The run folder.
        encodings: Encodings of the search.
        rows_per_shard: As in the embed stage, so that shards of both hold the same rows.
        num_actors: Actors at once.

    Returns:
        The sources that vectors were made for, those of joined encodings included.
    """
    needed = {source for encoding in encodings for source in sources(encoding)}
    wanted = tuple(source for source in FEATURES if source in needed)
    for encoding in wanted:
        map_shards(
            run,
            tables={ROWS: features_dir(encoding)},
            function=FeatureMaker,
            arguments={"encoding": encoding},
            schema=features_schema(DIMS[encoding]),
            rows_per_shard=rows_per_shard,
            num_actors=num_actors,
        )
    return wanted


def features_schema(dim: int) -> pa.Schema:
    """Schema of a table of vectors of reactions.

    Args:
        dim: Length of each vector.
    """
    return pa.schema(
        [
            pa.field("row_id", pa.int64(), nullable=False),
            pa.field("vector", pa.list_(pa.float32(), dim), nullable=False),
        ]
    )


class FeatureMaker:
    """Describes the reactions of a shard's rows.

    Args:
        encoding: Which vectors to make.
    """

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding

    def __call__(self, rows: pa.Table) -> pa.Table:
        """The vectors of the rows; a reaction that occurs in several tasks is described once."""
        columns = (rows[name].to_pylist() for name in ("task", "input", "output"))
        reactions = [
            task_reaction(Task(task), input_text=source, output_text=target)
            for task, source, target in zip(*columns, strict=True)
        ]
        distinct = list(dict.fromkeys(reactions))
        vectors = FEATURES[self._encoding](distinct)
        place_of = {reaction: place for place, reaction in enumerate(distinct)}
        taken = vectors[[place_of[reaction] for reaction in reactions]]
        schema = features_schema(DIMS[self._encoding])
        return pa.table({"row_id": rows["row_id"], "vector": list(taken)}, schema=schema)
