import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from rdkit import Chem
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_mutual_info_score

from raycrp.chem.changes import (
    BLOCKS,
    CHANGE_FEATURES,
    NUM_FEATURES,
    Change,
    ChangeKind,
    change_vector,
    change_vectors,
    reaction_changes,
)
from raycrp.chem.corpus_blocks import read_package_yaml
from raycrp.chem.groups import GROUPS_FILE, group_counts
from raycrp.chem.reactions import Reaction

REAL_DATA = os.environ.get("RAYCRP_REAL_DATA")
needs_real_data = pytest.mark.skipif(REAL_DATA is None, reason="RAYCRP_REAL_DATA is not set")

AMIDE = ("CC(=O)O.NCc1ccccc1", "CC(=O)NCc1ccccc1")
SUZUKI = ("Brc1ccncc1.OB(O)c1ccccc1", "c1ccc(-c2ccncc2)cc1")
BOC_OFF = ("CC(C)(C)OC(=O)N1CCOCC1", "C1COCCN1")
HYDROLYSIS = ("CCOC(=O)c1ccccc1", "O=C(O)c1ccccc1")
NITRO = ("O=[N+]([O-])c1ccccc1", "Nc1ccccc1")
SNAR = ("C1COCCN1.O=[N+]([O-])c1ccc(F)cc1", "O=[N+]([O-])c1ccc(N2CCOCC2)cc1")
OXIDATION = ("OCc1ccccc1", "O=Cc1ccccc1")
AMINATION = ("CCN.O=Cc1ccccc1", "CCNCc1ccccc1")
EPOXIDE = ("C1CO1.CN", "CNCCO")
LACTAM = ("COC(=O)CCCN", "O=C1CCCN1")
HYDROGENATION = ("C=CC", "CCC")
ALL = (
    AMIDE,
    SUZUKI,
    BOC_OFF,
    HYDROLYSIS,
    NITRO,
    SNAR,
    OXIDATION,
    AMINATION,
    EPOXIDE,
    LACTAM,
    HYDROGENATION,
)


def named(reaction):
    reactants, product = reaction
    return {change.text for change in reaction_changes(reactants, product=product).named()}


def features(reaction):
    reactants, product = reaction
    vector = change_vector(reactants, product=product)
    return {CHANGE_FEATURES[place]: int(np.sign(vector[place])) for place in np.flatnonzero(vector)}


@pytest.mark.parametrize(
    ("reaction", "expected"),
    [
        (
            AMIDE,
            "C-N made, C-O broken, N-H lost, amide gained, carboxylic acid lost, "
            "primary amine lost",
        ),
        (
            SUZUKI,
            "C-C made, C-B broken, C-Br broken, biaryl bond gained, aryl bromide lost, "
            "boronic acid or ester lost, halide lost",
        ),
        (
            BOC_OFF,
            "C-N broken, N-H gained, Boc group lost, carbamate lost, secondary amine gained",
        ),
        (HYDROLYSIS, "C-O broken, O-H gained, ester lost, carboxylic acid gained"),
        (NITRO, "N-O broken, N=O broken, N-H gained, nitro lost, primary amine gained"),
        (
            SNAR,
            "C-F broken, C-N made, N-H lost, aryl fluoride lost, secondary amine lost, "
            "tertiary amine gained",
        ),
        (OXIDATION, "C-O to C=O, C-H lost, O-H lost, alcohol lost, aldehyde gained"),
        (
            AMINATION,
            "C-N made, C=O broken, C-H gained, N-H lost, aldehyde lost, primary amine lost, "
            "secondary amine gained",
        ),
        (
            EPOXIDE,
            "C-N made, C-O broken, N-H lost, O-H gained, ring opened, epoxide lost, "
            "alcohol gained, primary amine lost, secondary amine gained",
        ),
        (
            LACTAM,
            "C-N made, C-O broken, N-H lost, ring made, ester lost, amide gained, "
            "primary amine lost",
        ),
        (HYDROGENATION, "C=C to C-C, C-H gained, alkene lost"),
    ],
)
def test_named_changes_are_those_a_chemist_sees(reaction, expected):
    assert named(reaction) == set(expected.split(", "))


@pytest.mark.parametrize(
    ("reaction", "expected"),
    [
        (
            AMIDE,
            {
                "acyl-hetero made": 1,
                "hydrogen lost on hetero": 1,
                "atoms": -1,
                "hydrogens": -1,
                "molecules": -1,
            },
        ),
        (
            SUZUKI,
            {"carbon-carbon made": 1, "atoms": -1, "hydrogens": -1, "molecules": -1},
        ),
        (BOC_OFF, {"hydrogen gained on hetero": 1, "atoms": -1, "hydrogens": -1}),
        (NITRO, {"hydrogen gained on hetero": 1, "atoms": -1, "hydrogens": 1}),
        (
            OXIDATION,
            {"hydrogen lost on carbon": 1, "hydrogen lost on hetero": 1, "hydrogens": -1},
        ),
        (
            ("CCN", "CCNC(C)=O"),
            {
                "acyl-carbon made with atoms of unknown source": 1,
                "acyl-hetero made with atoms of unknown source": 1,
                "hydrogen lost on hetero": 1,
                "atoms": 1,
                "hydrogens": 1,
            },
        ),
    ],
)
def test_the_vector_holds_the_signs_of_the_changes(reaction, expected):
    assert features(reaction) == expected


