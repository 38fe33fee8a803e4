"""Which task rows are the same reaction.

A retrosynthesis or reagent row tells reactants and product, a forward row only precursors and
product. A forward row belongs to a reaction of the data with the same product whose reactants are
all among its precursors; where there is none, it is a reaction of its own. Where there are several,
it is taken to be the one of a reagent row with the very same precursors, or else the one with the
most reactants, but it may be any of them.
"""

from array import array
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from raycrp.chem.molecules import molecule_counter
from raycrp.chem.reactions import Reaction
from raycrp.choices import Task

_MASK = (1 << 64) - 1

# Molecules are compared by Python's 64-bit string hash, which differs between processes but never
# leaves this one; a set of molecules is the sum of their hashes, so that order does not matter.
_Hash = int


@dataclass(frozen=True)
class Identities:
    """The reaction of each row.

    Args:
        codes: Shape ``(num_rows,)``, index into ``keys``.
        keys: Key of each reaction; see ``raycrp.chem.reactions.reaction_key``.
        mixtures: Shape ``(num_rows,)``, hash of all precursors and the product; 0 where the row
            does not tell all precursors.
        alternatives: Shape ``(num_pairs, 2)``, a row and the code of another reaction that it may
            be of.
    """

    codes: NDArray[np.int64]
    keys: list[str]
    mixtures: NDArray[np.uint64]
    alternatives: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), np.int64))


class ReactionIndex:
    """Collects rows one by one, then says which are the same reaction."""

    def __init__(self) -> None:
        self._codes_by_key: dict[str, int] = {}
        self._keys: list[str] = []
        self._codes = array("q")
        self._mixtures = array("Q")
        # By product: the reactants of each known reaction and its code.
        self._known: dict[_Hash, dict[tuple[_Hash, ...], int]] = {}
        self._by_mixture: dict[_Hash, int] = {}
        self._open_rows = array("q")
        self._open_products = array("q")
        self._open_precursors = array("q")
        self._open_ends = array("q")

    def add(self, reaction: Reaction, *, task: Task, is_derived: bool) -> None:
        """Take in the next row.

        Args:
            reaction: What the row tells of its reaction.
            task: Its task.
            is_derived: Whether the whole reaction, with its roles, is known.
        """
        code = self._codes_by_key.setdefault(reaction.key, len(self._keys))
        if code == len(self._keys):
            self._keys.append(reaction.key)
        product = hash(reaction.product)
        reactants = _hashes(reaction.reactants)
        mixture = _mixture(reactants + _hashes(reaction.reagents), product)
        if task is Task.FORWARD and not is_derived:
            self._open_rows.append(len(self._codes))
            self._open_products.append(product)
            self._open_precursors.extend(reactants)
            self._open_ends.append(len(self._open_precursors))
        else:
            self._known.setdefault(product, {}).setdefault(tuple(sorted(reactants)), code)
        if task is Task.REAGENT or is_derived:
            other = self._by_mixture.setdefault(mixture, code)
            if self._keys[code] < self._keys[other]:
                self._by_mixture[mixture] = code
        self._mixtures.append(0 if task is Task.RETROSYNTHESIS and not is_derived else mixture)
        self._codes.append(code)

    def resolve(self) -> Identities:
        """Reactions of all rows taken in."""
        codes = np.array(self._codes, dtype=np.int64)
        alternatives: list[tuple[int, int]] = []
        start = 0
        for row, product, end in zip(
            self._open_rows, self._open_products, self._open_ends, strict=True
        ):
            matches = self._matches(Counter(self._open_precursors[start:end]), product)
            code = self._by_mixture.get(self._mixtures[row], matches[0] if matches else None)
            if code is not None:
                codes[row] = code
            alternatives += [(row, other) for other in matches if other != code]
            start = end
        return Identities(
            codes,
            self._keys,
            np.array(self._mixtures, dtype=np.uint64),
            np.array(alternatives, dtype=np.int64).reshape(-1, 2),
        )

    def _matches(self, precursors: Counter[_Hash], product: _Hash) -> list[int]:
        """Reactions that a forward row may be of, the one with the most reactants first."""
        matches = [
            (-len(reactants), self._keys[code], code)
            for reactants, code in self._known.get(product, {}).items()
            if Counter(reactants) <= precursors
        ]
        return [code for _, _, code in sorted(matches)]


def _hashes(smiles: str) -> list[_Hash]:
    return [hash(molecule) for molecule in molecule_counter(smiles).elements()]


def _mixture(precursors: list[_Hash], product: _Hash) -> _Hash:
    return hash((sum(precursors) & _MASK, product)) & _MASK
