import numpy as np

from raycrp.chem.text_fingerprints import DIM, NUM_BITS, text_fingerprints


def test_one_side_has_counts_and_no_change():
    (ethanol,) = text_fingerprints(["CCO"])
    assert ethanol.shape == (DIM,)
    assert ethanol[:NUM_BITS].sum() > 0
    assert not ethanol[NUM_BITS:-1].any()
    assert ethanol[-1] == 1


def test_two_sides_have_the_signs_of_what_changes():
    there, back = text_fingerprints(["CCO>>CC=O", "CC=O>>CCO"])
    assert np.array_equal(there[:NUM_BITS], back[:NUM_BITS])
    assert np.array_equal(there[NUM_BITS:-1], -back[NUM_BITS:-1])
    assert there[NUM_BITS:-1].any()
    assert there[-1] == 2


def test_molecules_add_up_and_their_order_tells_nothing():
    one, other, twice = text_fingerprints(["CCO.CN", "CN.CCO", "CCO.CCO"])
    (single,) = text_fingerprints(["CCO"])
    assert np.array_equal(one, other)
    assert np.allclose(np.expm1(twice[:NUM_BITS]), 2 * np.expm1(single[:NUM_BITS]), atol=1e-5)


def test_what_is_no_molecule_counts_nothing():
    junk, empty = text_fingerprints(["not a molecule", ""])
    assert not junk[:-1].any()
    assert not empty.any()
    assert text_fingerprints([]).shape == (0, DIM)
