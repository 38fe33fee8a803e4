import pytest

from raycrp.choices import Task
from raycrp.evaluate.answers import (
    Answer,
    Prediction,
    Rejection,
    check_input,
    describe_predictions,
    flag_answer,
)
from raycrp.evaluate.ranking import Ranked, read_answer


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
    assert check_input(text, task=task) == expected


@pytest.mark.parametrize(
    ("task", "text", "reason", "said"),
    [
        (Task.FORWARD, "C1CC", "unparsable_molecule", "C1CC"),
        (Task.FORWARD, "", "empty_molecule", "no text"),
        (Task.FORWARD, None, "missing_input", "no input"),
        (Task.FORWARD, float("nan"), "missing_input", "no input"),
        (Task.FORWARD, "CCO.", "unparsable_molecule", "beside a dot"),
        (Task.FORWARD, "CCO and water", "trailing_text", "after a blank"),
        (Task.FORWARD, "CCO\nCC", "whitespace", "line break"),
        (Task.FORWARD, "CCO>>CC=O", "arrow_unexpected", "does not take"),
        (Task.RETROSYNTHESIS, "CCO>O>CC=O", "unparsable_molecule", "C"),
        (Task.REAGENT, "CCO", "arrow_missing", "reactants>>product"),
        (Task.REAGENT, "CCO>>CC=O>>C", "arrow_missing", "reactants>>product"),
        (Task.REAGENT, "CCO>>", "empty_molecule", "no text"),
        (Task.REAGENT, "xx>>CC=O", "unparsable_molecule", "xx"),
        (Task.FORWARD, "C" * 3_000, "molecule_too_long", "2000 characters of one molecule"),
        (Task.FORWARD, "C" * 10_000, "input_too_long", "10000 characters"),
        (Task.FORWARD, ".".join(["C"] * 5_000), "input_too_long", "at most 4000"),
    ],
)
def test_a_bad_input_is_named_in_one_short_line(task, text, reason, said):
    found = check_input(text, task=task)
    assert isinstance(found, Rejection)
    assert found.reason == reason
    assert said in found.detail
    assert "\n" not in found.detail
    assert len(found.detail) < 300


@pytest.mark.parametrize(
    ("task", "given", "answer", "is_input", "has_new_atoms"),
    [
        (Task.FORWARD, "CC=O.O", "CC=O", True, False),
        (Task.FORWARD, "CC=O.O", "CCO", False, False),
        (Task.FORWARD, "CC=O.O", "CCN", False, True),
        # Three carbons cannot come of two; hydrogen may come from anywhere.
        (Task.FORWARD, "CC=O.O", "CCC", False, True),
        (Task.RETROSYNTHESIS, "CCN", "CCBr.N", False, False),
        (Task.RETROSYNTHESIS, "CCN", "CCBr", False, True),
        (Task.RETROSYNTHESIS, "CCN", "CCN.O", True, False),
        (Task.REAGENT, "CCO>>CC=O", "CC=O", True, False),
        (Task.REAGENT, "CCBr>>CCN", "N", False, False),
        (Task.REAGENT, "CCBr>>CCN", "O", False, True),
    ],
)
def test_answers_are_flagged(task, given, answer, is_input, has_new_atoms):
    flagged = flag_answer(Ranked(answer, answer, -1.0, True), task=task, input_text=given)
    assert flagged == Answer(answer, -1.0, True, is_input, has_new_atoms)


@pytest.mark.parametrize(
    ("text", "is_valid"), [("N#[C+][Na]", True), ("CCOC1=C(OCC)C(=C=O)s(O)C=C1", False)]
)
def test_answers_that_rdkit_writes_oddly_do_not_end_a_job(text, is_valid):
    """It would write a dative bond's arrow, and aromatic rings that it cannot read."""
    smiles, found = read_answer(text)
    assert found is is_valid
    answer = flag_answer(Ranked(smiles, text, -1.0, found), task=Task.FORWARD, input_text="CCO")
    assert answer.has_new_atoms is is_valid


def test_an_answer_that_is_no_molecule_is_only_invalid():
    flagged = flag_answer(Ranked("C1", "C1", -1.0, False), task=Task.FORWARD, input_text="C")
    assert flagged.flags == ("invalid",)


def test_predictions_are_described():
    prediction = Prediction(
        "OCC",
        Task.FORWARD,
        answers=(
            Answer("CC=O", -0.25, True, False, confidence=0.8),
            Answer("CCN", -1.0, True, False, has_new_atoms=True, passes_round_trip=True),
            Answer("C1", -2.0, False, False),
        ),
        reaction_type=3,
        reaction_type_probabilities=(0.1, 0.0, 0.2, 0.7),
        reaction_types_used=(3, 2),
        template_id="forward-02",
    )
    rejected = Prediction(
        "xx", Task.FORWARD, rejection=Rejection("unparsable_molecule", "'xx' is no input")
    )
    assert describe_predictions([prediction, rejected]).splitlines() == [
        "forward: OCC",
        "  instruction forward-02, reaction types F3 (p = 0.70), F2 (p = 0.20)",
        "  1. CC=O  log p = -0.25  confidence 0.80",
        "  2. CCN  log p = -1.00  (new atoms)  (round trip)",
        "  3. C1  log p = -2.00  (invalid)",
        "",
        "rejected: 'xx' is no input",
    ]
    named = describe_predictions([prediction, rejected], names=["ethanol", None]).splitlines()
    assert (named[0], named[-1]) == ("forward: OCC  (ethanol)", "rejected: 'xx' is no input")
    assert describe_predictions([rejected], names=["b"]) == "rejected: 'xx' is no input  (b)"
