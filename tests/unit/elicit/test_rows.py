import numpy as np
import pyarrow as pa
import pytest

from raycrp.choices import Encoding, Task
from raycrp.elicit.rows import check_settings, load_task_rows
from raycrp.errors import ElicitError
from raycrp.run import RunFolder
from raycrp.schemas import TASK_ROWS, embeddings_schema

TASKS = (Task.FORWARD, Task.REAGENT)


def write_rows(run, rt_splits=("rt_train", "rt_valid", "rt_test")):
    """Six rows of each task, alternating, in two files whose rows are not in order."""
    rows = [
        {
            "row_id": row_id,
            "source_id": str(row_id),
            "reaction_key": str(row_id // 2),
            "task": TASKS[row_id % 2].value,
            "split": "train",
            "rt_split": rt_splits[(row_id // 2) % len(rt_splits)],
            "input": f"in{row_id}",
            "output": f"out{row_id}",
            "mapped_reaction": None,
        }
        for row_id in range(12)
    ]
    for part, chunk in enumerate((rows[7:], rows[:7][::-1])):
        table = pa.Table.from_pylist(chunk, schema=TASK_ROWS)
        run.write_table(f"data/rows/train/part-{part:05d}.parquet", table)


def write_vectors(run, row_ids=range(12)):
    rows = [{"row_id": i, "input_vector": [i, 0.5], "output_vector": [-i, i % 3]} for i in row_ids]
    half = len(rows) // 2
    for shard, chunk in enumerate((rows[half:], rows[:half])):
        table = pa.Table.from_pylist(chunk, schema=embeddings_schema(2))
        run.write_table(f"embed/train/shard-{shard:06d}.parquet", table)


@pytest.fixture
def run(tmp_path):
    return RunFolder(str(tmp_path), "run")


def test_each_row_gets_its_own_vectors(run):
    write_rows(run)
    write_vectors(run)
    rows = load_task_rows(run, tasks=TASKS, max_whole_rows=100)[Task.REAGENT]
    assert rows.row_ids.tolist() == [1, 3, 5, 7, 9, 11]
    assert rows.inputs.to_pylist() == ["in1", "in3", "in5", "in7", "in9", "in11"]
    assert rows.vectors.inputs[:, 0].tolist() == [1, 3, 5, 7, 9, 11]
    assert rows.vectors.outputs.tolist()[2] == [-5, 2]
    assert rows.row_ids[rows.train].tolist() == [1, 7]
    assert rows.row_ids[rows.valid].tolist() == [3, 9]
    assert rows.row_ids[rows.test].tolist() == [5, 11]


def test_digest_follows_the_vectors(run):
    write_rows(run)
    write_vectors(run)
    first = load_task_rows(run, tasks=TASKS, max_whole_rows=100)
    again = load_task_rows(run, tasks=TASKS, max_whole_rows=100)
    assert first[Task.FORWARD].digest() == again[Task.FORWARD].digest()
    assert first[Task.FORWARD].digest() != first[Task.REAGENT].digest()
    again[Task.FORWARD].vectors.outputs[3, 1] += 1
    assert first[Task.FORWARD].digest() != again[Task.FORWARD].digest()


def test_missing_vectors_are_named(run):
    write_rows(run)
    write_vectors(run, row_ids=[i for i in range(12) if i not in (4, 8)])
    with pytest.raises(ElicitError, match=r"2 of 6 training rows.*row 4"):
        load_task_rows(run, tasks=TASKS, max_whole_rows=100)


def test_no_vectors_at_all(run):
    write_rows(run)
    with pytest.raises(ElicitError, match="run the embed stage first"):
        load_task_rows(run, tasks=TASKS, max_whole_rows=100)


def test_vectors_that_are_not_finite_are_refused(run):
    write_rows(run)
    write_vectors(run, row_ids=[i for i in range(12) if i != 2])
    table = pa.Table.from_pylist(
        [{"row_id": 2, "input_vector": [np.inf, 0], "output_vector": [0, 0]}],
        schema=embeddings_schema(2),
    )
    run.write_table("embed/train/shard-000002.parquet", table)
    with pytest.raises(ElicitError, match="1 of 6 training rows"):
        load_task_rows(run, tasks=TASKS, max_whole_rows=100)


@pytest.mark.parametrize(
    ("rt_splits", "part"), [(("rt_train", "rt_test"), "rt_valid"), (("rt_valid",), "rt_train")]
)
def test_an_empty_part_is_named(run, rt_splits, part):
    write_rows(run, rt_splits)
    write_vectors(run)
    with pytest.raises(ElicitError, match=f"no rows in {part}") as caught:
        load_task_rows(run, tasks=TASKS, max_whole_rows=100)
    assert "\n" not in str(caught.value)


def test_a_task_without_rows_is_named(run):
    write_rows(run)
    write_vectors(run)
    with pytest.raises(ElicitError, match="retrosynthesis has no rows"):
        load_task_rows(run, tasks=(Task.RETROSYNTHESIS,), max_whole_rows=100)


def test_more_clusters_than_distinct_vectors_are_refused(run):
    write_rows(run)
    write_vectors(run)
    rows = load_task_rows(run, tasks=TASKS, max_whole_rows=100)
    check_settings(rows, encodings=[Encoding.OUTPUT, Encoding.CONCAT], num_clusters=[2, 6])
    with pytest.raises(ElicitError, match=r"asks for 7 clusters.*only 6 distinct") as caught:
        check_settings(rows, encodings=[Encoding.OUTPUT], num_clusters=[2, 7])
    assert "\n" not in str(caught.value)
