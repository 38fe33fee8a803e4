from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from raycrp.choices import Encoding, Task
from raycrp.elicit.clusters import KMeansSettings
from raycrp.elicit.feedback import FeedbackSettings, derive_seed, run_rounds
from raycrp.elicit.rows import TaskRows
from raycrp.elicit.vectors import ArrayVectors

SETTINGS = FeedbackSettings(
    encoding=Encoding.OUTPUT,
    num_clusters=4,
    max_rounds=6,
    patience=2,
    kmeans=KMeansSettings(num_init=2, max_whole_rows=1_000),
    collapse_fraction=0.5,
    seed=3,
    kmeans_seed=4,
)
CORNERS = np.array([[0, 0], [9, 0], [0, 9], [9, 9]], dtype=np.float32)


def make_rows(num_rows=200):
    rng = np.random.default_rng(0)
    corners = np.arange(num_rows) % 4
    vectors = (CORNERS[corners] + rng.normal(0, 0.3, (num_rows, 2))).astype(np.float32)
    places = np.arange(num_rows)
    return TaskRows(
        task=Task.FORWARD,
        row_ids=places,
        reaction_keys=pa.chunked_array([[f"key{i}" for i in places]]),
        inputs=pa.chunked_array([[f"in{i}" for i in places]]),
        outputs=pa.chunked_array([[f"out{i}" for i in places]]),
        vectors=ArrayVectors(vectors, vectors),
        train=places[:160],
        valid=places[160:180],
        test=places[180:],
    )


class ScriptedLlmRt:
    """Names a given number of the 20 validation rows right, and embeds as it is told."""

    def __init__(self, rows, num_right, *, embeddings=None, learns_vectors=True):
        self.rows = rows
        self.num_right = list(num_right)
        self.embeddings = embeddings
        self.learns_vectors = learns_vectors
        self.labels = []
        self.num_embeds = 0

    def train(self, labels, *, seed):
        self.labels.append(labels)

    def name(self, indices):
        named = self.labels[-1][indices].copy()
        num_right = self.num_right[len(self.labels) - 1]
        named[num_right:] = (named[num_right:] + 1) % 4
        return np.eye(4, dtype=np.float32)[named]

    def embed(self):
        self.num_embeds += 1
        if self.embeddings is None:
            return self.rows.vectors
        return ArrayVectors(self.embeddings, self.embeddings)

    def save(self, folder):
        raise NotImplementedError


def rounds_of(llm_rt, **changes):
    return list(run_rounds(llm_rt.rows, llm_rt=llm_rt, settings=replace(SETTINGS, **changes)))


def test_rounds_stop_when_patience_runs_out():
    rounds = rounds_of(ScriptedLlmRt(make_rows(), [10, 14, 14, 13, 20, 20]))
    assert [round(result.scores.accuracy * 20) for result in rounds] == [10, 14, 14, 13]
    assert [result.is_best for result in rounds] == [True, True, False, False]


def test_a_better_round_renews_patience():
    rounds = rounds_of(ScriptedLlmRt(make_rows(), [10, 9, 12, 11, 13, 12]))
    assert [result.is_best for result in rounds] == [True, False, True, False, True, False]


def test_an_encoder_that_does_not_learn_has_one_round():
    llm_rt = ScriptedLlmRt(make_rows(), [10], learns_vectors=False)
    assert len(rounds_of(llm_rt)) == 1
    assert llm_rt.num_embeds == 0


def test_an_encoding_that_does_not_follow_llm_rt_has_one_round():
    rows = make_rows()
    features = {Encoding.FINGERPRINT: rows.vectors.outputs}
    rows = replace(rows, vectors=replace(rows.vectors, features=features))
    assert len(rounds_of(ScriptedLlmRt(rows, [10]), encoding=Encoding.FINGERPRINT)) == 1


def test_each_later_round_is_one_encoder_pass():
    llm_rt = ScriptedLlmRt(make_rows(), [1, 2, 3])
    rounds = rounds_of(llm_rt, max_rounds=3)
    assert [result.encoder_passes for result in rounds] == [0, 1, 1]
    assert llm_rt.num_embeds == 2


def test_reaction_types_keep_their_names_between_rounds():
    # The vectors stay, so the partition does; k-means is seeded anew each round, and without
    # alignment its labels come in another order.
    rounds = rounds_of(ScriptedLlmRt(make_rows(), [1, 2, 3, 4, 5, 6]))
    for result in rounds[1:]:
        assert (result.clusters.labels == rounds[0].clusters.labels).all()
        assert result.agreement == pytest.approx(1)


def test_dying_types_end_the_rounds_and_are_never_best(caplog):
    rows = make_rows()
    embeddings = np.zeros((200, 2), dtype=np.float32)
    embeddings[:3] = CORNERS[1:]  # three rows on their own, all others in one type
    rounds = rounds_of(ScriptedLlmRt(rows, [10, 20, 20], embeddings=embeddings))
    assert [result.has_collapsed for result in rounds] == [False, True]
    assert [result.is_best for result in rounds] == [True, False]
    assert "reaction types die" in caplog.text


def test_vectors_that_fall_together_end_the_rounds(caplog):
    rows = make_rows()
    embeddings = np.ones((200, 2), dtype=np.float32)
    rounds = rounds_of(ScriptedLlmRt(rows, [10, 20], embeddings=embeddings))
    assert len(rounds) == 1
    assert "fallen together" in caplog.text


def test_seeds_depend_on_every_part_alone():
    seeds = {
        derive_seed(seed, task, encoding, n)
        for seed in range(3)
        for task in Task
        for encoding in Encoding
        for n in range(3, 13)
    }
    assert len(seeds) == 3 * len(Task) * len(Encoding) * 10
    assert derive_seed(0, "forward", 10) == derive_seed(0, Task.FORWARD, 10)
    assert all(0 <= seed < 2**31 for seed in seeds)
