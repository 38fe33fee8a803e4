import numpy as np
import pytest
from scipy.spatial.distance import cdist

from raycrp.prompt.select import (
    adaptability,
    choose_instructions,
    fixed_instructions,
    random_instructions,
)


def test_adaptability_is_minus_the_euclidean_distance():
    inputs = np.array([[0.0, 0.0], [3.0, 4.0]], dtype=np.float32)
    templates = np.array([[3.0, 4.0], [0.0, 1.0]], dtype=np.float32)
    scores = adaptability(inputs, template_vectors=templates)
    np.testing.assert_allclose(scores, [[-5, -1], [0, -np.sqrt(18)]], rtol=1e-6)


def test_adaptability_agrees_with_scipy():
    rng = np.random.default_rng(0)
    inputs, templates = rng.normal(size=(20, 7)), rng.normal(size=(12, 7))
    scores = adaptability(inputs, template_vectors=templates)
    np.testing.assert_allclose(scores, -cdist(inputs, templates), rtol=1e-5)


def test_vectors_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="3 dimensions, templates 2"):
        adaptability(np.zeros((1, 3)), template_vectors=np.zeros((1, 2)))


def test_the_nearest_template_is_chosen_and_the_first_on_a_tie():
    scores = np.array([[-3.0, -1.0, -2.0], [-1.0, -1.0, -5.0]])
    assert choose_instructions(scores).tolist() == [1, 0]


def test_random_choice_depends_on_row_and_seed_alone():
    drawn = random_instructions(range(1_000), num_templates=12, seed=3)
    again = random_instructions([500, 7], num_templates=12, seed=3)
    other = random_instructions(range(1_000), num_templates=12, seed=4)
    assert again.tolist() == [drawn[500], drawn[7]]
    assert (drawn != other).mean() > 0.8
    assert np.bincount(drawn, minlength=12).min() > 40


def test_fixed_choice_is_the_first_template():
    assert fixed_instructions(3).tolist() == [0, 0, 0]
