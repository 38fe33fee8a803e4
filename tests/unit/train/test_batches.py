import numpy as np
import pytest
import torch

from raycrp.errors import TrainError
from raycrp.train.batches import (
    Collator,
    SpecialIds,
    Visits,
    batch_shape,
    cut_micro_batches,
    num_batches,
    plan_epoch,
    rows_of_micro_batch,
)
from raycrp.train.tokens import Texts, TokenTable

RNG = np.random.default_rng(0)
LENGTHS = RNG.integers(10, 200, size=4_003)
TARGETS = RNG.integers(5, 100, size=4_003)


def shape(batch_size=32, *, micro=None, workers=1, budget=1_000_000):
    return batch_shape(
        batch_size, micro_batch_size=micro, num_workers=(workers, workers), token_budget=budget
    )


def visits(rows):
    return Visits(np.array(rows, dtype=np.int64), np.zeros(len(rows), dtype=np.int64))


def test_every_row_occurs_once_in_an_epoch():
    batches = plan_epoch(LENGTHS, TARGETS, batch_size=32, seed=1, epoch=0)
    assert len(batches) == num_batches(4_003, batch_size=32) == 126
    assert sorted(np.concatenate(batches).tolist()) == list(range(4_003))
    assert sorted(map(len, batches)) == [3] + [32] * 125


def test_order_depends_on_seed_and_epoch_alone():
    def order(**what):
        return np.concatenate(plan_epoch(LENGTHS, TARGETS, batch_size=32, **what)).tolist()

    assert order(seed=1, epoch=3) == order(seed=1, epoch=3)
    assert order(seed=1, epoch=3) != order(seed=1, epoch=4)
    assert order(seed=1, epoch=3) != order(seed=2, epoch=3)


def test_batches_hold_rows_of_similar_length():
    def padding(batches):
        places = sum(len(rows) * (LENGTHS[rows].max() + TARGETS[rows].max()) for rows in batches)
        return 1 - (LENGTHS.sum() + TARGETS.sum()) / places

    shuffled = np.array_split(np.random.default_rng(0).permutation(4_003), 126)
    by_input = np.array_split(np.argsort(LENGTHS), 126)
    bucketed = plan_epoch(LENGTHS, TARGETS, batch_size=32, seed=1, epoch=0)
    assert padding(shuffled) > 0.4
    assert padding(bucketed) < 0.1 < padding(by_input)


def test_long_batches_do_not_come_in_order_of_length():
    batches = plan_epoch(LENGTHS, TARGETS, batch_size=32, seed=1, epoch=0)
    means = [LENGTHS[rows].mean() for rows in batches]
    steps = np.sign(np.diff(means))
    assert 0.2 < (steps > 0).mean() < 0.8


