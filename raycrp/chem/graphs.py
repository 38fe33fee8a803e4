"""Molecules as graphs of numbers, in an order of atoms that no spelling changes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from rdkit import Chem, rdBase
from rdkit.Chem import rdMolDescriptors

from raycrp.arrays import BoolArray, FloatArray, IntArray
from raycrp.chem.molecules import MoleculeError, MoleculeFault

HashArray = npt.NDArray[np.uint64]

NUM_ELEMENTS = 119
"""Length of a table by atomic number; 0 is an atom of any kind."""

CARBON, OXYGEN, PHOSPHORUS, SULFUR = 6, 8, 15, 16

LOCAL = 0
"""Row of ``environments``: the atom with its hydrogens and its number of neighbours."""
WITH_ORDERS = slice(1, 5)
"""Rows of ``environments``: radius 1 to 4, bond orders told apart."""
WITHOUT_ORDERS = slice(5, 8)
"""Rows of ``environments``: radius 1 to 3, whatever the bond orders."""

# A graph takes about 12 kB; few molecules other than common reagents come again.
_CACHED_MOLECULES = 4_096
_MAX_RADIUS = 4


@dataclass(frozen=True, eq=False)
class AtomGraph:
    """Atoms and bonds of one or several molecules.

    Attributes:
        elements: Atomic numbers, shape ``(num_atoms,)``.
        hydrogens: Hydrogens on each atom, shape ``(num_atoms,)``.
        orders: Bond orders, shape ``(num_atoms, num_atoms)``; 1.5 for aromatic, 0 for no bond.
        environments: Hashes of what surrounds each atom, shape ``(8, num_atoms)``; see ``LOCAL``,
            ``WITH_ORDERS`` and ``WITHOUT_ORDERS``. Equal hashes mean equal surroundings.
        is_acyl: Whether each atom is C, P or S with a double bond to O or S.
    """

    elements: IntArray
    hydrogens: IntArray
    orders: FloatArray
    environments: HashArray
    is_acyl: BoolArray

    @property
    def num_atoms(self) -> int:
        """Number of atoms other than implicit hydrogens."""
        return len(self.elements)


@dataclass(frozen=True, eq=False)
class MoleculeGraph:
    """One molecule.

    Attributes:
        smiles: The text that it was read from.
        atoms: Its graph.
        num_rings: Rings of the smallest set.
        num_aromatic_rings: Those of them that are aromatic.
        element_counts: Atoms of each atomic number.
        environment_counts: How often each environment of radius 1 and 2 occurs.
        sort_key: Orders molecules the same way whatever their spelling.
    """

    smiles: str
    atoms: AtomGraph
    num_rings: int
    num_aromatic_rings: int
    element_counts: Counter[int]
    environment_counts: Counter[int]
    sort_key: tuple[int, ...]


def molecule_graphs(smiles: str) -> tuple[MoleculeGraph, ...]:
    """Graphs of the molecules of a text, in an order that does not depend on the text's.

    Args:
        smiles: Molecules joined by dots; may be empty.

    Raises:
        MoleculeError: If RDKit cannot read one.
    """
    graphs = (read_graph(part) for part in smiles.split(".") if part)
    return tuple(sorted(graphs, key=lambda graph: graph.sort_key))


@lru_cache(maxsize=_CACHED_MOLECULES)
def read_graph(smiles: str) -> MoleculeGraph:
    """Graph of one molecule; stereo, isotopes and atom maps are left out.

    Args:
        smiles: One molecule in any spelling.

    Raises:
        MoleculeError: If RDKit cannot read it.
    """
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
    if mol is None or not mol.GetNumAtoms():
        raise MoleculeError(MoleculeFault.UNPARSABLE, f"RDKit cannot read {smiles!r}")
    atoms = _atom_graph(mol)
    return MoleculeGraph(
        smiles=smiles,
        atoms=atoms,
        num_rings=rdMolDescriptors.CalcNumRings(mol),
        num_aromatic_rings=rdMolDescriptors.CalcNumAromaticRings(mol),
        element_counts=Counter(atoms.elements.tolist()),
        environment_counts=Counter(atoms.environments[1:3].ravel().tolist()),
        sort_key=(atoms.num_atoms, *atoms.environments.sum(axis=1).tolist()),
    )


def join_graphs(molecules: Sequence[MoleculeGraph]) -> AtomGraph:
    """The atoms of several molecules as one graph, in the order of the molecules."""
    graphs = [molecule.atoms for molecule in molecules]
    if len(graphs) == 1:
        return graphs[0]
    ends = np.cumsum([graph.num_atoms for graph in graphs])
    orders = np.zeros((ends[-1], ends[-1]), dtype=np.float32)
    for graph, end in zip(graphs, ends, strict=True):
        own = slice(end - graph.num_atoms, end)
        orders[own, own] = graph.orders
    return AtomGraph(
        elements=np.concatenate([graph.elements for graph in graphs]),
        hydrogens=np.concatenate([graph.hydrogens for graph in graphs]),
        orders=orders,
        environments=np.concatenate([graph.environments for graph in graphs], axis=1),
        is_acyl=np.concatenate([graph.is_acyl for graph in graphs]),
    )


def _atom_graph(mol: Any) -> AtomGraph:
    ranks = Chem.CanonicalRankAtoms(
        mol, breakTies=True, includeChirality=False, includeIsotopes=False, includeAtomMaps=False
    )
    order = sorted(range(mol.GetNumAtoms()), key=list(ranks).__getitem__)
    atoms = [mol.GetAtomWithIdx(place) for place in order]
    elements = np.array([atom.GetAtomicNum() for atom in atoms], dtype=np.int64)
    hydrogens = np.array([atom.GetTotalNumHs() for atom in atoms], dtype=np.int64)
    orders = _bond_orders(mol)[np.ix_(order, order)]
    return AtomGraph(
        elements=elements,
        hydrogens=hydrogens,
        orders=orders,
        environments=_environments(elements, hydrogens, orders),
        is_acyl=_is_acyl(elements, orders),
    )


def _bond_orders(mol: Any) -> FloatArray:
    orders = Chem.GetAdjacencyMatrix(mol, useBO=True)
    # RDKit writes the order of a dative bond on one side alone, and none for a zero-order bond.
    symmetric = np.maximum(np.maximum(orders, orders.T), Chem.GetAdjacencyMatrix(mol))
    return np.asarray(symmetric, dtype=np.float32)


def _environments(elements: IntArray, hydrogens: IntArray, orders: FloatArray) -> HashArray:
    """Hashes as in ``AtomGraph.environments``: sums over neighbours, so that no order counts."""
    is_bond = (orders > 0).astype(np.uint64)
    num_neighbours = is_bond.sum(axis=1)
    hashes = _ELEMENT_HASHES[elements]
    local = _mix(hashes + hydrogens.astype(np.uint64) + _FACTOR * num_neighbours)
    # One factor an order; rows of the stack are with orders and without.
    factors = np.stack([_ORDER_FACTORS[(2 * orders).astype(np.int64)], is_bond])
    hashes = np.stack([hashes, hashes])
    rounds = []
    for _ in range(_MAX_RADIUS):
        hashes = _mix(_FACTOR * hashes + (factors @ hashes[:, :, np.newaxis])[:, :, 0])
        rounds.append(hashes)
    with_orders, without_orders = np.stack(rounds, axis=1)
    return np.concatenate([local[np.newaxis], with_orders, without_orders[:-1]])


def _is_acyl(elements: IntArray, orders: FloatArray) -> BoolArray:
    has_oxo = ((orders == 2) & _IS_OXO[elements]).any(axis=1)
    return np.asarray(has_oxo & _BEARS_OXO[elements])


def _mix(values: HashArray) -> HashArray:
    """Scatter integers over 64 bits; sums of scattered numbers then tell multisets apart.

    Source: the finalizer of SplitMix64, Steele, Lea and Flood, OOPSLA 2014.
    """
    mixed = values + _FACTOR
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))


def element_set(*elements: int) -> BoolArray:
    """Table by atomic number: whether an element is one of these."""
    is_member = np.zeros(NUM_ELEMENTS, dtype=np.bool_)
    is_member[list(elements)] = True
    return is_member


_IS_OXO = element_set(OXYGEN, SULFUR)
_BEARS_OXO = element_set(CARBON, PHOSPHORUS, SULFUR)
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_ELEMENT_HASHES = _mix(np.arange(NUM_ELEMENTS, dtype=np.uint64))
# Indexed by twice the order, at most 6; 0 stands for no bond.
_ORDER_FACTORS = _mix(np.arange(13, dtype=np.uint64)) * (np.arange(13) > 0)
