"""A T5 decoder run token by token for many beams, without ever copying its cache.

The keys and values of all beams of a row are kept side by side as they were computed. Which of
them a beam may look at, namely its own past, is a matter of the attention mask alone, so that
nothing is moved when beams change places; the encoder's keys and values exist once a row, not
once a beam.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

_FIRST_CAPACITY = 32


@dataclass
class _LayerCache:
    """Keys and values of one decoder layer.

    Args:
        keys: Past of all beams, shape ``(rows, heads, capacity * beams, head_dim)``.
        values: As ``keys``.
        cross_keys: Of the encoder, shape ``(rows, heads, length, head_dim)``.
        cross_values: As ``cross_keys``.
    """

    keys: torch.Tensor
    values: torch.Tensor
    cross_keys: torch.Tensor
    cross_values: torch.Tensor

    def select(self, rows: torch.Tensor) -> None:
        """Keep these rows."""
        self.keys, self.values = self.keys[rows], self.values[rows]
        self.cross_keys, self.cross_values = self.cross_keys[rows], self.cross_values[rows]

    def double(self) -> None:
        """Make room for as many tokens again."""
        self.keys = torch.cat([self.keys, torch.empty_like(self.keys)], dim=2)
        self.values = torch.cat([self.values, torch.empty_like(self.values)], dim=2)


class IncrementalDecoder:
    """The decoder's state for a batch of rows with as many beams each.

    Args:
        model: A T5 in evaluation mode.
        ids: Padded input ids, shape ``(rows, length)``.
        mask: 1 at real tokens, shape ``(rows, length)``.
        num_beams: Beams of each row.
    """

    def __init__(
        self,
        model: "T5ForConditionalGeneration",
        *,
        ids: torch.Tensor,
        mask: torch.Tensor,
        num_beams: int,
    ) -> None:
        self._model: Any = model
        self._num_beams = num_beams
        self._length = 0
        states = self._model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
        lowest = torch.finfo(states.dtype).min
        self._cross_bias = (mask[:, None, None, :] == 0).to(states.dtype) * lowest
        self._layers = [self._new_cache(block, states) for block in self._blocks]

    @property
    def _blocks(self) -> Any:
        return self._model.decoder.block

    def step(self, tokens: torch.Tensor, *, ancestry: torch.Tensor) -> torch.Tensor:
        """Feed one token to each beam.

        Args:
            tokens: The newest token of each beam, shape ``(rows, beams)``.
            ancestry: For each beam, in which place its past stood at each step, the newest last,
                shape ``(rows, beams, steps)``.

        Returns:
            Log-probabilities of the next token, float32, shape ``(rows, beams, vocabulary)``.
        """
        if self._length * self._num_beams == self._layers[0].keys.shape[2]:
            for cache in self._layers:
                cache.double()
        self._length += 1
        hidden = self._model.shared(tokens)
        bias = self._self_bias(ancestry, dtype=hidden.dtype)
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
        for cache in self._layers:
            cache.select(rows)

    def _new_cache(self, block: Any, states: torch.Tensor) -> _LayerCache:
        cross = block.layer[1].EncDecAttention
        keys, values = _split_heads(cross, cross.k(states)), _split_heads(cross, cross.v(states))
        shape = (len(keys), keys.shape[1], _FIRST_CAPACITY * self._num_beams, keys.shape[3])
        return _LayerCache(keys.new_empty(shape), keys.new_empty(shape), keys, values)

    def _self_bias(self, ancestry: torch.Tensor, *, dtype: torch.dtype) -> torch.Tensor:
        """Relative position bias at a beam's own past, as good as minus infinity elsewhere."""
        attention = self._blocks[0].layer[0].SelfAttention
        distances = torch.arange(self._length - 1, -1, -1, device=ancestry.device)
        buckets = attention._relative_position_bucket(
            -distances,
            bidirectional=False,
            num_buckets=attention.relative_attention_num_buckets,
            max_distance=attention.relative_attention_max_distance,
        )
        position = attention.relative_attention_bias(buckets).T.to(dtype)
        places = torch.arange(self._num_beams, device=ancestry.device)
        is_past = ancestry[..., None] == places
        by_head = position[None, :, None, :, None]
        bias = torch.where(is_past[:, None], by_head, torch.finfo(dtype).min)
        return bias.flatten(start_dim=3)

    def _attend_to_past(
        self, layer: Any, cache: _LayerCache, hidden: torch.Tensor, *, bias: torch.Tensor
    ) -> torch.Tensor:
        attention = layer.SelfAttention
        normed = layer.layer_norm(hidden)
        end = self._length * self._num_beams
        new = slice(end - self._num_beams, end)
        cache.keys[:, :, new] = _split_heads(attention, attention.k(normed))
        cache.values[:, :, new] = _split_heads(attention, attention.v(normed))
        queries = _split_heads(attention, attention.q(normed))
        mixed = _attend(queries, cache.keys[:, :, :end], cache.values[:, :, :end], bias=bias)
        attended: torch.Tensor = hidden + attention.o(mixed)
        return attended

    def _attend_to_input(
        self, layer: Any, cache: _LayerCache, hidden: torch.Tensor
    ) -> torch.Tensor:
        attention = layer.EncDecAttention
        queries = _split_heads(attention, attention.q(layer.layer_norm(hidden)))
        mixed = _attend(queries, cache.cross_keys, cache.cross_values, bias=self._cross_bias)
        attended: torch.Tensor = hidden + attention.o(mixed)
        return attended


