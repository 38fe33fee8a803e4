import pytest
import torch
from minute_t5 import minute_t5

from raycrp.choices import Precision
from raycrp.errors import DivergedError, TrainError
from raycrp.train.precision import (
    LossScale,
    check_gpu_kernels,
    enable_cpu_bf16,
    enable_fp16,
    resolve_precision,
)

V100, T4, A100 = (7, 0), (7, 5), (8, 0)


@pytest.mark.parametrize(
    ("capability", "expected"),
    [(None, Precision.FP32), (V100, Precision.FP16), (T4, Precision.FP16), (A100, Precision.BF16)],
)
def test_auto_takes_what_the_gpu_has(capability, expected):
    assert resolve_precision(Precision.AUTO, capability=capability) is expected


def test_bf16_is_refused_where_the_gpu_lacks_it():
    with pytest.raises(TrainError, match=r"capability 7\.0 lacks; use auto, fp16 or fp32"):
        resolve_precision(Precision.BF16, capability=V100)
    assert resolve_precision(Precision.BF16, capability=A100) is Precision.BF16


def test_a_torch_without_kernels_for_the_gpu_is_refused():
    default_wheels = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]
    with pytest.raises(TrainError, match=r"capability 7\.0 .*cu126"):
        check_gpu_kernels(V100, architectures=default_wheels)
    check_gpu_kernels(V100, architectures=["sm_50", "sm_70"])
    check_gpu_kernels((8, 9), architectures=default_wheels)
    check_gpu_kernels((9, 0), architectures=["compute_90"])


def overflowing_t5():
    """A T5 whose layers ``wo`` give numbers beyond fp16."""
    model = minute_t5(dropout_rate=0.0)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if name.endswith("wo.weight"):
                weights.mul_(1e6)
    return model


def test_t5_stays_finite_in_fp16_and_near_fp32():
    ids = torch.arange(3, 17).reshape(2, 7)
    model = overflowing_t5()
    wanted = model(input_ids=ids, labels=ids).loss
    with torch.autocast("cpu", dtype=torch.float16):
        assert not torch.isfinite(model(input_ids=ids, labels=ids).logits).all()
    enable_fp16(model, device_type="cpu")
    output = model(input_ids=ids, labels=ids)
    assert output.logits.dtype is torch.float16
    assert output.loss.item() == pytest.approx(wanted.item(), rel=1e-2)
    output.loss.backward()
    assert all(torch.isfinite(w.grad).all() for w in model.parameters() if w.grad is not None)
    assert {weights.dtype for weights in model.parameters()} == {torch.float32}


def test_bf16_on_a_cpu_keeps_weights_and_gradients_in_fp32():
    ids = torch.arange(3, 17).reshape(2, 7)
    model = overflowing_t5()
    wanted = model(input_ids=ids, labels=ids).loss
    enable_cpu_bf16(model)
    output = model(input_ids=ids, labels=ids)
    assert output.logits.dtype is torch.bfloat16
    assert output.loss.item() == pytest.approx(wanted.item(), rel=2e-2)
    output.loss.backward()
    assert {weights.dtype for weights in model.parameters()} == {torch.float32}
    gradients = [weights.grad for weights in model.parameters() if weights.grad is not None]
    assert {gradient.dtype for gradient in gradients} == {torch.float32}


def test_loss_scale_halves_after_an_overflow_and_grows_after_many_good_steps():
    scale = LossScale(scale=1024.0)
    scale = scale.updated(has_overflow=True)
    assert (scale.scale, scale.num_skipped, scale.total_skipped) == (512.0, 1, 1)
    for _ in range(499):
        scale = scale.updated(has_overflow=False)
    assert (scale.scale, scale.num_skipped) == (512.0, 0)
    scale = scale.updated(has_overflow=False)
    assert (scale.scale, scale.num_good, scale.total_skipped) == (1024.0, 0, 1)


def test_a_stuck_loss_scale_stops_training():
    scale = LossScale(scale=4.0)
    for _ in range(19):
        scale = scale.updated(has_overflow=True)
    # A search takes it for an answer: this step size is too large.
    with pytest.raises(DivergedError, match=r"20 steps in a row overflowed.*precision=fp32"):
        scale.updated(has_overflow=True)
