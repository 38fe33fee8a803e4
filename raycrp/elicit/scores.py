"""How well reaction types are named from the input alone (Eq 6), and what the names tell."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import cohen_kappa_score, mutual_info_score
from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information

from raycrp.arrays import FloatArray, IntArray

_NORMAL_95 = 1.959963984540054
_NO_INFORMATION = 1e-9
_NUM_BINS = 10


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
        calibration_error: Expected calibration error of the probability given to the name.
    """

    num_rows: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    majority_rate: float
    kappa: float
    information_bits: float
    calibration_error: float


@dataclass(frozen=True)
class ClusterSizes:
    """How evenly rows spread over reaction types.

    Args:
        effective_types: Exponential of the entropy of the labels: N if all are equally frequent.
        smallest_share: Share of rows in the smallest type; 0 if one is empty.
    """

    effective_types: float
    smallest_share: float


def score_naming(
    clusters: IntArray, *, probabilities: FloatArray, majority_type: int
) -> NamingScores:
    """Compare the reaction types named by LLM-RT with the clusters.

    Args:
        clusters: Labels by k-means, shape ``(num_rows,)``, at least one row.
        probabilities: Of the reaction types by LLM-RT, shape ``(num_rows, num_types)``; the most
            probable is the name.
        majority_type: The most frequent label of the rows LLM-RT was trained on.

    Raises:
        ValueError: If there are no rows or the lengths differ.

    Source: Eq 6 for the accuracy.
    """
    if len(clusters) != len(probabilities) or len(clusters) == 0:
        raise ValueError(f"{len(clusters)} clusters and {len(probabilities)} names do not compare")
    named = probabilities.argmax(axis=1)
    is_right = clusters == named
    low, high = wilson_interval(int(is_right.sum()), num_rows=len(clusters))
    return NamingScores(
        num_rows=len(clusters),
        accuracy=float(is_right.mean()),
        accuracy_low=low,
        accuracy_high=high,
        majority_rate=float((clusters == majority_type).mean()),
        kappa=_kappa(clusters, named),
        information_bits=information_bits(clusters, named),
        calibration_error=calibration_error(probabilities.max(axis=1), is_right=is_right),
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
    low = 0.0 if num_right == 0 else centre - half
    high = 1.0 if num_right == num_rows else centre + half
    return low, high


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


def calibration_error(confidences: FloatArray, *, is_right: npt.NDArray[np.bool_]) -> float:
    """Expected calibration error: how far confidence is from accuracy, over ten bins.

    Args:
        confidences: Probability given to each name, shape ``(num_rows,)``, in ``[0, 1]``.
        is_right: Whether the name is right, same shape.

    Returns:
        Between 0 and 1; few rows alone make it large.

    Source: Naeini, Cooper, Hauskrecht, AAAI 2015; Guo et al., ICML 2017, Eq 3.
    """
    bins = np.clip(np.ceil(confidences * _NUM_BINS).astype(int) - 1, 0, _NUM_BINS - 1)
    surplus = np.bincount(bins, weights=confidences - is_right, minlength=_NUM_BINS)
    return float(np.abs(surplus).sum() / len(confidences))


def _kappa(clusters: IntArray, named: IntArray) -> float:
    """Cohen's kappa; 0 where both are one and the same constant, which kappa leaves undefined."""
    if len(np.union1d(clusters, named)) == 1:
        return 0.0
    return float(cohen_kappa_score(clusters, named))
