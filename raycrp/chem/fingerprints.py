"""Fingerprints of reactions: what a reaction changes, as a vector."""

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator

from raycrp.arrays import FloatArray
from raycrp.chem.reactions import Reaction

NUM_BITS = 2_048
DIM = 256
_RADIUS = 2
_PROJECTION_SEED = 20_250_101
# Half a kilobyte each.
_CACHED_MOLECULES = 65_536


def difference_fingerprints(reactions: Sequence[Reaction]) -> FloatArray:
    """Counts of circular substructures, product minus reactants, projected and of unit length.

    The projection is random but fixed, so that a reaction's vector depends on the reaction alone.

    Args:
        reactions: Of canonical molecules.

    Returns:
        Shape ``(len(reactions), DIM)``, float32; zeros where nothing changes.

    Source: Difference fingerprints: Schneider et al., J. Chem. Inf. Model. 2015, 55, 39.
    """
    vectors = np.zeros((len(reactions), DIM), dtype=np.float32)
    for vector, reaction in zip(vectors, reactions, strict=True):
        difference = _count_difference(reaction)
        changed = np.flatnonzero(difference)
        if len(changed):
            projected = difference[changed].astype(np.float32) @ _projection()[changed]
            vector[:] = projected / np.linalg.norm(projected)
    return vectors


def _count_difference(reaction: Reaction) -> npt.NDArray[np.int64]:
    difference = np.zeros(NUM_BITS, dtype=np.int64)
    for sign, side in ((1, reaction.product), (-1, reaction.reactants)):
        for molecule in side.split("."):
            bits, counts = _substructure_counts(molecule)
            difference[bits] += sign * counts.astype(np.int64)
    return difference


@lru_cache(maxsize=_CACHED_MOLECULES)
def _substructure_counts(
    molecule: str,
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]:
    """Bits that are set, and how often."""
    counts = _generator().GetCountFingerprintAsNumPy(Chem.MolFromSmiles(molecule))
    bits = np.flatnonzero(counts)
    return bits.astype(np.uint16), counts[bits].astype(np.uint16)


@cache
def _generator() -> Any:
    return rdFingerprintGenerator.GetMorganGenerator(radius=_RADIUS, fpSize=NUM_BITS)


@cache
def _projection() -> FloatArray:
    generator = np.random.default_rng(_PROJECTION_SEED)
    matrix = generator.standard_normal((NUM_BITS, DIM), dtype=np.float32)
    return matrix / np.float32(np.sqrt(DIM))
