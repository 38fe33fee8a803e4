"""The generated corpus as a whole."""

import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from functools import cache
from random import Random

import pytest
from rdkit import Chem, rdBase

from raycrp.chem.corpus import (
    REACTION_CLASSES,
    CorpusReaction,
    generate_corpus,
)
from raycrp.chem.corpus_blocks import load_block_library
from raycrp.errors import DataError


@pytest.fixture(scope="module")
def corpus() -> list[CorpusReaction]:
    return list(generate_corpus(3000, seed=7))


def test_every_functional_group_gives_blocks():
    library = load_block_library()
    rng = Random(3)
    for group in library.groups:
        block = library.draw(group, rng=rng)
        assert block.groups[0] == group
        assert Chem.CanonSmiles(block.smiles) == block.smiles


def test_reactions_are_distinct_canonical_and_of_the_right_size(corpus: list[CorpusReaction]):
    keys = {(reaction.reactants, reaction.reagents, reaction.product) for reaction in corpus}
    assert len(keys) == len(corpus) == 3000
    for reaction in corpus[:1000]:
        for smiles in (reaction.reactants, reaction.reagents, reaction.product):
            assert canonical(smiles) == smiles
        assert reaction.product not in reaction.reactants.split(".")
        assert 5 <= Chem.MolFromSmiles(reaction.product).GetNumHeavyAtoms() <= 30


def test_the_same_reactants_and_reagents_have_one_product(corpus: list[CorpusReaction]):
    inputs = Counter((reaction.reactants, reaction.reagents) for reaction in corpus)
    assert max(inputs.values()) == 1


def test_maps_lead_every_product_atom_to_one_reactant_atom(corpus: list[CorpusReaction]):
    for reaction in corpus[:1000]:
        reactants, reagents, product = reaction.mapped_reaction.split(">")
        assert reagents == reaction.reagents
        assert unmapped(reactants) == reaction.reactants
        assert unmapped(product) == reaction.product
        sources = mapped_atoms(reactants)
        targets = mapped_atoms(product)
        assert len(targets) == Chem.MolFromSmiles(product).GetNumAtoms()
        assert sources == targets, reaction


def test_reagents_decide_the_outcome_of_a_tenth(corpus: list[CorpusReaction]):
    products = defaultdict(set)
    for reaction in corpus:
        products[reaction.reactants].add(reaction.product)
    num_decided = sum(len(products[reaction.reactants]) > 1 for reaction in corpus)
    assert num_decided >= 0.10 * len(corpus)


def test_class_shares_are_uneven_as_in_patents(corpus: list[CorpusReaction]):
    counts = Counter(reaction.reaction_class for reaction in corpus)
    shares = {name: counts[name] / len(corpus) for name in REACTION_CLASSES}
    assert 0.24 < shares["heteroatom alkylation and arylation"] < 0.32
    assert 0.18 < shares["acylation"] < 0.25
    assert 0.13 < shares["deprotection"] < 0.20
    assert all(0 < shares[name] < 0.06 for name in ("oxidation", "functional-group addition"))


def test_stereo_charges_and_salts_are_present(corpus: list[CorpusReaction]):
    text = "\n".join(f"{r.reactants}>{r.reagents}>{r.product}" for r in corpus)
    for sign in ("@@", "/C=C/", "\\", "[N+](=O)[O-]", "[Na+]", "Cl.", "[n+]", "F[B-](F)(F)"):
        assert sign in text


def test_a_smaller_corpus_is_the_beginning_of_a_larger_one(corpus: list[CorpusReaction]):
    assert list(generate_corpus(200, seed=7)) == corpus[:200]
    assert list(generate_corpus(20, seed=8)) != corpus[:20]
    assert list(generate_corpus(0, seed=7)) == []


def test_the_corpus_does_not_depend_on_hash_order(corpus: list[CorpusReaction]):
    script = (
        "from raycrp.chem.corpus import generate_corpus\n"
        "for r in generate_corpus(60, seed=7): print(r.mapped_reaction)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [reaction.mapped_reaction for reaction in corpus[:60]]


def test_an_exhausted_corpus_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("raycrp.chem.corpus.MAX_ATTEMPTS_PER_TEMPLATE", 0)
    with pytest.raises(DataError, match=r"exhausted .* add building blocks"):
        next(generate_corpus(1, seed=0))


def test_a_negative_number_of_reactions_is_refused():
    with pytest.raises(ValueError, match="at least 0, but is -1"):
        next(generate_corpus(-1, seed=0))


@cache
def canonical(smiles: str) -> str:
    with rdBase.BlockLogs():
        return Chem.CanonSmiles(smiles)


def unmapped(smiles: str) -> str:
    return canonical(re.sub(r":\d+\]", "]", smiles))


def mapped_atoms(smiles: str) -> dict[int, str]:
    """Element by map number; every number once."""
    atoms = [atom for atom in Chem.MolFromSmiles(smiles).GetAtoms() if atom.GetAtomMapNum()]
    found = {atom.GetAtomMapNum(): atom.GetSymbol() for atom in atoms}
    assert len(found) == len(atoms)
    return found
