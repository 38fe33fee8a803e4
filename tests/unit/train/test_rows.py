import numpy as np
import pyarrow as pa
import pytest

from raycrp.config import TrainConfig
from raycrp.run import RunFolder
from raycrp.schemas import Split
from raycrp.train.batches import SpecialIds, batch_shape, plan_epoch
from raycrp.train.rows import Rows, Schedule
from raycrp.train.tokens import TASKS, TOKENS, TOKENS_DIR

COUNTS = (140, 50, 10)
NUM_SPELLINGS = 3
SPECIAL = SpecialIds(pad=0, eos=1, start=2, blank=None)


class Prefixes:
    def ids(self, *, task, template, reaction_type):
        return np.full(3 + task, 7, dtype=np.int32)


def texts(rng, number):
    return [
        [[*map(int, rng.integers(5, 99, rng.integers(2, 20))), 1] for _ in range(NUM_SPELLINGS)]
        for _ in range(number)
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two hundred rows in shards of thirty, their ids in no order; a few are too long."""
    run = RunFolder(str(tmp_path_factory.mktemp("runs")), "run")
    rng = np.random.default_rng(0)
    number = sum(COUNTS)
    tasks = rng.permutation(np.repeat(np.arange(len(COUNTS)), COUNTS))
    inputs = texts(rng, number)
    for row in rng.choice(np.flatnonzero(tasks == 0), 20, replace=False):
        inputs[row][1] = [9] * 40
    table = pa.table(
        {
            "row_id": rng.permutation(number) + 1_000,
            "split": [Split.TRAIN.value] * number,
            "task": tasks,
            "template": np.zeros(number, dtype=np.int8),
            "reaction_type": [None if row % 3 else 1 for row in range(number)],
            "is_aligned": [False] * number,
            "input_ids": inputs,
            "target_ids": texts(rng, number),
        },
        schema=TOKENS,
    )
    for start in range(0, number, 30):
        run.write_table(f"{TOKENS_DIR}/shard-{start:06d}.parquet", table.slice(start, 30))
    return run


def make_rows(run, **train):
    settings = TrainConfig(**{"max_input_tokens": 32, **train})
    return Rows(run, split=Split.TRAIN, prefixes=Prefixes(), special=SPECIAL, train=settings)


def make_schedule(rows, *, temperature=1.0, seed=4):
    shape = batch_shape(16, micro_batch_size=None, num_workers=(2, 2), token_budget=400)
    return Schedule(rows, shape=shape, seed=seed, temperature=temperature)


def test_tasks_in_proportion_are_each_row_once_an_epoch_in_its_next_spelling(run):
    rows = make_rows(run)
    schedule = make_schedule(rows)
    assert schedule.steps_per_epoch == 12
    assert schedule.rows_per_epoch == dict(zip(TASKS, (120, 50, 10), strict=True))
    for epoch in (0, 4):
        # As a plan over the rows themselves gives them.
        plan = plan_epoch(
            rows.table.inputs.lengths[rows.kept, epoch % NUM_SPELLINGS],
            rows.table.targets.lengths[rows.kept, epoch % NUM_SPELLINGS],
            batch_size=16,
            seed=4,
            epoch=epoch,
        )
        for number, batch in enumerate(plan):
            parts = schedule.micro_batches(epoch * 12 + number)
            found = np.concatenate([part.rows for part in parts])
            assert sorted(found.tolist()) == sorted(rows.kept[batch].tolist())
            assert {n for part in parts for n in part.passes.tolist()} == {epoch}


def test_tasks_by_temperature_share_an_epoch_by_the_root_of_their_rows(run):
    rows = make_rows(run)
    schedule = make_schedule(rows, temperature=2)
    # Roots 10.954, 7.071 and 3.162 of 180 rows: 93.06, 60.07, 26.87.
    expected = dict(zip(TASKS, (93, 60, 27), strict=True))
    assert schedule.rows_per_epoch == expected
    for epoch in range(3):
        parts = [part for n in range(12) for part in schedule.micro_batches(epoch * 12 + n)]
        places = np.concatenate([part.rows for part in parts])
        passes = np.concatenate([part.passes for part in parts])
        counts = np.bincount(rows.table.tasks[places]).tolist()
        assert counts == list(expected.values())
        assert len(set(zip(places.tolist(), passes.tolist(), strict=True))) == 180
        assert set(places.tolist()) <= set(rows.kept.tolist())
        targets = sum(rows.count_targets(part) for part in parts)
        lengths = rows.table.targets.lengths[places, passes % NUM_SPELLINGS]
        assert targets == lengths.sum()


@pytest.mark.parametrize("temperature", [1.0, 5.0])
def test_a_resume_goes_on_with_the_very_next_batch(run, temperature):
    rows = make_rows(run)
    unbroken = make_schedule(rows, temperature=temperature)
    before = [unbroken.micro_batches(step) for step in range(30)]
    resumed = make_schedule(make_rows(run), temperature=temperature)
    for step in range(17, 30):
        for one, other in zip(before[step], resumed.micro_batches(step), strict=True):
            assert one.rows.tolist() == other.rows.tolist()
            assert one.passes.tolist() == other.passes.tolist()
            assert not len(one) or same_batch(rows, one, other)


def same_batch(rows, one, other):
    first, second = (
        rows.collate(part.rows, templates=np.zeros(len(part), int), passes=part.passes)
        for part in (one, other)
    )
    return bool((first.input_ids == second.input_ids).all())


def test_one_task_is_not_touched_by_the_temperature(run):
    rows = make_rows(run)
    alone = rows.kept[rows.table.tasks[rows.kept] == 1]
    rows.kept = alone
    for step in (0, 6):
        plain, mixed = (make_schedule(rows, temperature=t).micro_batches(step) for t in (1.0, 9.0))
        assert [part.rows.tolist() for part in plain] == [part.rows.tolist() for part in mixed]


def test_a_row_is_read_in_the_spelling_of_its_pass(run):
    rows = make_rows(run)
    places, passes = np.array([5, 5, 6]), np.array([0, 4, 2])
    batch = rows.collate(places, templates=[0, 0, 0], passes=passes)
    for number, (row, spelling) in enumerate([(5, 0), (5, 1), (6, 2)]):
        labels = batch.labels[number]
        expected = rows.table.targets.ids(row, spelling=spelling).tolist()
        assert labels[labels >= 0].tolist() == expected
