from dataclasses import replace

import numpy as np
import pytest

from raycrp.evaluate.bootstrap import (
    Estimate,
    bootstrap_differences,
    bootstrap_intervals,
    ratio_of_sums,
    resample_counts,
    seeded_differences,
    seeded_intervals,
)

SETTINGS = {"num_resamples": 500, "seed": 3}


def mean_of(values):
    return Estimate(np.stack([values, np.ones(len(values))], axis=1).astype(float), ratio_of_sums)


def test_ratio_of_sums_by_hand():
    assert ratio_of_sums(np.array([[1.0, 4.0], [0.0, 0.0]])).tolist() == [0.25, 0.0]


def test_counts_draw_as_many_clusters_as_there_are():
    blocks = list(resample_counts(7, num_resamples=50, seed=0))
    counts = np.concatenate(blocks)
    assert counts.shape == (50, 7)
    assert set(counts.sum(axis=1)) == {7}
    assert counts.mean() == 1
    assert counts.max() > 1


def test_counts_come_in_blocks_within_memory(monkeypatch):
    whole = np.concatenate(list(resample_counts(7, num_resamples=50, seed=0)))
    monkeypatch.setattr("raycrp.evaluate.bootstrap._MAX_DRAWS_IN_MEMORY", 70)
    blocks = list(resample_counts(7, num_resamples=50, seed=0))
    assert [len(block) for block in blocks] == [10] * 5
    assert np.array_equal(np.concatenate(blocks), whole)


def test_interval_is_the_seed_s_and_not_the_row_order_s():
    values = np.random.default_rng(0).random(40)
    keys = [f"r{i // 2}" for i in range(40)]
    order = np.random.default_rng(1).permutation(40)
    first = bootstrap_intervals([mean_of(values)], clusters=keys, **SETTINGS)
    shuffled = bootstrap_intervals(
        [mean_of(values[order])], clusters=[keys[i] for i in order], **SETTINGS
    )
    other = bootstrap_intervals([mean_of(values)], clusters=keys, num_resamples=500, seed=4)
    assert first[0].low == pytest.approx(shuffled[0].low)
    assert first[0].low != other[0].low


def test_rows_of_one_reaction_are_drawn_together():
    values = np.repeat([0.0, 1.0], 50)
    apart = bootstrap_intervals(
        [mean_of(values)], clusters=[str(i) for i in range(100)], **SETTINGS
    )
    together = bootstrap_intervals([mean_of(values)], clusters=["a"] * 50 + ["b"] * 50, **SETTINGS)
    assert apart[0].low > 0.35
    assert together[0].low == 0.0


@pytest.mark.parametrize(("value", "low", "high"), [(0.0, 0.0, 0.0725), (1.0, 0.9275, 1.0)])
def test_all_equal_outcomes_take_the_exact_bound(value, low, high):
    # Clopper-Pearson, one-sided 97.5 %, for 0 or 49 of 49.
    keys = [str(i) for i in range(49)]
    interval = bootstrap_intervals([mean_of(np.full(49, value))], clusters=keys, **SETTINGS)[0]
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=2e-4)


def test_a_count_that_never_varies_has_no_width():
    estimate = Estimate(np.ones((20, 2)), ratio_of_sums, is_share=False)
    interval = bootstrap_intervals([estimate], clusters=list("abcdefghijklmnopqrst"), **SETTINGS)[0]
    assert (interval.low, interval.high) == (1.0, 1.0)


def test_no_rows_give_zero_not_an_error():
    estimate = Estimate(np.zeros((0, 2)), ratio_of_sums)
    interval = bootstrap_intervals([estimate], clusters=[], **SETTINGS)[0]
    assert (interval.value, interval.low, interval.high) == (0.0, 0.0, 0.0)


def test_a_run_does_not_differ_from_itself():
    estimate = mean_of(np.random.default_rng(0).random(30))
    keys = [str(i) for i in range(30)]
    (interval,) = bootstrap_differences([estimate], [estimate], clusters=keys, **SETTINGS)
    assert (interval.value, interval.low, interval.high) == (0.0, 0.0, 0.0)


def test_a_paired_difference_is_sharper_than_two_intervals():
    """Two runs that agree but for 12 of 200 rows, all of them better in the second."""
    generator = np.random.default_rng(0)
    one = (generator.random(200) < 0.5).astype(float)
    two = one.copy()
    two[np.flatnonzero(one == 0)[:12]] = 1
    keys = [str(i) for i in range(200)]
    (difference,) = bootstrap_differences([mean_of(one)], [mean_of(two)], clusters=keys, **SETTINGS)
    apart = bootstrap_intervals([mean_of(one), mean_of(two)], clusters=keys, **SETTINGS)
    assert difference.value == pytest.approx(12 / 200)
    assert 0 < difference.low < difference.value < difference.high < 0.12
    assert apart[0].high > apart[1].low


