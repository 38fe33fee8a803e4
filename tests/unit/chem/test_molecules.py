import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem

from raycrp.chem.molecules import (
    MoleculeError,
    MoleculeFault,
    atom_maps,
    canonical_molecule,
    canonical_smiles,
    canonicalise_all,
    looks_like,
    molecule_counter,
    selfies_to_smiles,
    split_molecules,
    without_stereo,
)
from raycrp.choices import Notation

# What selfies.encoder writes for these SMILES.
ETHANOL, BENZENE = "[C][C][O]", "[C][=C][C][=C][C][=C][Ring1][=Branch1]"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("OCC", "CCO"),
        ("C1=CC=CC=C1", "c1ccccc1"),
        ("[CH3:1][CH2:2][OH:7]", "CCO"),
        ("O.CC.[Na+].[Cl-]", "CC.O.[Cl-].[Na+]"),
        ("C.C", "C.C"),
        (r"F\C=C\F", "F/C=C/F"),
        ("C%11CCCC%11", "C1CCCC1"),
        ("[13CH4]", "[13CH4]"),
        ("N[C@@H](C)C(=O)O", "C[C@H](N)C(=O)O"),
        # Harmless damage: blanks and line ends outside, zero-width characters, dashes.
        (" CCO\n", "CCO"),
        ("\ufeffCC\u200bO\u00a0", "CCO"),
        ("[OH\u2212].[Na+]", "[Na+].[OH-]"),
        ("C\u2013C", "CC"),
    ],
)
def test_canonical_smiles_of_smiles(text, expected):
    assert canonical_smiles(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", MoleculeFault.EMPTY),
        ("  ", MoleculeFault.EMPTY),
        ("nan", MoleculeFault.UNPARSABLE),
        ("C1CC", MoleculeFault.UNPARSABLE),
        ("C(C)(C)(C)(C)C", MoleculeFault.UNPARSABLE),
        ("c1cccc1", MoleculeFault.UNPARSABLE),
        ("C..C", MoleculeFault.UNPARSABLE),
        ("CCO.", MoleculeFault.UNPARSABLE),
        ("CC>>CC", MoleculeFault.UNPARSABLE),
        ("CC\U0001f9ea", MoleculeFault.UNPARSABLE),
        ("not a molecule", MoleculeFault.UNPARSABLE),
        ("CCO\nO", MoleculeFault.WHITESPACE),
        ("CC\tO", MoleculeFault.WHITESPACE),
        ("CCO US20160152597A1", MoleculeFault.TRAILING_TEXT),
        ("CCO\x00", MoleculeFault.CONTROL_CHARACTER),
        ("CC\u00a0O", MoleculeFault.INVISIBLE_CHARACTER),
        ("C" * 2_001, MoleculeFault.TOO_LONG),
    ],
)
def test_smiles_that_rdkit_must_not_see_as_something_else(text, reason):
    with pytest.raises(MoleculeError) as caught:
        canonical_smiles(text)
    assert caught.value.reason is reason


def test_dative_bonds_are_written_without_arrows():
    """RDKit reads these bonds as dative ones, and would write N#[C+]->[Na]."""
    assert canonical_smiles("N#[C+][Na]") == "N#[C+][Na]"
    assert canonical_smiles("[CH3:1][Li-2][CH3+:2]") == canonical_smiles("[CH3+][Li-2]C")


def test_what_rdkit_writes_and_cannot_read_is_no_molecule():
    with pytest.raises(MoleculeError, match="cannot read how it writes") as caught:
        canonical_smiles("CCOC1=C(OCC)C(=C=O)s(O)C=C1")
    assert caught.value.reason is MoleculeFault.UNPARSABLE


@pytest.mark.parametrize(
    ("smiles", "expected"),
    [("C[C@H](N)C(=O)O", "CC(N)C(=O)O"), (r"C/C=C\C", "CC=CC"), ("CC(C)[C@H](F)O", "CC(C)C(O)F")],
)
def test_stereochemistry_is_taken_off(smiles, expected):
    assert without_stereo(smiles) == expected


