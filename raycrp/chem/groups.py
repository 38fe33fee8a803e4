"""Functional groups of a molecule, by name."""

from collections import Counter
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

from rdkit import Chem, rdBase

from raycrp.chem.corpus_blocks import read_package_yaml
from raycrp.chem.molecules import MoleculeError, MoleculeFault
from raycrp.errors import DataError

GROUPS_FILE = "groups.yaml"

_CACHED_MOLECULES = 16_384


@lru_cache(maxsize=_CACHED_MOLECULES)
def group_counts(molecule: str) -> Counter[str]:
    """How often each functional group of the package's list occurs; not to be changed.

    Args:
        molecule: SMILES.

    Raises:
        MoleculeError: If RDKit cannot read it.
    """
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(molecule)
    if mol is None:
        raise MoleculeError(MoleculeFault.UNPARSABLE, f"RDKit cannot read {molecule!r}")
    counts = {name: len(mol.GetSubstructMatches(group)) for name, group in _groups().items()}
    return Counter({name: number for name, number in counts.items() if number})


@cache
def _groups() -> Mapping[str, Any]:
    return {name: _parse(name, smarts) for name, smarts in read_package_yaml(GROUPS_FILE).items()}


def _parse(name: str, smarts: str) -> Any:
    group = Chem.MolFromSmarts(smarts)
    if group is None:
        raise DataError(f"group {name!r} of {GROUPS_FILE}: {smarts!r} is not SMARTS; correct it")
    return group
