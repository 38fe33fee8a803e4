"""Beam search over a batch of rows, exact in what it returns and quick to let go of rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from raycrp.model.incremental import IncrementalDecoder

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

_LIVE_SHARE = 0.75


@dataclass(frozen=True)
class BeamSettings:
    """How a search runs.

    Args:
        num_beams: Beams of each row.
        num_return: Answers of each row, at most ``num_beams``.
        max_new_tokens: Longest answer, the end of text included.
        start_id: Token that an answer starts from.
        end_id: End of text.
        banned_ids: Tokens that no answer holds, such as padding.
    """

    num_beams: int
    num_return: int
    max_new_tokens: int
    start_id: int
    end_id: int
    banned_ids: tuple[int, ...]


@dataclass(frozen=True)
class Answer:
    """One answer as token ids, and the sum of its tokens' log-probabilities."""

    token_ids: tuple[int, ...]
    log_probability: float


def search_beams(
    model: "T5ForConditionalGeneration",
    *,
    states: torch.Tensor,
    mask: torch.Tensor,
    settings: BeamSettings,
    beams_per_row: Sequence[int] | None = None,
) -> list[list[Answer]]:
    """The best answers of each row by log-probability, without a length penalty.

    A row is finished when ``num_return`` answers have ended and none of its open beams is more
    probable, since adding tokens only lowers a probability: going on could not change the result.

    Args:
        model: A T5 in evaluation mode.
        states: What its encoder says, shape ``(rows, length, dim)``.
        mask: 1 at real tokens, shape ``(rows, length)``.
        settings: How the search runs.
        beams_per_row: Beams of each row, at most ``settings.num_beams``; all of them if None. A
            row's answers are those that it gets in a search of its own with so many beams.

    Returns:
        For each row at most ``num_return`` answers, and no more than it has beams, best first. An
        answer that reached ``max_new_tokens`` has no end of text.
    """
    beams = torch.tensor(beams_per_row or [settings.num_beams] * len(mask), device=mask.device)
    search = _Search(model, states=states, mask=mask, settings=settings, beams_per_row=beams)
    for step in range(settings.max_new_tokens):
        search.advance(is_last=step + 1 == settings.max_new_tokens)
        if search.is_over:
            break
    return search.answers()


class _Search:
    """Open beams and ended answers of a batch."""

    def __init__(
        self,
        model: "T5ForConditionalGeneration",
        *,
        states: torch.Tensor,
        mask: torch.Tensor,
        settings: BeamSettings,
        beams_per_row: torch.Tensor,
    ) -> None:
        rows, beams, device = len(mask), settings.num_beams, mask.device
        self._settings = settings
        self._beams_per_row = beams_per_row[:, None]
        self._num_return = beams_per_row.clamp(max=settings.num_return).tolist()
        self._decoder = IncrementalDecoder(model, states=states, mask=mask, num_beams=beams)
        self._ended: list[list[Answer]] = [[] for _ in range(rows)]
        self._places = torch.arange(rows, device=device)
        self._best_ended = torch.full((rows, settings.num_return), -torch.inf, device=device)
        # All beams start the same, so that only one of them may be continued.
        self._scores = torch.full((rows, beams), -torch.inf, device=device)
        self._scores[:, 0] = 0
        self._tokens = torch.full((rows, beams), settings.start_id, device=device)
        self._parents = torch.zeros_like(self._tokens)
        # What each beam has written, what it starts from left out.
        self._written = torch.empty((rows, beams, 0), dtype=torch.int64, device=device)

    @property
    def is_over(self) -> bool:
        """Whether no row is open any more."""
        return len(self._places) == 0

    def answers(self) -> list[list[Answer]]:
        """Ended answers of all rows, best first."""
        return [
            sorted(ended, key=lambda answer: -answer.log_probability)[:wanted]
            for ended, wanted in zip(self._ended, self._num_return, strict=True)
        ]

    def advance(self, *, is_last: bool) -> None:
        """Continue every open beam by one token; the last time, all that is left ends."""
        num_beams = self._settings.num_beams
        scores, parents, tokens = self._continuations()
        is_end = tokens == self._settings.end_id
        # Of twice as many candidates as beams the better half may end; the rest are there to keep
        # as many beams open.
        ranks = torch.arange(2 * num_beams, device=scores.device)
        ends = torch.ones_like(is_end) if is_last else is_end.clone()
        ends &= ranks < self._beams_per_row
        self._end_answers(ends, scores, parents, tokens)
        closed = is_end | (ranks >= 2 * self._beams_per_row)
        scores, order = scores.masked_fill(closed, -torch.inf).topk(num_beams)
        scores = scores.masked_fill(ranks[:num_beams] >= self._beams_per_row, -torch.inf)
        self._parents, self._tokens = parents.gather(1, order), tokens.gather(1, order)
        self._scores = scores
        past = self._parents[..., None].expand_as(self._written)
        self._written = torch.cat([self._written.gather(1, past), self._tokens[..., None]], dim=2)
        self._drop_finished_rows()

    def _continuations(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Scores, parents and tokens of twice as many candidates as beams, best first."""
        steps = self._decoder.step(self._tokens, parents=self._parents)
        steps[..., self._settings.banned_ids] = -torch.inf
        totals = self._scores[..., None] + steps
        scores, index = totals.flatten(start_dim=1).topk(2 * self._settings.num_beams)
        vocabulary = steps.shape[2]
        return scores, index // vocabulary, index % vocabulary

    def _end_answers(
        self,
        ends: torch.Tensor,
        scores: torch.Tensor,
        parents: torch.Tensor,
        tokens: torch.Tensor,
    ) -> None:
        ends = ends & scores.isfinite()
        candidates = scores.masked_fill(~ends, -torch.inf)
        merged = torch.cat([self._best_ended, candidates], dim=1)
        self._best_ended = merged.topk(self._settings.num_return).values
        rows, columns = ends.nonzero(as_tuple=True)
        past = self._written[rows, parents[rows, columns]]
        sequences = torch.cat([past, tokens[rows, columns, None]], dim=1).tolist()
        places = self._places[rows].tolist()
        for place, sequence, score in zip(
            places, sequences, scores[rows, columns].tolist(), strict=True
        ):
            self._ended[place].append(Answer(tuple(sequence), score))

    def _drop_finished_rows(self) -> None:
        last = self._beams_per_row.clamp(max=self._settings.num_return) - 1
        is_open = self._best_ended.gather(1, last).squeeze(1) < self._scores[:, 0]
        num_open = int(is_open.sum())
        if num_open > _LIVE_SHARE * len(is_open):
            return
        rows = is_open.nonzero().squeeze(1)
        self._decoder.select(rows)
        self._places, self._best_ended = self._places[rows], self._best_ended[rows]
        self._beams_per_row = self._beams_per_row[rows]
        self._scores, self._tokens = self._scores[rows], self._tokens[rows]
        self._parents, self._written = self._parents[rows], self._written[rows]
