import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import T5Config, T5ForConditionalGeneration

from raycrp.choices import Precision
from raycrp.train.batches import IGNORED_LABEL, Batch
from raycrp.train.flops import flop_model, peak_flops, peak_of


def make_batch(input_lengths, target_lengths):
    inputs = torch.arange(max(input_lengths)) < torch.tensor(input_lengths)[:, None]
    targets = torch.arange(max(target_lengths)) < torch.tensor(target_lengths)[:, None]
    return Batch(
        rows=None,
        input_ids=inputs.long(),
        attention_mask=inputs.long(),
        pooled_mask=inputs.long(),
        decoder_input_ids=targets.long(),
        labels=torch.where(targets, 1, IGNORED_LABEL),
    )


def make_config(**changes):
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_heads": 4, "num_layers": 2}
    return T5Config(vocab_size=40, decoder_start_token_id=0, **(sizes | changes))


@pytest.mark.parametrize(
    "changes",
    [{}, {"feed_forward_proj": "gated-gelu"}, {"num_decoder_layers": 3}, {"d_kv": 16}],
)
def test_a_row_without_padding_takes_what_torch_counts(changes):
    config = make_config(**changes)
    model = T5ForConditionalGeneration(config)
    model.set_attn_implementation("eager")
    batch = make_batch([11], [7])
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            decoder_input_ids=batch.decoder_input_ids,
        )
    assert flop_model(config).training_flops(batch) == 3 * counter.get_total_flops()


def test_padding_takes_nothing():
    count = flop_model(make_config()).training_flops
    alone = count(make_batch([11], [7])) + count(make_batch([4], [2]))
    assert count(make_batch([11, 4], [7, 2])) == alone


@pytest.mark.parametrize(
    ("name", "precision", "peak"),
    [
        ("Tesla V100-SXM2-32GB", Precision.FP16, 125e12),
        ("Tesla V100-SXM2-32GB", Precision.FP32, 15.7e12),
        ("NVIDIA A100-SXM4-80GB", Precision.BF16, 312e12),
        ("NVIDIA A10G", Precision.BF16, 70e12),
        ("NVIDIA L4", Precision.BF16, 121e12),
        ("NVIDIA L40S", Precision.BF16, 362e12),
        ("NVIDIA H100 80GB HBM3", Precision.BF16, 989e12),
        ("NVIDIA GeForce RTX 4090", Precision.BF16, None),
    ],
)
def test_peaks_are_those_of_the_data_sheets(name, precision, peak):
    assert peak_of(name, precision) == peak


def test_a_cpu_has_no_known_peak():
    assert peak_flops(torch.device("cpu"), Precision.FP32) is None
