import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator

from raycrp.chem.fingerprints import DIM, difference_fingerprints
from raycrp.chem.reactions import Reaction

ESTERS = [
    Reaction("CC(=O)O.CCO", "", "CCOC(C)=O"),
    Reaction("CC(=O)O.CCCO", "", "CCCOC(C)=O"),
]
AMINATION = Reaction("CCBr.N", "", "CCN")


def counts(smiles):
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    return generator.GetCountFingerprintAsNumPy(Chem.MolFromSmiles(smiles)).astype(float)


def test_angles_are_those_of_the_count_differences():
    reactions = [*ESTERS, AMINATION]
    differences = np.array(
        [
            counts(reaction.product) - sum(map(counts, reaction.reactants.split(".")))
            for reaction in reactions
        ]
    )
    lengths = np.linalg.norm(differences, axis=1)
    expected = differences @ differences.T / np.outer(lengths, lengths)
    vectors = difference_fingerprints(reactions)
    assert vectors.shape == (3, DIM)
    # A random projection to 256 columns keeps cosines within about 1/16.
    assert vectors @ vectors.T == pytest.approx(expected, abs=0.2)


def test_alike_reactions_are_closer_than_others():
    first, second, other = difference_fingerprints([*ESTERS, AMINATION])
    assert first @ second > first @ other + 0.3


def test_a_vector_depends_on_its_reaction_alone():
    together = difference_fingerprints([*ESTERS, AMINATION])
    alone = difference_fingerprints([AMINATION])
    assert alone[0] == pytest.approx(together[2], abs=1e-6)


def test_reagents_do_not_count_and_no_change_is_zero():
    with_reagent = Reaction("CCBr.N", "CCO", "CCN")
    vectors = difference_fingerprints([with_reagent, AMINATION, Reaction("CCO", "", "CCO")])
    assert (vectors[0] == vectors[1]).all()
    assert (vectors[2] == 0).all()
