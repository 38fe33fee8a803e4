"""Probabilities of a fixed set of short answers, all of them in one pass of a T5's decoder.

Labels share what they begin with, so that the decoder is fed the tree of their beginnings, the
same for every row: one token where a label is one token. So few queries need no keys and values of
the encoder's states: the projections are moved to the other side of the products, onto the
queries and the mixed states, which are fewer by far.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from raycrp.model.incremental import attend, causal_bias

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

_ROWS_TOGETHER = 16


def score_paths(
    model: "T5ForConditionalGeneration",
    *,
    states: torch.Tensor,
    mask: torch.Tensor,
    paths: Sequence[tuple[int, ...]],
) -> torch.Tensor:
    """Log-probability that an answer begins with each of the given tokens.

    Args:
        model: A T5 in evaluation mode.
        states: What its encoder says, shape ``(rows, length, dim)``.
        mask: 1 at real tokens, shape ``(rows, length)``.
        paths: Token ids of each label.

    Returns:
        Shape ``(rows, labels)``, float32.
    """
    tree = _make_tree(paths)
    steps = _next_tokens(model, tree, states=states, mask=mask)
    places = {prefix: place for place, prefix in enumerate(tree.prefixes)}
    scores = [
        sum(steps[:, places[path[:end]], path[end]] for end in range(len(path))) for path in paths
    ]
    return torch.stack([torch.as_tensor(score) for score in scores], dim=1)


@dataclass(frozen=True)
class _Tree:
    """Beginnings of labels, each fed by its last token.

    Args:
        prefixes: The beginnings, shorter ones first; the first is empty.
        is_past: Whether a beginning belongs to the past of another or is itself, by row.
    """

    prefixes: list[tuple[int, ...]]
    is_past: list[list[bool]]


def _make_tree(paths: Sequence[tuple[int, ...]]) -> _Tree:
    distinct = {path[:end] for path in paths for end in range(len(path))}
    prefixes = sorted(distinct, key=lambda prefix: (len(prefix), prefix))
    is_past = [[own[: len(other)] == other for other in prefixes] for own in prefixes]
    return _Tree(prefixes, is_past)


def _next_tokens(
    model: Any, tree: _Tree, *, states: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Log-probabilities of what follows each beginning, shape ``(rows, prefixes, vocabulary)``."""
    decoder, start = model.decoder, model.config.decoder_start_token_id
    fed = torch.tensor([[prefix[-1] if prefix else start for prefix in tree.prefixes]])
    hidden = model.shared(fed.to(states.device))
    bias = _tree_bias(decoder.block[0].layer[0].SelfAttention, tree, like=hidden)
    blocks = _row_blocks(states, mask=mask)
    for block in decoder.block:
        layer, attention = block.layer[0], block.layer[0].SelfAttention
        hidden = hidden + _attend_tree(attention, layer.layer_norm(hidden), bias=bias)
        layer, attention = block.layer[1], block.layer[1].EncDecAttention
        normed = layer.layer_norm(hidden)
        # Before the first of these the rows do not differ, so that one stands for all.
        hidden = hidden + _attend_unprojected(attention, normed, blocks)
        hidden = block.layer[2](hidden)
    hidden = decoder.final_layer_norm(hidden)
    if model.config.scale_decoder_outputs:
        hidden = hidden * model.config.d_model**-0.5
    return torch.log_softmax(model.lm_head(hidden).float(), dim=-1)


def _attend_tree(attention: Any, normed: torch.Tensor, *, bias: torch.Tensor) -> torch.Tensor:
    values = attention.v(normed)
    if normed.shape[1] > 1:  # One alone attends to itself.
        values = attend(attention, attention.q(normed), attention.k(normed), values, bias=bias)
    attended: torch.Tensor = attention.o(values)
    return attended


def _tree_bias(attention: Any, tree: _Tree, *, like: torch.Tensor) -> torch.Tensor:
    lengths = torch.tensor([len(prefix) for prefix in tree.prefixes], device=like.device)
    by_step = causal_bias(attention, int(lengths.max()) + 1, like=like)
    is_past = torch.tensor(tree.is_past, device=like.device)
    bias = by_step[:, :, lengths[:, None], lengths[None, :]]
    return bias.masked_fill(~is_past, torch.finfo(like.dtype).min)


def _row_blocks(
    states: torch.Tensor, *, mask: torch.Tensor
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """States and padding of a few rows each, as long as the longest of them.

    A CPU is faster where a block stays in its cache and rows are padded little; on a GPU all rows
    are one block.
    """
    size = _ROWS_TOGETHER if states.device.type == "cpu" else len(states)
    is_padding = ~mask.bool()[:, None, :]
    ends = [int(part.sum(dim=1).max()) for part in mask.split(size)]
    parts = zip(states.split(size), is_padding.split(size), ends, strict=True)
    return [(rows[:, :end], hidden[:, :, :end]) for rows, hidden, end in parts]


def _attend_unprojected(
    attention: Any, normed: torch.Tensor, blocks: Sequence[tuple[torch.Tensor, torch.Tensor]]
) -> torch.Tensor:
    """Cross-attention whose keys and values are never made.

    A head's score is ``(W_q x) . (W_k h) = (W_k^T W_q x) . h``, and its result is the mean of
    ``W_v h``, which is ``W_v`` of the mean of ``h``.
    """
    num_heads, width = attention.n_heads, blocks[0][0].shape[2]
    by_head = (num_heads, -1, width)
    turn_keys, turn_values = attention.k.weight.view(by_head), attention.v.weight.view(by_head)
    queries = attention.q(normed).unflatten(2, (num_heads, -1))
    turned = torch.einsum("rnhk,hkd->rnhd", queries, turn_keys).flatten(1, 2).transpose(1, 2)
    turned = turned.expand(sum(len(states) for states, _ in blocks), -1, -1)
    asked = turned.split([len(states) for states, _ in blocks])
    mixed = torch.cat(
        [
            _mix_states(states, asked=own, is_padding=is_padding)
            for own, (states, is_padding) in zip(asked, blocks, strict=True)
        ]
    )
    attended: torch.Tensor = attention.o(
        torch.einsum("rnhd,hkd->rnhk", mixed.unflatten(1, (-1, num_heads)), turn_values).flatten(
            start_dim=2
        )
    )
    return attended


def _mix_states(
    states: torch.Tensor, *, asked: torch.Tensor, is_padding: torch.Tensor
) -> torch.Tensor:
    """Means of states, shape ``(rows, queries, dim)``; ``asked`` is ``(rows, dim, queries)``."""
    # Few queries stand against many states: plain products are faster than fused attention.
    scores = (states @ asked).transpose(1, 2).masked_fill(is_padding, -torch.inf)
    return torch.softmax(scores, dim=2) @ states
