import numpy as np
import pytest
import torch
from transformers import T5Config, T5EncoderModel

from raycrp.choices import Device, Task
from raycrp.model.encode import encode_token_ids
from raycrp.model.head import fit_head, log_loss
from raycrp.model.tuning import TuningSettings, fit_t5_labeler, tune_encoder

RNG = np.random.default_rng(0)
ROWS = [[int(t) for t in RNG.integers(3, 7, RNG.integers(2, 5))] + [1] for _ in range(120)]
# One of two tokens, but not both: no linear head on a mean of fixed vectors can tell.
LABELS = np.array([int((3 in row) != (4 in row)) for row in ROWS])
SETTINGS = TuningSettings(max_epochs=12, patience=12, batch_size=16, learning_rate=1e-2)


def make_encoder():
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=16, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, dropout_rate=0.1
    )
    return T5EncoderModel(config)


def encode(encoder, rows):
    return encode_token_ids(encoder, rows=rows, pad_id=0, token_budget=1_000)


def tune(encoder, **changes):
    vectors = encode(encoder, ROWS)
    head = fit_head(
        vectors[:80],
        LABELS[:80],
        num_types=2,
        valid_vectors=vectors[80:],
        valid_labels=LABELS[80:],
        seed=0,
        hidden_size=0,
    )
    before = log_loss(head.predict(vectors[80:]), labels=LABELS[80:])
    tuned = tune_encoder(
        encoder,
        head=head,
        inputs=ROWS[:80],
        labels=LABELS[:80],
        valid_inputs=ROWS[80:],
        valid_labels=LABELS[80:],
        valid_vectors=vectors[80:],
        pad_id=0,
        token_budget=1_000,
        settings=TuningSettings(**{**vars(SETTINGS), **changes}),
        seed=1,
    )
    return before, log_loss(tuned.predict(encode(encoder, ROWS[80:])), labels=LABELS[80:])


def weights_of(encoder):
    return {name: tensor.clone() for name, tensor in encoder.state_dict().items()}


def test_tuning_lowers_the_validation_loss_and_moves_the_encoder():
    encoder = make_encoder()
    start = weights_of(encoder)
    before, after = tune(encoder)
    assert after < before - 0.02
    moved = [not torch.equal(start[name], tensor) for name, tensor in encoder.state_dict().items()]
    assert any(moved)


def test_training_that_does_harm_leaves_the_encoder_as_it_was():
    encoder = make_encoder()
    start = weights_of(encoder)
    before, after = tune(encoder, learning_rate=10.0, max_epochs=2)
    assert all(torch.equal(start[name], t) for name, t in encoder.state_dict().items())
    assert after <= before + 1e-6


def test_the_same_seed_gives_the_same_encoder():
    first, again = make_encoder(), make_encoder()
    losses = [tune(encoder, max_epochs=2)[1] for encoder in (first, again)]
    assert losses[0] == pytest.approx(losses[1], abs=0)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])


TEXTS = ["CCO", "CC", "c1ccccc1", "CCCO", "N", "CCO"]


def test_a_t5_learns_to_name_types(preset_dir):
    inputs = [
        "N" * (1 + number % 4) if number % 2 else "O" * (1 + number % 4) for number in range(16)
    ]
    labels = np.arange(16) % 2
    settings = {
        "inputs": inputs,
        "labels": labels,
        "num_types": 2,
        "task": Task.FORWARD,
        "device": Device.CPU,
    }
    labeler = fit_t5_labeler(
        preset_dir,
        **settings,
        valid_inputs=inputs[:4],
        valid_labels=labels[:4],
        settings=TuningSettings(max_epochs=8, patience=8, batch_size=8, learning_rate=1e-3),
        seed=0,
    )
    assert labeler.predict(inputs).argmax(axis=1).tolist() == labels.tolist()
    assert not labeler.model.training


def test_fine_tuning_depends_on_the_seed_alone(preset_dir):
    found = [
        fit_t5_labeler(
            preset_dir,
            inputs=TEXTS,
            labels=np.array([0, 1, 2, 0, 1, 0]),
            num_types=3,
            task=Task.FORWARD,
            valid_inputs=[],
            valid_labels=np.zeros(0, np.int64),
            settings=TuningSettings(max_epochs=1, patience=2, batch_size=3, learning_rate=1e-3),
            seed=seed,
            device=Device.CPU,
        ).predict(TEXTS)
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_no_rows_are_refused(preset_dir):
    with pytest.raises(ValueError, match="found 0 inputs and 0 labels"):
        fit_t5_labeler(
            preset_dir,
            inputs=[],
            labels=np.zeros(0, np.int64),
            num_types=2,
            task=Task.FORWARD,
            valid_inputs=[],
            valid_labels=np.zeros(0, np.int64),
            settings=SETTINGS,
            seed=0,
        )
