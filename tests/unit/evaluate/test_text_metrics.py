import random

import nltk.translate.bleu_score as nltk_bleu
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU

from raycrp.evaluate.text_metrics import bleu_of_sums, bleu_statistics, meteor_scores

SMILES_TEXT = st.text(alphabet="CcNnOo()=#12[]@H+-./\\ ", max_size=25)


def corpus_bleu(answers, truths):
    return float(bleu_of_sums(bleu_statistics(answers, truths=truths).sum(axis=0)))


def nltk_corpus_bleu(answers, truths):
    return nltk_bleu.corpus_bleu([[list(truth)] for truth in truths], [list(a) for a in answers])


def test_bleu_by_hand():
    # CCOC against CCOCC: every n-gram is right, brevity penalty exp(1 - 5/4).
    assert corpus_bleu(["CCOC"], ["CCOCC"]) == pytest.approx(np.exp(-0.25))


def test_bleu_precisions_by_hand():
    # CCOCCN against CCOCC: 5/6, 4/5, 3/4, 2/3 of the n-grams are right; no brevity penalty.
    expected = (5 / 6 * 4 / 5 * 3 / 4 * 2 / 3) ** 0.25
    assert corpus_bleu(["CCOCCN"], ["CCOCC"]) == pytest.approx(expected)


def test_bleu_is_over_the_corpus_not_a_mean_of_rows():
    answers, truths = ["CCOCC", "NNNN"], ["CCOCC", "OOOO"]
    expected = (5 / 9 * 4 / 7 * 3 / 5 * 2 / 3) ** 0.25
    assert corpus_bleu(answers, truths) == pytest.approx(expected)


@pytest.mark.parametrize("answer", ["", "C", "CCO", "NNNNN"])
def test_bleu_without_a_right_4_gram_is_zero(answer):
    assert corpus_bleu([answer], ["CCO"]) == 0


def test_bleu_tells_cases_apart():
    assert corpus_bleu(["c1ccccc1"], ["C1CCCCC1"]) == 0


def test_bleu_statistics_by_hand():
    rows = bleu_statistics(["CCO", ""], truths=["CCN", "CC"])
    assert rows.tolist() == [[3, 3, 2, 1, 0, 0, 3, 2, 1, 1], [0, 2, 0, 0, 0, 0, 1, 1, 1, 1]]


def test_a_right_but_short_answer_costs_n_grams():
    # CCOCC is right in all; O adds one answered n-gram each for n = 2, 3, 4, none of them right.
    expected = (6 / 6 * 4 / 5 * 3 / 4 * 2 / 3) ** 0.25
    assert corpus_bleu(["CCOCC", "O"], ["CCOCC", "O"]) == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore:(?s).*counts of:UserWarning")
@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(SMILES_TEXT, SMILES_TEXT), min_size=1, max_size=5))
def test_bleu_equals_nltk(pairs):
    answers, truths = zip(*pairs, strict=True)
    assert corpus_bleu(answers, truths) == pytest.approx(
        nltk_corpus_bleu(answers, truths), abs=1e-9
    )


def test_bleu_equals_sacrebleu_on_a_corpus():
    generator = random.Random(0)
    truths = ["".join(generator.choices("CNO()=1", k=generator.randint(5, 60))) for _ in range(150)]
    answers = [truth.replace("N", generator.choice("NO"), 2) for truth in truths]
    oracle = BLEU(tokenize="char", smooth_method="none", force=True)
    expected = oracle.corpus_score(answers, [truths]).score / 100
    assert corpus_bleu(answers, truths) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("answer", "truth", "expected"),
    [
        ("CCO", "CCO", 1 - 0.5 / 27),
        ("c1ccccc1", "C1CCCCC1", 1 - 0.5 / 512),
        ("cco", "CCO", 1 - 0.5 / 27),
        ("", "CCO", 0),
        ("CCO", "NNN", 0),
        # One match: P = 1/2, R = 1, F = P R / (0.9 P + 0.1 R) = 10/11, one chunk of one match.
        ("ON", "O", 10 / 11 * 0.5),
        # Three matches in two chunks (CO, C): P = 3/4, R = 1.
        ("CONC", "COC", 0.75 / (0.9 * 0.75 + 0.1) * (1 - 0.5 * (2 / 3) ** 3)),
    ],
)
def test_meteor_by_hand(answer, truth, expected):
    assert meteor_scores([answer], truths=[truth])[0] == pytest.approx(expected)


def test_meteor_needs_no_corpus_and_no_stems():
    # Letters are their own stems: s and a match nothing but themselves.
    assert meteor_scores(["s", "ions"], truths=["a", "ion"]).tolist() == pytest.approx(
        [0, 0.75 / (0.9 * 0.75 + 0.1) * (1 - 0.5 / 27)]
    )
