from types import SimpleNamespace

import pytest
import torch

from raycrp.train import meter
from raycrp.train.meter import Meter


@pytest.fixture
def make_meter(monkeypatch):
    monkeypatch.setattr(meter.dist, "all_reduce", lambda tensor: None)
    return lambda: Meter(world_size=1, device=torch.device("cpu"))


def train(one, *losses, num_targets):
    batch = SimpleNamespace(is_counted=True, num_tokens=8, num_padded=10)
    for loss in losses:
        one.add(batch, loss=torch.tensor(loss))
        one.end_step(num_rows=2, num_targets=num_targets)


def test_a_reading_is_the_mean_over_the_target_tokens_of_its_steps(make_meter):
    one = make_meter()
    train(one, 6.0, 10.0, num_targets=4)
    metrics = one.read()
    assert metrics["loss"] == 2.0
    assert metrics["padding_share"] == pytest.approx(0.2)
    train(one, 2.0, num_targets=4)
    assert one.read()["loss"] == 0.5


def test_the_first_reading_after_a_resume_is_that_of_an_unbroken_training(make_meter):
    before, again = make_meter(), make_meter()
    train(before, 6.0, num_targets=4)
    again.start(before.carry())
    train(again, 10.0, num_targets=12)
    carried = again.carry()
    assert again.read()["loss"] == 1.0
    assert (carried["loss"], carried["targets"]) == (16.0, 16)
    train(again, 3.0, num_targets=4)
    assert again.read()["loss"] == 0.75
