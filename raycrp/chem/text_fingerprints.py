"""Fingerprints of the texts that tasks read and write: plain views for probes."""

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator

from raycrp.arrays import FloatArray
from raycrp.chem.reactions import ARROW

NUM_BITS = 512
DIM = 2 * NUM_BITS + 1
_RADIUS = 2
_CACHED_MOLECULES = 100_000


def text_fingerprints(texts: Sequence[str]) -> FloatArray:
    """Counts of circular substructures in the molecules of each text.

    Args:
        texts: Canonical molecules joined by dots, or two such sides with ``>>`` between them.

    Returns:
        Shape ``(len(texts), DIM)``, float32: logarithms of the counts over all molecules; the same
        of the right side minus the left, zeros where there is one side alone; and the number of
        molecules. Texts that are no molecules count nothing.
    """
    described = [_describe(text) for text in texts]
    return np.array(described, dtype=np.float32).reshape(len(texts), DIM)


def _describe(text: str) -> FloatArray:
    sides = text.split(ARROW)
    counts = [_count_side(side) for side in sides]
    change = counts[1] - counts[0] if len(counts) == 2 else np.zeros(NUM_BITS, np.float32)
    total = np.sum(counts, axis=0)
    num_molecules = sum(bool(part) for side in sides for part in side.split("."))
    parts = [np.log1p(total), np.sign(change) * np.log1p(np.abs(change)), [num_molecules]]
    return np.concatenate(parts).astype(np.float32)


def _count_side(side: str) -> FloatArray:
    molecules = [part for part in side.split(".") if part]
    if not molecules:
        return np.zeros(NUM_BITS, np.float32)
    counts: FloatArray = np.sum([_count_molecule(each) for each in molecules], axis=0)
    return counts


@lru_cache(maxsize=_CACHED_MOLECULES)
def _count_molecule(smiles: str) -> FloatArray:
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        return np.zeros(NUM_BITS, np.float32)
    counts: FloatArray = _generator().GetCountFingerprintAsNumPy(molecule).astype(np.float32)
    return counts


@cache
def _generator() -> Any:
    return rdFingerprintGenerator.GetMorganGenerator(radius=_RADIUS, fpSize=NUM_BITS)
