from collections import Counter

import numpy as np
import pytest
from rdkit import Chem

from raycrp.chem.corpus import generate_corpus
from raycrp.chem.molecules import canonical_smiles
from raycrp.chem.spelling import aligned_pair, randomized_pair
from raycrp.choices import Task

# Acetyl chloride and 3-chloropropylamine give an amide.
MAPPED = "Cl[C:1]([CH3:2])=[O:3].[NH2:4][CH2:5][CH2:6][CH2:7][Cl:8]>CCN(CC)CC>"
MAPPED += "[CH3:2][C:1](=[O:3])[NH:4][CH2:5][CH2:6][CH2:7][Cl:8]"
SOURCE = "CC(=O)Cl.CCN(CC)CC.NCCCCl"
PRODUCT = "CC(=O)NCCCCl"


def canonical(text):
    return Counter(Chem.CanonSmiles(part) for part in text.split("."))


def test_product_starts_where_its_main_reactant_starts():
    pair = aligned_pair(Task.FORWARD, source=SOURCE, target=PRODUCT, mapped_reaction=MAPPED)
    assert pair.source == SOURCE
    # The amine gives more atoms than the acid chloride, and is written from its nitrogen.
    assert pair.target in {"N(C(C)=O)CCCCl", "N(CCCCl)C(C)=O"}
    assert pair.is_aligned


def test_reactants_start_at_the_first_of_their_atoms_in_the_product():
    pair = aligned_pair(
        Task.RETROSYNTHESIS, source=PRODUCT, target="CC(=O)Cl.NCCCCl", mapped_reaction=MAPPED
    )
    assert pair.source == PRODUCT
    assert pair.target == "CC(=O)Cl.NCCCCl"
    swapped = aligned_pair(
        Task.RETROSYNTHESIS,
        source=PRODUCT,
        target="CC(=O)Cl.NCCCCl",
        mapped_reaction=MAPPED,
        rng=np.random.default_rng(3),
    )
    first = swapped.target.split(".")[0]
    assert swapped.source.startswith(first[:1])
    assert canonical(swapped.target) == canonical("CC(=O)Cl.NCCCCl")


def test_reagents_and_unmapped_reactions_stay_as_they_are():
    pair = aligned_pair(
        Task.REAGENT, source=f"{SOURCE}>>{PRODUCT}", target="CCN(CC)CC", mapped_reaction=MAPPED
    )
    assert (pair.source, pair.target) == (f"{SOURCE}>>{PRODUCT}", "CCN(CC)CC")
    pair = aligned_pair(Task.FORWARD, source=SOURCE, target=PRODUCT, mapped_reaction=None)
    assert (pair.source, pair.target, pair.is_aligned) == (SOURCE, PRODUCT, False)


def test_spellings_of_dative_bonds_have_no_arrows():
    """RDKit reads the bonds of ammonia to platinum as dative ones."""
    complexed = canonical_smiles("Cl[Pt](Cl)([NH3])[NH3]")
    drawn = randomized_pair(complexed, target="", rng=np.random.default_rng(0)).source
    assert canonical_smiles(drawn) == complexed
    pair = aligned_pair(
        Task.FORWARD,
        source=canonical_smiles("Cl[Pt]Cl"),
        target=complexed,
        mapped_reaction="[Cl:1][Pt:2][Cl:3]>>[Cl:1][Pt:2]([Cl:3])([NH3])[NH3]",
    )
    assert pair.is_aligned
    assert canonical_smiles(pair.target) == complexed


def test_maps_of_another_molecule_leave_the_row_as_it_is():
    pair = aligned_pair(Task.FORWARD, source=SOURCE, target="CCO", mapped_reaction=MAPPED)
    assert (pair.target, pair.is_aligned) == ("CCO", False)


def test_randomized_sources_are_the_same_molecules():
    rng = np.random.default_rng(0)
    pairs = [
        randomized_pair(f"{SOURCE}>>{PRODUCT}", target="CCN(CC)CC", rng=rng) for _ in range(20)
    ]
    assert len({pair.source for pair in pairs}) > 10
    for pair in pairs:
        left, right = pair.source.split(">>")
        assert canonical(left) == canonical(SOURCE)
        assert canonical(right) == canonical(PRODUCT)
        assert pair.target == "CCN(CC)CC"


@pytest.mark.parametrize("task", [Task.FORWARD, Task.RETROSYNTHESIS])
@pytest.mark.parametrize("seed", [None, 1])
def test_generated_reactions_keep_their_molecules_and_share_longer_text(task, seed):
    shared_before, shared_after = 0, 0
    for reaction in generate_corpus(60, seed=4):
        precursors = f"{reaction.reactants}.{reaction.reagents}".strip(".")
        texts = {
            Task.FORWARD: (".".join(sorted(precursors.split("."))), reaction.product),
            Task.RETROSYNTHESIS: (reaction.product, reaction.reactants),
        }
        source, target = texts[task]
        rng = None if seed is None else np.random.default_rng(seed)
        pair = aligned_pair(
            task, source=source, target=target, mapped_reaction=reaction.mapped_reaction, rng=rng
        )
        assert pair.is_aligned
        assert canonical(pair.source) == canonical(source)
        assert canonical(pair.target) == canonical(target)
        if seed is None:
            assert pair.source == source
        shared_before += longest_shared(source, target)
        shared_after += longest_shared(pair.source, pair.target)
    assert shared_after > shared_before


def longest_shared(first, second):
    sizes = range(len(second), 0, -1)
    return next(
        n
        for n in sizes
        for start in range(len(second) - n + 1)
        if second[start : start + n] in first
    )


def test_rdkit_says_nothing_about_bare_protons(capfd):
    randomized_pair("CC(=O)[O-].[H+]", target="CC(=O)O", rng=np.random.default_rng(0))
    mapped = "[CH3:1][C:2](=[O:3])[O-:4].[H+]>>[CH3:1][C:2](=[O:3])[OH:4]"
    aligned_pair(Task.FORWARD, source="CC(=O)[O-].[H+]", target="CC(=O)O", mapped_reaction=mapped)
    assert "not removing hydrogen" not in capfd.readouterr().err
