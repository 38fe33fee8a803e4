from xml.etree import ElementTree

import pytest

from raycrp.report.drawings import draw_molecules


def only_text(svg):
    return "".join(node.text or "" for node in ElementTree.fromstring(svg).iter())


@pytest.mark.parametrize(
    ("smiles", "formula"),
    [
        ("[H-]", "H⁻"),
        ("[Na+]", "Na⁺"),
        ("[Pd+2]", "Pd²⁺"),
        ("O", "H₂O"),
        ("[OH-]", "HO⁻"),
        ("Cl", "HCl"),
        ("N", "NH₃"),
        ("[BH4-]", "BH₄⁻"),
        ("[13CH4]", "¹³CH₄"),
        ("[H][H]", "H₂"),
    ],
)
def test_small_molecules_are_formulas(smiles, formula):
    (svg,) = draw_molecules(smiles)
    assert only_text(svg) == formula


def test_each_molecule_is_a_picture_of_its_own():
    drawings = draw_molecules("CC(=O)Oc1ccccc1C(=O)O.[Na+].CCO")
    assert len(drawings) == 3
    for svg in drawings:
        root = ElementTree.fromstring(svg)
        assert 0 < float(root.get("width").removesuffix("px")) < 400
        assert root.get("role") == "img"
    assert 'aria-label="CCO"' in drawings[2]


def test_charges_show():
    (svg,) = draw_molecules("CC(=O)[O-]")
    assert "\N{MINUS SIGN}" in only_text(svg)


def test_pictures_are_small():
    (svg,) = draw_molecules("CC(C)(C)OC(=O)N1CCC(CC1)C(=O)Nc1ccc(cc1)S(=O)(=O)N")
    assert len(svg) < 8_000


@pytest.mark.parametrize("text", ["", "C1CC", "not a molecule", "." * 3, "C" * 200, "C" * 60])
def test_what_is_no_molecule_or_too_large_has_no_picture(text):
    assert draw_molecules(text) == ()


def test_the_same_molecule_is_drawn_the_same():
    assert draw_molecules("CC(N)c1ccccc1") == draw_molecules("CC(N)c1ccccc1")


def test_molecules_closed_across_a_dot_are_drawn_as_they_are():
    (svg,) = draw_molecules("C1CC.C1")
    assert 'aria-label="CCCC"' in svg
