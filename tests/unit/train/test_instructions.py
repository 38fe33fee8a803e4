import numpy as np
import pytest
import torch

from raycrp.choices import InstructionChoice
from raycrp.train.batches import Batch
from raycrp.train.instructions import Instructions, nearest_templates
from raycrp.train.tokens import Texts, TokenTable

VECTORS = {
    0: np.array([[0.0, 0.0], [10.0, 0.0]], dtype=np.float32),
    1: np.array([[0.0, 5.0], [0.0, 0.0]], dtype=np.float32),
}


def make_instructions(choice=InstructionChoice.ADAPTIVE, refresh_steps=4):
    empty = np.zeros(0, dtype=np.int64)
    table = TokenTable(
        row_ids=np.arange(4),
        tasks=np.array([0, 0, 1, 1]),
        templates=np.array([0, 0, 1, 1]),
        reaction_types=np.zeros(4, dtype=np.int64),
        inputs=Texts(empty, np.zeros(5, dtype=np.int64)),
        targets=Texts(empty, np.zeros(5, dtype=np.int64)),
    )
    made = Instructions(table, choice=choice, refresh_steps=refresh_steps)
    made.load_state(
        {**made.state(), **{f"vectors_{t}": torch.from_numpy(v) for t, v in VECTORS.items()}}
    )
    return made


def make_batch(rows, pooled_mask):
    none = torch.zeros((len(rows), 0), dtype=torch.int64)
    mask = torch.tensor(pooled_mask)
    return Batch(
        rows=np.array(rows),
        input_ids=none,
        attention_mask=mask,
        pooled_mask=mask,
        decoder_input_ids=none,
        labels=none,
    )


def test_the_nearest_template_of_the_own_task_is_chosen():
    vectors = np.array([[9.0, 0.0], [1.0, 0.0], [9.0, 0.0], [0.0, 4.0]], dtype=np.float32)
    tasks = np.array([0, 0, 1, 1])
    assert nearest_templates(vectors, tasks=tasks, template_vectors=VECTORS).tolist() == [
        1,
        0,
        1,
        0,
    ]


def test_observed_choices_take_effect_in_the_next_epoch():
    instructions = make_instructions()
    # The first position belongs to the instruction and must not be pooled.
    hidden = torch.tensor([[[-99.0, 0.0], [9.0, 0.0]], [[-99.0, 0.0], [0.0, 6.0]]])
    instructions.observe(make_batch([1, 2], [[0, 1], [0, 1]]), hidden=hidden)
    rows = np.arange(4)
    assert instructions.templates(rows).tolist() == [0, 0, 1, 1]
    instructions.start_epoch()
    assert instructions.templates(rows).tolist() == [0, 1, 0, 1]
    instructions.start_epoch()
    assert instructions.templates(rows).tolist() == [0, 1, 0, 1]


def test_state_goes_on_in_the_middle_of_an_epoch():
    first = make_instructions()
    first.observe(make_batch([1], [[1]]), hidden=torch.tensor([[[9.0, 0.0]]]))
    second = make_instructions()
    second.load_state(first.state())
    second.observe(make_batch([2], [[1]]), hidden=torch.tensor([[[0.0, 6.0]]]))
    second.start_epoch()
    assert second.templates(np.arange(4)).tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("choice", "refresh_steps"),
    [
        (InstructionChoice.RANDOM, 4),
        (InstructionChoice.FIXED, 4),
        (InstructionChoice.ADAPTIVE, None),
    ],
)
def test_controls_never_change(choice, refresh_steps):
    instructions = make_instructions(choice, refresh_steps)
    instructions.observe(make_batch([1], [[1]]), hidden=torch.tensor([[[9.0, 0.0]]]))
    instructions.start_epoch()
    assert not instructions.is_live
    assert not instructions.needs_refresh(0)
    assert instructions.templates(np.arange(4)).tolist() == [0, 0, 1, 1]


def test_templates_are_encoded_anew_every_refresh_steps():
    instructions = make_instructions(refresh_steps=4)
    assert [step for step in range(10) if instructions.needs_refresh(step)] == [0, 4, 8]
    assert make_instructions(refresh_steps=1).is_exact


def test_entropy_is_within_tasks():
    instructions = make_instructions()
    rows = np.arange(4)
    assert instructions.entropy_bits(rows) == pytest.approx(0)
    instructions.observe(
        make_batch([1, 2], [[1], [1]]), hidden=torch.tensor([[[9.0, 0]], [[0, 6.0]]])
    )
    instructions.start_epoch()
    assert instructions.entropy_bits(rows) == pytest.approx(1)


def test_usage_counts_the_rows_of_each_template():
    usage = make_instructions().usage(np.array([0, 2, 3]))
    assert usage["forward"].pop("forward-01") == 1
    assert usage["retrosynthesis"].pop("retrosynthesis-02") == 2
    assert {count for counts in usage.values() for count in counts.values()} == {0}
    assert [len(counts) for counts in usage.values()] == [12, 12]
