import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raycrp.elicit.clusters import align_labels, assign_clusters, count_distinct


def make_blobs(seed=0):
    rng = np.random.default_rng(seed)
    centres = np.array([[0, 0], [10, 0], [0, 10]], dtype=np.float32)
    truth = np.repeat(np.arange(3), [20, 30, 40])
    return centres[truth] + rng.normal(0, 0.5, (90, 2)).astype(np.float32), truth


def test_separate_blobs_are_found():
    points, truth = make_blobs()
    labels = assign_clusters(points, num_clusters=3, num_init=3, seed=1)
    assert len(set(zip(labels, truth, strict=True))) == 3
    assert set(labels) == {0, 1, 2}


def test_same_seed_same_labels():
    points = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    first = assign_clusters(points, num_clusters=7, num_init=2, seed=5)
    again = assign_clusters(points, num_clusters=7, num_init=2, seed=5)
    assert (first == again).all()


def test_more_clusters_than_distinct_points_are_refused():
    points = np.repeat(np.eye(3, dtype=np.float32), 5, axis=0)
    with pytest.raises(ValueError, match="4 clusters of 3 distinct"):
        assign_clusters(points, num_clusters=4, num_init=1, seed=0)


def test_distinct_points_are_counted_up_to_the_limit():
    points = np.repeat(np.eye(3, dtype=np.float32), 5, axis=0)
    assert count_distinct(points, limit=2) == 2
    assert count_distinct(points, limit=9) == 3


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(5)), st.integers(0, 1_000))
def test_renamed_clusters_get_their_old_names_back(names, seed):
    old = np.random.default_rng(seed).integers(0, 5, 60)
    new = np.array(names)[old]
    assert (align_labels(new, reference=old, num_clusters=5) == old).all()


def test_alignment_keeps_most_rows_by_hand():
    # Greedy matching would give new 0 its largest overlap (old 0, 3 rows) and keep 3 + 0 rows;
    # the best one-to-one matching is 0 -> 1 and 1 -> 0, which keeps 2 + 3.
    old = np.array([0, 0, 0, 1, 1, 0, 0, 0])
    new = np.array([0, 0, 0, 0, 0, 1, 1, 1])
    aligned = align_labels(new, reference=old, num_clusters=2)
    assert aligned.tolist() == [1, 1, 1, 1, 1, 0, 0, 0]
