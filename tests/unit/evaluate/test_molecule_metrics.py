"""Hand-made cases of both blocks; similarities are worked out from sets of RDKit's Morgan bits."""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem
from rdkit.Chem import rdMolDescriptors

from raycrp.evaluate.bootstrap import ratio_of_sums
from raycrp.evaluate.molecule_metrics import (
    Answers,
    component_scores,
    num_distinct_valid,
    published_exact,
    published_similarity,
    published_valid,
    read_molecules,
    reciprocal_rank,
    strict_exact,
    strict_exact_flat,
    strict_valid,
    symmetric_similarity,
)


def bits_tanimoto(first, second, *, num_bits):
    """Tanimoto of two sets of on-bits, counted in Python."""
    one, two = (
        set(
            rdMolDescriptors.GetMorganFingerprintAsBitVect(
                Chem.MolFromSmiles(smiles), 2, nBits=num_bits
            ).GetOnBits()
        )
        for smiles in (first, second)
    )
    return len(one & two) / len(one | two)


ETHANOL_AMINE = bits_tanimoto("CCO", "CCN", num_bits=1024)
ETHANOL_PROPANOL = bits_tanimoto("CCO", "CCCO", num_bits=1024)
STRICT_AMINE = bits_tanimoto("CCO", "CCN", num_bits=2048)


@dataclass(frozen=True)
class Case:
    """One row and what both blocks say of it, worked out by hand."""

    name: str
    truth: str
    answer: str
    em: int
    valid: int
    similarity: float | None
    exact: int
    flat: int
    strict_valid: int
    component: tuple[float, float, float]
    symmetric: float


ALL, NONE = (1, 1, 1), (0, 0, 0)
ANSWERED = [
    # name, truth, answer | published: EM, validity, similarity | strict: exact, no stereo, valid
    Case("right", "CCO", "CCO", 1, 1, 1, 1, 1, 1, ALL, 1),
    Case("right, two", "CCN.CCO", "CCN.CCO", 1, 1, 1, 1, 1, 1, ALL, 1),
    Case("other order", "CCN.CCO", "CCO.CCN", 1, 1, 1, 1, 1, 1, ALL, 1),
    Case("other spelling", "CCO", "OCC", 0, 1, 1, 1, 1, 1, ALL, 1),
    Case("other spelling, aromatic", "c1ccccc1", "C1=CC=CC=C1", 0, 1, 1, 1, 1, 1, ALL, 1),
    Case("explicit hydrogens", "CCO", "[CH3][CH2][OH]", 0, 1, 1, 1, 1, 1, ALL, 1),
    Case("one of two respelled", "CCN.CCO", "CCN.OCC", 0, 1, 1, 1, 1, 1, ALL, 1),
    Case("atom maps", "CCO", "[CH3:1][CH2:2][OH:3]", 0, 1, 1, 1, 1, 1, ALL, 1),
    Case("other salt order", "[Cl-].[Na+]", "[Na+].[Cl-]", 1, 1, 1, 1, 1, 1, ALL, 1),
    Case("repeat missing", "CCO.CCO", "CCO", 1, 1, 1, 0, 0, 1, (1, 0.5, 2 / 3), 0.5),
    Case("repeat too many", "CCO", "CCO.CCO", 1, 1, 1, 0, 0, 1, (0.5, 1, 2 / 3), 0.5),
    Case("repeat right", "CCO.CCO", "CCO.OCC", 0, 1, 1, 1, 1, 1, ALL, 1),
    Case("junk added", "CCO", "CCO.[Xe]", 0, 1, 1, 0, 0, 1, (0.5, 1, 2 / 3), 0.5),
    Case("junk twice", "CCO", "CCO.[Xe].[Xe]", 0, 1, 1, 0, 0, 1, (1 / 3, 1, 0.5), 1 / 3),
    Case("one missing", "CCO.[Xe]", "CCO", 0, 1, 0.5, 0, 0, 1, (1, 0.5, 2 / 3), 0.5),
    Case("empty", "CCO", "", 0, 1, 0, 0, 0, 0, NONE, 0),
    Case("only a dot", "CCO", ".", 0, 1, 0, 0, 0, 0, NONE, 0),
    Case("dangling dot", "CCO", "CCO.", 0, 1, 1, 0, 0, 0, NONE, 0),
    Case("leading dot", "CCO", ".CCO", 0, 1, 1, 0, 0, 0, NONE, 0),
    Case("doubled dot", "CCN.CCO", "CCN..CCO", 0, 1, 1, 0, 0, 0, NONE, 0),
    Case("invalid", "CCO", "C1CC", 0, 0, None, 0, 0, 0, NONE, 0),
    Case("bad valence", "CCO", "C(C)(C)(C)(C)C", 0, 0, None, 0, 0, 0, NONE, 0),
    Case("not SMILES", "CCO", "ethanol", 0, 0, None, 0, 0, 0, NONE, 0),
    Case("one part invalid", "CCN.CCO", "CCN.C1CC", 0, 0, None, 0, 0, 0, NONE, 0),
    Case("text after a blank", "CCO", "CCO and more", 0, 1, 1, 0, 0, 0, NONE, 0),
    Case("line break inside", "CCO", "CCO\nCCN", 0, 1, 1, 0, 0, 0, NONE, 0),
    Case("ring across a dot", "CC", "C1.C1", 0, 0, None, 0, 0, 0, NONE, 0),
    Case("stereo only", "C[C@H](N)O", "C[C@@H](N)O", 0, 1, 1, 0, 1, 1, NONE, 1),
    Case("stereo lost", "C[C@H](N)O", "CC(N)O", 0, 1, 1, 0, 1, 1, NONE, 1),
    Case("cis for trans", "C/C=C/C", "C/C=C\\C", 0, 1, 1, 0, 1, 1, NONE, 1),
    Case("same stereo respelled", "C[C@H](N)O", "N[C@@H](C)O", 0, 1, 1, 1, 1, 1, ALL, 1),
    Case("wrong", "CCO", "[Xe]", 0, 1, 0, 0, 0, 1, NONE, 0),
    Case("near", "CCO", "CCN", 0, 1, ETHANOL_AMINE, 0, 0, 1, NONE, STRICT_AMINE),
    Case("charge differs", "[O-]", "[OH-]", 0, 1, None, 0, 0, 1, NONE, None),
    Case(
        "one right, one near",
        "CCO.[Xe]",
        "CCN.[Xe]",
        0,
        1,
        (ETHANOL_AMINE + 1) / 2,
        0,
        0,
        1,
        (0.5, 0.5, 0.5),
        (STRICT_AMINE + 1) / 2,
    ),
    Case(
        "repeats of the truth count in the mean",
        "CCO.CCO.[Xe]",
        "CCO",
        0,
        1,
        2 / 3,
        0,
        0,
        1,
        (1, 1 / 3, 0.5),
        1 / 3,
    ),
    Case(
        "the nearest answer counts",
        "CCO",
        "CCN.CCCO",
        0,
        1,
        max(ETHANOL_AMINE, ETHANOL_PROPANOL),
        0,
        0,
        1,
        NONE,
        max(STRICT_AMINE, bits_tanimoto("CCO", "CCCO", num_bits=2048)) / 2,
    ),
]


