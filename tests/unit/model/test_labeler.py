import json

import numpy as np
import pytest

from raycrp.choices import Device, Task
from raycrp.errors import ModelError
from raycrp.model.annotation import annotation_prompt
from raycrp.model.encode import TextEncoder
from raycrp.model.head import fit_head
from raycrp.model.labeler import HeadLabeler, T5Labeler, load_labeler

CARD = {"format": 1, "kind": "head", "num_types": 2, "token_budget": 8, "max_tokens": 8}
INPUTS = ["CCO", "CC", "c1ccccc1", "CCCO", "N", "CCO"]


@pytest.fixture(scope="module")
def head_labeler(preset_dir):
    encoder = TextEncoder(preset_dir, device=Device.CPU, token_budget=64, max_tokens=32)
    head = fit_head(
        encoder.encode(INPUTS),
        np.array([0, 1, 2, 0, 3, 0]),
        num_types=4,
        valid_vectors=np.zeros((0, encoder.dim), np.float32),
        valid_labels=np.zeros(0, np.int64),
        seed=0,
        max_epochs=20,
    )
    return HeadLabeler(encoder, head=head)


@pytest.fixture(scope="module")
def t5_labeler(lively_model):
    model, tokenizer = lively_model
    return T5Labeler(model, tokenizer, task=Task.REAGENT, num_types=12, temperature=1.5)


@pytest.mark.parametrize("name", ["head_labeler", "t5_labeler"])
def test_a_saved_labeler_needs_nothing_else(name, request, tmp_path):
    labeler = request.getfixturevalue(name)
    labeler.save(tmp_path / "there")
    moved = (tmp_path / "there").rename(tmp_path / "elsewhere")
    loaded = load_labeler(moved, device=Device.CPU)
    assert loaded.num_types == labeler.num_types
    np.testing.assert_array_equal(loaded.predict(INPUTS), labeler.predict(INPUTS))


@pytest.mark.parametrize("name", ["head_labeler", "t5_labeler"])
def test_probabilities_depend_on_a_rows_own_input_alone(name, request):
    labeler = request.getfixturevalue(name)
    probabilities = labeler.predict(INPUTS)
    assert probabilities.shape == (len(INPUTS), labeler.num_types)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(probabilities[0], probabilities[-1])
    alone = np.concatenate([labeler.predict([text]) for text in INPUTS])
    np.testing.assert_allclose(probabilities, alone, atol=1e-5)
    assert labeler.predict([]).shape == (0, labeler.num_types)


def test_a_head_labeler_names_what_it_was_taught(head_labeler):
    assert head_labeler.predict(INPUTS).argmax(axis=1).tolist() == [0, 1, 2, 0, 3, 0]


def test_the_temperature_flattens(lively_model, t5_labeler):
    cold = T5Labeler(*lively_model, task=Task.REAGENT, num_types=12, temperature=0.5)
    assert cold.predict(INPUTS).max() > t5_labeler.predict(INPUTS).max()


def test_the_annotation_prompt_names_the_labels_that_exist():
    assert annotation_prompt("CC>>CO", task=Task.REAGENT, num_types=3) == (
        "This is the reagent reaction prediction task, where the goal is to determine the type of "
        "the chemical reaction from the given compounds, from 0 to 2. Input: CC>>CO"
    )


@pytest.mark.parametrize(
    ("card", "message"),
    [
        (None, "is no labeler: it has no labeler.json"),
        ("{", "is damaged; run elicit again"),
        ("[]", "is damaged; run elicit again"),
        (json.dumps({"format": 1, "kind": "head"}), "is damaged; run elicit again"),
        (json.dumps({**CARD, "kind": "t5"}), "is damaged; run elicit again"),
        (json.dumps({**CARD, "format": 2}), "has format 2, expected 1"),
        (json.dumps(CARD), "is not a model"),
    ],
)
def test_a_folder_that_is_no_labeler_is_one_clear_line(tmp_path, card, message):
    if card is not None:
        (tmp_path / "labeler.json").write_text(card)
        (tmp_path / "encoder").mkdir()
    with pytest.raises(ModelError, match=message) as caught:
        load_labeler(tmp_path, device=Device.CPU)
    assert "\n" not in str(caught.value)
