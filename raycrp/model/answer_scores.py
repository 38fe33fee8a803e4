"""Log-probabilities of given answers, those of a row together as the tree of their beginnings.

The answers that searches find to one input have most of their tokens in common: each beginning is
fed to the decoder once, however many answers begin with it, and sees its own past alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from raycrp.model.encode import length_batches, pad_rows
from raycrp.model.incremental import attend, causal_bias

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

Answers = Sequence[tuple[int, ...]]


def score_trees(
    model: "T5ForConditionalGeneration",
    *,
    states: torch.Tensor,
    mask: torch.Tensor,
    answers: Sequence[Answers],
    token_budget: int,
) -> list[list[float]]:
    """Log-probability of each answer to each row, summed over its tokens.

    The encoder's keys and values exist once a row, not once an answer.

    Args:
        model: A T5 in evaluation mode.
        states: What its encoder says, shape ``(rows, length, dim)``.
        mask: 1 at real tokens, shape ``(rows, length)``.
        answers: Token ids of the answers to each row, none of them empty.
        token_budget: Rows times largest tree that are decoded at once, in tokens.
    """
    trees = [_grow(row, start_id=model.config.decoder_start_token_id) for row in answers]
    scores: list[list[float]] = [[] for _ in answers]
    for places in length_batches([len(tree.tokens) for tree in trees], token_budget=token_budget):
        rows = torch.tensor(places, device=mask.device)
        part = [trees[place] for place in places]
        steps = iter(_step_scores(model, part, states=states[rows], mask=mask[rows]).tolist())
        for place, tree in zip(places, part, strict=True):
            own = [next(steps) for _ in tree.targets]
            scores[place] = [sum(own[number] for number in path) for path in tree.paths]
    return scores


@dataclass(frozen=True)
class _Tree:
    """Beginnings of a row's answers, and what comes after them.

    Args:
        tokens: Last token of each beginning, that of the empty one first.
        parents: The beginning without that token; the first is its own.
        depths: Length of each beginning.
        targets: Number of each pair of a beginning and a token that follows it.
        paths: Numbers of the pairs that make up each answer.
    """

    tokens: list[int]
    parents: list[int]
    depths: list[int]
    targets: dict[tuple[int, int], int]
    paths: list[list[int]]

    def is_past(self) -> np.ndarray:
        """Whether a beginning (column) is part of another (row) or is itself."""
        past = np.eye(len(self.tokens), dtype=bool)
        for node, parent in enumerate(self.parents):
            past[node] |= past[parent]
        return past


def _grow(answers: Answers, *, start_id: int) -> _Tree:
    tree = _Tree([start_id], [0], [0], {}, [])
    children: dict[int, int] = {}
    for answer in answers:
        node, path = 0, []
        for place, token in enumerate(answer, start=1):
            number = tree.targets.setdefault((node, token), len(tree.targets))
            path.append(number)
            if place == len(answer):
                break
            if number not in children:
                children[number] = len(tree.tokens)
                tree.tokens.append(token)
                tree.parents.append(node)
                tree.depths.append(place)
            node = children[number]
        tree.paths.append(path)
    return tree


def _step_scores(
    model: Any, trees: Sequence[_Tree], *, states: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Log-probability of each target, those of one row after the other."""
    hidden = _decode(model, trees, states=states, mask=mask)
    places = [
        (row, node, token) for row, tree in enumerate(trees) for (node, token) in tree.targets
    ]
    rows, nodes, tokens = torch.tensor(places, device=mask.device).unbind(dim=1)
    flat = rows * hidden.shape[1] + nodes
    fed, which = flat.unique(return_inverse=True)
    logits = model.lm_head(hidden.flatten(end_dim=1)[fed]).float()
    scores: torch.Tensor = logits[which, tokens] - logits.logsumexp(dim=1)[which]
    return scores


def _decode(
    model: Any, trees: Sequence[_Tree], *, states: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """What the decoder says after each beginning, shape ``(rows, largest tree, dim)``."""
    decoder = model.decoder
    tokens = _pad([tree.tokens for tree in trees], device=mask.device)
    hidden = model.shared(tokens)
    bias = _tree_bias(decoder.block[0].layer[0].SelfAttention, trees, like=hidden)
    lowest = torch.finfo(states.dtype).min
    cross_bias = (mask[:, None, None, :] == 0).to(states.dtype) * lowest
    for block in decoder.block:
        layer, attention = block.layer[0], block.layer[0].SelfAttention
        normed = layer.layer_norm(hidden)
        queries, keys, values = attention.q(normed), attention.k(normed), attention.v(normed)
        hidden = hidden + attention.o(attend(attention, queries, keys, values, bias=bias))
        layer, attention = block.layer[1], block.layer[1].EncDecAttention
        queries = attention.q(layer.layer_norm(hidden))
        keys, values = attention.k(states), attention.v(states)
        hidden = hidden + attention.o(attend(attention, queries, keys, values, bias=cross_bias))
        hidden = block.layer[2](hidden)
    hidden = decoder.final_layer_norm(hidden)
    scale = model.config.d_model**-0.5 if model.config.scale_decoder_outputs else 1.0
    scaled: torch.Tensor = hidden * scale
    return scaled


def _tree_bias(attention: Any, trees: Sequence[_Tree], *, like: torch.Tensor) -> torch.Tensor:
    """Relative position bias at a beginning's own past, as good as minus infinity elsewhere."""
    depths = _pad([tree.depths for tree in trees], device=like.device)
    rows, size = depths.shape
    # Padding sees itself, lest it has nothing to look at.
    is_past = np.tile(np.eye(size, dtype=bool), (rows, 1, 1))
    for row, tree in enumerate(trees):
        own = len(tree.tokens)
        is_past[row, :own, :own] = tree.is_past()
    by_step = causal_bias(attention, int(depths.max()) + 1, like=like)[0]
    bias = by_step[:, depths[:, :, None], depths[:, None, :]].transpose(0, 1)
    is_hidden = torch.from_numpy(~is_past).to(like.device)[:, None]
    return bias.masked_fill(is_hidden, torch.finfo(like.dtype).min)


def _pad(rows: Sequence[Sequence[int]], *, device: torch.device) -> torch.Tensor:
    return pad_rows(rows, pad_id=0, device=device)[0]
