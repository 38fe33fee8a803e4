"""Which atom of the precursors becomes which atom of the product, without atom maps.

Precursors that give no atoms are left out first. The rest are matched by greedy growth: the pair
of atoms with the most alike surroundings comes first, then pairs beside those matched already.
Three ways of weighing are tried, and the match that makes and breaks the fewest bonds is kept.

Source: the fewest bonds made and broken as the measure of a match is the principle of minimum
chemical distance, Jochum, Gasteiger and Ugi, Angew. Chem. Int. Ed. 1980, 19, 495. The greedy
search is this project's own: it finds a good match, not always the best.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from raycrp.arrays import BoolArray, FloatArray, IntArray
from raycrp.chem.graphs import (
    LOCAL,
    WITH_ORDERS,
    WITHOUT_ORDERS,
    AtomGraph,
    MoleculeGraph,
    element_set,
    join_graphs,
    molecule_graphs,
)

UNKNOWN = -1
"""Source of a product atom that no precursor explains."""

_Scores = npt.NDArray[np.float64]
_Neighbours = list[list[int]]

# A match this close is that of a simple reaction: one bond made, one broken.
_CLOSE_DISTANCE = 2.0
_ORDER_CHANGE_COST = 0.5
# What hangs on an acyl group leaves more easily than the same atom elsewhere.
_ACYL_LEAVING_COST = 0.9
_ACYL_LEAVING_PENALTY = 0.3
_LEAVES_ACYL = element_set(7, 8, 9, 16, 17, 34, 35, 53)


@dataclass(frozen=True, eq=False)
class AtomMatch:
    """A reaction with the origin of its product's atoms.

    Attributes:
        precursors: Those that give atoms to the product.
        products: What comes out.
        before: Atoms of ``precursors``, joined.
        after: Atoms of ``products``, joined.
        sources: For each atom of ``after`` its atom in ``before``, or ``UNKNOWN``.
    """

    precursors: tuple[MoleculeGraph, ...]
    products: tuple[MoleculeGraph, ...]
    before: AtomGraph
    after: AtomGraph
    sources: IntArray

    @cached_property
    def is_known(self) -> BoolArray:
        """Which atoms of ``after`` have a source."""
        return np.asarray(self.sources != UNKNOWN)

    @cached_property
    def is_kept(self) -> BoolArray:
        """Which atoms of ``before`` are in the product."""
        kept = np.zeros(self.before.num_atoms, dtype=np.bool_)
        kept[self.sources[self.is_known]] = True
        return kept

    @cached_property
    def orders_before(self) -> FloatArray:
        """Bond orders that the atoms of ``after`` had; 0 where a source is unknown."""
        orders = self.before.orders[np.ix_(self.sources, self.sources)]
        return np.where(np.logical_and.outer(self.is_known, self.is_known), orders, 0)


def match_reaction(reactants: str, *, product: str) -> AtomMatch | None:
    """Match a product's atoms with those of its precursors.

    Args:
        reactants: Precursors joined by dots; reagents and solvents may be among them.
        product: One or several molecules.

    Returns:
        The match, the same whatever the spelling and order of molecules; None where nothing
        comes out or no precursor gives an atom.

    Raises:
        MoleculeError: If RDKit cannot read a molecule.
    """
    products = molecule_graphs(product)
    precursors = contributing_precursors(molecule_graphs(reactants), products=products)
    if not precursors:
        return None
    before, after = join_graphs(precursors), join_graphs(products)
    best, best_distance = None, np.inf
    neighbours = (_neighbours(after), _neighbours(before))
    for scores, bonus in _pair_scores(before, after):
        sources = _grow(scores, bonus=bonus, neighbours=neighbours)
        match = AtomMatch(precursors, products, before, after, sources)
        distance = chemical_distance(match)
        if best is None or distance < best_distance:
            best, best_distance = match, distance
        if best_distance <= _CLOSE_DISTANCE:
            break
    return best


def contributing_precursors(
    precursors: Sequence[MoleculeGraph], *, products: Sequence[MoleculeGraph]
) -> tuple[MoleculeGraph, ...]:
    """Precursors that give atoms to the product, the most alike first.

    The precursor that covers the most of what the product still needs is taken, until every
    atom of the product is accounted for by its element.

    Args:
        precursors: All that goes in.
        products: All that comes out.
    """
    environments: Counter[int] = Counter()
    elements: Counter[int] = Counter()
    for graph in products:
        environments += graph.environment_counts
        elements += graph.element_counts

    def worth(graph: MoleculeGraph) -> tuple[float, int]:
        """How much of what is left a precursor explains; of equals the smaller is worth more."""
        covered = (graph.environment_counts & environments).total()
        used = (graph.element_counts & elements).total()
        wasted = graph.atoms.num_atoms - used
        return covered + used - wasted / 2, -graph.atoms.num_atoms

    left, taken = list(precursors), []
    while left and elements:
        best = left.pop(max(range(len(left)), key=lambda place: worth(left[place])))
        if best.element_counts.keys() & elements.keys():
            taken.append(best)
            environments -= best.environment_counts
            elements -= best.element_counts
    return tuple(taken)


def chemical_distance(match: AtomMatch) -> float:
    """Bonds that a match makes and breaks; a change of order counts half.

    Bonds between two atoms that both leave do not count.
    """
    before, after = match.orders_before, match.after.orders
    made = (after > 0) & (before == 0)
    broken = (before > 0) & (after == 0)
    changed = (after > 0) & (before > 0) & (after != before)
    # The matrices hold each bond twice.
    distance = (made.sum() + broken.sum() + _ORDER_CHANGE_COST * changed.sum()) / 2
    kept, leaving = np.nonzero(leaving_bonds(match))
    acyl = match.before.is_acyl
    num_easy = int((acyl[kept] | acyl[leaving]).sum())
    # Rounded, so that equal sums are equal whatever the order of their terms.
    return round(float(distance + len(kept) - num_easy * (1 - _ACYL_LEAVING_COST)), 6)


def leaving_bonds(match: AtomMatch) -> BoolArray:
    """Bonds from an atom that stays to one that leaves, shape ``(num_before, num_before)``."""
    kept = match.is_kept
    return np.asarray((match.before.orders > 0) & np.logical_and.outer(kept, ~kept))


def _pair_scores(before: AtomGraph, after: AtomGraph) -> Iterator[tuple[_Scores, float]]:
    """Likeness of each product atom to each precursor atom, and the bonus for neighbours.

    First by surroundings with bond orders, then by the skeleton, then by the neighbours.
    """
    alike = after.environments[:, :, np.newaxis] == before.environments[:, np.newaxis, :]
    with_orders = alike[WITH_ORDERS].sum(axis=0)
    skeleton = alike[WITHOUT_ORDERS].sum(axis=0)
    local = 0.3 * alike[LOCAL]
    is_possible = np.equal.outer(after.elements, before.elements)
    penalty = _ACYL_LEAVING_PENALTY * _hangs_on_acyl(before)
    by_orders = np.where(is_possible, with_orders + 0.5 * skeleton + local - penalty, -np.inf)
    yield by_orders, 1.5
    yield np.where(is_possible, skeleton + 0.3 * with_orders + local - penalty, -np.inf), 3.0
    yield by_orders, 6.0


def _hangs_on_acyl(graph: AtomGraph) -> BoolArray:
    """Which atoms hang by one single bond on an acyl group: its OH, its chlorine."""
    is_end = (graph.orders > 0).sum(axis=1) == 1
    on_acyl = ((graph.orders == 1) & graph.is_acyl).any(axis=1)
    return np.asarray(is_end & on_acyl & _LEAVES_ACYL[graph.elements])


def _grow(
    scores: _Scores, *, bonus: float, neighbours: tuple[_Neighbours, _Neighbours]
) -> IntArray:
    """Take the best free pair, favour the pairs beside it, again until none is possible.

    Ties go to the first pair, which is the same in every spelling.
    """
    scores = scores.copy()
    num_after, num_before = scores.shape
    sources = np.full(num_after, UNKNOWN)
    beside_target, beside_source = neighbours
    for _ in range(min(scores.shape)):
        target, source = divmod(int(scores.argmax()), num_before)
        if scores[target, source] == -np.inf:
            break
        sources[target] = source
        scores[target, :] = -np.inf
        scores[:, source] = -np.inf
        for next_target in beside_target[target]:
            for next_source in beside_source[source]:
                scores[next_target, next_source] += bonus
    return sources


def _neighbours(graph: AtomGraph) -> _Neighbours:
    neighbours: _Neighbours = [[] for _ in range(graph.num_atoms)]
    for first, second in np.argwhere(graph.orders > 0).tolist():
        neighbours[first].append(second)
    return neighbours
