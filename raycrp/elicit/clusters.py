"""Reaction types by k-means (Eq 5), and the same names for them from round to round."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans, MiniBatchKMeans
from threadpoolctl import threadpool_limits

from raycrp.arrays import FloatArray, IntArray
from raycrp.choices import Encoding
from raycrp.elicit.encodings import encode_reactions
from raycrp.elicit.vectors import Vectors

_MAX_SAMPLE_ROWS = 50_000
_NUM_PASSES = 2


@dataclass(frozen=True)
class KMeansSettings:
    """How k-means runs.

    Args:
        num_init: Restarts; the lowest inertia wins.
        max_whole_rows: Above this many rows, k-means goes block by block.
    """

    num_init: int
    max_whole_rows: int


@dataclass(frozen=True)
class Clusters:
    """Where k-means has put each row.

    Args:
        labels: In ``[0, num_clusters)``, shape ``(num_rows,)``.
        distances: From each row to the centre of its cluster, same shape, float32.
    """

    labels: IntArray
    distances: FloatArray


def cluster_reactions(
    vectors: Vectors,
    *,
    encoding: Encoding,
    num_clusters: int,
    settings: KMeansSettings,
    seed: int,
) -> Clusters:
    """Give each reaction a reaction type by k-means.

    One thread is used whatever the worker has, because the order of summation decides the last
    bits of the centres, and with them the labels of rows halfway between two.

    Args:
        vectors: Vectors of all rows.
        encoding: Which of them describe a reaction.
        num_clusters: The N of the paper, at least 2.
        settings: How k-means runs.
        seed: Seed of the first centres.

    Returns:
        The label of each row, and how central it is.

    Raises:
        ValueError: If there are fewer distinct points than clusters.

    Source: Eq 5.
    """
    num_distinct = count_distinct(vectors, encoding=encoding, limit=num_clusters)
    if num_distinct < num_clusters:
        raise ValueError(f"{num_clusters} clusters of {num_distinct} distinct points")
    with threadpool_limits(limits=1):
        if vectors.num_rows <= settings.max_whole_rows:
            points = _gather(vectors, encoding, np.arange(vectors.num_rows))
            model = _fit_whole(points, num_clusters, settings.num_init, seed)
            labels = np.asarray(model.labels_, dtype=np.int64)
            return Clusters(labels, _distances(points, model.cluster_centers_[labels]))
        return _cluster_by_block(vectors, encoding, num_clusters, settings, seed)


def count_distinct(vectors: Vectors, *, encoding: Encoding, limit: int) -> int:
    """Number of distinct points, counted no further than a limit.

    Args:
        vectors: Vectors of all rows.
        encoding: Which of them describe a reaction.
        limit: Counting stops there.
    """
    seen: set[bytes] = set()
    for block in vectors.blocks():
        for point in encode_reactions(block, encoding=encoding):
            seen.add(point.tobytes())
            if len(seen) == limit:
                return limit
    return len(seen)


def align_labels(labels: IntArray, *, reference: IntArray, num_clusters: int) -> IntArray:
    """Rename clusters so that as many rows as possible keep their earlier label.

    Args:
        labels: New labels, shape ``(num_rows,)``, in ``[0, num_clusters)``.
        reference: Earlier labels of the same rows.
        num_clusters: Number of names.

    Returns:
        The same partition as ``labels`` under the names of ``reference``.

    Source: Hungarian matching of the two partitions' contingency table (Kuhn 1955).
    """
    overlap = np.zeros((num_clusters, num_clusters), dtype=np.int64)
    np.add.at(overlap, (labels, reference), 1)
    new_names, old_names = linear_sum_assignment(overlap, maximize=True)
    renamed = np.empty(num_clusters, dtype=np.int64)
    renamed[new_names] = old_names
    return renamed[labels]


def _cluster_by_block(
    vectors: Vectors, encoding: Encoding, num_clusters: int, settings: KMeansSettings, seed: int
) -> Clusters:
    """K-means on a sample, its centres moved by mini-batches over all blocks."""
    sample_size = min(_MAX_SAMPLE_ROWS, settings.max_whole_rows)
    places = np.random.default_rng(seed).choice(vectors.num_rows, sample_size, replace=False)
    sample = _gather(vectors, encoding, np.sort(places))
    model = MiniBatchKMeans(
        num_clusters,
        init=_fit_whole(sample, num_clusters, settings.num_init, seed).cluster_centers_,
        n_init=1,
        random_state=seed,
        reassignment_ratio=0,
    )
    for _ in range(_NUM_PASSES):
        for points in _batches(vectors, encoding, min_rows=num_clusters):
            model.partial_fit(points)
    labels = np.empty(vectors.num_rows, dtype=np.int64)
    distances = np.empty(vectors.num_rows, dtype=np.float32)
    for places, points in _points(vectors, encoding):
        labels[places] = model.predict(points)
        distances[places] = _distances(points, model.cluster_centers_[labels[places]])
    return Clusters(labels, distances)


def _distances(points: FloatArray, centers: FloatArray) -> FloatArray:
    return np.asarray(np.linalg.norm(points - centers, axis=1), dtype=np.float32)


def _fit_whole(points: FloatArray, num_clusters: int, num_init: int, seed: int) -> KMeans:
    return KMeans(num_clusters, n_init=num_init, random_state=seed).fit(points)


def _points(vectors: Vectors, encoding: Encoding) -> Iterator[tuple[IntArray, FloatArray]]:
    for block in vectors.blocks():
        yield block.places, encode_reactions(block, encoding=encoding)


def _batches(vectors: Vectors, encoding: Encoding, *, min_rows: int) -> Iterator[FloatArray]:
    """Points block by block; small blocks together, since k-means starts on no fewer than N."""
    waiting: list[FloatArray] = []
    for _, points in _points(vectors, encoding):
        waiting.append(points)
        if sum(map(len, waiting)) >= min_rows:
            yield np.concatenate(waiting)
            waiting = []
    if waiting:
        yield np.concatenate(waiting)


def _gather(vectors: Vectors, encoding: Encoding, places: IntArray) -> FloatArray:
    """Points of some rows, in ascending order of place, without a second copy of the others."""
    gathered: FloatArray | None = None
    for block_places, points in _points(vectors, encoding):
        if gathered is None:
            gathered = np.empty((len(places), points.shape[1]), dtype=np.float32)
        targets = np.searchsorted(places, block_places)
        targets = np.minimum(targets, len(places) - 1)
        is_wanted = places[targets] == block_places
        gathered[targets[is_wanted]] = points[is_wanted]
    assert gathered is not None, "a task has rows"
    return gathered