@pytest.fixture(params=ANSWERED, ids=lambda case: case.name)
def case(request):
    return request.param


def answers_of(case):
    return Answers([case.truth], [[case.answer]])


def test_there_are_enough_cases():
    assert len(ANSWERED) >= 30


def test_published_exact(case):
    assert published_exact(answers_of(case)).tolist() == [case.em]


def test_published_valid(case):
    assert published_valid(answers_of(case)).tolist() == [case.valid]


def test_published_similarity(case):
    scores = published_similarity(answers_of(case))
    assert scores[0, 1] == case.valid
    if case.similarity is not None:
        assert scores[0, 0] == pytest.approx(case.similarity)


def test_strict_exact(case):
    assert strict_exact(answers_of(case), top=1).tolist() == [case.exact]


def test_strict_exact_without_stereo(case):
    assert strict_exact_flat(answers_of(case), top=1).tolist() == [case.flat]


def test_strict_valid(case):
    assert strict_valid(answers_of(case)).tolist() == [case.strict_valid]


def test_components(case):
    assert component_scores(answers_of(case))[0] == pytest.approx(case.component)


def test_symmetric_similarity(case):
    if case.symmetric is not None:
        assert symmetric_similarity(answers_of(case))[0] == pytest.approx(case.symmetric)


def test_published_similarity_averages_over_valid_rows_alone():
    answers = Answers(["CCO", "CCO", "CCO"], [["C1CC"], ["CCO"], [""]])
    assert ratio_of_sums(published_similarity(answers).sum(axis=0)) == pytest.approx(1 / 2)


def test_published_similarity_of_all_invalid_rows_is_zero():
    answers = Answers(["CCO", "CCN"], [["C1CC"], ["nothing"]])
    assert ratio_of_sums(published_similarity(answers).sum(axis=0)) == 0


def test_no_answer_counts_as_an_empty_one():
    answers = Answers(["CCO"], [[]])
    assert published_valid(answers)[0] == 1
    assert published_exact(answers)[0] == strict_valid(answers)[0] == 0
    assert strict_exact(answers, top=10)[0] == reciprocal_rank(answers)[0] == 0


@pytest.mark.parametrize(("top", "expected"), [(1, 0), (3, 1), (5, 1), (10, 1)])
def test_exact_at_top(top, expected):
    answers = Answers(["CCO"], [["CCN", "C1CC", "OCC", "CCC", "CCCC"]])
    assert strict_exact(answers, top=top)[0] == expected


def test_invalid_answers_and_repeats_keep_their_places():
    answers = Answers(["CCO"], [["C1CC", "CCN", "NCC", "OCC"]])
    assert strict_exact(answers, top=3)[0] == 0
    assert reciprocal_rank(answers)[0] == 1 / 4
    assert num_distinct_valid(answers)[0] == 2


