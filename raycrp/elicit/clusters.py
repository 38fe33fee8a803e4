"""Reaction types by k-means (Eq 5), and the same names for them from round to round."""

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


def assign_clusters(points: FloatArray, *, num_clusters: int, num_init: int, seed: int) -> IntArray:
    """Give each reaction a reaction type by k-means.

    One thread is used whatever the worker has, because the order of summation decides the last
    bits of the centres, and with them the labels of rows halfway between two.

    Args:
        points: Shape ``(num_rows, dim)``, float32, finite.
        num_clusters: The N of the paper, at least 2 and at most the number of distinct points.
        num_init: Restarts; the lowest inertia wins.
        seed: Seed of the first centres.

    Returns:
        Labels in ``[0, num_clusters)``, shape ``(num_rows,)``.

    Raises:
        ValueError: If there are fewer distinct points than clusters.

    Source: Eq 5.
    """
    num_distinct = count_distinct(points, limit=num_clusters)
    if num_distinct < num_clusters:
        raise ValueError(f"{num_clusters} clusters of {num_distinct} distinct points")
    with threadpool_limits(limits=1):
        model = KMeans(n_clusters=num_clusters, n_init=num_init, random_state=seed)
        return np.asarray(model.fit_predict(points), dtype=np.int64)


def count_distinct(points: FloatArray, *, limit: int) -> int:
    """Number of distinct rows, counted no further than a limit.

    Args:
        points: Shape ``(num_rows, dim)``.
        limit: Counting stops there.
    """
    seen: set[bytes] = set()
    for row in points:
        seen.add(row.tobytes())
        if len(seen) == limit:
            break
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
