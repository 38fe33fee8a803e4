import json

import pyarrow as pa
import pytest

from raycrp.compare.runs import compare_runs, comparison_as_json, comparison_as_markdown
from raycrp.errors import RunError
from raycrp.run import RunFolder
from raycrp.schemas import PREDICTIONS, PROMPTS

NUM_REACTIONS = 40
SETTINGS = {"num_resamples": 500, "seed": 1}


def rows_of(num_reactions, *, tasks=("forward",), first_id=0):
    return [
        {
            "row_id": first_id + number * len(tasks) + place,
            "reaction_key": f"k{number}",
            "task": task,
            "split": "test",
            "template_id": f"{task}-01",
            "reaction_type": 0,
            "rt_source": "predicted",
            "prompt": "p",
            "input": f"{'C' * (number + 1)}O",
            "output": f"{'C' * (number + 1)}N",
            "mapped_reaction": None,
        }
        for number in range(num_reactions)
        for place, task in enumerate(tasks)
    ]


def write_run(folder, name, rows, *, right, answered=None, extra=()):
    """A scored run that answers ``right`` rows, by place, as they should be, and others with O."""
    run = RunFolder(str(folder), name)
    run.write_table("prompt/test/shard-0.parquet", pa.Table.from_pylist(rows, PROMPTS))
    answered = range(len(rows)) if answered is None else answered
    predictions = [
        {
            **{key: rows[place][key] for key in PREDICTIONS.names if key in rows[place]},
            "predictions": [rows[place]["output"] if place in right else "O", *extra],
            "log_probabilities": [-0.1] * (1 + len(extra)),
            "round_trips": None,
        }
        for place in answered
    ]
    table = pa.Table.from_pylist(predictions, PREDICTIONS)
    run.write_table("evaluate/predictions/shard-0.parquet", table)
    return run


def exact_match(comparison, *, task="forward"):
    return next(
        each for each in comparison.differences if (each.task, each.metric) == (task, "exact_top1")
    )


def test_differences_are_paired_and_signed(tmp_path):
    rows = rows_of(NUM_REACTIONS)
    first = write_run(tmp_path, "a", rows, right=range(10))
    second = write_run(tmp_path, "b", rows, right=range(18))
    comparison = compare_runs(first, second, **SETTINGS)
    score = exact_match(comparison)
    assert (score.first.value, score.second.value) == (10 / 40, 18 / 40)
    assert score.difference.value == pytest.approx(8 / 40)
    assert 0 < score.difference.low < 0.2 < score.difference.high < 0.4
    assert score.is_clear
    assert comparison.num_shared == {"forward": 40}
    back = exact_match(compare_runs(second, first, **SETTINGS))
    assert back.difference.value == pytest.approx(-8 / 40)
    again = exact_match(compare_runs(first, second, **SETTINGS))
    assert again == score


def test_a_run_is_as_good_as_itself(tmp_path):
    run = write_run(tmp_path, "a", rows_of(NUM_REACTIONS), right=range(10))
    comparison = compare_runs(run, run, **SETTINGS)
    assert len(comparison.differences) > 5
    assert not any(each.is_clear for each in comparison.differences)


def test_rows_of_one_run_alone_are_counted_and_left_out(tmp_path):
    rows = rows_of(NUM_REACTIONS)
    first = write_run(tmp_path, "a", rows, right=range(20), answered=range(30))
    second = write_run(tmp_path, "b", rows, right=range(20), answered=range(15, 40))
    comparison = compare_runs(first, second, **SETTINGS)
    assert comparison.num_shared == {"forward": 15}
    assert comparison.num_unshared == {"forward": (15, 10)}
    assert exact_match(comparison).first.value == pytest.approx(5 / 15)
    assert "15 rows shared; 15 answered by a alone and 10 by b alone" in comparison_as_markdown(
        comparison
    )


def test_a_single_task_run_compares_with_a_run_of_several(tmp_path):
    """Row numbers differ, since one data stage wrote two tasks and the other one."""
    both = write_run(tmp_path, "a", rows_of(10, tasks=("forward", "reagent")), right=range(20))
    one = write_run(tmp_path, "b", rows_of(10), right=())
    comparison = compare_runs(both, one, **SETTINGS)
    assert {each.task for each in comparison.differences} == {"forward"}
    assert exact_match(comparison).difference.value == -1