def test_each_block_has_its_weight_as_length():
    vector = change_vector(AMIDE[0], product=AMIDE[1])
    assert vector.shape == (NUM_FEATURES,) == (43,)
    assert vector.dtype == np.float32
    assert len(set(CHANGE_FEATURES)) == NUM_FEATURES
    ends = np.cumsum([len(names) for names, _ in BLOCKS.values()])[:-1]
    lengths = [float(np.linalg.norm(block)) for block in np.split(vector, ends)]
    assert lengths == pytest.approx([1, 0.5, 0.5])


def test_counts_of_a_double_acylation():
    change = reaction_changes("CC(=O)Cl.CC(=O)Cl.NCCO", product="CC(=O)NCCOC(C)=O")
    assert change.bonds_made == {"C-N": 1, "C-O": 1}
    assert change.bonds_broken == {"C-Cl": 2}
    assert change.hydrogens_lost == {"N": 1, "O": 1}
    assert change.hydrogens_gained == {}
    assert change.groups_lost == {"acyl halide": 2, "alcohol": 1, "primary amine": 1}
    assert change.groups_gained == {"amide": 1, "ester": 1}


def test_aromatic_rings_closed_are_counted():
    change = reaction_changes("NN.CC(=O)CC(C)=O", product="Cc1cc(C)[nH]n1")
    assert (change.rings_made, change.rings_opened) == (1, 0)
    assert change.bonds_made == {"C:N": 2}
    assert change.groups_lost["ketone"] == 2


@pytest.mark.parametrize(
    ("reactants", "product"),
    [
        ("CCO", "CCO"),
        ("CCO.CCN", "CCO"),
        ("[Na+].[Cl-]", "CCO"),
        ("", "CCO"),
    ],
)
def test_nothing_changes_where_nothing_happens_or_nothing_contributes(reactants, product):
    assert not change_vector(reactants, product=product).any()
    assert not reaction_changes(reactants, product=product).named()


@pytest.mark.parametrize(
    ("reactants", "product"),
    [
        ("CC(=O)[O-].[Na+].CI", "CC(=O)OC"),
        ("[H][H].C=C", "CC"),
        ("CCOC(C)=O.[OH-]", "CC(=O)[O-].CCO"),
        ("[2H]C(Cl)(Cl)Cl", "[2H]C(Cl)Cl"),
        ("*CC(=O)O", "*CCO"),
        ("FS(F)(F)(F)(F)c1ccccc1Br", "FS(F)(F)(F)(F)c1ccccc1"),
        ("[NH3]->[Cu+2].CCO", "[O-2]->[Cu+2]"),
        ("[Pd]", "[Pd+2]"),
    ],
)
def test_odd_molecules_give_finite_vectors(reactants, product):
    vector = change_vector(reactants, product=product)
    assert np.isfinite(vector).all()
    assert np.linalg.norm(vector) <= np.sqrt(1.5) + 1e-6
    reaction_changes(reactants, product=product).named()


def respelled(text, rng):
    parts = []
    for part in text.split("."):
        seed = int(rng.integers(1, 2**31 - 1))
        mol = Chem.MolFromSmiles(part)
        parts.append(Chem.MolToRandomSmilesVect(mol, 1, randomSeed=seed)[0])
    return ".".join(parts[place] for place in rng.permutation(len(parts)))


TIES = (
    ("C1CCOC1.CCCCN(CCCC)c1ccc(C=O)cc1.[Li][c]1ccccc1", "CCCCN(CCCC)c1ccc(C=Cc2ccc(CO)cc2)cc1"),
    (
        "CCC[C@H](NC(=O)OCc1ccccc1)C(=O)N[C@@H](CCC)C(=O)N[C@@H](C)P(=O)(O)O",
        "CCC[C@H](NC(=O)[C@@H](N)CCC)C(=O)N[C@@H](C)P(=O)(O)O",
    ),
)


@pytest.mark.parametrize(("reactants", "product"), [*ALL, *TIES])
def test_neither_spelling_nor_order_counts(reactants, product):
    rng = np.random.default_rng(0)
    vector = change_vector(reactants, product=product)
    changes = reaction_changes(reactants, product=product)
    for _ in range(5):
        other, other_product = respelled(reactants, rng), respelled(product, rng)
        assert np.array_equal(change_vector(other, product=other_product), vector)
        assert reaction_changes(other, product=other_product) == changes


def test_added_reagents_change_nothing():
    for reactants, product in (AMIDE, SUZUKI, AMINATION):
        vector = change_vector(reactants, product=product)
        mixed = f"{reactants}.[Na+].[Cl-].ClCCl"
        assert np.array_equal(change_vector(mixed, product=product), vector)


