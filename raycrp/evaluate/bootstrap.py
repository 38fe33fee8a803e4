"""Bootstrap intervals over reactions, for every score that is a function of sums over rows."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import t as student_t

CONFIDENCE = 0.95
_TAIL = (1 - CONFIDENCE) / 2
_MAX_DRAWS_IN_MEMORY = 2_000_000

Reduce = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Takes sums of shape ``(..., width)`` to scores of shape ``(...)``."""


@dataclass(frozen=True)
class Estimate:
    """A score as a function of sums over rows.

    Args:
        statistics: Shape ``(num_rows, width)``.
        reduce: From summed statistics to the score.
        is_share: Whether the score lies in [0, 1].
    """

    statistics: NDArray[np.float64]
    reduce: Reduce
    is_share: bool = True


@dataclass(frozen=True)
class Interval:
    """A score with its 95 % interval."""

    value: float
    low: float
    high: float


def bootstrap_intervals(
    estimates: Sequence[Estimate],
    *,
    clusters: Sequence[str],
    num_resamples: int,
    seed: int,
) -> list[Interval]:
    """Score and 95 % interval of several metrics under the same resamples.

    The interval is the bias-corrected and accelerated one (BCa), since plain percentiles reach
    too low where a score is close to 1, as validity is. Whole reactions are drawn with
    replacement, each with all of its rows, since rows of one reaction are not independent. Where
    all reactions say the same, resampling says nothing; a share of 0 or 1 then takes the exact
    one-sided bound of ``m`` equal outcomes, ``1 - 0.025 ** (1/m)`` away.

    Args:
        estimates: The scores, all over the same rows.
        clusters: Reaction key of each row.
        num_resamples: Number of bootstrap draws.
        seed: Seed of the draws; they depend on it and the number of reactions alone.

    Returns:
        One interval a score.

    Source: Efron (1987), Better bootstrap confidence intervals.
    """
    resampled = _resample(estimates, clusters, num_resamples=num_resamples, seed=seed)
    return [
        _equal_outcomes_interval(scores.value, num_clusters=len(scores.left_out))
        if estimate.is_share and scores.is_constant
        else _interval(scores)
        for estimate, scores in zip(estimates, resampled, strict=True)
    ]


def bootstrap_differences(
    first: Sequence[Estimate],
    second: Sequence[Estimate],
    *,
    clusters: Sequence[str],
    num_resamples: int,
    seed: int,
) -> list[Interval]:
    """Second score minus first, paired: both are resampled by the same draws of reactions.

    Args:
        first: The scores of one run.
        second: The same scores of another run on the same rows, in the same order.
        clusters: Reaction key of each row.
        num_resamples: Number of bootstrap draws.
        seed: Seed of the draws.

    Returns:
        One interval a score; it does not hold 0 where the two runs differ at the 5 % level.
    """
    differences = _differences(first, second, clusters, num_resamples=num_resamples, seed=seed)
    return [_interval(each) for each in differences]


def seeded_intervals(
    seeds: Sequence[Sequence[Estimate]],
    *,
    clusters: Sequence[str],
    num_resamples: int,
    seed: int,
) -> list[Interval]:
    """Mean score of models that differ in their seed alone, with a 95 % interval over both.

    Two things are random: which reactions are in the test split, and which seed a model got. The
    variance of the mean is that over resamples of reactions, the same for all seeds, plus that
    over seeds. Few seeds tell their own variance badly, so the interval takes Student's t with
    the degrees of freedom of Welch and Satterthwaite. What a seed changes from row to row is in
    both parts, so that the interval errs to the wide side. One seed gives the interval over
    reactions alone.

    Args:
        seeds: For each seed the scores of its model, all over the same rows.
        clusters: Reaction key of each row.
        num_resamples: Number of bootstrap draws.
        seed: Seed of the draws.

    Returns:
        One interval a score.
    """
    if len(seeds) == 1:
        return bootstrap_intervals(
            seeds[0], clusters=clusters, num_resamples=num_resamples, seed=seed
        )
    resampled = [
        _resample(estimates, clusters, num_resamples=num_resamples, seed=seed)
        for estimates in seeds
    ]
    return [
        _seeded_interval(scores, is_share=estimate.is_share)
        for estimate, *scores in zip(seeds[0], *resampled, strict=True)
    ]


def seeded_differences(
    first: Sequence[Sequence[Estimate]],
    second: Sequence[Sequence[Estimate]],
    *,
    clusters: Sequence[str],
    num_resamples: int,
    seed: int,
) -> list[Interval]:
    """Second mean score minus first, paired by reaction and by seed.

    Args:
        first: For each seed the scores of a model.
        second: The same of another model, with the same seeds, on the same rows.
        clusters: Reaction key of each row.
        num_resamples: Number of bootstrap draws.
        seed: Seed of the draws.

    Returns:
        One interval a score; see ``seeded_intervals``.
    """
    if len(first) == 1:
        return bootstrap_differences(
            first[0], second[0], clusters=clusters, num_resamples=num_resamples, seed=seed
        )
    differences = [
        _differences(one, two, clusters, num_resamples=num_resamples, seed=seed)
        for one, two in zip(first, second, strict=True)
    ]
    return [_seeded_interval(scores, is_share=False) for scores in zip(*differences, strict=True)]