def test_equal_scores_on_different_rows_may_differ_by_chance():
    one = np.tile([1.0, 0.0], 100)
    keys = [str(i) for i in range(200)]
    (interval,) = bootstrap_differences(
        [mean_of(one)], [mean_of(1 - one)], clusters=keys, **SETTINGS
    )
    assert interval.low < 0 < interval.high


@pytest.mark.parametrize("share", [0.25, 0.6, 0.9])
def test_intervals_cover_the_truth(share):
    """1,000 data sets of 300 reactions, one to three rows each, alike inside a reaction."""
    generator = np.random.default_rng(17)
    num_reactions, num_sets = 300, 1_000
    sizes = generator.integers(1, 4, num_reactions)
    keys = [f"r{i}" for i, size in enumerate(sizes) for _ in range(size)]
    reaction = np.repeat(np.arange(num_reactions), sizes)
    estimates = []
    for _ in range(num_sets):
        easy = generator.random(num_reactions)[reaction]
        own = generator.random(len(reaction))
        latent = np.where(generator.random(len(reaction)) < 0.5, easy, own)
        estimates.append(mean_of((latent < share).astype(float)))
    intervals = bootstrap_intervals(estimates, clusters=keys, num_resamples=1_000, seed=5)
    covered = np.mean([each.low <= share <= each.high for each in intervals])
    assert 0.93 <= covered <= 0.97


def test_paired_differences_cover_the_truth():
    """1,000 pairs of runs on 300 reactions: right in .4 and .5, alike on most rows."""
    generator = np.random.default_rng(23)
    keys = [str(i) for i in range(300)]
    first, second = [], []
    for _ in range(1_000):
        hardness = generator.random(300)
        own = np.where(generator.random(300) < 0.3, generator.random(300), hardness)
        first.append(mean_of(hardness < 0.4))
        second.append(mean_of(own < 0.5))
    intervals = bootstrap_differences(first, second, clusters=keys, num_resamples=1_000, seed=5)
    covered = np.mean([each.low <= 0.1 <= each.high for each in intervals])
    assert 0.93 <= covered <= 0.97


@pytest.mark.parametrize("effect", ["seeds", "rows", "both"])
def test_intervals_over_seeds_and_rows_cover_the_truth(effect):
    """200 studies of three seeds and 100 reactions; what differs is the seed, the row, or both."""
    generator = np.random.default_rng(3)
    seed_spread, row_spread = {"seeds": (1, 0.1), "rows": (0, 1), "both": (0.2, 1)}[effect]
    keys = [str(i) for i in range(100)]
    num_covered = 0
    for _ in range(200):
        rows = generator.normal(0, row_spread, 100)
        seeds = generator.normal(0, seed_spread, 3)
        estimates = [[replace(mean_of(rows + shift), is_share=False)] for shift in seeds]
        (interval,) = seeded_intervals(estimates, clusters=keys, num_resamples=200, seed=5)
        num_covered += interval.low <= 0 <= interval.high
    assert 0.91 <= num_covered / 200 <= 0.99


def test_the_interval_over_seeds_by_hand():
    """Rows never vary, so only seeds do: mean .5, s = .1, t(2 degrees of freedom) = 4.3027."""
    estimates = [[mean_of(np.full(20, share))] for share in (0.4, 0.5, 0.6)]
    (interval,) = seeded_intervals(estimates, clusters=list("abcdefghijklmnopqrst"), **SETTINGS)
    reach = 4.3027 * 0.1 / 3**0.5
    assert interval.value == pytest.approx(0.5)
    assert interval.low == pytest.approx(0.5 - reach, abs=1e-4)
    assert interval.high == pytest.approx(0.5 + reach, abs=1e-4)


def test_one_seed_has_the_interval_over_rows():
    estimate = mean_of(np.tile([1.0, 0.0, 0.0], 20))
    keys = [str(i) for i in range(60)]
    assert seeded_intervals([[estimate]], clusters=keys, **SETTINGS) == bootstrap_intervals(
        [estimate], clusters=keys, **SETTINGS
    )


def test_seeds_that_all_fail_take_the_exact_bound():
    estimates = [[mean_of(np.zeros(49))] for _ in range(2)]
    keys = [str(i) for i in range(49)]
    (interval,) = seeded_intervals(estimates, clusters=keys, **SETTINGS)
    assert (interval.low, interval.high) == pytest.approx((0, 0.0725), abs=2e-4)


def test_differences_over_seeds_are_paired_by_seed():
    """Seeds differ wildly, the gain hardly: the paired interval is narrow around .1."""
    rows = np.tile([0.0, 0.2], 30)
    keys = [str(i) for i in range(60)]
    first = [[mean_of(rows + shift)] for shift in (0.0, 0.3, 0.6)]
    second = [
        [mean_of(rows + shift + gain)] for shift, gain in ((0, 0.1), (0.3, 0.09), (0.6, 0.11))
    ]
    (interval,) = seeded_differences(first, second, clusters=keys, **SETTINGS)
    assert interval.value == pytest.approx(0.1)
    assert 0.05 < interval.low < 0.1 < interval.high < 0.15
