import pytest

from raycrp.choices import Task
from raycrp.evaluate.answers import (
    Answer,
    Prediction,
    check_input,
    describe_predictions,
    merge_answers,
)
from raycrp.model.decode import Hypothesis


@pytest.mark.parametrize(
    ("task", "text", "expected"),
    [
        (Task.FORWARD, "OCC.[Na+].[Cl-]", "CCO.[Cl-].[Na+]"),
        (Task.FORWARD, "  OCC ", "CCO"),
        (Task.RETROSYNTHESIS, "C(C)O", "CCO"),
        (Task.REAGENT, "OCC>>C(C)=O", "CCO>>CC=O"),
    ],
)
def test_a_good_input_becomes_canonical(task, text, expected):
    assert check_input(text, task=task) == (expected, None)


@pytest.mark.parametrize(
    ("task", "text", "said"),
    [
        (Task.FORWARD, "C1CC", "C1CC"),
        (Task.FORWARD, "", "no text"),
        (Task.FORWARD, "CCO.", "beside a dot"),
        (Task.FORWARD, "CCO and water", "after a blank"),
        (Task.FORWARD, "CCO>>CC=O", "does not take"),
        (Task.RETROSYNTHESIS, "CCO>O>CC=O", "C"),
        (Task.REAGENT, "CCO", "reactants>>product"),
        (Task.REAGENT, "CCO>>CC=O>>C", "reactants>>product"),
        (Task.REAGENT, "CCO>>", "no text"),
        (Task.REAGENT, "xx>>CC=O", "xx"),
    ],
)
def test_a_bad_input_is_named(task, text, said):
    canonical, problem = check_input(text, task=task)
    assert canonical is None
    assert said in problem
    assert "\n" not in problem


def test_a_long_input_is_refused_in_a_short_line():
    canonical, problem = check_input("C" * 10_000, task=Task.FORWARD)
    assert canonical is None
    assert "10000 characters" in problem
    assert len(problem) < 300


def test_answers_are_merged_and_flagged():
    hypotheses = [
        Hypothesis("OCC", -0.5),
        Hypothesis("C1CC", -1.0),
        Hypothesis("CCO", -1.5),
        Hypothesis("CC=O", -2.0),
        Hypothesis("", -3.0),
    ]
    assert merge_answers(hypotheses, input_text="CC=O.O", top_k=4) == (
        Answer("CCO", -0.5, is_valid=True, is_input=False),
        Answer("C1CC", -1.0, is_valid=False, is_input=False),
        Answer("CC=O", -2.0, is_valid=True, is_input=True),
        Answer("", -3.0, is_valid=False, is_input=False),
    )
    assert len(merge_answers(hypotheses, input_text="CC=O", top_k=2)) == 2


def test_both_sides_of_a_reagent_input_count_as_given():
    (answer,) = merge_answers([Hypothesis("CC=O", -1.0)], input_text="CCO>>CC=O", top_k=1)
    assert answer.is_input


def test_predictions_are_described():
    prediction = Prediction(
        "OCC",
        Task.FORWARD,
        answers=(Answer("CC=O", -0.25, True, False), Answer("C1", -2.0, False, False)),
        reaction_type=3,
        reaction_type_probabilities=(0.1, 0.1, 0.1, 0.7),
        template_id="forward-02",
    )
    rejected = Prediction("xx", Task.FORWARD, problem="'xx' is no input")
    assert describe_predictions([prediction, rejected]).splitlines() == [
        "forward: OCC",
        "  instruction forward-02, reaction type F3 (p = 0.70)",
        "  1. CC=O  log p = -0.25",
        "  2. C1  log p = -2.00  (invalid)",
        "",
        "rejected: 'xx' is no input",
    ]
