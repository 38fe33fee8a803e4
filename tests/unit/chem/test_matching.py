import numpy as np
import pytest
from rdkit import Chem

from raycrp.chem.graphs import join_graphs, molecule_graphs, read_graph
from raycrp.chem.matching import chemical_distance, contributing_precursors, match_reaction
from raycrp.chem.molecules import MoleculeError


def contributors(precursors, product):
    taken = contributing_precursors(molecule_graphs(precursors), products=molecule_graphs(product))
    return sorted(graph.smiles for graph in taken)


def test_reagents_and_solvents_are_left_out():
    mixed = "CCN(CC)CC.CC(=O)Cl.ClCCl.NCc1ccccc1.[K+].[Na+].[OH-]"
    assert contributors(mixed, "CC(=O)NCc1ccccc1") == ["CC(=O)Cl", "NCc1ccccc1"]


def test_a_precursor_used_twice_is_taken_as_often_as_it_is_given():
    assert contributors("CC(=O)Cl.CC(=O)Cl.NCCO", "CC(=O)NCCOC(C)=O") == [
        "CC(=O)Cl",
        "CC(=O)Cl",
        "NCCO",
    ]


def test_no_precursor_is_taken_that_shares_no_element():
    assert contributors("[Na+].[Cl-]", "CCO") == []
    assert match_reaction("[Na+].[Cl-]", product="CCO") is None
    assert match_reaction("", product="CCO") is None


def test_the_leaving_group_is_the_halogen_and_the_boronic_acid():
    match = match_reaction("Brc1ccncc1.OB(O)c1ccccc1", product="c1ccc(-c2ccncc2)cc1")
    leaving = match.before.elements[~match.is_kept]
    # Boron with its two oxygens, and bromine.
    assert sorted(leaving.tolist()) == [5, 8, 8, 35]
    assert match.is_known.all()


def test_atoms_without_a_source_are_unknown():
    match = match_reaction("CCN", product="CCNC(C)=O")
    unknown = match.after.elements[~match.is_known]
    # The acetyl group comes from nowhere.
    assert sorted(unknown.tolist()) == [6, 6, 8]


@pytest.mark.parametrize(
    ("reactants", "product", "distance"),
    [
        ("CCO", "CCO", 0),
        # The order of one bond changes.
        ("OCc1ccccc1", "O=Cc1ccccc1", 0.5),
        # One bond made, one broken.
        ("Oc1ccccc1.CCBr", "CCOc1ccccc1", 2),
        # The bond that breaks is on an acyl group, and counts less.
        ("CC(=O)O.NCc1ccccc1", "CC(=O)NCc1ccccc1", 1.9),
    ],
)
def test_distance_counts_bonds_made_and_broken(reactants, product, distance):
    assert chemical_distance(match_reaction(reactants, product=product)) == distance


def test_a_match_pairs_atoms_of_the_same_element_once():
    match = match_reaction("CC(=O)O.NCc1ccccc1", product="CC(=O)NCc1ccccc1")
    sources = match.sources[match.is_known]
    assert len(set(sources.tolist())) == len(sources) == match.after.num_atoms
    assert (match.before.elements[sources] == match.after.elements[match.is_known]).all()


def test_a_graph_holds_the_atoms_and_bonds_of_its_molecules():
    graph = join_graphs(molecule_graphs("CC=O.c1ccccc1"))
    assert sorted(graph.elements.tolist()) == [6] * 8 + [8]
    assert graph.hydrogens.sum() == 4 + 6
    # One single, one double and six aromatic bonds, each on both sides of the matrix.
    assert graph.orders.sum() == 2 * (1 + 2 + 6 * 1.5)
    assert graph.is_acyl.sum() == 1


def test_dative_bonds_are_on_both_sides():
    orders = read_graph("[NH3]->[Cu+2]").atoms.orders
    assert np.array_equal(orders, [[0, 1], [1, 0]])


def test_alike_atoms_share_their_environments_in_any_spelling():
    smiles = "O=C(NCc1ccccc1)[C@@H](F)c1ccncc1"
    expected = np.sort(read_graph(smiles).atoms.environments, axis=1)
    mol = Chem.MolFromSmiles(smiles)
    for seed in range(5):
        other = Chem.MolToRandomSmilesVect(mol, 1, randomSeed=seed + 1)[0]
        assert np.array_equal(np.sort(read_graph(other).atoms.environments, axis=1), expected)
    # Ring symmetry of the phenyl group: two pairs of carbons look the same at radius 4.
    assert len(set(expected[4].tolist())) == len(expected[4]) - 2 - 2


def test_text_that_is_no_molecule_is_named():
    with pytest.raises(MoleculeError, match="C1CC"):
        match_reaction("C1CC", product="CCO")


def test_rdkit_says_nothing_about_bare_protons(capfd):
    match_reaction("CC(=O)[O-].[H+]", product="CC(=O)O")
    assert "not removing hydrogen" not in capfd.readouterr().err
