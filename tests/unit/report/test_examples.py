import pytest

from raycrp.report.examples import Verdict, choose_examples, judge_answer, make_example


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("OCC", Verdict.RIGHT),
        ("CCN", Verdict.WRONG),
        ("CCO.CCO", Verdict.WRONG),
        ("C1CC", Verdict.INVALID),
        ("CCO.", Verdict.INVALID),
        ("", Verdict.EMPTY),
        (" ", Verdict.EMPTY),
    ],
)
def test_verdicts(text, verdict):
    assert judge_answer(text, truth="CCO") is verdict


def test_stereo_has_a_verdict_of_its_own():
    assert judge_answer("C[C@@H](N)O", truth="C[C@H](N)O") is Verdict.STEREO


def test_examples_of_a_run(template_run):
    examples = choose_examples(template_run, num_examples=10, seed=0)
    assert list(examples) == ["forward", "retrosynthesis", "reagent"]
    right, late = examples["forward"]
    assert (right.verdict, right.rank, right.reaction_type) == (Verdict.RIGHT, 1, "F0")
    assert (late.verdict, late.rank) == (Verdict.WRONG, 2)
    assert [each.verdict for each in late.answers] == ["wrong", "right", "invalid"]
    invalid, empty = examples["retrosynthesis"]
    assert (invalid.verdict, invalid.answer.drawings) == (Verdict.INVALID, ())
    assert (empty.verdict, empty.rank) == (Verdict.EMPTY, None)
    (reagent,) = examples["reagent"]
    assert [side.smiles for side in reagent.given] == ["CCBr.CCN", "CCNCC"]
    assert reagent.verdict is Verdict.RIGHT
    assert right.instruction.endswith("compounds.")


def test_as_many_as_asked_for(template_run):
    examples = choose_examples(template_run, num_examples=1, seed=0)
    assert [len(rows) for rows in examples.values()] == [1, 1, 1]
    assert choose_examples(template_run, num_examples=0, seed=0) == {}


def test_no_predictions_no_examples(empty_run):
    assert choose_examples(empty_run, num_examples=10, seed=0) == {}


def test_what_the_strict_block_calls_invalid_is_not_drawn(template_run):
    row = template_run.read_table("evaluate/predictions").to_pylist()[0]
    for text in ("C1CC.C1", "CCO and more", "CCO."):
        example = make_example({**row, "predictions": [text], "log_probabilities": [-1.0]})
        assert (example.verdict, example.answer.drawings) == (Verdict.INVALID, ())
