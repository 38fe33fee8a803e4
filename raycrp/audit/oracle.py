"""Oracle reaction types: what k-means calls a row once its output has been seen.

They exist for an audit alone, as an upper bound, and are never stored with annotations.
"""

from dataclasses import dataclass

import numpy as np

from raycrp.arrays import FloatArray, IntArray


@dataclass(frozen=True)
class Oracle:
    """The clusters of a task by their centres.

    Args:
        types: Reaction types, shape ``(num_types,)``.
        centers: Their centres, shape ``(num_types, dim)``.
        consistency: Share of the training rows that are nearest to the centre of their own type.
    """

    types: IntArray
    centers: FloatArray
    consistency: float

    def name(self, codes: FloatArray) -> IntArray:
        """Reaction type of the nearest centre.

        Args:
            codes: What k-means would see of each row, shape ``(num_rows, dim)``.
        """
        return _nearest(codes, self.types, self.centers)


def fit_oracle(codes: FloatArray, *, labels: IntArray) -> Oracle:
    """Centres of the clusters, as means of training rows.

    Args:
        codes: What k-means saw of each training row, shape ``(num_rows, dim)``.
        labels: Its reaction types, shape ``(num_rows,)``.
    """
    types = np.unique(labels)
    centers = np.stack([codes[labels == each].mean(axis=0) for each in types])
    named = _nearest(codes, types, centers)
    return Oracle(types, centers, consistency=float((named == labels).mean()))


def _nearest(codes: FloatArray, types: IntArray, centers: FloatArray) -> IntArray:
    # The length of a row's own vector is the same for all centres.
    distances = (centers**2).sum(axis=1) - 2 * codes @ centers.T
    named: IntArray = types[distances.argmin(axis=1)]
    return named
