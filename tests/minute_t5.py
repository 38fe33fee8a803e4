"""A T5 of two narrow layers, the same each time that it is made."""

import torch
from transformers import T5Config, T5ForConditionalGeneration

SIZES = {"vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_heads": 2, "num_layers": 2}


def minute_t5(**changes):
    """Random weights.

    Args:
        changes: To its configuration.
    """
    torch.manual_seed(0)
    return T5ForConditionalGeneration(T5Config(decoder_start_token_id=0, **(SIZES | changes)))
