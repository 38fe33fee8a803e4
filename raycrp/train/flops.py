"""Floating-point operations of training a T5, and what GPUs can do: model FLOP utilisation.

Counted are the multiplications and additions of the matrix products on real tokens, once forward
and twice backward; padding, recomputation and element-wise work are left out, so that the share of
the peak says how much of the GPU goes into the model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from raycrp.choices import Precision
from raycrp.train.batches import IGNORED_LABEL, Batch

_HALF, _FULL = "half", "full"
PEAK_TFLOPS: Mapping[str, Mapping[str, float]] = {
    "V100": {_HALF: 125.0, _FULL: 15.7},
    "T4": {_HALF: 65.0, _FULL: 8.1},
    "A10G": {_HALF: 70.0, _FULL: 31.2},
    "A100": {_HALF: 312.0, _FULL: 19.5},
    "L4": {_HALF: 121.0, _FULL: 30.3},
    "L40S": {_HALF: 362.0, _FULL: 91.6},
    "H100": {_HALF: 989.0, _FULL: 67.0},
    "H200": {_HALF: 989.0, _FULL: 67.0},
}
"""Dense peak of GPUs by the word in their name that tells them apart, from their data sheets."""


@dataclass(frozen=True)
class FlopModel:
    """Counts what training on a batch takes.

    Args:
        encoder: Multiply-adds of an input token in weight matrices, cross-attention's keys and
            values included.
        decoder: Those of a target token, the output layer included.
        encoder_pair: Multiply-adds of a pair of input tokens in the encoder's attention.
        decoder_pair: Those of a pair of target tokens in the decoder's.
        cross_pair: Those of a target token and an input token.
    """

    encoder: float
    decoder: float
    encoder_pair: float
    decoder_pair: float
    cross_pair: float

    def training_flops(self, batch: Batch) -> float:
        """Operations of the forward and backward pass on a batch's real tokens."""
        inputs = batch.attention_mask.sum(1).double()
        targets = (batch.labels != IGNORED_LABEL).sum(1).double()
        products = (
            self.encoder * inputs.sum()
            + self.decoder * targets.sum()
            + self.encoder_pair * (inputs * inputs).sum()
            + self.decoder_pair * (targets * targets).sum()
            + self.cross_pair * (inputs * targets).sum()
        )
        return 3 * 2 * float(products)


def flop_model(config: Any) -> FlopModel:
    """The counts of a T5.

    Args:
        config: Its ``T5Config``.
    """
    width, inner = config.d_model, config.num_heads * config.d_kv
    num_feed_forward = 3 if config.feed_forward_proj.startswith("gated") else 2
    feed_forward = num_feed_forward * width * config.d_ff
    attention = 4 * width * inner
    depth, decoder_depth = config.num_layers, config.num_decoder_layers
    return FlopModel(
        encoder=depth * (attention + feed_forward) + decoder_depth * 2 * width * inner,
        decoder=decoder_depth * (attention + 2 * width * inner + feed_forward)
        + width * config.vocab_size,
        encoder_pair=depth * 2 * inner,
        decoder_pair=decoder_depth * 2 * inner,
        cross_pair=decoder_depth * 2 * inner,
    )


def peak_flops(device: torch.device, precision: Precision) -> float | None:
    """Operations a second that a device is built for; None where that is not known.

    Args:
        device: Where a worker trains.
        precision: Number format in use.
    """
    if device.type != "cuda":
        return None
    return peak_of(torch.cuda.get_device_name(device), precision)


def peak_of(name: str, precision: Precision) -> float | None:
    """Operations a second of a GPU by its name, such as ``Tesla V100-SXM2-32GB``.

    Args:
        name: As the driver calls it.
        precision: Number format in use.
    """
    words = name.replace("-", " ").split()
    kind = _FULL if precision is Precision.FP32 else _HALF
    for model, peaks in PEAK_TFLOPS.items():
        if model in words:
            return peaks[kind] * 1e12
    return None