def score_tokens(
    model: "T5ForConditionalGeneration",
    *,
    ids: torch.Tensor,
    mask: torch.Tensor,
    tokens: torch.Tensor,
) -> torch.Tensor:
    """Log-probabilities of given answers, all of their tokens in one pass.

    As in the search, the encoder's keys and values exist once a row, not once an answer.

    Args:
        model: A T5 in evaluation mode.
        ids: Padded input ids, shape ``(rows, length)``.
        mask: 1 at real tokens, shape ``(rows, length)``.
        tokens: Answers to each row, padded, shape ``(rows, answers, steps)``.

    Returns:
        Log-probability of each token after those before it, float32, shaped as ``tokens``.
    """
    decoder: Any = model.decoder
    states = model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
    lowest = torch.finfo(states.dtype).min
    cross_bias = (mask[:, None, None, :] == 0).to(states.dtype) * lowest
    rows, answers, steps = tokens.shape
    start = torch.full_like(tokens[..., :1], model.config.decoder_start_token_id)
    fed = torch.cat([start, tokens[..., :-1]], dim=2)
    hidden = model.shared(fed).flatten(end_dim=1)
    bias = _causal_bias(decoder.block[0].layer[0].SelfAttention, steps, like=hidden)
    for block in decoder.block:
        layer, attention = block.layer[0], block.layer[0].SelfAttention
        normed = layer.layer_norm(hidden)
        queries, keys, values = (
            _split_heads(attention, project(normed))
            for project in (attention.q, attention.k, attention.v)
        )
        hidden = hidden + attention.o(_attend(queries, keys, values, bias=bias))
        layer, attention = block.layer[1], block.layer[1].EncDecAttention
        side_by_side = layer.layer_norm(hidden).view(rows, answers * steps, -1)
        mixed = _attend(
            _split_heads(attention, attention.q(side_by_side)),
            _split_heads(attention, attention.k(states)),
            _split_heads(attention, attention.v(states)),
            bias=cross_bias,
        )
        hidden = hidden + attention.o(mixed).view_as(hidden)
        hidden = block.layer[2](hidden)
    hidden = decoder.final_layer_norm(hidden)
    if model.config.scale_decoder_outputs:
        hidden = hidden * model.config.d_model**-0.5
    scores: torch.Tensor = torch.log_softmax(model.lm_head(hidden).float(), dim=-1)
    return scores.view(rows, answers, steps, -1).gather(3, tokens[..., None]).squeeze(3)


def _causal_bias(attention: Any, steps: int, *, like: torch.Tensor) -> torch.Tensor:
    """Relative position bias at earlier steps, as good as minus infinity at later ones."""
    places = torch.arange(steps, device=like.device)
    distances = places[None, :] - places[:, None]
    buckets = attention._relative_position_bucket(
        distances,
        bidirectional=False,
        num_buckets=attention.relative_attention_num_buckets,
        max_distance=attention.relative_attention_max_distance,
    )
    position: torch.Tensor = attention.relative_attention_bias(buckets)
    position = position.permute(2, 0, 1).to(like.dtype)
    return position.masked_fill(distances > 0, torch.finfo(like.dtype).min)[None]


def _split_heads(attention: Any, projected: torch.Tensor) -> torch.Tensor:
    rows, length, _ = projected.shape
    return projected.view(rows, length, attention.n_heads, -1).transpose(1, 2)


def _attend(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, *, bias: torch.Tensor
) -> torch.Tensor:
    # T5 does not scale its dot products.
    weights = torch.softmax(queries @ keys.transpose(2, 3) + bias, dim=-1)
    mixed = (weights @ values).transpose(1, 2)
    return mixed.reshape(*mixed.shape[:2], -1)
