"""Metrics of the block ``published`` that compare texts: BLEU and METEOR over characters.

Each function gives statistics per row whose sums over any set of rows decide the score, so that
bootstrap intervals need no second pass over the texts.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from nltk.stem.porter import PorterStemmer
from nltk.translate.meteor_score import single_meteor_score
from numpy.typing import NDArray
from sacrebleu.metrics.bleu import BLEU

_MAX_ORDER = 4
_PRIVATE_USE = 0xE000


def bleu_statistics(answers: Sequence[str], *, truths: Sequence[str]) -> NDArray[np.float64]:
    """What each row adds to the corpus BLEU over characters.

    Case counts. A blank is a character like any other. An answer shorter than n still adds one
    n-gram to those answered, as nltk counts, by which published scores were made.

    Args:
        answers: One answer a row, as decoded.
        truths: The right answer of each row, as written in the data.

    Returns:
        Shape ``(num_rows, 10)``: length of the answer, length of the truth, then for n = 1..4 the
        n-grams of the answer that are in the truth (each counted at most as often as there), and
        for n = 1..4 the n-grams of the answer.
    """
    scorer = BLEU(tokenize="char", smooth_method="none", force=True)
    statistics = np.zeros((len(answers), 2 + 2 * _MAX_ORDER))
    for row, (answer, truth) in enumerate(zip(answers, truths, strict=True)):
        score = scorer.corpus_score([_protect_blanks(answer)], [[_protect_blanks(truth)]])
        statistics[row] = [score.sys_len, score.ref_len, *score.counts, *score.totals]
    statistics[:, 2 + _MAX_ORDER :] = np.maximum(statistics[:, 2 + _MAX_ORDER :], 1)
    return statistics


def bleu_of_sums(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Corpus BLEU from summed statistics.

    ``BLEU = min(1, exp(1 - r/c)) * (p1 p2 p3 p4) ** (1/4)``, where ``c`` and ``r`` are the summed
    lengths of answers and truths and ``pn`` the share of the answers' n-grams that are right,
    over all rows at once. There is no smoothing: with no right 4-gram at all the score is 0, so
    that answers of fewer than four characters score 0 even where they are right.

    Args:
        sums: Shape ``(..., 10)``, sums of rows of ``bleu_statistics``.

    Returns:
        Shape ``(...)``, values in [0, 1].

    Source: Papineni et al. (2002), by way of sacrebleu and nltk.
    """
    return np.apply_along_axis(_bleu, -1, sums)


def meteor_scores(answers: Sequence[str], *, truths: Sequence[str]) -> NDArray[np.float64]:
    """METEOR of each row over characters.

    ``(1 - 0.5 (chunks / m) ** 3) * P R / (0.9 P + 0.1 R)`` with ``m`` matched characters,
    ``P = m / len(answer)``, ``R = m / len(truth)``, and ``chunks`` the runs of matches adjacent in
    both. Characters are lower-cased first, so an aromatic ``c`` matches an aliphatic ``C``:
    cyclohexane scores as well as benzene. A right answer of ``m`` characters scores
    ``1 - 0.5 / m ** 3``, not 1; an answer with no match, and an empty one, scores 0.

    WordNet's synonyms are left out, because its corpus cannot be shipped; they would match a few
    single characters more, such as the digit 1 with an i.

    Args:
        answers: One answer a row, as decoded.
        truths: The right answer of each row, as written in the data.

    Returns:
        Shape ``(num_rows,)``, values in [0, 1).

    Source: Lavie and Agarwal (2007), by way of nltk.
    """
    pairs = zip(answers, truths, strict=True)
    return np.array([_meteor(answer, truth) for answer, truth in pairs], dtype=np.float64)


class _NoSynonyms:
    """Stands in for nltk's WordNet reader, which would look for a downloaded corpus."""

    def synsets(self, word: str) -> list[Any]:
        """No synonyms."""
        return []


@cache
def _stemmer() -> PorterStemmer:
    return PorterStemmer()


def _meteor(answer: str, truth: str) -> float:
    score = single_meteor_score(
        list(truth), list(answer), stemmer=_stemmer(), wordnet=_NoSynonyms()
    )
    return float(score)


def _bleu(sums: NDArray[np.float64]) -> float:
    answer_length, truth_length, *counts = np.rint(sums).astype(int).tolist()
    score = BLEU.compute_bleu(
        counts[:_MAX_ORDER],
        counts[_MAX_ORDER:],
        answer_length,
        truth_length,
        smooth_method="none",
    )
    return min(float(score.score) / 100, 1.0)


def _protect_blanks(text: str) -> str:
    """Keep blanks, which sacrebleu's character tokenizer would drop, as other characters."""
    return "".join(chr(_PRIVATE_USE + ord(c)) if c.isspace() else c for c in text)
