"""The ranking over reaction types and spellings, worked out by hand."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raycrp.evaluate.ranking import (
    Ranked,
    Variant,
    make_variants,
    missing_answers,
    rank_answers,
    share_beams,
)
from raycrp.model.decode import Hypothesis

ETHANOL, RESPELLED, AMINE, BROKEN = (1, 2), (2, 1), (3,), (4,)
TEXTS = {ETHANOL: "CCO", RESPELLED: "OCC", AMINE: "CCN", BROKEN: "C1CC"}


def found(**probabilities):
    names = {"ethanol": ETHANOL, "respelled": RESPELLED, "amine": AMINE, "broken": BROKEN}
    return [
        Hypothesis(TEXTS[names[name]], math.log(p), names[name])
        for name, p in probabilities.items()
    ]


def probabilities_of(ranked):
    return {each.smiles: math.exp(each.log_probability) for each in ranked}


def test_one_type_ranks_as_the_beam_search_does():
    (only,) = make_variants(
        [0.2, 0.7, 0.1], reaction_type=None, num_beams=4, num_reaction_types=1, num_spellings=1
    )
    assert only == Variant(0, 1, 1.0, 4)
    own = found(respelled=0.4, broken=0.3, ethanol=0.2, amine=0.1)
    assert rank_answers([only], found=[own], scored=[{}]) == [
        Ranked("CCO", "OCC", own[0].log_probability, True),
        Ranked("C1CC", "C1CC", own[1].log_probability, False),
        Ranked("CCN", "CCN", own[3].log_probability, True),
    ]


def test_types_are_summed_with_their_weights():
    variants = [Variant(0, 3, 0.75, 2), Variant(0, 1, 0.25, 1)]
    ranked = rank_answers(
        variants,
        found=[found(amine=0.4, ethanol=0.3), found(ethanol=0.9)],
        scored=[{}, {AMINE: math.log(0.01)}],
    )
    assert probabilities_of(ranked) == pytest.approx(
        {"CCO": 0.75 * 0.3 + 0.25 * 0.9, "CCN": 0.75 * 0.4 + 0.25 * 0.01}
    )
    assert [each.smiles for each in ranked] == ["CCO", "CCN"]


def test_a_text_is_summed_before_the_best_spelling_of_its_answer_is_taken():
    variants = [Variant(0, 0, 0.5, 2), Variant(0, 1, 0.5, 1)]
    ranked = rank_answers(
        variants,
        found=[found(ethanol=0.5, respelled=0.4), found(respelled=0.6)],
        scored=[{}, {ETHANOL: math.log(0.1)}],
    )
    assert probabilities_of(ranked) == pytest.approx({"CCO": 0.5 * 0.4 + 0.5 * 0.6})
    assert ranked[0].text == "OCC"


def test_spellings_vote():
    """An answer that two of three spellings find beats one that a single spelling is sure of."""
    variants = [Variant(spelling, None, 1 / 3, 1) for spelling in range(3)]
    ranked = rank_answers(
        variants,
        found=[found(amine=0.7), found(ethanol=0.5), found(respelled=0.4)],
        scored=[{}, {}, {}],
    )
    assert probabilities_of(ranked) == pytest.approx({"CCO": 0.3, "CCN": 0.7 / 3})
    assert ranked[0].text == "CCO"


def test_only_texts_of_the_same_spelling_are_scored_elsewhere():
    variants = [Variant(0, 0, 0.3, 1), Variant(0, 1, 0.2, 0), Variant(1, 0, 0.3, 1)]
    missing = missing_answers(variants, found=[found(ethanol=0.5), [], found(amine=0.5)])
    assert missing == [[], [ETHANOL], []]


@pytest.mark.parametrize(
    ("weights", "num_beams", "expected"),
    [
        ([1.0], 5, [5]),
        ([0.9, 0.06, 0.04], 5, [5, 0, 0]),
        ([0.5, 0.3, 0.2], 5, [3, 1, 1]),
        ([0.5, 0.3, 0.2], 10, [5, 3, 2]),
        ([0.4, 0.4, 0.2], 3, [2, 1, 0]),
    ],
)
def test_beams_are_shared_by_probability(weights, num_beams, expected):
    assert share_beams(weights, num_beams=num_beams) == expected


@pytest.mark.parametrize(
    ("weights", "num_wanted", "expected"),
    [
        ([0.5, 0.3, 0.2], 5, [5, 1, 0]),
        ([0.5, 0.3, 0.2], 3, [3, 2, 1]),
        ([0.5, 0.3, 0.2], 9, [6, 0, 0]),
        ([0.98, 0.01, 0.01], 4, [6, 0, 0]),
    ],
)
def test_the_first_type_has_a_beam_for_each_answer_wanted(weights, num_wanted, expected):
    assert share_beams(weights, num_beams=6, num_wanted=num_wanted) == expected


@settings(deadline=None)
@given(
    st.lists(st.floats(0.01, 1), min_size=1, max_size=8),
    st.integers(1, 12),
    st.integers(1, 10),
    st.integers(1, 4),
    st.integers(1, 12),
)
def test_weights_sum_to_one_and_no_beam_is_lost(
    weights, num_beams, num_types, num_spellings, num_wanted
):
    probabilities = [weight / sum(weights) for weight in weights]
    variants = make_variants(
        probabilities,
        reaction_type=None,
        num_beams=num_beams,
        num_reaction_types=num_types,
        num_spellings=num_spellings,
        num_wanted=num_wanted,
    )
    assert sum(each.weight for each in variants) == pytest.approx(1)
    assert sum(each.num_beams for each in variants) == num_beams * num_spellings
    asked = sorted(probabilities)[-num_types:]
    assert len(variants) == sum(each >= 0.01 for each in asked) * num_spellings
    first = variants[0]
    assert probabilities[first.reaction_type] == max(probabilities)
    assert first.num_beams == max(each.num_beams for each in variants)


def test_types_of_no_weight_cost_nothing():
    settings = {"num_beams": 5, "num_reaction_types": 3, "num_spellings": 1}
    variants = make_variants([0.004, 0.991, 0.005], reaction_type=None, **settings)
    assert variants == [Variant(0, 1, 1.0, 5)]


def test_without_probabilities_the_given_type_is_certain():
    assert make_variants(
        None, reaction_type=2, num_beams=3, num_reaction_types=4, num_spellings=1
    ) == [Variant(0, 2, 1.0, 3)]
