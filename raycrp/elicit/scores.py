"""How well reaction types are named from the input alone (Eq 6), and what the names tell."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import cohen_kappa_score, mutual_info_score
from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information

IntArray = npt.NDArray[np.int64]

_NORMAL_95 = 1.959963984540054
_NO_INFORMATION = 1e-9


@dataclass(frozen=True)
class NamingScores:
    """Agreement between clusters and the reaction types that LLM-RT names.

    Args:
        num_rows: Rows scored, none of them trained on.
        accuracy: Share of rows named as clustered (Eq 6).
        accuracy_low: Lower end of the 95 % Wilson interval of ``accuracy``.
        accuracy_high: Its upper end.
        majority_rate: Accuracy of always naming the most frequent type of the training rows.
        kappa: Cohen's kappa; 0 is chance, 1 is perfect.
        information_bits: Mutual information of cluster and name in bits, adjusted for chance.
    """

    num_rows: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    majority_rate: float
    kappa: float
    information_bits: float


@dataclass(frozen=True)
class ClusterSizes:
    """How evenly rows spread over reaction types.

    Args:
        effective_types: Exponential of the entropy of the labels: N if all are equally frequent.
        smallest_share: Share of rows in the smallest type; 0 if one is empty.
    """

    effective_types: float
    smallest_share: float


def score_naming(clusters: IntArray, *, named: IntArray, majority_type: int) -> NamingScores:
    """Compare the reaction types named by LLM-RT with the clusters.

    Args:
        clusters: Labels by k-means, shape ``(num_rows,)``, at least one row.
        named: Labels by LLM-RT, same shape.
        majority_type: The most frequent label of the rows LLM-RT was trained on.

    Raises:
        ValueError: If there are no rows or the lengths differ.

    Source: Eq 6 for the accuracy.
    """
    if len(clusters) != len(named) or len(clusters) == 0:
        raise ValueError(f"{len(clusters)} clusters and {len(named)} names cannot be compared")
    num_right = int((clusters == named).sum())
    low, high = wilson_interval(num_right, num_rows=len(clusters))
    return NamingScores(
        num_rows=len(clusters),
        accuracy=num_right / len(clusters),
        accuracy_low=low,
        accuracy_high=high,
        majority_rate=float((clusters == majority_type).mean()),
        kappa=_kappa(clusters, named),
        information_bits=information_bits(clusters, named),
    )


def measure_sizes(labels: IntArray, *, num_types: int) -> ClusterSizes:
    """Effective number of reaction types and the share of the smallest.

    Args:
        labels: Shape ``(num_rows,)``, in ``[0, num_types)``.
        num_types: Number of types, empty ones included.
    """
    shares = np.bincount(labels, minlength=num_types) / len(labels)
    present = shares[shares > 0]
    entropy = -float((present * np.log(present)).sum())
    return ClusterSizes(effective_types=math.exp(entropy), smallest_share=float(shares.min()))


def wilson_interval(num_right: int, *, num_rows: int) -> tuple[float, float]:
    """95 % interval of a share, right at its ends and for few rows too.

    Source: E. B. Wilson, J. Am. Stat. Assoc. 1927, 22, 209.
    """
    z2 = _NORMAL_95**2
    share = num_right / num_rows
    centre = (share + z2 / (2 * num_rows)) / (1 + z2 / num_rows)
    spread = share * (1 - share) / num_rows + z2 / (4 * num_rows**2)
    half = _NORMAL_95 * math.sqrt(spread) / (1 + z2 / num_rows)
    return max(0.0, centre - half), min(1.0, centre + half)


def information_bits(clusters: IntArray, named: IntArray) -> float:
    """What names tell about clusters: mutual information adjusted for chance, in bits.

    The plain estimate grows with the number of types even where names are random: 40 rows and 12
    types feign over a bit. Here random names tell about 0 bits and right ones the clusters'
    entropy H, so that trials of different N compare: ``H (I - E) / (H - E)``, where E is the
    information expected of names in random order, not below 0.

    Args:
        clusters: Shape ``(num_rows,)``.
        named: Same shape.

    Source: N. X. Vinh, J. Epps, J. Bailey, J. Mach. Learn. Res. 2010, 11, 2837, for E.
    """
    table = contingency_matrix(clusters, named)
    entropy = mutual_info_score(clusters, clusters)
    expected = expected_mutual_information(table.astype(np.int64), len(clusters))
    if entropy - expected < _NO_INFORMATION:
        return 0.0
    observed = mutual_info_score(None, None, contingency=table)
    nats = entropy * (observed - expected) / (entropy - expected)
    return max(0.0, float(nats) / math.log(2))


def _kappa(clusters: IntArray, named: IntArray) -> float:
    """Cohen's kappa; 0 where both are one and the same constant, which kappa leaves undefined."""
    if len(np.union1d(clusters, named)) == 1:
        return 0.0
    return float(cohen_kappa_score(clusters, named))
