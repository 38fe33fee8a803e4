import math

import numpy as np
import pytest

from raycrp.audit.leak import LabelledRows, View, find_leak

NUM_CLASSES = 4
SETTINGS = {"num_resamples": 300, "seed": 0}


def make_rows(num_rows, *, seed, label, shared=0.0, offset=0):
    """Reactions whose input and output each show a class of their own, ``label`` of which counts.

    The two classes are the same for a share ``shared`` of the rows.
    """
    generator = np.random.default_rng(seed)
    sides = generator.integers(NUM_CLASSES, size=(num_rows, 2))
    same = generator.random(num_rows) < shared
    sides[same, 1] = sides[same, 0]

    def show(classes):
        return (
            np.eye(NUM_CLASSES)[classes] * 3 + generator.normal(size=(num_rows, NUM_CLASSES))
        ).astype(np.float32)

    return LabelledRows(
        labels=sides[:, {"input": 0, "output": 1}[label]],
        reactions=[f"k{offset + i}" for i in range(num_rows)],
        inputs=show(sides[:, 0]),
        outputs=show(sides[:, 1]),
    )


@pytest.mark.parametrize("fit_rows", [None, 400])
def test_labels_computed_from_the_answer_leak(fit_rows):
    fit = fit_rows and make_rows(fit_rows, seed=1, label="output", shared=0.5, offset=10_000)
    held_out = make_rows(200, seed=2, label="output", shared=0.5)
    test = find_leak(held_out, fit=fit, **SETTINGS)
    assert test.leaks
    assert test.accuracies[View.OUTPUT].value > 0.85 > test.accuracies[View.INPUT].value
    assert test.output_gain.low > 0.1
    assert test.is_cross_validated == (fit is None)


@pytest.mark.parametrize("fit_label", ["input", "output"])
def test_labels_named_from_the_input_do_not_leak(fit_label):
    """Also where those of training rows come from the answer, as they may."""
    fit = make_rows(400, seed=1, label=fit_label, shared=0.7, offset=10_000)
    held_out = make_rows(200, seed=2, label="input", shared=0.7)
    test = find_leak(held_out, fit=fit, **SETTINGS)
    assert not test.leaks
    assert test.output_gain.high < 0


def test_labels_named_from_the_input_do_not_leak_without_training_labels():
    test = find_leak(make_rows(300, seed=2, label="input", shared=0.7), **SETTINGS)
    assert not test.leaks
    assert test.is_cross_validated


def test_an_honest_label_is_seldom_called_a_leak():
    """Input and output show the label equally well: one side must not win by chance alone."""
    calls = [
        find_leak(make_rows(120, seed=seed, label="input", shared=1.0), **SETTINGS).leaks
        for seed in range(8)
    ]
    assert sum(calls) <= 2


def test_bits_of_labels_read_without_doubt_are_their_entropy():
    rows = make_rows(400, seed=3, label="input")
    sharp = LabelledRows(
        rows.labels,
        rows.reactions,
        (np.eye(NUM_CLASSES)[rows.labels] * 20).astype(np.float32),
        rows.outputs,
    )
    test = find_leak(sharp, **SETTINGS)
    assert test.bits[View.INPUT].value == pytest.approx(math.log2(NUM_CLASSES), abs=0.1)
    assert test.accuracies[View.INPUT].value == 1.0
    assert abs(test.bits[View.OUTPUT].value) < 0.15
    assert test.majority == pytest.approx(1 / NUM_CLASSES, abs=0.1)


def test_a_class_that_was_never_learnt_is_read_wrong():
    fit = make_rows(300, seed=1, label="input", offset=10_000)
    held_out = make_rows(100, seed=2, label="input")
    strange = LabelledRows(np.full(100, 9), held_out.reactions, held_out.inputs, held_out.outputs)
    test = find_leak(strange, fit=fit, **SETTINGS)
    assert test.accuracies[View.BOTH].value == 0
    assert test.bits[View.BOTH].value == 0


def test_too_little_to_read_is_an_error():
    with pytest.raises(ValueError, match="3 reactions are too few"):
        find_leak(make_rows(3, seed=0, label="input"), **SETTINGS)
    rows = make_rows(50, seed=0, label="input")
    alike = LabelledRows(np.zeros(50, int), rows.reactions, rows.inputs, rows.outputs)
    with pytest.raises(ValueError, match="one label"):
        find_leak(rows, fit=alike, **SETTINGS)
