import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score

from raycrp.report.agreement import (
    ConfusionTable,
    TypeProfile,
    ami_interval,
    measure_agreement,
)


def test_agreement_of_a_run(template_run):
    """Clusters equal the classes; LLM-RT on test rows does too, where there is more than one."""
    found = {(each.task, each.source): each for each in measure_agreement(template_run, seed=0)}
    assert set(found) == {
        ("forward", "k-means, training rows"),
        ("forward", "LLM-RT, test rows"),
        ("retrosynthesis", "LLM-RT, test rows"),
    }
    clusters = found["forward", "k-means, training rows"]
    assert clusters.ami.value == pytest.approx(1)
    assert (clusters.ami.low, clusters.ami.high) == pytest.approx((1, 1))
    assert (clusters.v_measure, clusters.purity) == (1, 1)
    assert clusters.confusion == ConfusionTable(["odd", "even"], [(0, [0, 4]), (1, [4, 0])])
    assert (clusters.num_rows, clusters.num_classes) == (8, 2)
    assert list(clusters.profiles) == [
        TypeProfile(0, 4, "even", 1.0),
        TypeProfile(1, 4, "odd", 1.0),
    ]


def test_columns_that_name_no_classes_are_left_out(template_run):
    assert {each.truth for each in measure_agreement(template_run, seed=0)} == {"reaction_class"}


def test_a_run_without_truth(empty_run):
    assert measure_agreement(empty_run, seed=0) == []


def test_agreement_of_partitions_that_differ():
    """By hand: 4 of 6 rows in their type's commonest class; AMI as another library has it."""
    table = np.array([[2, 1], [1, 2]])
    types, classes = [0, 0, 0, 1, 1, 1], [0, 0, 1, 0, 1, 1]
    interval = ami_interval(table)
    assert interval.value == pytest.approx(adjusted_mutual_info_score(types, classes))
    assert interval.low < interval.value < interval.high


def test_the_interval_is_as_wide_as_other_draws_spread():
    rng = np.random.default_rng(0)
    shares = np.array([[0.3, 0.02, 0.03], [0.05, 0.2, 0.1], [0.02, 0.08, 0.2]])
    draws = [ami_interval(rng.multinomial(500, shares.ravel()).reshape(3, 3)) for _ in range(200)]
    spread = np.std([draw.value for draw in draws])
    halves = np.mean([(draw.high - draw.low) / 2 for draw in draws])
    assert halves == pytest.approx(1.96 * spread, rel=0.15)
