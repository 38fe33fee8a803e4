"""Metrics that compare molecules, in two blocks.

``published`` scores the texts as the public code for the method does, so that numbers compare;
``strict`` scores canonical molecules over all rows. Functions take ``Answers`` and give one value
a row, or the statistics whose sums decide the score.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem, DataStructs, rdBase
from rdkit.Chem import rdFingerprintGenerator
from scipy.optimize import linear_sum_assignment

from raycrp.chem.molecules import MoleculeError, canonical_smiles, without_stereo

Molecules = tuple[str, ...]
"""Canonical SMILES of the molecules of a text, sorted, repeats kept."""

PUBLISHED_RADIUS, PUBLISHED_BITS = 2, 1024
STRICT_RADIUS, STRICT_BITS = 2, 2048
_CACHED_TEXTS = 1 << 17


@dataclass(frozen=True)
class Answers:
    """What was right and what was answered, row by row.

    Args:
        truths: The right answer of each row, as written in the data.
        predictions: The answers of each row as decoded, best first; may be none.
        round_trips: Of each row, whether the forward task turns each answer back into the input;
            None where that was not asked.
    """

    truths: Sequence[str]
    predictions: Sequence[Sequence[str]]
    round_trips: Sequence[Sequence[bool] | None] = ()

    @property
    def has_round_trips(self) -> bool:
        """Whether every row's answers were asked for their round trip."""
        return bool(self.round_trips) and all(row is not None for row in self.round_trips)

    @cached_property
    def first(self) -> list[str]:
        """The best answer of each row; empty where there is none."""
        return [answers[0] if answers else "" for answers in self.predictions]

    @cached_property
    def true_molecules(self) -> list[Molecules | None]:
        """Molecules of each truth; None where it does not parse."""
        return [read_molecules(truth) for truth in self.truths]

    @cached_property
    def answered_molecules(self) -> list[list[Molecules | None]]:
        """Molecules of each answer; None where it is invalid or empty."""
        return [[read_molecules(answer) for answer in answers] for answers in self.predictions]

    @cached_property
    def first_molecules(self) -> list[Molecules | None]:
        """Molecules of the best answer; None where it is invalid, empty or missing."""
        return [answers[0] if answers else None for answers in self.answered_molecules]


@lru_cache(maxsize=_CACHED_TEXTS)
def read_molecules(text: str) -> Molecules | None:
    """Canonical molecules of an answer.

    Returns:
        Sorted canonical SMILES of the dot-separated molecules, repeats kept; None where the text
        is empty or any part of it is no molecule.
    """
    try:
        return tuple(canonical_smiles(text).split("."))
    except MoleculeError:
        return None


def published_exact(answers: Answers) -> NDArray[np.float64]:
    """EM of the block ``published``: whether the sets of texts between dots are equal.

    Texts are compared, not molecules: another spelling of a right molecule is wrong, repeats are
    lost (``CCO.CCO`` equals ``CCO``), and a dangling dot adds an empty text, which is wrong.

    Returns:
        Shape ``(num_rows,)``, 0 or 1; over the best answer, empty where there is none.
    """
    pairs = zip(answers.first, answers.truths, strict=True)
    return np.array([_same_texts(answer, truth) for answer, truth in pairs], dtype=np.float64)


def published_valid(answers: Answers) -> NDArray[np.float64]:
    """Validity of the block ``published``: whether RDKit reads every text between dots.

    An empty text counts as valid, and so do an empty answer and a dangling dot.

    Returns:
        Shape ``(num_rows,)``, 0 or 1.
    """
    return np.array([_is_readable(answer) for answer in answers.first], dtype=np.float64)


def published_similarity(answers: Answers) -> NDArray[np.float64]:
    """Similarity of the block ``published``, over rows that count as valid there.

    A row where ``published_exact`` holds scores 1, any other the mean over the true molecules of
    the largest Tanimoto similarity to any answered molecule (Morgan bits, radius 2, 1,024 bits).
    It goes one way: answered molecules beyond the right ones cost nothing. An empty answer counts
    as valid and scores 0. The score is 0 where no row is valid.

    Returns:
        Shape ``(num_rows, 2)``: similarity if valid else 0, and whether the row is valid; the
        score is the ratio of the two sums.
    """
    valid = published_valid(answers)
    fingerprints = _Fingerprints(radius=PUBLISHED_RADIUS, num_bits=PUBLISHED_BITS)
    scores = np.zeros((len(valid), 2))
    for row in np.flatnonzero(valid).tolist():
        answer, truth = answers.first[row], answers.truths[row]
        exact = _same_texts(answer, truth)
        similarity = 1.0 if exact else _one_way_similarity(answer, truth, fingerprints)
        scores[row] = [similarity, 1.0]
    return scores


