"""What a T5's encoder says of prompts: in passing, or kept while several passes read it."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from raycrp.choices import Fusion
from raycrp.model.encode import evaluating, length_batches, pad_rows, tokenize_texts
from raycrp.model.fusion import fusion_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration

StateBatch = tuple[list[int], torch.Tensor, torch.Tensor]
"""Places of prompts, their states ``(rows, length, dim)`` and mask ``(rows, length)``."""


class PromptStates:
    """Encoder states of prompts, each distinct text encoded once and kept where the model runs.

    The encoder reads in both directions. Where a prompt is one text (fusion ``text``), the state
    of every token depends on the whole of it: prompts that differ in their reaction type alone
    have no state in common and cost a pass each. Where its parts are encoded apart (fusion
    ``hidden``), each distinct part is encoded once and a prompt's states are those of its parts,
    one behind the other, so that an input under many reaction types costs one pass.

    Args:
        model: Runs where its weights are; its training mode is restored.
        tokenizer: Its tokenizer.
        prompts: Whole prompts; the states of all of them are in memory for as long as this is.
        token_budget: Rows times longest row of one padded batch, in tokens.
    """

    def __init__(
        self,
        model: "T5ForConditionalGeneration",
        tokenizer: "PreTrainedTokenizerBase",
        prompts: Sequence[str],
        *,
        token_budget: int,
    ) -> None:
        rows, _ = tokenize_texts(tokenizer, prompts, max_tokens=None)
        end_id = tokenizer.eos_token_id if fusion_of(model) is Fusion.HIDDEN else None
        self._parts = [_split_parts(row, end_id=end_id) for row in rows]
        self._lengths = [len(row) for row in rows]
        distinct = list(dict.fromkeys(part for parts in self._parts for part in parts))
        self._starts: dict[tuple[int, ...], int] = {}
        kept: list[torch.Tensor] = []
        num_kept = 0
        for places, states, mask in _encode_rows(
            model, distinct, pad_id=tokenizer.pad_token_id, token_budget=token_budget
        ):
            for place in places:
                self._starts[distinct[place]] = num_kept
                num_kept += len(distinct[place])
            kept.append(states[mask.bool()])
        self._states = torch.cat(kept) if kept else torch.empty(0)

    def __len__(self) -> int:
        return len(self._lengths)

    def batches(
        self, places: Sequence[int], *, token_budget: int, ranks: Sequence[int] | None = None
    ) -> Iterator[StateBatch]:
        """States of some of the prompts in padded batches, rows of similar length together.

        Args:
            places: Places of the prompts.
            token_budget: Rows times longest row of one padded batch, in tokens.
            ranks: As in ``length_batches``, one for each of ``places``.
        """
        lengths = [self._lengths[place] for place in places]
        for numbers in length_batches(lengths, token_budget=token_budget, ranks=ranks):
            found = [places[number] for number in numbers]
            positions, mask = pad_rows(
                [self._positions(place) for place in found], pad_id=0, device=self._states.device
            )
            yield found, self._states[positions], mask

    def _positions(self, place: int) -> list[int]:
        return [
            position
            for part in self._parts[place]
            for position in range(self._starts[part], self._starts[part] + len(part))
        ]


def state_batches(
    model: "T5ForConditionalGeneration",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[str] | PromptStates,
    *,
    places: Sequence[int],
    token_budget: int,
    ranks: Sequence[int] | None = None,
    max_input_tokens: int | None = None,
) -> Iterator[StateBatch]:
    """States of some of the prompts: encoded here and let go of again, or those that are kept.

    Args:
        model: Runs where its weights are; its training mode is restored.
        tokenizer: Its tokenizer.
        prompts: Whole prompts, or their states.
        places: Places of the prompts that are wanted.
        token_budget: Rows times longest row of one padded batch, in tokens.
        ranks: As in ``length_batches``, one for each of ``places``.
        max_input_tokens: Longer prompts are cut to this; kept states are as they are.
    """
    if isinstance(prompts, PromptStates):
        yield from prompts.batches(places, token_budget=token_budget, ranks=ranks)
        return
    wanted = [prompts[place] for place in places]
    rows, _ = tokenize_texts(tokenizer, wanted, max_tokens=max_input_tokens)
    for numbers, states, mask in _encode_rows(
        model, rows, pad_id=tokenizer.pad_token_id, token_budget=token_budget, ranks=ranks
    ):
        yield [places[number] for number in numbers], states, mask


def _encode_rows(
    model: Any,
    rows: Sequence[Sequence[int]],
    *,
    pad_id: int,
    token_budget: int,
    ranks: Sequence[int] | None = None,
) -> Iterator[StateBatch]:
    lengths = [len(row) for row in rows]
    for places in length_batches(lengths, token_budget=token_budget, ranks=ranks):
        ids, mask = pad_rows([rows[i] for i in places], pad_id=pad_id, device=model.device)
        with evaluating(model):
            states = model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
        yield places, states, mask


def _split_parts(row: Sequence[int], *, end_id: int | None) -> list[tuple[int, ...]]:
    """A prompt's parts, each with the token that ends it; the whole prompt if there is none."""
    parts: list[tuple[int, ...]] = []
    start = 0
    for place, token in enumerate(row, start=1):
        if token == end_id or place == len(row):
            parts.append(tuple(row[start:place]))
            start = place
    return parts
