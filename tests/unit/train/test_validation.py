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
    return Batch(part, ids, torch.ones_like(ids), ids, ids, LABELS[part], is_counted)


def test_an_answer_is_exact_where_each_token_is_the_most_probable(monkeypatch):
    monkeypatch.setattr(validation.dist, "all_reduce", lambda _: None)
    table = SimpleNamespace(tasks=TASKS_OF_ROWS, templates=np.zeros(3, dtype=np.int64))
    rows = SimpleNamespace(table=table, collate=collate, lengths=lambda chosen: np.full(3, 2))
    metrics = validate(
        Engine(),
        rows=rows,
        chosen=np.arange(3),
        tokenizer=SimpleNamespace(pad_token_id=0),
        is_live=False,
        rank=0,
        world_size=1,
        token_budget=64,
    )
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
