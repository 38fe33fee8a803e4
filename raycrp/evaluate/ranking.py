"""Answers found under several reaction types and spellings of an input, as one ranking.

The probability of an answer y to an input x is the sum over reaction types of p(RT|x) p(y|x,RT),
and its mean over the spellings of x that were decoded. With one type and one spelling that is the
probability which the beam search gives.

Source: test-time augmentation, Tetko et al., Nat. Commun. 2020, 11, 5575.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp

from raycrp.chem.molecules import MoleculeError, canonical_smiles

if TYPE_CHECKING:
    from raycrp.model.decode import Hypothesis

TokenIds = tuple[int, ...]

_LEAST_PROBABILITY = 0.01


@dataclass(frozen=True)
class Variant:
    """One way of asking for an input: a spelling of it, and a reaction type in its prompt.

    Args:
        spelling: Number of the spelling; 0 is the canonical one.
        reaction_type: RT in the prompt; None where there is none.
        weight: p(RT | x) among the types that are used, over the number of spellings; the weights
            of an input's variants sum to 1.
        num_beams: Beams of its search; 0 where its share is too small for one, so that it only
            scores what the others find.
    """

    spelling: int
    reaction_type: int | None
    weight: float
    num_beams: int


@dataclass(frozen=True)
class Ranked:
    """One answer of the ranking.

    Args:
        smiles: Canonical SMILES; the text as decoded where it is no molecule.
        text: The most probable of the decoded texts that mean it.
        log_probability: Of the answer, in nats.
        is_valid: Whether it is one or more molecules.
    """

    smiles: str
    text: str
    log_probability: float
    is_valid: bool


def make_variants(
    probabilities: Sequence[float] | None,
    *,
    reaction_type: int | None,
    num_beams: int,
    num_reaction_types: int,
    num_spellings: int,
    num_wanted: int = 1,
) -> list[Variant]:
    """How an input is asked: under its most probable reaction types, in each of its spellings.

    The most probable type gets as many beams as answers are wanted: types often lead to the same
    answers, so that beams taken from it find again what it finds, and the list comes out shorter.
    What is left of a spelling's beams is shared out by probability, each beam to the type with the
    largest quotient of probability and beams it would then have (D'Hondt), so that an input whose
    type is certain is decoded as it would be under that type alone. A type without a beam scores
    what the others find. Types below 1 %
    are left out, which bounds the cost: the sum is short by their probability at most.

    Args:
        probabilities: Of each reaction type; None where LLM-RT was not asked.
        reaction_type: The type to use where there are no probabilities; None for none.
        num_beams: Beams for each spelling.
        num_reaction_types: Reaction types at most.
        num_spellings: Spellings of the input.
        num_wanted: Answers wanted.

    Returns:
        Variants by spelling, the most probable type first.
    """
    if probabilities is None:
        types: list[tuple[int | None, float]] = [(reaction_type, 1.0)]
    else:
        ranked = np.argsort(-np.asarray(probabilities), kind="stable")[:num_reaction_types]
        order = [place for place in ranked if probabilities[place] >= _LEAST_PROBABILITY]
        order = order or [ranked[0]]
        total = sum(probabilities[int(place)] for place in order)
        types = [(int(place), probabilities[int(place)] / total) for place in order]
    weights = [weight for _, weight in types]
    beams = share_beams(weights, num_beams=num_beams, num_wanted=num_wanted)
    return [
        Variant(spelling, number, weight / num_spellings, width)
        for spelling in range(num_spellings)
        for (number, weight), width in zip(types, beams, strict=True)
    ]


def share_beams(weights: Sequence[float], *, num_beams: int, num_wanted: int = 1) -> list[int]:
    """Beams of each reaction type: what is wanted for the first, then in proportion.

    Args:
        weights: Probabilities, the largest first.
        num_beams: Beams to share out.
        num_wanted: Answers wanted, the least for the first type as far as there are beams.

    Returns:
        As many numbers as weights, which sum to ``num_beams``.

    Source: D'Hondt's method of highest averages.
    """
    first = min(num_wanted, num_beams)
    beams = [first] + [0] * (len(weights) - 1)
    for _ in range(num_beams - first):
        quotients = [weight / (had + 1) for weight, had in zip(weights, beams, strict=True)]
        beams[int(np.argmax(quotients))] += 1
    return beams


def missing_answers(
    variants: Sequence[Variant], *, found: Sequence[Sequence["Hypothesis"]]
) -> list[list[TokenIds]]:
    """What each variant has yet to score: texts that others of the same spelling found.

    Args:
        variants: The variants of one input.
        found: What each of them found.

    Returns:
        Token ids by variant, in the order in which they were found.
    """
    missing: list[list[TokenIds]] = []
    for variant, own in zip(variants, found, strict=True):
        known = {each.token_ids for each in own}
        others = {
            each.token_ids: None
            for other, theirs in zip(variants, found, strict=True)
            if other.spelling == variant.spelling
            for each in theirs
        }
        missing.append([ids for ids in others if ids not in known])
    return missing


def rank_answers(
    variants: Sequence[Variant],
    *,
    found: Sequence[Sequence["Hypothesis"]],
    scored: Sequence[Mapping[TokenIds, float]],
) -> list[Ranked]:
    """The different answers of an input, the most probable first.

    Under one spelling, an answer has the probability of the best of the texts that mean it, as in
    a plain beam search, where a text's is its sum over reaction types. Over spellings it is
    averaged; a spelling that did not find the answer adds nothing to it.

    Args:
        variants: The variants of one input.
        found: What each of them found.
        scored: Log-probability that each gives to texts that others of its spelling found.
    """
    texts: dict[TokenIds, str] = {}
    by_spelling: dict[int, dict[TokenIds, list[float]]] = {}
    for variant, own, others in zip(variants, found, scored, strict=True):
        texts.update((each.token_ids, each.text) for each in own)
        scores = {each.token_ids: each.log_probability for each in own} | dict(others)
        terms = by_spelling.setdefault(variant.spelling, {})
        for ids, score in scores.items():
            terms.setdefault(ids, []).append(_log(variant.weight) + score)
    best: dict[str, _Merged] = {}
    for terms in by_spelling.values():
        _merge_spelling(best, terms=terms, texts=texts)
    ranked = [each.ranked() for each in best.values()]
    return sorted(ranked, key=lambda answer: -answer.log_probability)


@dataclass
class _Merged:
    """An answer while spellings are added up."""

    smiles: str
    text: str
    best: float
    is_valid: bool
    terms: list[float]

    def ranked(self) -> Ranked:
        """The candidate, with the probabilities of its spellings summed."""
        total = self.terms[0] if len(self.terms) == 1 else float(logsumexp(self.terms))
        return Ranked(self.smiles, self.text, total, self.is_valid)


def _merge_spelling(
    merged: dict[str, _Merged],
    *,
    terms: Mapping[TokenIds, Sequence[float]],
    texts: Mapping[TokenIds, str],
) -> None:
    """Add what one spelling says to the answers so far."""
    scores = {
        ids: logs[0] if len(logs) == 1 else float(logsumexp(logs)) for ids, logs in terms.items()
    }
    counted: set[str] = set()
    for ids in sorted(scores, key=lambda each: -scores[each]):
        text, score = texts[ids], scores[ids]
        smiles, is_valid = read_answer(text)
        if smiles in counted:
            continue
        counted.add(smiles)
        known = merged.setdefault(smiles, _Merged(smiles, text, score, is_valid, []))
        known.terms.append(score)
        if score > known.best:
            known.text, known.best = text, score


def read_answer(text: str) -> tuple[str, bool]:
    """An answer's canonical SMILES and True, or the text itself and False where it is none."""
    try:
        return canonical_smiles(text), True
    except MoleculeError:
        return text, False


def _log(weight: float) -> float:
    return math.log(weight) if weight > 0 else -math.inf
