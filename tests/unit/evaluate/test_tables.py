import json
from dataclasses import asdict, replace

import pyarrow as pa
import pytest

from raycrp.evaluate.tables import (
    METRICS,
    AnsweredRow,
    Block,
    distinct_rows,
    score_tasks,
    scores_as_json,
    scores_as_markdown,
)
from raycrp.schemas import SCORES

SETTINGS = {"num_resamples": 200, "seed": 0}


def row(key, output, *predictions, task="forward"):
    return AnsweredRow(key, task, output, predictions)


ROWS = [
    row("a", "CCO", "OCC", "CCN"),
    row("b", "CCN", "CCO", "CCN"),
    row("c", "CC(=O)O", "C1CC", "CC"),
    row("c", "CC.CO", "CO.CC", "CC", task="reagent"),
]


def scores_of(rows, *, num_answers=5):
    return {
        (score.task, score.metric): score
        for score in score_tasks(rows, num_answers=num_answers, **SETTINGS)
    }


def test_values_by_hand():
    scores = scores_of(ROWS)
    expected = {
        ("forward", "exact_match"): 0,
        ("forward", "validity"): 2 / 3,
        ("forward", "exact_top1"): 1 / 3,
        ("forward", "exact_top3"): 2 / 3,
        ("forward", "reciprocal_rank"): (1 + 1 / 2) / 3,
        ("forward", "strict_validity"): 2 / 3,
        ("forward", "distinct_valid"): 5 / 3,
        ("reagent", "exact_match"): 1,
        ("reagent", "component_f1"): 1,
        ("all", "exact_match"): 1 / 4,
        ("all", "exact_top1"): 1 / 2,
    }
    found = {name: scores[name].interval.value for name in expected}
    assert found == pytest.approx(expected)


def test_rows_and_reactions_are_counted():
    scores = scores_of(ROWS)
    assert (scores["all", "bleu"].num_rows, scores["all", "bleu"].num_reactions) == (4, 3)


def test_a_single_task_has_no_line_for_all():
    assert {task for task, _ in scores_of(ROWS[:3])} == {"forward"}


ROUND_TRIPS = {"round_trip_top1", "round_trip", "coverage"}


def test_round_trips_are_scored_where_every_row_has_them():
    rows = [
        AnsweredRow("a", "retrosynthesis", "CCO", ("CC", "CN"), (False, True)),
        AnsweredRow("b", "retrosynthesis", "CCO", ("CCC",), (True,)),
        AnsweredRow("c", "retrosynthesis", "CCO", (), ()),
    ]
    scores = scores_of(rows)
    values = {name: scores["retrosynthesis", name].interval.value for name in ROUND_TRIPS}
    assert values == pytest.approx(
        {"round_trip_top1": 1 / 3, "round_trip": 2 / 3, "coverage": 2 / 3}
    )
    unasked = AnsweredRow("d", "retrosynthesis", "CCO", ("C",))
    assert ROUND_TRIPS.isdisjoint({metric for _, metric in scores_of([*rows, unasked])})


def test_metrics_that_need_more_answers_are_left_out():
    few = {metric for _, metric in scores_of(ROWS, num_answers=3)}
    assert "exact_top3" in few
    assert few.isdisjoint({"exact_top5", "exact_top10", "exact_flat_top5"})
    assert {metric for _, metric in scores_of(ROWS, num_answers=10)} == set(METRICS) - ROUND_TRIPS


@pytest.mark.parametrize("repeated", [[0], [1, 1, 1], [0, 1, 2, 3]])
def test_repeated_rows_never_change_the_strict_block(repeated):
    plain, more = scores_of(ROWS), scores_of(ROWS + [ROWS[place] for place in repeated])
    for name, score in plain.items():
        if score.block == Block.STRICT:
            assert more[name] == score


def test_a_repeat_is_found_whatever_its_spelling():
    rows = [row("a", "CCO", "CCN.CO"), row("a", "OCC", "OC.NCC"), row("a", "CCO", "CC")]
    assert distinct_rows(rows) == [rows[0], rows[2]]
    assert len(distinct_rows([rows[0], row("b", "CCO", "CCN.CO")])) == 2


def test_a_reaction_with_other_reagents_is_another_question():
    asked = [replace(row("a", "CCO", "CCO"), input=text) for text in ("C.Cl", "C.Br", "C.Cl")]
    assert distinct_rows(asked) == asked[:2]


def test_the_published_block_takes_every_row():
    assert scores_of([*ROWS, ROWS[1]])["forward", "validity"].interval.value == 3 / 4


def test_all_rows_invalid_scores_zero_without_an_error():
    scores = scores_of([row("a", "CCO", "C1CC"), row("b", "CCN", "nothing"), row("c", "CC")])
    assert scores["forward", "similarity"].interval.value == 0
    assert scores["forward", "strict_validity"].interval.value == 0


def test_no_rows_give_no_scores():
    assert score_tasks([], num_answers=5, **SETTINGS) == []
    assert scores_as_markdown([]).count("metric") == 0


def test_intervals_hold_their_values():
    for score in score_tasks(ROWS, num_answers=5, **SETTINGS):
        assert score.interval.low <= score.interval.value <= score.interval.high, score


def test_scores_fit_their_table_and_json():
    scores = score_tasks(ROWS, num_answers=5, **SETTINGS)
    rows = [{**asdict(score.interval), **asdict(score)} for score in scores]
    table = pa.Table.from_pylist(rows, schema=SCORES)
    assert table.num_rows == len(scores)
    nested = json.loads(json.dumps(scores_as_json(scores)))
    assert nested["all"]["strict"]["exact_top1"]["value"] == 0.5


def test_markdown_has_a_row_a_metric_and_a_column_a_task():
    lines = scores_as_markdown(score_tasks(ROWS, num_answers=5, **SETTINGS)).splitlines()
    assert "| metric | forward (n = 3) | reagent (n = 1) | all (n = 4) |" in lines
    (line,) = [each for each in lines if each.startswith("| Exact top 1 |")]
    assert line.split("|")[2].strip().startswith(".333 [")
    assert line.split("|")[3].strip().startswith("1.000 [")


def test_every_metric_says_what_it_is():
    assert all(name.isidentifier() for name in METRICS)
    titles = [(metric.block, metric.title) for metric in METRICS.values()]
    assert len(set(titles)) == len(METRICS)