def ratio_of_sums(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quotient of two sums; 0 where the divisor is 0.

    Args:
        sums: Shape ``(..., 2)``: dividend and divisor.

    Returns:
        Shape ``(...)``.
    """
    dividend, divisor = sums[..., 0], sums[..., 1]
    return np.divide(dividend, divisor, out=np.zeros_like(dividend), where=divisor > 0)


def resample_counts(
    num_clusters: int, *, num_resamples: int, seed: int
) -> Iterator[NDArray[np.float64]]:
    """How often each cluster is drawn in each resample.

    Args:
        num_clusters: Clusters to draw from, as many in each resample.
        num_resamples: Number of resamples.
        seed: Seed of the draws.

    Yields:
        Shape ``(some, num_clusters)``; ``num_resamples`` rows over all blocks.
    """
    generator = np.random.default_rng(seed)
    block = max(1, _MAX_DRAWS_IN_MEMORY // max(1, num_clusters))
    for start in range(0, num_resamples, block):
        size = min(block, num_resamples - start)
        draws = generator.integers(num_clusters, size=(size, num_clusters))
        draws += np.arange(size)[:, None] * num_clusters
        counts = np.bincount(draws.ravel(), minlength=size * num_clusters)
        yield counts.reshape(size, num_clusters).astype(np.float64)


@dataclass(frozen=True)
class _Resampled:
    """A score, the same over resamples, and the same with one cluster left out at a time."""

    value: float
    draws: NDArray[np.float64]
    left_out: NDArray[np.float64]

    @property
    def is_constant(self) -> bool:
        """Whether resampling never changes the score."""
        return not len(self.draws) or bool(self.draws.min() == self.draws.max())


def _resample(
    estimates: Sequence[Estimate], clusters: Sequence[str], *, num_resamples: int, seed: int
) -> list[_Resampled]:
    if not estimates:
        return []
    sums = [_sum_clusters(estimate.statistics, clusters) for estimate in estimates]
    columns = np.concatenate(sums, axis=1)
    if not len(columns):
        return [_Resampled(0.0, np.zeros(0), np.zeros(0)) for _ in estimates]
    blocks = resample_counts(len(columns), num_resamples=num_resamples, seed=seed)
    drawn = np.concatenate([counts @ columns for counts in blocks])
    parts = np.split(drawn, np.cumsum([part.shape[1] for part in sums])[:-1], axis=1)
    return [
        _Resampled(
            value=float(estimate.reduce(part.sum(axis=0))),
            draws=estimate.reduce(draws),
            left_out=estimate.reduce(part.sum(axis=0) - part),
        )
        for estimate, part, draws in zip(estimates, sums, parts, strict=True)
    ]


def _differences(
    first: Sequence[Estimate],
    second: Sequence[Estimate],
    clusters: Sequence[str],
    *,
    num_resamples: int,
    seed: int,
) -> list[_Resampled]:
    both = [
        _resample(estimates, clusters, num_resamples=num_resamples, seed=seed)
        for estimates in (first, second)
    ]
    return [
        _Resampled(
            value=two.value - one.value,
            draws=two.draws - one.draws,
            left_out=two.left_out - one.left_out,
        )
        for one, two in zip(*both, strict=True)
    ]


def _sum_clusters(rows: NDArray[np.float64], clusters: Sequence[str]) -> NDArray[np.float64]:
    names, membership = np.unique(np.asarray(clusters, dtype=object), return_inverse=True)
    sums = np.zeros((len(names), rows.shape[1]))
    np.add.at(sums, membership, rows)
    return sums


def _interval(scores: _Resampled) -> Interval:
    if scores.is_constant:
        return Interval(scores.value, scores.value, scores.value)
    low, high = (float(bound) for bound in np.quantile(scores.draws, _corrected_levels(scores)))
    return Interval(scores.value, low, high)


def _seeded_interval(seeds: Sequence[_Resampled], *, is_share: bool) -> Interval:
    values = np.array([each.value for each in seeds])
    mean = float(values.mean())
    if len(set(values.tolist())) == 1 and all(each.is_constant for each in seeds):
        num_clusters = len(seeds[0].left_out)
        return (
            _equal_outcomes_interval(mean, num_clusters=num_clusters)
            if is_share
            else Interval(mean, mean, mean)
        )
    over_rows = float(np.mean([each.draws for each in seeds], axis=0).var(ddof=1))
    over_seeds = float(values.var(ddof=1)) / len(seeds)
    freedom = (over_rows + over_seeds) ** 2 / (
        over_seeds**2 / (len(seeds) - 1) + over_rows**2 / (len(seeds[0].draws) - 1)
    )
    reach = float(student_t.ppf(1 - _TAIL, freedom)) * (over_rows + over_seeds) ** 0.5
    low, high = mean - reach, mean + reach
    return Interval(mean, max(low, 0.0), min(high, 1.0)) if is_share else Interval(mean, low, high)


def _equal_outcomes_interval(value: float, *, num_clusters: int) -> Interval:
    if value not in (0.0, 1.0) or not num_clusters:
        return Interval(value, value, value)
    reach = 1 - _TAIL ** (1 / num_clusters)
    return Interval(value, value - reach * value, value + reach * (1 - value))


def _corrected_levels(scores: _Resampled) -> NDArray[np.float64]:
    """Quantile levels of the draws, corrected for bias and skewness (BCa)."""
    draws, left_out = scores.draws, scores.left_out
    below = (np.mean(draws < scores.value) + np.mean(draws <= scores.value)) / 2
    bias = ndtri(np.clip(below, 1 / len(draws), 1 - 1 / len(draws)))
    pull = left_out.mean() - left_out
    scale = np.sum(pull**2) ** 1.5
    skew = np.sum(pull**3) / (6 * scale) if scale > 0 else 0.0
    reach = bias + ndtri(np.array([_TAIL, 1 - _TAIL]))
    levels: NDArray[np.float64] = ndtr(bias + reach / (1 - skew * reach))
    return levels
