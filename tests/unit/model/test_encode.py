import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raycrp.choices import Device
from raycrp.model.encode import (
    TextEncoder,
    encode_texts,
    encode_token_ids,
    evaluating,
    length_batches,
    mean_pool,
    pad_rows,
    tokenize_texts,
)
from raycrp.model.t5 import load_backbone

TEXTS = ["CCO", "C", "CC(=O)Cl.CN>>CC(=O)NC", "c1ccccc1", "N", "F/C=C\\F"]


@pytest.fixture(scope="module")
def encoder(preset_dir):
    return TextEncoder(preset_dir, device=Device.CPU, token_budget=32, max_tokens=64)


def test_mean_pool_leaves_padding_out():
    hidden = torch.tensor(
        [[[1.0, 2.0], [3.0, 6.0], [100.0, 100.0]], [[5.0, 7.0], [9.0, 9.0], [1.0, 5.0]]]
    )
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    torch.testing.assert_close(mean_pool(hidden, mask=mask), torch.tensor([[2.0, 4.0], [5.0, 7.0]]))
    half = mean_pool(hidden.half(), mask=mask)
    assert half.dtype == torch.float32


def test_vectors_are_the_mean_over_real_tokens(encoder, preset_dir):
    model, tokenizer = load_backbone(preset_dir)
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), 128)
    assert encoder.dim == 128
    assert vectors.dtype == np.float32
    for text, vector in zip(TEXTS, vectors, strict=True):
        with torch.no_grad():
            alone = model.encoder(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        np.testing.assert_allclose(vector, alone.mean(dim=0).numpy(), atol=1e-5)


def test_a_vector_depends_neither_on_order_nor_on_company(encoder):
    together = encoder.encode([*TEXTS, "C" * 50, *TEXTS[::-1]])
    np.testing.assert_array_equal(together[: len(TEXTS)], together[-len(TEXTS) :][::-1])
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(together[: len(TEXTS)], alone, atol=1e-6, rtol=1e-5)


def test_each_distinct_text_is_encoded_once(encoder, monkeypatch):
    seen = []
    forward = encoder._encoder.forward

    def counting(*, input_ids, **rest):
        seen.append(len(input_ids))
        return forward(input_ids=input_ids, **rest)

    monkeypatch.setattr(encoder._encoder, "forward", counting)
    encoder.encode(["CCO", "CN", "CCO", "CCO", "CN"])
    assert sum(seen) == 2


def test_no_texts_give_no_vectors(encoder):
    assert encoder.encode([]).shape == (0, 128)


def test_cut_texts_are_counted_row_by_row(preset_dir):
    encoder = TextEncoder(preset_dir, device=Device.CPU, token_budget=64, max_tokens=5)
    # Four carbons and the end of text are five tokens: nothing is cut.
    encoder.encode(["CCCC"])
    assert encoder.num_truncated == 0
    vectors = encoder.encode(["CCCCN", "CCCCO", "CCCC", "CCCCO"])
    assert encoder.num_truncated == 3
    np.testing.assert_array_equal(vectors[0], vectors[2])


def test_cutting_keeps_the_end_of_text(preset_dir):
    _, tokenizer = load_backbone(preset_dir)
    rows, is_cut = tokenize_texts(tokenizer, ["CCNO", "C"], max_tokens=3)
    carbon = tokenizer.convert_tokens_to_ids("C")
    assert rows == [[carbon, carbon, 1], [carbon, 1]]
    assert is_cut == [True, False]
    rows, is_cut = tokenize_texts(tokenizer, ["CCNO"], max_tokens=None)
    assert len(rows[0]) == 5
    assert is_cut == [False]
    assert tokenize_texts(tokenizer, [], max_tokens=3) == ([], [])


def test_a_saved_encoder_gives_the_same_vectors(encoder, tmp_path):
    encoder.save(tmp_path)
    loaded = TextEncoder(tmp_path, device=Device.CPU, token_budget=32, max_tokens=64)
    np.testing.assert_array_equal(loaded.encode(TEXTS), encoder.encode(TEXTS))


def test_a_live_encoder_is_asked_without_dropout_and_trains_on(preset_dir):
    model, tokenizer = load_backbone(preset_dir)
    model.train()
    arguments = {"tokenizer": tokenizer, "token_budget": 64, "max_tokens": 64}
    first, _ = encode_texts(model.get_encoder(), texts=TEXTS, **arguments)
    second, _ = encode_texts(model.get_encoder(), texts=TEXTS, **arguments)
    np.testing.assert_array_equal(first, second)
    assert model.get_encoder().training
    rows, _ = tokenize_texts(tokenizer, TEXTS, max_tokens=None)
    third = encode_token_ids(model.get_encoder(), rows=rows, pad_id=0, token_budget=64)
    np.testing.assert_allclose(third, first, atol=1e-6)


def test_evaluating_restores_the_mode_after_an_error():
    layer = torch.nn.Dropout()

    def fail():
        with evaluating(layer):
            assert not layer.training
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert layer.training


def test_what_zero_3_gathers_for_an_evaluation_can_be_trained_with():
    layer = torch.nn.Linear(2, 1)
    layer.weight.ds_id = 0
    with evaluating(layer):
        gathered = layer.weight * 1.0
        assert not gathered.requires_grad
    (torch.ones(2, requires_grad=True) * gathered).sum().backward()


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(1, 120))
@settings(max_examples=200, deadline=None)
def test_batches_hold_every_row_once_within_the_budget(lengths, token_budget):
    batches = list(length_batches(lengths, token_budget=token_budget))
    assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[place] for place in batch)
        assert len(batch) == 1 or len(batch) * longest <= token_budget


def test_batches_are_of_similar_length():
    # Longest first: 9 alone (two would be 18), then 4 and 3, then the four short ones.
    batches = list(length_batches([3, 9, 1, 4, 1, 2, 2], token_budget=9))
    assert batches == [[1], [3, 0], [5, 6, 2, 4]]


def test_padding_is_marked():
    ids, mask = pad_rows([[5, 1], [7, 8, 1]], pad_id=0, device=torch.device("cpu"))
    assert ids.tolist() == [[5, 1, 0], [7, 8, 1]]
    assert mask.tolist() == [[1, 1, 0], [1, 1, 1]]
