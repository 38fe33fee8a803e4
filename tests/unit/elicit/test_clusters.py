import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_mutual_info_score

from raycrp.choices import Encoding
from raycrp.elicit.clusters import (
    KMeansSettings,
    align_labels,
    cluster_reactions,
    count_distinct,
)
from raycrp.elicit.vectors import ArrayVectors

WHOLE = KMeansSettings(num_init=3, max_whole_rows=100_000)


def cluster(points, *, num_clusters, settings=WHOLE, seed=0, rows_per_block=50):
    vectors = ArrayVectors(points, points, rows_per_block=rows_per_block)
    return cluster_reactions(
        vectors,
        encoding=Encoding.OUTPUT,
        num_clusters=num_clusters,
        settings=settings,
        seed=seed,
    ).labels


def make_blobs(num_rows=90, spread=0.5):
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [10, 0], [0, 10]], dtype=np.float32)
    truth = rng.permutation(np.arange(num_rows) % 3)
    return (centres[truth] + rng.normal(0, spread, (num_rows, 2))).astype(np.float32), truth


def test_separate_blobs_are_found():
    points, truth = make_blobs()
    labels = cluster(points, num_clusters=3)
    assert len(set(zip(labels, truth, strict=True))) == 3
    assert set(labels) == {0, 1, 2}


def test_whole_equals_plain_kmeans():
    points = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    expected = KMeans(7, n_init=3, random_state=5).fit_predict(points)
    assert (cluster(points, num_clusters=7, seed=5) == expected).all()


def test_by_block_finds_separate_blobs_and_repeats_itself():
    points, truth = make_blobs(num_rows=600)
    by_block = KMeansSettings(num_init=1, max_whole_rows=100)
    labels = cluster(points, num_clusters=3, settings=by_block)
    assert len(set(zip(labels, truth, strict=True))) == 3
    assert (labels == cluster(points, num_clusters=3, settings=by_block)).all()


def test_by_block_takes_blocks_with_fewer_rows_than_clusters():
    points, truth = make_blobs(num_rows=601)
    by_block = KMeansSettings(num_init=1, max_whole_rows=100)
    labels = cluster(points, num_clusters=3, settings=by_block, rows_per_block=2)
    assert len(set(zip(labels, truth, strict=True))) == 3


def test_by_block_agrees_with_whole_where_clusters_overlap():
    points, _ = make_blobs(num_rows=3_000, spread=2.5)
    by_block = KMeansSettings(num_init=3, max_whole_rows=500)
    whole = cluster(points, num_clusters=3)
    blocks = cluster(points, num_clusters=3, settings=by_block, rows_per_block=250)
    agreement = adjusted_mutual_info_score(whole, blocks)
    ratio = inertia(points, blocks) / inertia(points, whole)
    print(f"mini-batch against full k-means: AMI {agreement:.3f}, inertia ratio {ratio:.4f}")  # noqa: T201
    assert agreement > 0.9
    assert ratio < 1.01


def inertia(points, labels):
    return sum(
        ((points[labels == label] - points[labels == label].mean(axis=0)) ** 2).sum()
        for label in set(labels)
    )


def test_more_clusters_than_distinct_points_are_refused():
    points = np.repeat(np.eye(3, dtype=np.float32), 5, axis=0)
    with pytest.raises(ValueError, match="4 clusters of 3 distinct"):
        cluster(points, num_clusters=4)


def test_distinct_points_are_counted_up_to_the_limit():
    points = np.repeat(np.eye(3, dtype=np.float32), 5, axis=0)
    vectors = ArrayVectors(points, points, rows_per_block=4)
    assert count_distinct(vectors, encoding=Encoding.OUTPUT, limit=2) == 2
    assert count_distinct(vectors, encoding=Encoding.OUTPUT, limit=9) == 3


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


@pytest.mark.parametrize("max_whole_rows", [1_000, 100])
def test_distances_are_to_the_centre_of_the_own_cluster(max_whole_rows):
    points = np.repeat([[0, 0], [2, 0], [50, 0], [54, 0]], 100, axis=0).astype(np.float32)
    clusters = cluster_reactions(
        ArrayVectors(points, points, rows_per_block=70),
        encoding=Encoding.OUTPUT,
        num_clusters=2,
        settings=KMeansSettings(num_init=3, max_whole_rows=max_whole_rows),
        seed=0,
    )
    expected = np.repeat([1, 1, 2, 2], 100)
    assert clusters.distances == pytest.approx(expected, abs=0.2)
