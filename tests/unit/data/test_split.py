from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raycrp.choices import LeakPolicy, Task
from raycrp.data.identity import Identities
from raycrp.data.split import (
    NO_SPLIT,
    SPLITS,
    TASKS,
    Fate,
    RowIndex,
    RtCode,
    SplitSettings,
    split_rows,
)
from raycrp.errors import DataError
from raycrp.schemas import Split

TRAIN, VALIDATION, TEST = (SPLITS.index(split) for split in SPLITS)


def split_settings(**changes):
    values = {
        "seed": 0,
        "validation_fraction": 0.1,
        "test_fraction": 0.2,
        "rt_valid_fraction": 0.1,
        "rt_test_fraction": 0.1,
        "max_reactions": None,
        "leak_policy": LeakPolicy.REJECT,
    }
    return SplitSettings(**{**values, **changes})


def row_index(splits, codes, *, tasks=None, contents=None, mixtures=None):
    num_rows = len(codes)
    tasks = [Task.FORWARD] * num_rows if tasks is None else tasks
    return RowIndex(
        tasks=np.array([TASKS.index(task) for task in tasks], dtype=np.int8),
        splits=np.array(splits, dtype=np.int8),
        contents=np.arange(num_rows) if contents is None else np.array(contents),
        identities=Identities(
            codes=np.array(codes, dtype=np.int64),
            keys=[f"key-{code}" for code in range(max(codes) + 1)],
            mixtures=np.zeros(num_rows, dtype=np.uint64)
            if mixtures is None
            else np.array(mixtures, dtype=np.uint64),
        ),
    )


def marked(num_train):
    """Rows of a set that marks one validation, one test and ``num_train`` training rows."""
    return [VALIDATION, TEST] + [TRAIN] * num_train


@pytest.mark.parametrize(
    ("unsure_split", "known_split", "fates"),
    [(TEST, TRAIN, [Fate.KEPT, Fate.LEAK]), (TRAIN, TEST, [Fate.LEAK, Fate.KEPT])],
)
def test_a_row_that_may_be_of_a_held_out_reaction_is_no_training_row(
    unsure_split, known_split, fates
):
    """The first row is of reaction 0 or 1; the second is of reaction 1."""
    rows = row_index([unsure_split, known_split, *marked(10)], range(14))
    identities = replace(rows.identities, alternatives=np.array([[0, 1]]))
    result = split_rows(replace(rows, identities=identities), settings=split_settings())
    assert result.fates.tolist() == fates + [Fate.KEPT] * 12


def test_the_splits_that_the_source_marks_are_kept():
    result = split_rows(row_index(marked(10), range(12)), settings=split_settings())
    assert result.splits.tolist() == marked(10)
    assert set(result.fates) == {Fate.KEPT}
    assert result.derived == ()


def test_missing_splits_are_taken_from_training_reactions():
    rows = row_index([NO_SPLIT] * 300, list(range(100)) * 3, tasks=np.repeat(list(Task), 100))
    result = split_rows(rows, settings=split_settings())
    counts = {split: int((result.splits == code).sum()) for code, split in enumerate(SPLITS)}
    assert counts == {Split.TRAIN: 210, Split.VALIDATION: 30, Split.TEST: 60}
    by_task = result.splits.reshape(3, 100)
    assert (by_task == by_task[0]).all()
    assert result.derived == (Split.VALIDATION, Split.TEST)


def test_validation_comes_from_train_where_only_a_test_split_is_marked():
    rows = row_index([TEST] * 5 + [TRAIN] * 100, range(105))
    result = split_rows(rows, settings=split_settings())
    assert (result.splits[:5] == TEST).all()
    assert (result.splits == TEST).sum() == 5
    assert (result.splits == VALIDATION).sum() == 10
    assert result.derived == (Split.VALIDATION,)


@given(st.permutations(range(30)))
@settings(max_examples=10, deadline=None)
def test_the_split_of_a_reaction_does_not_depend_on_the_order_of_rows(order):
    keys = [f"key-{n}" for n in range(30)]
    plain = split_rows(row_index([NO_SPLIT] * 30, range(30)), settings=split_settings())
    rows = row_index([NO_SPLIT] * 30, range(30))
    shuffled = RowIndex(
        tasks=rows.tasks,
        splits=rows.splits,
        contents=rows.contents,
        identities=Identities(
            codes=np.arange(30), keys=[keys[n] for n in order], mixtures=rows.identities.mixtures
        ),
    )
    result = split_rows(shuffled, settings=split_settings())
    assert result.splits.tolist() == [plain.splits[n] for n in order]
    assert result.rt_splits.tolist() == [plain.rt_splits[n] for n in order]


