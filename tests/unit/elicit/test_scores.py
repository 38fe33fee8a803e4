import math

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import mutual_info_score

from raycrp.elicit.scores import (
    calibration_error,
    information_bits,
    measure_sizes,
    score_naming,
    wilson_interval,
)


def one_hot(named, num_types=3):
    return np.eye(num_types, dtype=np.float32)[named]


def test_scores_by_hand():
    clusters = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    named = np.array([0, 0, 0, 1, 1, 1, 2, 0])
    scores = score_naming(clusters, probabilities=one_hot(named), majority_type=0)
    assert scores.num_rows == 8
    assert scores.accuracy == 6 / 8
    assert scores.majority_rate == 4 / 8
    # chance agreement: (4*4 + 2*3 + 2*1) / 64 = 24/64
    assert scores.kappa == pytest.approx((6 / 8 - 24 / 64) / (1 - 24 / 64))


def test_majority_rate_is_that_of_the_training_rows_type():
    scores = score_naming(np.array([0, 0, 1]), probabilities=one_hot([0, 0, 1]), majority_type=1)
    assert scores.majority_rate == pytest.approx(1 / 3)


@pytest.mark.parametrize(("num_right", "num_rows"), [(0, 5), (5, 5), (3, 16), (700, 1000)])
def test_wilson_interval_equals_scipy(num_right, num_rows):
    expected = binomtest(num_right, num_rows).proportion_ci(0.95, method="wilson")
    low, high = wilson_interval(num_right, num_rows=num_rows)
    assert low == pytest.approx(expected.low, abs=1e-12)
    assert high == pytest.approx(expected.high, abs=1e-12)


def test_right_names_tell_the_entropy():
    clusters = np.repeat(np.arange(4), 10)
    assert information_bits(clusters, (clusters + 1) % 4) == pytest.approx(2)


def test_half_right_names_tell_nearly_the_plain_information_of_many_rows():
    # Names merge types 0 and 1, so that 1 of 2 bits is lost for half of the rows.
    clusters = np.repeat(np.arange(4), 5_000)
    assert information_bits(clusters, np.maximum(clusters, 1)) == pytest.approx(1.5, abs=1e-3)


@pytest.mark.parametrize(("num_types", "num_rows"), [(3, 400), (12, 400), (12, 40), (2, 16)])
def test_random_names_tell_nothing_whatever_n(num_types, num_rows):
    rng = np.random.default_rng(0)
    draws = rng.integers(0, num_types, (40, 2, num_rows))
    plain = np.mean([mutual_info_score(*draw) / math.log(2) for draw in draws])
    adjusted = np.mean([information_bits(*draw) for draw in draws])
    assert adjusted < 0.12
    assert plain > 1 or num_types * num_rows != 480


def test_constant_names_tell_nothing():
    clusters = np.array([0, 1, 0, 1])
    scores = score_naming(clusters, probabilities=one_hot([0] * 4), majority_type=0)
    assert scores.information_bits == 0
    assert scores.kappa == 0
    both_constant = score_naming(np.zeros(4, int), probabilities=one_hot([0] * 4), majority_type=0)
    assert both_constant.kappa == 0


def test_sizes_by_hand():
    sizes = measure_sizes(np.repeat(np.arange(4), 5), num_types=4)
    assert sizes.effective_types == pytest.approx(4)
    assert sizes.smallest_share == pytest.approx(0.25)
    skewed = measure_sizes(np.array([0, 0, 0, 1]), num_types=3)
    assert skewed.effective_types == pytest.approx(
        math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    )
    assert skewed.smallest_share == 0


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match="0 clusters"):
        score_naming(np.array([], int), probabilities=np.zeros((0, 3)), majority_type=0)


def test_calibration_error_by_hand():
    # Bin (.5, .6]: two rows of .55 and .6, one right; bin (.9, 1]: one right row of 1.
    confidences = np.array([0.55, 0.6, 1.0])
    error = calibration_error(confidences, is_right=np.array([True, False, True]))
    assert error == pytest.approx((abs(0.55 + 0.6 - 1) + 0) / 3)


def test_calibrated_names_have_a_small_calibration_error():
    rng = np.random.default_rng(0)
    confidences = rng.uniform(0.3, 1, 50_000)
    is_right = rng.uniform(size=50_000) < confidences
    assert calibration_error(confidences, is_right=is_right) < 0.01
    assert calibration_error(confidences**0.5, is_right=is_right) > 0.1
