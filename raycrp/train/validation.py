"""Validation: loss and exact matches of the validation rows, shared out among the workers."""

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy

from raycrp.arrays import IntArray
from raycrp.model.encode import encode_token_ids, evaluating, length_batches
from raycrp.train.batches import IGNORED_LABEL, Batch, to_device
from raycrp.train.instructions import nearest_templates, template_vectors
from raycrp.train.rows import Rows
from raycrp.train.tokens import TASKS

_NUM_SUMS = 5


def validate(
    engine: Any,
    *,
    rows: Rows,
    chosen: IntArray,
    tokenizer: Any,
    is_live: bool,
    rank: int,
    world_size: int,
    token_budget: int,
) -> dict[str, float]:
    """Loss, token accuracy and exact matches on validation rows; every worker calls this.

    A greedy answer equals the target just where each of its tokens is the most probable one after
    those before it in the target, so that exact matches cost no decoding.

    Args:
        engine: The DeepSpeed engine.
        rows: The validation rows.
        chosen: Places of the rows to score.
        tokenizer: LLM-CRP's tokenizer.
        is_live: Whether instructions are chosen anew by the encoder as it is.
        rank: Number of this worker.
        world_size: Number of workers; each scores its share.
        token_budget: Rows times longest row of one padded batch, in tokens.

    Returns:
        The metrics ``validation_*``, the same on every worker.
    """
    batches = list(length_batches(rows.lengths(chosen).tolist(), token_budget=token_budget))
    num_rounds = -(-len(batches) // world_size)
    totals = np.zeros((len(TASKS), _NUM_SUMS))
    choose = _Chooser(engine, rows=rows, tokenizer=tokenizer, is_live=is_live, budget=token_budget)
    with evaluating(engine.module):
        for number in range(num_rounds):
            place = number * world_size + rank
            is_counted = place < len(batches)
            part = chosen[batches[place if is_counted else 0]]
            batch = rows.collate(part, templates=choose(part), is_counted=is_counted)
            # One past the end only keeps the workers in step: without targets it is "exact".
            totals += is_counted * _score(engine, batch, tasks=rows.table.tasks[part])
    return _metrics(_sum_over_workers(totals, engine.device))


def chosen_rows(rows: Rows, *, max_rows: int, seed: int) -> IntArray:
    """The validation rows that are scored: all, or as many as asked for, drawn once.

    Args:
        rows: The validation rows.
        max_rows: Rows at most.
        seed: Seed of the draw.
    """
    if len(rows.kept) <= max_rows:
        return rows.kept
    drawn = np.random.default_rng(seed).choice(rows.kept, size=max_rows, replace=False)
    return np.sort(drawn)


class _Chooser:
    """Instructions of validation rows: those of the prompt stage, or the live encoder's."""

    def __init__(
        self, engine: Any, *, rows: Rows, tokenizer: Any, is_live: bool, budget: int
    ) -> None:
        self._rows = rows
        self._budget = budget
        self._pad_id = tokenizer.pad_token_id
        self._encoder = engine.module.get_encoder() if is_live else None
        if self._encoder is not None:
            self._vectors = template_vectors(self._encoder, tokenizer=tokenizer)

    def __call__(self, part: IntArray) -> IntArray:
        if self._encoder is None:
            return self._rows.table.templates[part]
        inputs = self._rows.collate.plain_inputs(part)
        vectors = encode_token_ids(
            self._encoder, rows=inputs, pad_id=self._pad_id, token_budget=self._budget
        )
        tasks = self._rows.table.tasks[part]
        return nearest_templates(vectors, tasks=tasks, template_vectors=self._vectors)


def _score(engine: Any, batch: Batch, *, tasks: IntArray) -> Any:
    labels = to_device(batch.labels, engine.device)
    logits = engine(**batch.model_inputs(engine.device)).logits.float()
    losses = cross_entropy(
        logits.transpose(1, 2), labels, ignore_index=IGNORED_LABEL, reduction="none"
    )
    is_real = labels != IGNORED_LABEL
    is_right = (logits.argmax(-1) == labels) & is_real
    num_right, num_real = is_right.sum(1), is_real.sum(1)
    is_exact = num_right == num_real
    columns = [losses.sum(1), num_right, num_real, is_exact, torch.ones_like(num_real)]
    totals = np.zeros((len(TASKS), _NUM_SUMS))
    np.add.at(totals, tasks, torch.stack(columns, dim=1).cpu().numpy())
    return totals


def _sum_over_workers(totals: Any, device: torch.device) -> Any:
    shared = torch.from_numpy(totals).to(device)
    dist.all_reduce(shared)
    return shared.cpu().numpy()


def _metrics(totals: Any) -> dict[str, float]:
    losses, rights, tokens, exact, rows = totals.sum(axis=0)
    metrics = {
        "validation_loss": float(losses / tokens),
        "validation_accuracy": float(rights / tokens),
        "validation_exact": float(exact / rows),
    }
    for task, (loss, _, num_tokens, exact, rows) in zip(TASKS, totals, strict=True):
        if rows:
            metrics[f"validation_loss_{task}"] = float(loss / num_tokens)
            metrics[f"validation_exact_{task}"] = float(exact / rows)
    return metrics