def test_the_limit_counts_canonical_smiles_not_the_text_found():
    assert canonical_smiles("[CH3:1][CH3:2]", max_chars=10) == "CC"
    with pytest.raises(MoleculeError, match="11 characters of SMILES, at most 10"):
        canonical_smiles("C" * 11, max_chars=10)


@pytest.mark.parametrize(("text", "expected"), [(ETHANOL, "CCO"), (BENZENE, "C1=CC=CC=C1")])
def test_selfies_to_smiles(text, expected):
    assert selfies_to_smiles(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("CCO", MoleculeFault.UNPARSABLE),
        ("[C][Foo]", MoleculeFault.UNPARSABLE),
        ("[C][C", MoleculeFault.UNPARSABLE),
        ("C][C]", MoleculeFault.UNPARSABLE),
        ("[C] C [O]", MoleculeFault.UNPARSABLE),
        ("[C][C] name", MoleculeFault.TRAILING_TEXT),
        # The decoder answers these without complaint, leaving out what has no place.
        ("[C][F][C]", MoleculeFault.SELFIES_LOSS),
        ("[C][=O][=C]", MoleculeFault.SELFIES_LOSS),
        ("[C][C][Branch1]", MoleculeFault.SELFIES_LOSS),
        ("[nop]", MoleculeFault.SELFIES_LOSS),
    ],
)
def test_selfies_that_say_something_else_than_they_stand_for(text, reason):
    with pytest.raises(MoleculeError) as caught:
        canonical_smiles(text, notation=Notation.SELFIES)
    assert caught.value.reason is reason


def test_notation_is_declared_and_not_guessed():
    assert canonical_smiles(ETHANOL, notation=Notation.SELFIES) == "CCO"
    assert canonical_smiles(ETHANOL, notation=Notation.SMILES) == "[C][C][O]"


MOLECULES = [
    "CC(=O)Oc1ccccc1C(=O)O",
    "C[C@@H](N)C(=O)O",
    r"C/C=C\C",
    "[O-][N+](=O)c1ccc(F)cc1",
    "OB(O)c1cccnc1",
]


@given(st.sampled_from(MOLECULES), st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_another_spelling_of_a_molecule_has_the_same_canonical_form(smiles, seed):
    molecule = Chem.MolFromSmiles(smiles)
    spelled = Chem.MolToRandomSmilesVect(molecule, 1, randomSeed=seed)[0]
    assert canonical_molecule(spelled) == canonical_molecule(smiles)


@given(st.permutations(MOLECULES))
@settings(max_examples=10, deadline=None)
def test_order_of_molecules_does_not_matter(molecules):
    assert canonical_smiles(".".join(molecules)) == canonical_smiles(".".join(MOLECULES))


def test_canonicalise_all_keeps_the_fault_in_its_place():
    results = canonicalise_all(["OC", "?", "N"], notation=Notation.SMILES, max_chars=100)
    assert results[0] == "CO"
    assert results[1][0] is MoleculeFault.UNPARSABLE
    assert results[2] == "N"


def test_molecules_are_counted_with_repeats():
    assert molecule_counter("C.C.O") == {"C": 2, "O": 1}
    assert molecule_counter("") == {}


def test_atom_maps_are_numbers_after_a_colon_in_brackets():
    assert atom_maps("[CH3:1][NH:12]C:[c:0]") == {1, 12}


def test_split_molecules_tidies_but_does_not_read():
    assert split_molecules(" OC.xyz ", notation=Notation.SMILES) == ["OC", "xyz"]


@pytest.mark.parametrize(
    ("text", "notation"),
    [
        (f"{ETHANOL}.{BENZENE}>>{ETHANOL}", Notation.SELFIES),
        ("CCO.[Na+]", Notation.SMILES),
        ("a name, a price", None),
    ],
)
def test_looks_like(text, notation):
    assert looks_like(text) is notation


def test_the_error_survives_pickling():
    error = pickle.loads(pickle.dumps(MoleculeError(MoleculeFault.WHITESPACE, "a tab")))
    assert (error.reason, error.detail) == (MoleculeFault.WHITESPACE, "a tab")
    assert str(error) == "whitespace: a tab"
