"""A start for a T5 that copies from its input before it has learnt anything.

Most tokens of an answer stand in its input too. A new T5 needs many steps to find that out: its
cross-attention sees no positions, so it has to match what it wrote last with what stands before
each token of the input. Here that match is there from the first step, in the weights of the first
blocks alone; the model is a T5 like any other.

Source: induction heads, Olsson et al., 2022, arXiv:2209.11895.
"""

from collections.abc import Sequence
from typing import Any

import torch

NUM_SHIFTS = 3
"""Tokens that are matched: three decide as much as ten, in SMILES."""

_EMBEDDING_SCALE = 0.3
_EMBEDDING_NOISE = 0.02
_SHIFT_BIAS = 10.0
_MATCH_SCALE = 0.5
_MATCH_DECAY = 0.8
_COPY_SCALE = 8.0
_OTHER_SCALE = 0.3


@torch.no_grad()
def start_copying(model: Any, *, common_ids: Sequence[int]) -> None:
    """Set a new T5's weights so that it goes on as its input does after the same three tokens.

    Dimensions of the residual stream are set apart for a token's code and for the codes of the
    tokens one, two and three places before it. Heads of the first encoder block write the latter by
    their relative position bias, as do heads of the first decoder block for what was written. The
    heads of the first cross-attention compare the three codes of both sides and bring the code of
    the token found, which scores itself through the tied embeddings. All other blocks start small.

    Args:
        model: A new T5 with tied embeddings; changed in place, from torch's random state.
        common_ids: Ids of frequent tokens, the most frequent first; as many as ``d_kv`` of them
            get orthogonal codes.

    Raises:
        ValueError: If the model is too narrow: it needs ``d_model >= 4 * d_kv`` and three heads.
    """
    width, size = model.config.d_model, model.config.d_kv
    if width < (NUM_SHIFTS + 1) * size or model.config.num_heads < NUM_SHIFTS:
        raise ValueError(
            f"copying needs {NUM_SHIFTS} heads and d_model >= {(NUM_SHIFTS + 1) * size}, found "
            f"{model.config.num_heads} and {width}"
        )
    places = _orthogonal(width)[: (NUM_SHIFTS + 1) * size].view(NUM_SHIFTS + 1, size, width)
    encoder, decoder = model.encoder.block, model.decoder.block
    _shrink([*encoder, *decoder])
    _set_codes(model, place=places[0], common_ids=common_ids)
    # What is before a token of the input is compared with what was written last and before that,
    # so that the decoder's own token is one of the three.
    _set_shifts(encoder[0].layer[0].SelfAttention, code=places[0], places=places[1:])
    _set_shifts(decoder[0].layer[0].SelfAttention, code=places[0], places=places[2:])
    _set_match(decoder[0].layer[1].EncDecAttention, places=places)


def _shrink(blocks: Sequence[Any]) -> None:
    for block in blocks:
        *attentions, feed_forward = block.layer
        for layer in attentions:
            kind = "SelfAttention" if hasattr(layer, "SelfAttention") else "EncDecAttention"
            getattr(layer, kind).o.weight.mul_(_OTHER_SCALE)
        feed_forward.DenseReluDense.wo.weight.mul_(_OTHER_SCALE)


def _set_codes(model: Any, *, place: torch.Tensor, common_ids: Sequence[int]) -> None:
    """Embeddings of length ``sqrt(d_model)`` times a scale that the last norm takes off again."""
    size, width = place.shape
    embeddings = model.shared.weight
    codes = torch.nn.functional.normalize(torch.randn(len(embeddings), size), dim=1)
    common = torch.tensor(common_ids[:size], dtype=torch.long)
    codes[common] = _orthogonal(size)[: len(common)]
    noise = _EMBEDDING_NOISE * torch.randn_like(embeddings)
    embeddings.copy_(_EMBEDDING_SCALE * (codes @ place * width**0.5 + noise))
    model.decoder.final_layer_norm.weight.fill_(1 / _EMBEDDING_SCALE)


def _set_shifts(attention: Any, *, code: torch.Tensor, places: torch.Tensor) -> None:
    """Head ``n`` writes the code of the token ``n + 1`` places before to its own place."""
    bias = attention.relative_attention_bias.weight
    for head, place in enumerate(places):
        # Bucket n holds the key n places before the query.
        bias[:, head] = 0
        bias[head + 1, head] = _SHIFT_BIAS
        rows = _rows(head, size=len(code))
        attention.v.weight[rows] = code
        attention.o.weight[:, rows] = place.T * _EMBEDDING_SCALE


def _set_match(attention: Any, *, places: torch.Tensor) -> None:
    code, size = places[0], places.shape[1]
    num_heads = attention.n_heads
    for head in range(num_heads):
        rows = _rows(head, size=size)
        turns = [_MATCH_DECAY**n * _orthogonal(size) for n in range(NUM_SHIFTS)]
        written = (code, *places[2:])
        query = sum(turn @ place for turn, place in zip(turns, written, strict=True))
        key = sum(turn @ place for turn, place in zip(turns, places[1:], strict=True))
        attention.q.weight[rows] = _MATCH_SCALE * query
        attention.k.weight[rows] = key
        attention.v.weight[rows] = code
        attention.o.weight[:, rows] = code.T * (_COPY_SCALE * _EMBEDDING_SCALE / num_heads)


def _rows(head: int, *, size: int) -> slice:
    return slice(head * size, (head + 1) * size)


def _orthogonal(size: int) -> torch.Tensor:
    matrix: torch.Tensor = torch.nn.init.orthogonal_(torch.empty(size, size))
    return matrix
