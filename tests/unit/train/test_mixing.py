from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raycrp.train.mixing import epoch_shares, mix_epoch

COUNTS = st.lists(st.integers(1, 60), min_size=1, max_size=4)
TEMPERATURES = st.floats(1, 1e6)


def tasks_of(counts):
    tasks = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(0).permutation(tasks)


@pytest.mark.parametrize(
    ("counts", "temperature", "shares"),
    [
        ([900, 90, 10], 1, [900, 90, 10]),
        # Square roots 30, 10 and 10 of 1,100 rows: 660, 220, 220.
        ([900, 100, 100], 2, [660, 220, 220]),
        # Square roots 4 and 1: 13.6 and 3.4 of 17.
        ([16, 1], 2, [14, 3]),
        ([16, 1], 1e9, [9, 8]),
        ([7], 3, [7]),
    ],
)
def test_shares_follow_the_root_of_the_counts(counts, temperature, shares):
    assert epoch_shares(np.array(counts), temperature=temperature).tolist() == shares


@given(COUNTS, TEMPERATURES, TEMPERATURES)
def test_a_higher_temperature_brings_shares_nearer(counts, one, other):
    low, high = (epoch_shares(np.array(counts), temperature=each) for each in sorted((one, other)))
    assert low.sum() == high.sum() == sum(counts)
    smallest, largest = np.argmin(counts), np.argmax(counts)
    # Rounding by largest remainder may turn by one what is monotone before it.
    assert high[smallest] >= low[smallest] - 1 >= counts[smallest] - 1
    assert high[largest] <= low[largest] + 1 <= counts[largest] + 1


@given(COUNTS, st.integers(0, 5), st.integers(0, 9))
def test_temperature_one_takes_each_row_once_an_epoch(counts, seed, epoch):
    tasks = tasks_of(counts)
    places, passes = mix_epoch(tasks, temperature=1, seed=seed, epoch=epoch)
    assert places.tolist() == list(range(len(tasks)))
    assert set(passes.tolist()) == {epoch}


@given(COUNTS, TEMPERATURES, st.integers(0, 5))
@settings(max_examples=50)
def test_epochs_together_go_through_every_task_evenly(counts, temperature, seed):
    tasks = tasks_of(counts)
    shares = epoch_shares(np.array(counts), temperature=temperature)
    seen, visits = Counter(), np.zeros(len(tasks), dtype=np.int64)
    for epoch in range(4):
        places, passes = mix_epoch(tasks, temperature=temperature, seed=seed, epoch=epoch)
        assert np.bincount(tasks[places], minlength=len(counts)).tolist() == shares.tolist()
        assert np.all(np.diff(places) >= 0)
        seen.update(zip(places.tolist(), passes.tolist(), strict=True))
        visits += np.bincount(places, minlength=len(tasks))
        for task, share in enumerate(shares):
            least, more = divmod((epoch + 1) * share, counts[task])
            assert set(visits[tasks == task].tolist()) <= {least, least + bool(more)}
    # No row comes up twice in one pass.
    assert set(seen.values()) == {1}


def test_an_epoch_depends_on_seed_and_number_alone():
    tasks = tasks_of([50, 5])

    def mixed(seed, epoch):
        places, passes = mix_epoch(tasks, temperature=2, seed=seed, epoch=epoch)
        return places.tolist(), passes.tolist()

    assert mixed(1, 3) == mixed(1, 3)
    assert mixed(1, 3) != mixed(1, 4)
    assert mixed(1, 3) != mixed(2, 3)