def strict_valid(answers: Answers) -> NDArray[np.float64]:
    """Validity of the block ``strict``: whether the best answer is one or more molecules.

    An empty answer, a missing one and one with a dangling dot are invalid.

    Returns:
        Shape ``(num_rows,)``, 0 or 1.
    """
    return np.array([molecules is not None for molecules in answers.first_molecules], np.float64)


def strict_exact(answers: Answers, *, top: int) -> NDArray[np.float64]:
    """Whether the right molecules, each as often as it is right, are among the first answers.

    Canonical SMILES are compared as multisets, so spelling and order do not matter. Answers that
    repeat an earlier one and invalid ones keep their places.

    Args:
        answers: The answers.
        top: How many answers of each row count.

    Returns:
        Shape ``(num_rows,)``, 0 or 1.
    """
    ranks = _ranks(answers)
    return ((ranks > 0) & (ranks <= top)).astype(np.float64)


def strict_exact_flat(answers: Answers, *, top: int) -> NDArray[np.float64]:
    """``strict_exact`` with stereochemistry taken off both sides.

    Args:
        answers: The answers.
        top: How many answers of each row count.

    Returns:
        Shape ``(num_rows,)``, 0 or 1; never less than ``strict_exact``.
    """
    rows = zip(answers.true_molecules, answers.answered_molecules, strict=True)
    return np.array(
        [
            truth is not None and _flatten(truth) in {_flatten(each) for each in answered[:top]}
            for truth, answered in rows
        ],
        dtype=np.float64,
    )


def reciprocal_rank(answers: Answers) -> NDArray[np.float64]:
    """One over the place of the first right answer; 0 where none is right.

    Returns:
        Shape ``(num_rows,)``, values in [0, 1]; right as in ``strict_exact``.
    """
    ranks = _ranks(answers)
    return np.divide(1.0, ranks, out=np.zeros(len(ranks)), where=ranks > 0)


def component_scores(answers: Answers) -> NDArray[np.float64]:
    """Precision, recall and F1 of the molecules of the best answer.

    With ``o`` the size of the multiset intersection of answered and right molecules:
    ``o / answered``, ``o / right`` and ``2 o / (answered + right)``; all 0 where the answer is
    invalid or empty.

    Returns:
        Shape ``(num_rows, 3)``, values in [0, 1].
    """
    scores = np.zeros((len(answers.truths), 3))
    rows = zip(answers.true_molecules, answers.first_molecules, strict=True)
    for row, (truth, answer) in enumerate(rows):
        if truth and answer:
            overlap = sum((Counter(truth) & Counter(answer)).values())
            total = len(truth) + len(answer)
            scores[row] = [overlap / len(answer), overlap / len(truth), 2 * overlap / total]
    return scores


def symmetric_similarity(answers: Answers) -> NDArray[np.float64]:
    """Tanimoto similarity under the best one-to-one assignment of molecules.

    ``max over assignments of sum Tanimoto(right, answered) / max(num right, num answered)`` with
    Morgan bits (radius 2, 2,048 bits, no stereochemistry): a molecule too many or too few counts
    as 0, and so does an invalid or empty answer.

    Returns:
        Shape ``(num_rows,)``, values in [0, 1]; 1 for a right answer.
    """
    fingerprints = _Fingerprints(radius=STRICT_RADIUS, num_bits=STRICT_BITS)
    rows = zip(answers.true_molecules, answers.first_molecules, strict=True)
    return np.array(
        [_assigned_similarity(truth, answer, fingerprints) for truth, answer in rows],
        dtype=np.float64,
    )


def num_distinct_valid(answers: Answers) -> NDArray[np.float64]:
    """How many different valid answers a row got.

    Returns:
        Shape ``(num_rows,)``; respellings of one answer count once.
    """
    rows = answers.answered_molecules
    return np.array([len({each for each in row if each}) for row in rows], dtype=np.float64)


