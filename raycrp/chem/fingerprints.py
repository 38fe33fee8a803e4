"""Fingerprints of reactions: what a reaction changes, as a vector."""

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator

from raycrp.chem.reactions import Reaction

FloatArray = npt.NDArray[np.float32]

NUM_BITS = 2_048
DIM = 256
_RADIUS = 2
_PROJECTION_SEED = 20_250_101
_CACHED_MOLECULES = 200_000


def difference_fingerprints(reactions: Sequence[Reaction]) -> FloatArray:
    """Counts of circular substructures, product minus reactants, projected and of unit length.

    The projection is random but fixed, so that a reaction's vector depends on the reaction alone.

    Args:
        reactions: Of canonical molecules.

    Returns:
        Shape ``(len(reactions), DIM)``, float32; zeros where nothing changes.

    Source: Difference fingerprints: Schneider et al., J. Chem. Inf. Model. 2015, 55, 39.
    """
    differences = np.zeros((len(reactions), NUM_BITS), dtype=np.float32)
    for place, reaction in enumerate(reactions):
        for molecule in reaction.product.split("."):
            differences[place] += _substructure_counts(molecule)
        for molecule in reaction.reactants.split("."):
            differences[place] -= _substructure_counts(molecule)
    vectors = differences @ _projection()
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)


@lru_cache(maxsize=_CACHED_MOLECULES)
def _substructure_counts(molecule: str) -> npt.NDArray[np.uint32]:
    counts: npt.NDArray[np.uint32] = _generator().GetCountFingerprintAsNumPy(
        Chem.MolFromSmiles(molecule)
    )
    return counts


@cache
def _generator() -> Any:
    return rdFingerprintGenerator.GetMorganGenerator(radius=_RADIUS, fpSize=NUM_BITS)


@cache
def _projection() -> FloatArray:
    generator = np.random.default_rng(_PROJECTION_SEED)
    matrix = generator.standard_normal((NUM_BITS, DIM), dtype=np.float32)
    return matrix / np.float32(np.sqrt(DIM))
