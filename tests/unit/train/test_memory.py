"""How many tokens a pass may have, by a memory whose growth is known."""

from types import SimpleNamespace

import pytest
import torch
from minute_t5 import minute_t5

from raycrp.choices import Precision
from raycrp.config import TrainConfig
from raycrp.errors import TrainError
from raycrp.run import RunFolder
from raycrp.train import memory
from raycrp.train.deepspeed import REDUCE_BUCKET_SIZE
from raycrp.train.memory import (
    CPU_TOKEN_BUDGET,
    MEMORY_FILE,
    Sizes,
    agreed_token_budget,
    bytes_to_come,
    measure_costs,
    remembering_memory,
    run_pass,
    take_budget,
)

SIZES = Sizes(
    longest_prompt=300, longest_target=100, most_rows=1_000, num_parameters=1_000, world_size=4
)


def linear_probe(*, limit=10**12):
    """A pass takes 5,000 bytes, 10 for each token of a prompt and 30 for each of a target."""

    def probe(*, rows, prompt, target):
        taken = 5_000 + rows * (10 * prompt + 30 * target)
        if taken > limit:
            raise torch.OutOfMemoryError
        return taken

    return probe


@pytest.fixture(scope="module")
def model():
    return minute_t5().train()


def test_the_budget_is_what_the_costliest_rows_leave_room_for():
    costs = measure_costs(linear_probe(), sizes=SIZES)
    # Rows of 8 + 100 tokens take 3,080 bytes, those of 300 + 100 take 6,000.
    assert {(cost.row_tokens, cost.fixed_bytes, cost.row_bytes) for cost in costs} == {
        (400, 5_000, 6_000),
        (108, 5_000, 3_080),
    }
    room = 5_000 + 100 * 3_080
    # 100 short rows, or 51 long ones of 400 tokens; in steps of 1,024.
    assert take_budget(costs, rooms=[room, room], sizes=SIZES, before=0) == 10_800 // 1_024 * 1_024


def test_the_budget_is_at_most_a_workers_share_of_a_batch():
    costs = measure_costs(linear_probe(), sizes=SIZES)
    rooms = [1e12, 1e12]
    assert take_budget(costs, rooms=rooms, sizes=SIZES, before=0) == 1_000 * 400


def test_a_small_room_is_not_rounded_to_nothing():
    costs = measure_costs(linear_probe(), sizes=SIZES)
    room = 5_000 + 6_000.0
    assert take_budget(costs, rooms=[room, room], sizes=SIZES, before=0) == 1 * 108


def test_a_budget_taken_before_is_kept_where_it_fits_into_the_larger_share():
    costs = measure_costs(linear_probe(), sizes=SIZES)
    rooms = [5_000 + 100 * 3_080, 5_000 + 150 * 3_080]
    assert take_budget(costs, rooms=rooms, sizes=SIZES, before=11_264) == 11_264
    assert take_budget(costs, rooms=rooms, sizes=SIZES, before=8_192) == 8_192
    assert take_budget(costs, rooms=rooms, sizes=SIZES, before=20_480) == 10_240


def test_a_row_that_does_not_fit_is_refused_with_the_remedy():
    costs = measure_costs(linear_probe(), sizes=SIZES)
    with pytest.raises(TrainError, match=r"row of 400 tokens .* lower train.max_input_tokens"):
        take_budget(costs, rooms=[10_999, 99_999], sizes=SIZES, before=0)
    with pytest.raises(TrainError, match=r"a single row of 108 tokens"):
        measure_costs(linear_probe(limit=8_000), sizes=SIZES)


def test_a_probe_that_is_too_large_is_made_smaller():
    costs = measure_costs(linear_probe(limit=5_000 + 7 * 6_000), sizes=SIZES)
    assert costs[1].row_bytes == 6_000
    lonely = measure_costs(linear_probe(limit=5_000 + 6_000), sizes=SIZES)
    assert (lonely[1].fixed_bytes, lonely[1].row_bytes) == (0, 11_000)


