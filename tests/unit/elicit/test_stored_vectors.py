import numpy as np
import ray

from raycrp.choices import Encoding
from raycrp.elicit.clusters import KMeansSettings, cluster_reactions
from raycrp.elicit.stored_vectors import StoredVectors
from raycrp.elicit.vectors import Block

# Data sorted by task has files without a row of this task, such as the first one here.
BLOCK_SIZES = [0, 2, 30, 0, 28]


def make_blocks(points):
    ends = np.cumsum(BLOCK_SIZES)
    return [
        Block(
            places=np.arange(end - size, end),
            inputs=points[end - size : end],
            outputs=-points[end - size : end],
        )
        for size, end in zip(BLOCK_SIZES, ends, strict=True)
    ]


def test_files_without_rows_of_the_task_are_passed_over(monkeypatch):
    monkeypatch.setattr(ray, "get", lambda block: block)
    rng = np.random.default_rng(0)
    truth = rng.permutation(np.arange(60) % 3)
    points = (10 * truth[:, None] + rng.normal(0, 0.1, (60, 4))).astype(np.float32)
    vectors = StoredVectors(references=tuple(make_blocks(points)), num_rows=60)
    wanted = np.array([59, 0, 1, 31, 32])
    assert (vectors.take_inputs(wanted) == points[wanted]).all()
    labels = cluster_reactions(
        vectors,
        encoding=Encoding.OUTPUT,
        num_clusters=3,
        settings=KMeansSettings(num_init=1, max_whole_rows=20),
        seed=0,
    ).labels
    assert len(set(zip(labels.tolist(), truth.tolist(), strict=True))) == 3
