import pytest
import torch

from raycrp.choices import Decay, Precision
from raycrp.train.deepspeed import (
    decay_groups,
    deepspeed_settings,
    learning_rate_at,
)


def test_cosine_decay_agrees_with_torch():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    rise = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=9)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=90)
    both = torch.optim.lr_scheduler.SequentialLR(optimizer, [rise, fall], milestones=[10])
    for step in range(100):
        found = learning_rate_at(step, num_steps=100, warmup_steps=10, peak=2.0, decay=Decay.COSINE)
        assert found == pytest.approx(both.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        both.step()


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        (Decay.INVERSE_SQRT, [0.5, 1.0, 1.5, 2.0, 2.0 * (4 / 5) ** 0.5, 2.0 * (4 / 6) ** 0.5]),
        (Decay.CONSTANT, [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]),
    ],
)
def test_other_decays(decay, expected):
    found = [
        learning_rate_at(step, num_steps=50, warmup_steps=4, peak=2.0, decay=decay)
        for step in range(6)
    ]
    assert found == pytest.approx(expected)


def test_no_warmup_starts_at_the_peak():
    found = learning_rate_at(0, num_steps=10, warmup_steps=0, peak=2.0, decay=Decay.COSINE)
    assert found == 2.0


def test_norms_and_biases_are_not_decayed():
    model = torch.nn.ModuleDict(
        {
            "linear": torch.nn.Linear(3, 4),
            "layer_norm": torch.nn.LayerNorm(4),
            "relative_attention_bias": torch.nn.Embedding(8, 2),
        }
    )
    decayed, spared = decay_groups(model, weight_decay=0.1)
    assert [tuple(p.shape) for p in decayed["params"]] == [(4, 3)]
    assert decayed["weight_decay"] == 0.1
    assert sorted(tuple(p.shape) for p in spared["params"]) == [(4,), (4,), (4,), (8, 2)]
    assert spared["weight_decay"] == 0


def test_settings_name_the_zero_stage_and_keep_our_optimizer():
    settings = deepspeed_settings(
        zero_stage=3, micro_batch_size=4, gradient_clip=0.5, precision=Precision.BF16
    )
    assert settings["zero_optimization"]["stage"] == 3
    assert settings["gradient_clipping"] == 0.5
    assert settings["bf16"] == {"enabled": True}
    assert settings["zero_force_ds_cpu_optimizer"] is False
    assert "offload_optimizer" not in settings["zero_optimization"]


def test_settings_put_the_optimizer_into_the_nodes_memory():
    settings = deepspeed_settings(
        zero_stage=2,
        micro_batch_size=4,
        gradient_clip=0.5,
        precision=Precision.FP32,
        offload=True,
    )
    assert settings["zero_optimization"]["offload_optimizer"] == {"device": "cpu"}
