from types import SimpleNamespace

import numpy as np
import pytest
import torch

from raycrp.train import validation
from raycrp.train.batches import IGNORED_LABEL, Batch
from raycrp.train.validation import validate

LABELS = torch.tensor([[1, 2], [1, 2], [2, IGNORED_LABEL]])
GUESSED = torch.tensor([[1, 2], [1, 1], [2, 0]])
TASKS_OF_ROWS = np.array([0, 0, 1])


class Engine:
    """Gives probability one half to a guess, and a quarter to each of two other tokens."""

    module = torch.nn.Identity()
    device = torch.device("cpu")

    def __call__(self, *, input_ids, **_):
        guessed = torch.nn.functional.one_hot(GUESSED[input_ids[:, 0]], 3)
        return SimpleNamespace(logits=torch.log(0.25 + 0.25 * guessed.float()))


def collate(part, *, templates, is_counted):
    ids = torch.from_numpy(part)[:, None]
    labels = LABELS[part] if is_counted else torch.full_like(LABELS[part], IGNORED_LABEL)
    return Batch(part, ids, torch.ones_like(ids), ids, ids, labels, is_counted)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_an_answer_is_exact_where_each_token_is_the_most_probable(monkeypatch, world_size):
    shares, merged = [], []

    def all_reduce(share):
        shares.append(share.clone())
        share.copy_(merged[0] if merged else torch.ones_like(share))

    monkeypatch.setattr(validation.dist, "all_reduce", all_reduce)
    # One batch: all workers but the first have none of their own.
    for rank in range(world_size):
        score(rank=rank, world_size=world_size)
    merged.append(sum(shares))
    metrics = score(rank=0, world_size=world_size)
    half, quarter = np.log(2), np.log(4)
    assert metrics == pytest.approx(
        {
            "validation_loss": (4 * half + quarter) / 5,
            "validation_accuracy": 4 / 5,
            "validation_exact": 2 / 3,
            "validation_loss_forward": (3 * half + quarter) / 4,
            "validation_exact_forward": 1 / 2,
            "validation_loss_retrosynthesis": half,
            "validation_exact_retrosynthesis": 1,
        }
    )


def score(*, rank, world_size):
    table = SimpleNamespace(tasks=TASKS_OF_ROWS, templates=np.zeros(3, dtype=np.int64))
    rows = SimpleNamespace(table=table, collate=collate, lengths=lambda chosen: np.full(3, 2))
    return validate(
        Engine(),
        rows=rows,
        chosen=np.arange(3),
        tokenizer=SimpleNamespace(pad_token_id=0),
        is_live=False,
        rank=rank,
        world_size=world_size,
        token_budget=64,
    )