def round_trip_first(answers: Answers) -> NDArray[np.float64]:
    """Whether the forward task of the same model turns the best answer back into the input.

    Precursors pass where the best forward answer to them is the product that was asked for,
    molecule by molecule. They need not be those of the data; invalid and missing ones fail, as do
    those that hold the product already, of which nothing need be made.

    Returns:
        Shape ``(num_rows,)``, 0 or 1.

    Source: Schwaller et al., Chem. Sci. 2020, 11, 3316 (round-trip accuracy).
    """
    return np.array([bool(row) and row[0] for row in _passed(answers)], dtype=np.float64)


def round_trip_share(answers: Answers) -> NDArray[np.float64]:
    """Round trips that pass, among all answers of all rows.

    Returns:
        Shape ``(num_rows, 2)``: answers of the row that pass, and its answers; the score is the
        ratio of the two sums.

    Source: Schwaller et al., Chem. Sci. 2020, 11, 3316 (round-trip accuracy).
    """
    return np.array([[sum(row), len(row)] for row in _passed(answers)], dtype=np.float64)


def coverage(answers: Answers) -> NDArray[np.float64]:
    """Whether any answer passes its round trip.

    Returns:
        Shape ``(num_rows,)``, 0 or 1; never less than ``round_trip_first``.

    Source: Schwaller et al., Chem. Sci. 2020, 11, 3316 (coverage).
    """
    return np.array([any(row) for row in _passed(answers)], dtype=np.float64)


class _Fingerprints:
    """Morgan bits of molecules, each made once."""

    def __init__(self, *, radius: int, num_bits: int) -> None:
        self._generator = rdFingerprintGenerator.GetMorganGenerator(radius=radius, fpSize=num_bits)
        self._known: dict[str, DataStructs.ExplicitBitVect | None] = {}

    def of(self, smiles: str) -> DataStructs.ExplicitBitVect | None:
        """Fingerprint of a molecule; None where the text is none."""
        if smiles not in self._known:
            molecule = _parse(smiles)
            bits = None if molecule is None else self._generator.GetFingerprint(molecule)
            self._known[smiles] = bits
        return self._known[smiles]

    def known(self, smiles: str) -> DataStructs.ExplicitBitVect:
        """Fingerprint of what is known to be a molecule."""
        bits = self.of(smiles)
        if bits is None:
            raise ValueError(f"not SMILES: {smiles}")
        return bits


def _passed(answers: Answers) -> list[Sequence[bool]]:
    return [row or () for row in answers.round_trips]


def _ranks(answers: Answers) -> NDArray[np.int64]:
    """Place of the first right answer, from 1; 0 where there is none."""
    rows = zip(answers.true_molecules, answers.answered_molecules, strict=True)
    return np.array(
        [
            answered.index(truth) + 1 if truth is not None and truth in answered else 0
            for truth, answered in rows
        ],
        dtype=np.int64,
    )


def _same_texts(answer: str, truth: str) -> bool:
    return set(answer.split(".")) == set(truth.split("."))


def _is_readable(answer: str) -> bool:
    return all(_is_readable_molecule(text) for text in answer.split("."))


@lru_cache(maxsize=_CACHED_TEXTS)
def _is_readable_molecule(text: str) -> bool:
    return _parse(text) is not None


def _one_way_similarity(answer: str, truth: str, fingerprints: "_Fingerprints") -> float:
    answered = [bits for text in answer.split(".") if (bits := fingerprints.of(text)) is not None]
    right = [bits for text in truth.split(".") if (bits := fingerprints.of(text)) is not None]
    if not answered or not right:
        return 0.0
    best = [max(DataStructs.BulkTanimotoSimilarity(bits, answered)) for bits in right]
    return float(np.mean(best))


def _assigned_similarity(
    truth: Molecules | None, answer: Molecules | None, fingerprints: _Fingerprints
) -> float:
    if not truth or not answer:
        return 0.0
    if truth == answer:
        return 1.0
    answered, right = ([fingerprints.known(each) for each in side] for side in (answer, truth))
    matrix = np.array([DataStructs.BulkTanimotoSimilarity(bits, answered) for bits in right])
    rows, columns = linear_sum_assignment(matrix, maximize=True)
    return float(matrix[rows, columns].sum() / max(len(truth), len(answer)))


def _flatten(molecules: Molecules | None) -> Molecules | None:
    if molecules is None:
        return None
    return tuple(sorted(_flatten_molecule(smiles) for smiles in molecules))


_flatten_molecule = lru_cache(maxsize=_CACHED_TEXTS)(without_stereo)


def _parse(text: str) -> Chem.Mol | None:
    with rdBase.BlockLogs():
        return Chem.MolFromSmiles(text)
