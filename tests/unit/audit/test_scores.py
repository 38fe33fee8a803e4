import pytest

from raycrp.audit.labels import ORACLE_RTS, TEST_RTS, LabelTest
from raycrp.audit.leak import LeakTest, View
from raycrp.audit.scores import Survival, measure_survival, score_conditions
from raycrp.audit.tables import Audit, audit_as_json, audit_as_markdown, leak_sentence
from raycrp.evaluate.bootstrap import Interval
from raycrp.evaluate.tables import AnsweredRow

SETTINGS = {"num_resamples": 500, "seed": 0}
NUM_ROWS = 200


def answers(**right):
    """By condition, rows of which so many, the first ones, are answered right."""
    return {
        name: [
            AnsweredRow(f"k{place}", "forward", "CCO", ("CCO" if place < number else "C",))
            for place in range(NUM_ROWS)
        ]
        for name, number in right.items()
    }


def test_the_part_that_survives_is_the_predicted_gain_over_the_oracle_s():
    (survival,) = measure_survival(
        answers(predicted=70, none=50, shuffled=30, constant=40, oracle=130), **SETTINGS
    )
    assert survival.baseline == "none"
    assert survival.oracle_gain.value == pytest.approx(80 / 200)
    assert survival.predicted_gain.value == pytest.approx(20 / 200)
    assert survival.part is not None
    assert survival.part.value == pytest.approx(20 / 80)
    assert 0.1 < survival.part.low < 0.25 < survival.part.high < 0.45


def test_the_strongest_uninformed_source_is_what_gains_are_over():
    (survival,) = measure_survival(
        answers(predicted=70, none=10, shuffled=60, constant=65, oracle=130), **SETTINGS
    )
    assert survival.baseline == "constant"
    assert survival.predicted_gain.value == pytest.approx(5 / 200)


def test_where_the_oracle_gains_nothing_nothing_can_survive():
    (survival,) = measure_survival(
        answers(predicted=50, none=50, shuffled=50, constant=50, oracle=50), **SETTINGS
    )
    assert survival.part is None


def test_differences_are_to_the_first_condition():
    scores = score_conditions(answers(predicted=100, none=80), num_answers=1, **SETTINGS)
    exact = {each.condition: each for each in scores if each.metric == "exact_top1"}
    assert exact["predicted"].difference is None
    assert exact["none"].difference.value == pytest.approx(-0.1)
    assert exact["none"].difference.high < 0


def label_test(labels, *, gain, reproduced=None, is_cross_validated=False):
    flat = Interval(0.5, 0.4, 0.6)
    test = LeakTest(
        num_rows=10,
        num_reactions=10,
        num_fit_rows=100,
        num_classes=3,
        is_cross_validated=is_cross_validated,
        majority=0.4,
        accuracies=dict.fromkeys(View, flat),
        bits=dict.fromkeys(View, flat),
        output_gain=gain,
        both_gain=gain,
    )
    return LabelTest("forward", labels, test, reproduced)


CLEAR, NOTHING = Interval(0.3, 0.1, 0.5), Interval(0.0, -0.1, 0.1)


def test_what_the_input_reproduces_is_no_leak():
    assert not label_test(TEST_RTS, gain=CLEAR, reproduced=1.0).leaks
    assert label_test(TEST_RTS, gain=CLEAR, reproduced=0.8).leaks
    assert label_test("labels", gain=CLEAR).leaks
    assert not label_test(TEST_RTS, gain=NOTHING, reproduced=0.8).leaks


def test_the_sentence_on_leaks_leaves_the_oracle_out():
    oracle = label_test(ORACLE_RTS, gain=CLEAR)
    assert leak_sentence([oracle]).startswith("No labels")
    clean = label_test(TEST_RTS, gain=NOTHING)
    assert leak_sentence([oracle, clean]).startswith("No leak found")
    leaking = label_test(TEST_RTS, gain=CLEAR, reproduced=0.5)
    assert leak_sentence([oracle, leaking]) == (
        "LEAK: the answer tells more than the input does about RTs of test prompts (forward)."
    )


def test_an_audit_is_written_whole():
    conditions = answers(predicted=70, none=50, shuffled=30, constant=40, oracle=130)
    audit = Audit(
        facts={"run": "r"},
        scores=score_conditions(conditions, num_answers=1, **SETTINGS),
        survivals=[
            Survival("forward", "none", CLEAR, NOTHING, Interval(0.25, 0.1, 0.4)),
        ],
        leaks=[label_test(TEST_RTS, gain=NOTHING, reproduced=1.0)],
        oracle_consistency={"forward": 1.0},
    )
    text = audit_as_markdown(audit)
    assert text.rstrip().endswith(
        "In the task forward, RTs taken from the answer itself raise exact match over prompts "
        "without RTs by .300 [.100, .500], and RTs named from the input by .000 [-.100, .100]: "
        ".250 [.100, .400] of the gain survives."
    )
    line = next(line for line in text.splitlines() if line.startswith("| oracle | .650"))
    assert line.count("|") == 3
    values = audit_as_json(audit)
    assert values["scores"]["forward"]["oracle"]["strict"]["exact_top1"]["score"]["value"] == 0.65
    assert values["leaks"][0]["leaks"] is False