def test_many_vectors_are_the_single_ones():
    reactions = [Reaction(reactants, "CCO", product) for reactants, product in ALL]
    vectors = change_vectors(reactions)
    assert vectors.shape == (len(ALL), NUM_FEATURES)
    assert np.array_equal(vectors[3], change_vector(ALL[3][0], product=ALL[3][1]))
    assert change_vectors([]).shape == (0, NUM_FEATURES)


def test_texts_of_changes():
    assert Change(ChangeKind.BOND_CHANGED, "C-O to C=O").text == "C-O to C=O"
    assert Change(ChangeKind.RING_OPENED, "ring").text == "ring opened"
    assert Change(ChangeKind.GROUP_LOST, "nitro").text == "nitro lost"


GROUP_EXAMPLES = {
    "carboxylic acid": "CC(=O)O",
    "ester": "CC(=O)OC",
    "acid anhydride": "CC(=O)OC(C)=O",
    "acyl halide": "CC(=O)Cl",
    "aldehyde": "CC=O",
    "ketone": "CC(C)=O",
    "amide": "CNC=O",
    "imide": "O=C1CCC(=O)N1",
    "thioester": "CSC(C)=O",
    "carbonate": "COC(=O)OC",
    "carbamate": "COC(=O)NC",
    "urea": "CNC(=O)NC",
    "thiourea": "CNC(=S)NC",
    "Boc group": "CNC(=O)OC(C)(C)C",
    "Cbz group": "CNC(=O)OCc1ccccc1",
    "isocyanate": "CN=C=O",
    "isothiocyanate": "CN=C=S",
    "alcohol": "CO",
    "phenol": "Oc1ccccc1",
    "ether": "COC",
    "silyl ether": "CO[Si](C)(C)C",
    "acetal": "COCOC",
    "epoxide": "C1CO1",
    "primary amine": "CN",
    "secondary amine": "CNC",
    "tertiary amine": "CN(C)C",
    "quaternary ammonium": "C[N+](C)(C)C",
    "imine": "CC=NC",
    "amidine": "CC(=N)N",
    "guanidine": "CNC(=N)N",
    "oxime": "CC=NO",
    "hydrazine": "CNN",
    "hydrazone": "CC=NN",
    "hydroxylamine": "CNO",
    "azide": "CN=[N+]=[N-]",
    "diazo": "C=[N+]=[N-]",
    "nitrile": "CC#N",
    "nitro": "C[N+](=O)[O-]",
    "N-oxide": "C[N+](C)(C)[O-]",
    "thiol": "CS",
    "thioether": "CSC",
    "disulfide": "CSSC",
    "sulfoxide": "CS(C)=O",
    "sulfone": "CS(C)(=O)=O",
    "sulfonamide": "CS(N)(=O)=O",
    "sulfonyl halide": "CS(=O)(=O)Cl",
    "sulfonate ester": "COS(C)(=O)=O",
    "halide": "ClC(Cl)Cl",
    "alkyl halide": "CBr",
    "aryl fluoride": "Fc1ccccc1",
    "aryl chloride": "Clc1ccccc1",
    "aryl bromide": "Brc1ccccc1",
    "aryl iodide": "Ic1ccccc1",
    "trifluoromethyl": "CC(F)(F)F",
    "alkene": "C=C",
    "alkyne": "C#C",
    "biaryl bond": "c1ccc(-c2ccccc2)cc1",
    "boronic acid or ester": "CB(O)O",
    "organotin": "C[SnH3]",
    "organometallic": "[Li]C",
    "silane": "C[Si](C)(C)C",
    "phosphonium or phosphorane": "C[P+](C)(C)C",
    "phosphonate": "CP(=O)(O)O",
}
OVERLAPPING = {"halide", "carbamate"}


def test_every_group_has_an_example():
    assert set(read_package_yaml(GROUPS_FILE)) == set(GROUP_EXAMPLES)


@pytest.mark.parametrize(("group", "example"), GROUP_EXAMPLES.items())
def test_a_group_is_found_in_its_example_and_no_other(group, example):
    counts = group_counts(example)
    assert group in counts
    assert set(counts) - OVERLAPPING <= {group}


def test_groups_that_look_alike_are_told_apart():
    assert group_counts("CC(=O)Oc1ccccc1C(=O)O") == {"ester": 1, "carboxylic acid": 1}
    assert group_counts("NC(=O)c1ccc(N)cc1") == {"amide": 1, "primary amine": 1}
    assert group_counts("CCOC(=O)N1CCNCC1") == {"carbamate": 1, "secondary amine": 1}


@needs_real_data
def test_types_of_real_reactions_agree_with_their_true_classes():
    table = pq.read_table(Path(REAL_DATA) / "uspto50k.parquet")
    rows = table.take(np.random.default_rng(0).permutation(len(table))[:4_000]).to_pydict()
    vectors = change_vectors(
        [Reaction(r, "", p) for r, p in zip(rows["reactants"], rows["product"], strict=True)]
    )
    labels = KMeans(10, n_init=3, random_state=0).fit_predict(vectors)
    assert adjusted_mutual_info_score(rows["reaction_class"], labels) >= 0.6
