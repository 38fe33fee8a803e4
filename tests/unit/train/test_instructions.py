from types import SimpleNamespace

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


def make_table():
    zeros = np.zeros((4, 1), dtype=np.int64)
    empty = Texts(np.zeros(0, dtype=np.int32), zeros, zeros)
    return TokenTable(
        row_ids=np.arange(4),
        tasks=np.array([0, 0, 1, 1]),
        templates=np.array([0, 0, 1, 1]),
        reaction_types=np.zeros(4, dtype=np.int64),
        inputs=empty,
        targets=empty,
    )


def make_instructions(choice=InstructionChoice.ADAPTIVE, refresh_steps=4):
    made = Instructions(make_table(), choice=choice, refresh_steps=refresh_steps)
    made.load_state(
        {**made.state(), **{f"vectors_{t}": torch.from_numpy(v) for t, v in VECTORS.items()}}
    )
    return made


def make_batch(rows, pooled_mask, *, passes=0):
    none = torch.zeros((len(rows), 0), dtype=torch.int64)
    mask = torch.tensor(pooled_mask)
    return Batch(
        rows=np.array(rows),
        input_ids=none,
        attention_mask=mask,
        pooled_mask=mask,
        decoder_input_ids=none,
        labels=none,
        passes=passes,
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


def test_of_a_rows_visits_in_an_epoch_the_last_pass_decides():
    far, near = [[9.0, 0.0]], [[1.0, 0.0]]
    # In one batch, in two batches whichever comes first, and with a checkpoint in between.
    once, twice, reversed_ = make_instructions(), make_instructions(), make_instructions()
    once.observe(
        make_batch([1, 1], [[1], [1]], passes=np.array([3, 2])), hidden=torch.tensor([near, far])
    )
    twice.observe(make_batch([1], [[1]], passes=np.array([2])), hidden=torch.tensor([far]))
    resumed = make_instructions()
    resumed.load_state(twice.state())
    resumed.observe(make_batch([1], [[1]], passes=np.array([3])), hidden=torch.tensor([near]))
    for passes, hidden in ((3, near), (2, far)):
        batch = make_batch([1], [[1]], passes=np.array([passes]))
        reversed_.observe(batch, hidden=torch.tensor([hidden]))
    for instructions in (once, resumed, reversed_):
        instructions.start_epoch()
        assert instructions.templates(np.array([1])).tolist() == [0]
    twice.start_epoch()
    assert twice.templates(np.array([1])).tolist() == [1]


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


class Encoder(torch.nn.Module):
    """Puts each token's id first in its vector; counts its passes."""

    config = SimpleNamespace(d_model=2)

    def __init__(self):
        super().__init__()
        self.weights = torch.nn.Parameter(torch.zeros(1))
        self.num_passes = 0

    def forward(self, *, input_ids, **_):
        self.num_passes += 1
        hidden = torch.stack([input_ids.float(), torch.zeros(input_ids.shape)], dim=-1)
        return SimpleNamespace(last_hidden_state=hidden)


def test_an_exact_choice_takes_one_pass_whatever_the_lengths():
    instructions = make_instructions(refresh_steps=1)
    inputs = SimpleNamespace(plain_inputs=lambda rows: [[10] * 20_000, [10]][: len(rows)])
    encoder = Encoder()
    instructions.choose(encoder, rows=np.array([0, 1]), collator=inputs, pad_id=0)
    assert encoder.num_passes == 1
    assert instructions.templates(np.arange(4)).tolist() == [1, 1, 1, 1]


def fake_workers(monkeypatch, all_reduce):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)


def test_usage_has_the_exact_choices_of_other_workers(monkeypatch):
    instructions = make_instructions(refresh_steps=1)
    inputs = SimpleNamespace(plain_inputs=lambda rows: [[10]])
    instructions.choose(Encoder(), rows=np.array([0]), collator=inputs, pad_id=0)
    other = torch.tensor([-1, -1, 0, -1], dtype=torch.int8)
    fake_workers(monkeypatch, lambda mine, op: mine.copy_(torch.maximum(mine, other)))
    instructions.gather()
    assert instructions.templates(np.arange(4)).tolist() == [1, 0, 0, 1]


def test_choices_are_shared_on_the_device_that_collectives_work_on(monkeypatch):
    devices = []

    def all_reduce(shared, op):
        devices.append(shared.device.type)
        raise InterruptedError

    fake_workers(monkeypatch, all_reduce)
    instructions = Instructions(
        make_table(), choice=InstructionChoice.ADAPTIVE, refresh_steps=4, device="meta"
    )
    with pytest.raises(InterruptedError):
        instructions.gather()
    assert devices == ["meta"]
