"""A T5 decoder run token by token for many beams, its cache hardly ever copied.

The keys and values of all beams of a row are kept side by side as they were computed. Which of
them a beam may look at, namely its own past, is a matter of the attention mask alone, so that
nothing is moved when beams change places. Beams have most of their past in common and most of
what is cached belongs to beams that were given up: every few tokens it is left behind. The
encoder's keys and values exist once a row, not once a beam.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

_ROOM = 16
"""Tokens of each beam between two times of leaving behind what no beam looks at."""


@dataclass
class _LayerCache:
    """Keys and values of one decoder layer.

    Args:
        project: Weights of queries, keys and values in one, shape ``(3 * inner, dim)``.
        keys: Past of all beams, shape ``(rows, capacity, inner)``.
        values: As ``keys``.
        cross_keys: Of the encoder, shape ``(rows, length, inner)``.
        cross_values: As ``cross_keys``.
    """

    project: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    cross_keys: torch.Tensor
    cross_values: torch.Tensor

    def select(self, rows: torch.Tensor) -> None:
        """Keep these rows."""
        self.keys, self.values = self.keys[rows], self.values[rows]
        self.cross_keys, self.cross_values = self.cross_keys[rows], self.cross_values[rows]

    def keep(self, entries: torch.Tensor) -> None:
        """Keep these entries of each row's past, shape ``(rows, new capacity)``."""
        rows, capacity, inner = self.keys.shape
        starts = torch.arange(0, rows * capacity, capacity, device=entries.device)
        flat = (entries + starts[:, None]).flatten()
        shape = (rows, -1, inner)
        self.keys = self.keys.view(-1, inner).index_select(0, flat).view(shape)
        self.values = self.values.view(-1, inner).index_select(0, flat).view(shape)


class IncrementalDecoder:
    """The decoder's state for a batch of rows with as many beams each.

    Args:
        model: A T5 in evaluation mode.
        states: What its encoder says, shape ``(rows, length, dim)``.
        mask: 1 at real tokens, shape ``(rows, length)``.
        num_beams: Beams of each row.
    """

    def __init__(
        self,
        model: "T5ForConditionalGeneration",
        *,
        states: torch.Tensor,
        mask: torch.Tensor,
        num_beams: int,
    ) -> None:
        self._model: Any = model
        self._num_beams = num_beams
        self._length = 0
        lowest = torch.finfo(states.dtype).min
        self._cross_bias = (mask[:, None, None, :] == 0).to(states.dtype) * lowest
        self._layers = [self._new_cache(block, states) for block in self._blocks]
        self._bias_by_distance = self._distance_biases()
        # Of each entry of the cache: which beams have it in their past, and its place in the text.
        self._is_past = torch.empty((len(mask), num_beams, 0), dtype=torch.bool, device=mask.device)
        self._positions = torch.empty((len(mask), 0), dtype=torch.int64, device=mask.device)

    @property
    def _blocks(self) -> Any:
        return self._model.decoder.block

    def step(self, tokens: torch.Tensor, *, parents: torch.Tensor | None = None) -> torch.Tensor:
        """Feed one token to each beam.

        Args:
            tokens: The newest token of each beam, shape ``(rows, beams)``.
            parents: For each beam, which of those of the step before it goes on from, shape
                ``(rows, beams)``; each from itself if None.

        Returns:
            Log-probabilities of the next token, float32, shape ``(rows, beams, vocabulary)``.
        """
        self._add_entries(parents)
        hidden = self._model.shared(tokens)
        bias = self._self_bias(dtype=hidden.dtype)
        for block, cache in zip(self._blocks, self._layers, strict=True):
            hidden = self._attend_to_past(block.layer[0], cache, hidden, bias=bias)
            hidden = self._attend_to_input(block.layer[1], cache, hidden)
            hidden = block.layer[2](hidden)
        hidden = self._model.decoder.final_layer_norm(hidden)
        if self._model.config.scale_decoder_outputs:
            hidden = hidden * self._model.config.d_model**-0.5
        return torch.log_softmax(self._model.lm_head(hidden).float(), dim=-1)

    def select(self, rows: torch.Tensor) -> None:
        """Keep these rows alone, in this order.

        Args:
            rows: Places of rows, int64.
        """
        self._cross_bias = self._cross_bias[rows]
        self._is_past, self._positions = self._is_past[rows], self._positions[rows]
        for cache in self._layers:
            cache.select(rows)

    def _new_cache(self, block: Any, states: torch.Tensor) -> _LayerCache:
        own, cross = block.layer[0].SelfAttention, block.layer[1].EncDecAttention
        project = torch.cat([own.q.weight, own.k.weight, own.v.weight])
        empty = states.new_empty((len(states), _ROOM * self._num_beams, own.inner_dim))
        empty = empty.to(project.dtype)
        return _LayerCache(
            project, empty, torch.empty_like(empty), cross.k(states), cross.v(states)
        )

    def _distance_biases(self) -> torch.Tensor:
        """Relative position bias, shape ``(distances, heads)``; the last for all beyond."""
        attention = self._blocks[0].layer[0].SelfAttention
        furthest = attention.relative_attention_max_distance
        distances = torch.arange(furthest + 1, device=self._model.device)
        biases: torch.Tensor = attention.relative_attention_bias(_buckets(attention, -distances))
        return biases

    def _add_entries(self, parents: torch.Tensor | None) -> None:
        rows, beams, num_entries = self._is_past.shape
        if parents is not None:
            entries = parents[..., None].expand(-1, -1, num_entries)
            self._is_past = self._is_past.gather(1, entries)
        if num_entries + beams > self._layers[0].keys.shape[1]:
            self._leave_behind()
        own = torch.eye(beams, dtype=torch.bool, device=self._is_past.device)
        self._is_past = torch.cat([self._is_past, own.expand(rows, -1, -1)], dim=2)
        self._positions = functional.pad(self._positions, (0, beams), value=self._length)
        self._length += 1

    def _leave_behind(self) -> None:
        """Drop what no beam has in its past; rows that keep fewer entries are filled up."""
        is_needed = self._is_past.any(dim=1)
        num_kept = int(is_needed.sum(dim=1).max())
        entries = is_needed.byte().argsort(dim=1, descending=True, stable=True)[:, :num_kept]
        self._positions = self._positions.gather(1, entries)
        places = entries[:, None].expand(-1, self._num_beams, -1)
        self._is_past = self._is_past.gather(2, places)
        with_room = functional.pad(entries, (0, _ROOM * self._num_beams))
        for cache in self._layers:
            cache.keep(with_room)

    def _self_bias(self, *, dtype: torch.dtype) -> torch.Tensor:
        """Relative position bias at a beam's own past, as good as minus infinity elsewhere."""
        distances = (self._length - 1 - self._positions).clamp(max=len(self._bias_by_distance) - 1)
        by_head = functional.embedding(distances, self._bias_by_distance).to(dtype)
        by_head = by_head.transpose(1, 2)[:, :, None]
        return torch.where(self._is_past[:, None], by_head, torch.finfo(dtype).min)

    def _attend_to_past(
        self, layer: Any, cache: _LayerCache, hidden: torch.Tensor, *, bias: torch.Tensor
    ) -> torch.Tensor:
        attention = layer.SelfAttention
        projected = functional.linear(layer.layer_norm(hidden), cache.project)
        queries, keys, values = projected.chunk(3, dim=-1)
        end = bias.shape[3]
        new = slice(end - self._num_beams, end)
        cache.keys[:, new], cache.values[:, new] = keys, values
        past_keys, past_values = cache.keys[:, :end], cache.values[:, :end]
        mixed = attend(attention, queries, past_keys, past_values, bias=bias)
        attended: torch.Tensor = hidden + attention.o(mixed)
        return attended

    def _attend_to_input(
        self, layer: Any, cache: _LayerCache, hidden: torch.Tensor
    ) -> torch.Tensor:
        attention = layer.EncDecAttention
        queries = attention.q(layer.layer_norm(hidden))
        bias = self._cross_bias
        mixed = attend(attention, queries, cache.cross_keys, cache.cross_values, bias=bias)
        attended: torch.Tensor = hidden + attention.o(mixed)
        return attended