def saved_bytes(model):
    """Bytes that a pass keeps for its backward pass, each storage once: a stand-in for a GPU's."""

    def probe(*, rows, prompt, target):
        kept = {}

        def keep(tensor):
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            run_pass(model, rows=rows, prompt=prompt, target=target)
        return sum(size for size, _ in kept.values())

    return probe


def test_what_two_passes_tell_holds_for_a_third(model):
    probe = saved_bytes(model)
    sizes = Sizes(
        longest_prompt=50, longest_target=20, most_rows=99, num_parameters=1, world_size=1
    )
    for cost, prompt in zip(measure_costs(probe, sizes=sizes), (8, 50), strict=True):
        expected = probe(rows=31, prompt=prompt, target=20)
        assert cost.fixed_bytes + 31 * cost.row_bytes == pytest.approx(expected, rel=0.01)


def test_a_pass_leaves_no_gradients(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run_pass(model, rows=3, prompt=7, target=5, smoothing=0.1)
    assert all(weight.grad is None for weight in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("train", "precision", "expected"),
    [
        # Moments 8,000, gradients 4,000.
        ({"zero_stage": 0}, Precision.FP32, 12_000),
        # Moments shared by four; the gradients are not.
        ({"zero_stage": 1}, Precision.BF16, 2_000 + 2_000 + 2 * REDUCE_BUCKET_SIZE),
        ({"zero_stage": 2}, Precision.FP16, 2_000 + 1_000 + 4 * REDUCE_BUCKET_SIZE),
        ({"zero_stage": 2, "offload": True}, Precision.FP16, 4_000),
        ({"zero_stage": 0, "ema_decay": 0.9}, Precision.FP32, 16_000),
    ],
)
def test_memory_that_training_takes_later_is_known(train, precision, expected):
    found = bytes_to_come(TrainConfig(**train), precision=precision, sizes=SIZES)
    assert found == expected


def test_a_share_of_the_gpus_memory_is_used_and_other_processes_are_left_theirs(monkeypatch):
    numbers = {"mem_get_info": (20, 32), "memory_reserved": 10, "memory_allocated": 8}
    for name, value in numbers.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    # Of 32, others have 32 - 20 - 10 = 2.
    assert memory._cuda_room(torch.device("cuda"), share=0.75) == 0.75 * 32 - 2 - 8


@pytest.mark.parametrize(
    ("setting", "before", "expected"),
    [(None, 0, CPU_TOKEN_BUDGET), (None, 2_048, 2_048), (4_096, 2_048, 4_096)],
)
def test_a_cpu_has_a_fixed_budget(tmp_path, setting, before, expected):
    budget = agreed_token_budget(
        SimpleNamespace(device=torch.device("cpu")),
        train=TrainConfig(token_budget=setting),
        precision=Precision.FP32,
        sizes=SIZES,
        run=RunFolder(str(tmp_path), "run"),
        before=before,
    )
    assert budget == expected


def test_after_running_out_of_memory_the_next_attempt_takes_less(tmp_path):
    run = RunFolder(str(tmp_path), "run")
    with (
        pytest.raises(torch.OutOfMemoryError),
        remembering_memory(run, train=TrainConfig(), token_budget=4_096, longest_row=400),
    ):
        raise torch.OutOfMemoryError
    assert run.read_json(MEMORY_FILE) == {"token_budget": 2_048}


@pytest.mark.parametrize(("setting", "budget"), [(4_096, 4_096), (None, 700)])
def test_running_out_of_memory_names_the_remedy_where_nothing_gets_less_by_itself(
    tmp_path, setting, budget
):
    run = RunFolder(str(tmp_path), "run")
    train = TrainConfig(token_budget=setting)
    with (
        pytest.raises(TrainError, match=r"passes of up to \d+ tokens; lower train.token_budget"),
        remembering_memory(run, train=train, token_budget=budget, longest_row=400),
    ):
        raise torch.OutOfMemoryError
    assert not run.exists(MEMORY_FILE)
