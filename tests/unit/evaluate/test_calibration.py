import math

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from raycrp.evaluate.calibration import Calibration, calibration_error, fit_calibration


def test_confidence_by_hand():
    curve = Calibration(slope=0.5, offset=1.0, num_rows=3)
    assert curve.confidence(-2.0) == pytest.approx(0.5)
    assert curve.confidence(0.0) == pytest.approx(1 / (1 + math.exp(-1)))
    assert 0 < curve.confidence(-math.inf) < 1e-9


def test_a_curve_is_found_again():
    generator = np.random.default_rng(0)
    logs = -generator.exponential(2.0, size=20_000)
    truth = Calibration(1.5, 2.0, 0)
    right = generator.random(len(logs)) < [truth.confidence(each) for each in logs]
    found = fit_calibration(logs, is_right=right)
    assert found.slope == pytest.approx(1.5, abs=0.1)
    assert found.offset == pytest.approx(2.0, abs=0.1)
    assert calibration_error([found.confidence(x) for x in logs], is_right=right) < 0.02
    assert calibration_error(np.exp(logs), is_right=right) > 0.1


@pytest.mark.parametrize(("right", "expected"), [([False] * 3, 1 / 5), ([True] * 3, 4 / 5)])
def test_few_rows_of_one_kind_leave_doubt(right, expected):
    curve = fit_calibration([-1.0, -1.0, -1.0], is_right=right)
    assert curve.confidence(-1.0) == pytest.approx(expected, abs=1e-3)


def test_a_curve_never_falls():
    curve = fit_calibration([-0.1, -0.2, -5.0, -6.0], is_right=[False, False, True, True])
    assert (curve.slope, curve.confidence(-3.0)) == (0.0, 0.5)


def test_no_rows_say_nothing():
    assert fit_calibration([], is_right=[]) == Calibration(0.0, 0.0, 0)
    assert calibration_error([], is_right=[]) == 0


def test_error_by_hand():
    # Bin [0.9, 1]: 2 rows, mean 0.95, half right. Bin [0.2, 0.3): 2 rows, mean 0.25, none right.
    error = calibration_error([0.9, 1.0, 0.2, 0.29999], is_right=[True, False, False, False])
    assert error == pytest.approx(0.5 * 0.45 + 0.5 * 0.25, abs=1e-4)


def test_error_equals_scikit_learns_curve():
    generator = np.random.default_rng(1)
    claimed = generator.random(500)
    right = generator.random(500) < claimed**2
    shares, means = calibration_curve(right, claimed, n_bins=10)
    sizes = np.histogram(claimed, bins=10, range=(0, 1))[0]
    expected = float(np.sum(sizes / 500 * np.abs(shares - means)))
    assert calibration_error(claimed, is_right=right) == pytest.approx(expected)