def causal_bias(attention: Any, steps: int, *, like: torch.Tensor) -> torch.Tensor:
    """Relative position bias at earlier steps, as good as minus infinity at later ones.

    Args:
        attention: Self-attention of the decoder's first block.
        steps: Number of tokens.
        like: Gives device and float type.

    Returns:
        Shape ``(1, heads, steps, steps)``.
    """
    places = torch.arange(steps, device=like.device)
    distances = places[None, :] - places[:, None]
    position: torch.Tensor = attention.relative_attention_bias(_buckets(attention, distances))
    position = position.permute(2, 0, 1).to(like.dtype)
    return position.masked_fill(distances > 0, torch.finfo(like.dtype).min)[None]


def _buckets(attention: Any, distances: torch.Tensor) -> torch.Tensor:
    buckets: torch.Tensor = attention._relative_position_bucket(
        distances,
        bidirectional=False,
        num_buckets=attention.relative_attention_num_buckets,
        max_distance=attention.relative_attention_max_distance,
    )
    return buckets


def attend(
    attention: Any,
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    *,
    bias: torch.Tensor,
) -> torch.Tensor:
    """What the heads of an attention give, before its output projection.

    Args:
        attention: Says how many heads there are.
        queries: Shape ``(rows, queries, inner)``.
        keys: Shape ``(rows, keys, inner)``.
        values: As ``keys``.
        bias: Added to the scores, broadcast to ``(rows, heads, queries, keys)``.

    Returns:
        Shape ``(rows, queries, inner)``.
    """
    split = (tensor.unflatten(2, (attention.n_heads, -1)) for tensor in (queries, keys, values))
    queries, keys, values = (tensor.transpose(1, 2) for tensor in split)
    # T5 does not scale its dot products.
    mixed = functional.scaled_dot_product_attention(
        queries, keys, values, attn_mask=bias, scale=1.0
    )
    return mixed.transpose(1, 2).flatten(start_dim=2)
