import pytest
import torch

from raycrp.train.averaging import WeightAverage


def make(value):
    module = torch.nn.Linear(1, 1, bias=False)
    module.weight.data.fill_(value)
    return module


def test_average_moves_towards_the_weights():
    module = make(0.0)
    average = WeightAverage(module, decay=0.5)
    module.weight.data.fill_(8.0)
    for step in (100, 101):
        average.update(module, step=step)
    with average.applied(module):
        assert module.weight.item() == pytest.approx(6.0)
    assert module.weight.item() == 8.0


def test_the_start_is_soon_forgotten():
    module = make(0.0)
    average = WeightAverage(module, decay=0.999)
    module.weight.data.fill_(11.0)
    average.update(module, step=1)
    with average.applied(module):
        assert module.weight.item() == pytest.approx(9.0)


def test_weights_come_back_after_an_error():
    module = make(1.0)
    average = WeightAverage(module, decay=0.5)
    module.weight.data.fill_(2.0)
    with pytest.raises(KeyError), average.applied(module):
        raise KeyError
    assert module.weight.item() == 2.0


def test_state_goes_on():
    module = make(1.0)
    first = WeightAverage(module, decay=0.5)
    module.weight.data.fill_(3.0)
    first.update(module, step=100)
    second = WeightAverage(module, decay=0.5)
    second.load_state({**first.state(), "current": torch.zeros(1)})
    with second.applied(module):
        assert module.weight.item() == pytest.approx(2.0)