def test_flat_match_at_top_three():
    answers = Answers(["C[C@H](N)O"], [["CCN", "C[C@@H](N)O", "CCC"]])
    assert strict_exact_flat(answers, top=3)[0] == 1
    assert strict_exact_flat(answers, top=1)[0] == strict_exact(answers, top=3)[0] == 0


def test_stereo_of_molecules_with_dative_bonds_is_taken_off():
    """RDKit reads the last bond, that of a carbon which has no room for it, as a dative one."""
    answers = Answers(["C[C@H](F)O[Li][CH3+]"], [["C[C@@H](F)O[Li][CH3+]"]])
    assert strict_exact(answers, top=1).tolist() == [0]
    assert strict_exact_flat(answers, top=1).tolist() == [1]


def test_a_truth_that_does_not_parse_is_never_matched():
    answers = Answers(["C1CC"], [["C1CC"]])
    assert strict_exact(answers, top=1)[0] == strict_exact_flat(answers, top=1)[0] == 0
    assert reciprocal_rank(answers)[0] == symmetric_similarity(answers)[0] == 0


def test_assignment_is_optimal_not_greedy():
    """Each truth takes the partner that serves the sum, not its own nearest."""
    truth, answer = ("CCO", "CCCO"), ("CCCCO", "CCO")
    pairs = [[bits_tanimoto(one, two, num_bits=2048) for two in answer] for one in truth]
    expected = max(pairs[0][0] + pairs[1][1], pairs[0][1] + pairs[1][0]) / 2
    answers = Answers([".".join(truth)], [[".".join(answer)]])
    assert symmetric_similarity(answers)[0] == pytest.approx(expected)


MOLECULES = ["CCO", "CCN", "c1ccccc1", "C[C@H](N)O", "C/C=C/C", "[Na+]", "[Cl-]", "CC(=O)O"]
mixtures = st.lists(st.sampled_from(MOLECULES), min_size=1, max_size=4)


def strict_row(truth, answers):
    """Everything the strict block says of one row."""
    row = Answers([truth], [answers])
    return [
        *(strict_exact(row, top=top)[0] for top in (1, 3, 5, 10)),
        *(strict_exact_flat(row, top=top)[0] for top in (1, 3, 5, 10)),
        reciprocal_rank(row)[0],
        *component_scores(row)[0],
        symmetric_similarity(row)[0],
        strict_valid(row)[0],
        num_distinct_valid(row)[0],
    ]


def respell(smiles, seed):
    molecule = Chem.MolFromSmiles(smiles)
    return Chem.MolToRandomSmilesVect(molecule, 1, randomSeed=seed)[0]


@settings(max_examples=40, deadline=None)
@given(truth=mixtures, answer=mixtures, data=st.data(), seed=st.integers(1, 1000))
def test_strict_knows_neither_order_nor_spelling(truth, answer, data, seed):
    plain = strict_row(".".join(truth), [".".join(answer)])
    reordered = [respell(each, seed) for each in data.draw(st.permutations(answer))]
    right = data.draw(st.permutations(truth))
    assert strict_row(".".join(right), [".".join(reordered)]) == pytest.approx(plain)


@settings(max_examples=30, deadline=None)
@given(truth=mixtures)
def test_a_perfect_answer_scores_one_in_everything(truth):
    text = ".".join(truth)
    assert strict_row(text, [text]) == pytest.approx([1.0] * 15)


@settings(max_examples=40, deadline=None)
@given(truth=mixtures, answer=mixtures, junk=st.sampled_from(["[Xe]", "[Kr].[Xe]", "C1CC", ""]))
def test_junk_never_raises_a_score(truth, answer, junk):
    """Noble gases share no bit with the molecules of the truth."""
    text, answered = ".".join(truth), ".".join(answer)
    before, after = strict_row(text, [answered]), strict_row(text, [f"{answered}.{junk}"])
    assert all(new <= old + 1e-12 for new, old in zip(after, before, strict=True))


@settings(max_examples=40, deadline=None)
@given(truth=mixtures, answers=st.lists(mixtures, max_size=3))
def test_an_answer_more_at_the_front_never_raises_a_rank(truth, answers):
    text = ".".join(truth)
    listed = [".".join(answer) for answer in answers]
    before = Answers([text], [listed])
    after = Answers([text], [["[Xe]", *listed]])
    assert reciprocal_rank(after)[0] <= reciprocal_rank(before)[0]
    assert strict_exact(after, top=1)[0] == 0


@settings(max_examples=40, deadline=None)
@given(truth=st.text(max_size=12), answers=st.lists(st.text(max_size=12), max_size=3))
def test_no_text_raises(truth, answers):
    row = Answers([truth], [answers])
    values = [
        *strict_row(truth, answers)[:-1],
        published_exact(row)[0],
        published_valid(row)[0],
        *published_similarity(row)[0],
    ]
    assert all(0 <= value <= 1 for value in values)


def test_read_molecules():
    assert read_molecules("OCC.CCO.[Na+]") == ("CCO", "CCO", "[Na+]")
    assert read_molecules("") is None
    assert read_molecules("CCO.") is None