@pytest.mark.parametrize(("micro", "workers", "parts"), [(None, 1, 1), (None, 2, 2), (8, 2, 4)])
def test_batch_is_cut_by_workers_and_micro_batch_size(micro, workers, parts):
    rows = np.arange(32)
    cut = cut_micro_batches(
        visits(rows), lengths=LENGTHS[:32], shape=shape(micro=micro, workers=workers)
    )
    assert len(cut) == parts
    assert {len(part) for part in cut} == {32 // parts}
    assert sorted(np.concatenate([part.rows for part in cut]).tolist()) == rows.tolist()


def test_micro_batches_above_the_token_budget_are_cut_further():
    cut = cut_micro_batches(
        visits(range(32)), lengths=np.full(32, 100), shape=shape(workers=2, budget=500)
    )
    assert len(cut) == 8
    assert all(len(part) * 100 <= 500 for part in cut)


def test_a_small_last_batch_leaves_parts_empty():
    cut = cut_micro_batches(visits(range(3)), lengths=np.full(3, 5), shape=shape(micro=4))
    assert [len(part) for part in cut] == [1, 1, 1, 0, 0, 0, 0, 0]


def test_a_batch_that_cannot_be_shared_out_is_refused():
    with pytest.raises(TrainError, match=r"batch_size \(10\) does not divide among 4 workers.*12"):
        shape(10, workers=4)
    with pytest.raises(TrainError, match=r"micro_batch_size \(5\)"):
        shape(32, micro=5)


class Prefixes:
    def ids(self, *, task, template, reaction_type):
        return np.array([100 + task, 200 + template, 300 + reaction_type], dtype=np.int32)


TABLE = TokenTable(
    row_ids=np.array([7, 9]),
    tasks=np.array([0, 1]),
    templates=np.array([0, 0]),
    reaction_types=np.array([4, -1]),
    inputs=Texts(
        np.array([50, 11, 12, 50, 21], dtype=np.int32), np.array([[0], [3]]), np.array([[3], [2]])
    ),
    targets=Texts(
        np.array([31, 1, 41, 42, 1], dtype=np.int32), np.array([[0], [2]]), np.array([[2], [3]])
    ),
)


def collator(blank=50):
    special = SpecialIds(pad=0, eos=1, start=9, blank=blank)
    return Collator(TABLE, prefixes=Prefixes(), special=special)


def test_prompts_are_prefix_input_and_end_of_text():
    batch = collator()(np.array([0, 1]), templates=[2, 5])
    assert batch.input_ids.tolist() == [
        [100, 202, 304, 50, 11, 12, 1],
        [101, 205, 299, 50, 21, 1, 0],
    ]
    assert batch.attention_mask.tolist() == [[1] * 7, [1] * 6 + [0]]
    assert batch.num_tokens == 13 + 5
    assert batch.num_padded == 14 + 6


def test_pooled_positions_are_the_input_without_its_blank():
    rows = np.array([0, 1])
    batch = collator()(rows, templates=[2, 5])
    assert batch.pooled_mask.tolist() == [[0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1, 0]]
    assert collator().plain_inputs(rows) == [[11, 12, 1], [21, 1]]
    without = collator(blank=None)(rows, templates=[2, 5])
    assert without.pooled_mask.tolist() == [[0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 0]]


def test_padding_is_left_out_of_the_loss_and_targets_move_right():
    batch = collator()(np.array([0, 1]), templates=[2, 5])
    assert batch.labels.tolist() == [[31, 1, -100], [41, 42, 1]]
    assert batch.decoder_input_ids.tolist() == [[9, 31, 0], [9, 41, 42]]
    assert batch.labels.dtype is torch.int64


def test_a_batch_that_does_not_count_has_no_labels():
    batch = collator()(np.array([1]), templates=[0], is_counted=False)
    assert batch.labels.tolist() == [[-100, -100, -100]]


@pytest.mark.parametrize(
    ("batch_size", "workers", "divisor"), [(32, (1, 8), 8), (36, (1, 8), 6), (35, (3, 6), 5)]
)
def test_an_elastic_batch_is_cut_for_the_most_workers_it_divides_among(
    batch_size, workers, divisor
):
    found = batch_shape(batch_size, micro_batch_size=None, num_workers=workers, token_budget=1_000)
    assert (found.num_workers, found.num_micro) == (divisor, divisor)


def test_a_batch_that_divides_among_no_allowed_number_of_workers_is_refused():
    with pytest.raises(TrainError, match=r"batch_size \(10\) does not divide among 6 to 9 workers"):
        batch_shape(10, micro_batch_size=None, num_workers=(6, 9), token_budget=1_000)


def test_a_worker_without_a_micro_batch_has_a_row_that_does_not_count():
    parts = [visits([4, 7]), visits([])]
    found = [rows_of_micro_batch(parts, number) for number in range(3)]
    assert [(part.rows.tolist(), is_counted) for part, is_counted in found] == [
        ([4, 7], True),
        ([4], False),
        ([4], False),
    ]