def test_another_seed_gives_another_split():
    rows = row_index([NO_SPLIT] * 100, range(100))
    first = split_rows(rows, settings=split_settings(seed=0))
    second = split_rows(rows, settings=split_settings(seed=1))
    assert (first.splits != second.splits).any()


def test_a_row_without_split_among_rows_with_one_is_set_aside():
    splits = [*marked(10), NO_SPLIT]
    result = split_rows(row_index(splits, range(13)), settings=split_settings())
    assert result.fates[-1] == Fate.UNKNOWN_SPLIT


def test_the_first_of_equal_rows_of_a_split_stays():
    contents = [0, 1, 2, 2, 3, 2, *range(10, 20)]
    result = split_rows(
        row_index(marked(14), [0, 1, 2, 2, 3, 2, *range(4, 14)], contents=contents),
        settings=split_settings(),
    )
    assert np.flatnonzero(result.fates == Fate.DUPLICATE).tolist() == [3, 5]


def test_a_training_row_leaks_in_any_task_and_split():
    tasks = [Task.FORWARD, Task.RETROSYNTHESIS] + [Task.REAGENT] * 12
    codes = [0, 1, 0, 1, *range(2, 12)]
    result = split_rows(row_index(marked(12), codes, tasks=tasks), settings=split_settings())
    assert np.flatnonzero(result.fates == Fate.LEAK).tolist() == [2, 3]
    table = {(row.first, row.second): (row.num_found, row.num_left) for row in result.leak_table}
    assert table == {
        ((Split.TRAIN, Task.REAGENT), (Split.VALIDATION, Task.FORWARD)): (1, 0),
        ((Split.TRAIN, Task.REAGENT), (Split.TEST, Task.RETROSYNTHESIS)): (1, 0),
    }


def test_a_row_equal_in_train_and_test_is_a_leak_and_no_duplicate():
    contents = [0, 1, 1, *range(10, 20)]
    rows = row_index(marked(11), [0, 1, 1, *range(2, 12)], contents=contents)
    result = split_rows(rows, settings=split_settings())
    assert result.fates[:3].tolist() == [Fate.KEPT, Fate.KEPT, Fate.LEAK]


def test_the_same_molecules_in_other_roles_leak_too():
    mixtures = [5, 6, 6, *[0] * 10]
    result = split_rows(
        row_index(marked(11), range(13), mixtures=mixtures), settings=split_settings()
    )
    assert np.flatnonzero(result.fates == Fate.LEAK).tolist() == [2]


def test_leaks_may_be_reported_only():
    rows = row_index(marked(11), [0, 1, 1, *range(2, 12)])
    result = split_rows(rows, settings=split_settings(leak_policy=LeakPolicy.REPORT))
    assert set(result.fates) == {Fate.KEPT}
    [shared] = result.leak_table
    assert (shared.num_found, shared.num_left) == (1, 1)


def test_sampling_keeps_reactions_whole_and_splits_in_proportion():
    splits = ([VALIDATION] * 10 + [TEST] * 20 + [TRAIN] * 70) * 2
    tasks = [Task.FORWARD] * 100 + [Task.REAGENT] * 100
    rows = row_index(splits, list(range(100)) * 2, tasks=tasks)
    result = split_rows(rows, settings=split_settings(max_reactions=50))
    kept = result.fates == Fate.KEPT
    assert (kept[:100] == kept[100:]).all()
    counts = [int((kept[:100] & (result.splits[:100] == code)).sum()) for code in range(3)]
    assert counts == [35, 5, 10]
    assert set(result.fates) == {Fate.KEPT, Fate.NOT_SAMPLED}


def test_sampling_more_than_there_is_keeps_all():
    result = split_rows(row_index(marked(20), range(22)), settings=split_settings(max_reactions=22))
    assert set(result.fates) == {Fate.KEPT}


def test_training_reactions_are_split_for_elicitation():
    rows = row_index(marked(100) * 2, list(range(102)) * 2)
    codes = split_rows(rows, settings=split_settings()).rt_splits
    assert (codes[:102] == codes[102:]).all()
    counts = {code: int((codes[:102] == code).sum()) for code in RtCode}
    assert counts == {RtCode.NONE: 2, RtCode.TRAIN: 80, RtCode.VALID: 10, RtCode.TEST: 10}


@pytest.mark.parametrize("num_rows", [1, 2, 4])
def test_too_few_reactions_are_refused(num_rows):
    with pytest.raises(DataError, match="training reactions are left"):
        split_rows(row_index([NO_SPLIT] * num_rows, range(num_rows)), settings=split_settings())


def test_five_reactions_are_enough():
    result = split_rows(row_index([NO_SPLIT] * 5, range(5)), settings=split_settings())
    assert sorted(result.splits.tolist()) == [TRAIN] * 3 + [VALIDATION, TEST]