def test_all_tasks_together_come_after_each(tmp_path):
    rows = rows_of(10, tasks=("reagent", "forward"))
    first = write_run(tmp_path, "a", rows, right=range(1, 20, 2))
    second = write_run(tmp_path, "b", rows, right=range(20))
    comparison = compare_runs(first, second, **SETTINGS)
    assert list(comparison.num_shared.items()) == [("forward", 10), ("reagent", 10)]
    assert exact_match(comparison, task="forward").difference.value == 0
    assert exact_match(comparison, task="reagent").difference.value == 1
    assert exact_match(comparison, task="all").difference.value == 0.5


def test_the_fewer_answers_decide_which_scores_compare(tmp_path):
    rows = rows_of(10)
    first = write_run(tmp_path, "a", rows, right=range(5), extra=("CO", "CCO"))
    second = write_run(tmp_path, "b", rows, right=range(5))
    names = {each.metric for each in compare_runs(first, second, **SETTINGS).differences}
    assert "exact_top1" in names
    assert "exact_top3" not in names


def test_no_score_looks_at_answers_that_the_other_run_was_not_asked_for(tmp_path):
    rows = rows_of(10)
    for row in rows:
        row["output"] = "CO"
    first = write_run(tmp_path, "a", rows, right=(), extra=("CO", "CCO"))
    second = write_run(tmp_path, "b", rows, right=())
    found = compare_runs(first, second, **SETTINGS).differences
    assert {each.metric for each in found if each.difference.value} == set()


def test_other_test_data_is_refused_in_one_line(tmp_path):
    first = write_run(tmp_path, "a", rows_of(10), right=())
    second = write_run(tmp_path, "b", rows_of(12), right=())
    with pytest.raises(RunError, match=r"0 of 10 .* first alone, 2 of 12 .* second") as raised:
        compare_runs(first, second, **SETTINGS)
    assert "\n" not in str(raised.value)


def test_runs_without_predictions_tasks_or_rows_in_common_are_refused(tmp_path):
    rows = rows_of(10)
    first = write_run(tmp_path, "a", rows, right=(), answered=range(5))
    with pytest.raises(RunError, match="none has no predictions"):
        compare_runs(first, RunFolder(str(tmp_path), "none"), **SETTINGS)
    other = write_run(tmp_path, "b", rows_of(10, tasks=("reagent",)), right=())
    with pytest.raises(RunError, match="a task in common"):
        compare_runs(first, other, **SETTINGS)
    rest = write_run(tmp_path, "c", rows, right=(), answered=range(5, 10))
    with pytest.raises(RunError, match="no test row in common"):
        compare_runs(first, rest, **SETTINGS)


def test_another_spelling_of_targets_is_noted(tmp_path):
    rows = rows_of(10)
    first, second = (write_run(tmp_path, name, rows, right=range(5)) for name in "ab")
    first.write_bytes("config.yaml", b"train: {spelling: canonical, gone: 1}")
    second.write_bytes("config.yaml", b"train: {spelling: aligned}")
    comparison = compare_runs(first, second, **SETTINGS)
    (note,) = comparison.notes
    assert note.startswith("published scores of b: too low, since")
    assert f"- {note}" in comparison_as_markdown(comparison).splitlines()
    assert comparison_as_json(comparison)["notes"] == [note]


def test_runs_of_one_name_are_told_apart(tmp_path):
    rows = rows_of(10)
    first, second = (write_run(tmp_path / at, "r", rows, right=range(5)) for at in "xy")
    assert compare_runs(first, second, **SETTINGS).names == (first.uri(), second.uri())


def test_a_run_that_is_still_answering_is_refused(tmp_path):
    rows = rows_of(10)
    first, second = (write_run(tmp_path, name, rows, right=range(5)) for name in "ab")
    second.write_json("evaluate/_STARTED.json", {"digest": "d"})
    with pytest.raises(RunError, match=r"b has answered a part of its test rows only"):
        compare_runs(first, second, **SETTINGS)
    second.write_json("evaluate/_SUCCESS.json", {"digest": "d"})
    compare_runs(first, second, **SETTINGS)


def test_json_and_markdown_hold_every_score(tmp_path):
    rows = rows_of(NUM_REACTIONS)
    first = write_run(tmp_path, "a", rows, right=range(10))
    second = write_run(tmp_path, "b", rows, right=range(30))
    comparison = compare_runs(first, second, **SETTINGS)
    values = json.loads(json.dumps(comparison_as_json(comparison)))
    assert values["runs"] == ["a", "b"]
    assert values["scores"]["forward"]["strict"]["exact_top1"]["difference"]["value"] == 0.5
    text = comparison_as_markdown(comparison)
    line = next(line for line in text.splitlines() if line.startswith("| Exact top 1 |"))
    assert "| .250 [" in line
    assert "**.500 [" in line
