"""Other spellings of the same molecules: random ones, and pairs written from the same atoms.

A target that starts at the atom at which its source starts, and goes on the same way, shares long
substrings with it, so that a model learns to copy before it learns chemistry. The source keeps
its canonical spelling unless a generator is given.

Source: root-aligned SMILES, Zhong et al., Chem. Sci. 2022, 13, 9023.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rdkit import Chem, rdBase

from raycrp.chem.molecules import write_smiles
from raycrp.chem.reactions import ARROW
from raycrp.choices import Task

_NOWHERE = 2**31


@dataclass(frozen=True)
class SpelledPair:
    """Source and target of a task row in some spelling.

    Args:
        source: The input.
        target: The output.
        is_aligned: Whether the target was written from atoms of the source.
    """

    source: str
    target: str
    is_aligned: bool = False


def randomized_pair(source: str, *, target: str, rng: np.random.Generator) -> SpelledPair:
    """The source from random atoms and in random order; the target as it is.

    Args:
        source: Canonical input: molecules, or ``reactants>>product``.
        target: Canonical output.
        rng: Generator of the draws.
    """
    with rdBase.BlockLogs():  # RDKit warns of every bare proton.
        sides = [
            _join(_shuffled([_written(mol, rng=rng) for mol in _molecules(side)], rng))
            for side in source.split(ARROW)
        ]
    return SpelledPair(ARROW.join(sides), target)


def aligned_pair(
    task: Task,
    *,
    source: str,
    target: str,
    mapped_reaction: str | None,
    rng: np.random.Generator | None = None,
) -> SpelledPair:
    """A task row whose target is written from the atoms at which its source is written.

    Args:
        task: The task; reagents share no atoms with their input, so only their input changes.
        source: Canonical input.
        target: Canonical output.
        mapped_reaction: ``reactants>reagents>product`` with atom maps; None where there is none.
        rng: Spells the source from random atoms; it stays canonical if None.

    Returns:
        The pair; unaligned where the maps are missing or do not fit the molecules.
    """
    if task is Task.REAGENT or mapped_reaction is None:
        if rng is None:
            return SpelledPair(source, target)
        return randomized_pair(source, target=target, rng=rng)
    reactants, _, product = mapped_reaction.split(">")
    from_side, to_side = (reactants, product) if task is Task.FORWARD else (product, reactants)
    with rdBase.BlockLogs():
        pieces = _spelled(source, mapped=_mapped_molecules(from_side), rng=rng)
        targets = _take_all(target, mapped=_mapped_molecules(to_side))
    if pieces is None or targets is None:
        return SpelledPair(source, target)
    if rng is not None:
        pieces = _shuffled(pieces, rng)
    written = [_written_from(mol, pieces) for mol in targets]
    if not any(position < _NOWHERE for position, _ in written):
        return SpelledPair(source, target)
    ordered = [text for _, text in sorted(written)]
    return SpelledPair(_join(pieces), ".".join(ordered), is_aligned=True)


@dataclass(frozen=True)
class _Piece:
    """A molecule's text, and the atom maps of its atoms in the order of the text; 0 for none."""

    text: str
    maps: tuple[int, ...] = ()


def _join(pieces: Iterable[_Piece]) -> str:
    return ".".join(piece.text for piece in pieces)


def _shuffled(pieces: Sequence[_Piece], rng: np.random.Generator) -> list[_Piece]:
    return [pieces[place] for place in rng.permutation(len(pieces))]


def _molecules(text: str) -> list[Any]:
    return [Chem.MolFromSmiles(part) for part in text.split(".")]


def _mapped_molecules(side: str) -> dict[str, list[Any]]:
    """Molecules of one side by canonical text; maps are kept beside the atoms, out of the text."""
    found = defaultdict(list)
    for mol in _molecules(side):
        if mol is None:
            continue
        for atom in mol.GetAtoms():
            atom.SetIntProp("map", atom.GetAtomMapNum())
            atom.SetAtomMapNum(0)
        found[write_smiles(mol)].append(mol)
    return found


def _spelled(
    text: str, *, mapped: dict[str, list[Any]], rng: np.random.Generator | None
) -> list[_Piece] | None:
    """The molecules of a source, those with maps and those without."""
    pieces = []
    for part in text.split("."):
        mol = mapped[part].pop() if mapped.get(part) else Chem.MolFromSmiles(part)
        if mol is None:
            return None
        pieces.append(_written(mol, rng=rng))
    return pieces


def _take_all(text: str, *, mapped: dict[str, list[Any]]) -> list[Any] | None:
    """The mapped molecules of a target; None where one of them has no maps."""
    parts = text.split(".")
    taken = [mapped[part].pop() for part in parts if mapped.get(part)]
    return taken if len(taken) == len(parts) else None


def _written(mol: Any, *, rng: np.random.Generator | None = None, root: int = -1) -> _Piece:
    if rng is not None:
        root = int(rng.integers(mol.GetNumAtoms()))
    text = write_smiles(mol, root=root)
    order = mol.GetPropsAsDict(includePrivate=True, includeComputed=True)["_smilesAtomOutputOrder"]
    atoms = (mol.GetAtomWithIdx(int(place)) for place in order)
    maps = tuple(atom.GetIntProp("map") if atom.HasProp("map") else 0 for atom in atoms)
    return _Piece(text, maps)


def _written_from(mol: Any, pieces: Sequence[_Piece]) -> tuple[int, str]:
    """A target's text from the atom that comes first in the source, and where that atom is."""
    by_map = {atom.GetIntProp("map"): atom.GetIdx() for atom in mol.GetAtoms()}
    by_map.pop(0, None)
    # The molecule that gives the most atoms leads: its text is the one worth copying.
    shared = [sum(number in by_map for number in piece.maps) for piece in pieces]
    leader = int(np.argmax(shared))
    if not shared[leader]:
        return _NOWHERE, write_smiles(mol)
    before = sum(len(piece.maps) for piece in pieces[:leader])
    maps = pieces[leader].maps
    place = next(i for i, number in enumerate(maps) if number in by_map)
    return before + place, _written(mol, root=by_map[maps[place]]).text
