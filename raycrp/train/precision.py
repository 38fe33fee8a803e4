"""Number formats: which one a GPU can train in, and the recipe by which T5 trains in fp16.

T5 overflows in fp16, in the layers ``wo``. So the weights stay in fp32, the forward pass runs
under autocast, and ``wo`` is kept out of it. DeepSpeed sees an fp32 model whose loss is scaled:
its ZeRO optimisers find an overflow in the norm over all workers, so that all skip a step together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch

from raycrp.choices import Precision
from raycrp.errors import DivergedError, TrainError

_BF16_MAJOR = 8
_WHEELS = {7: "cu126"}
_FIRST_SCALE = 2.0**16
_GROWTH_STEPS = 500
MIN_SCALE = 1.0
_MAX_SKIPPED = 20


def resolve_precision(precision: Precision, *, capability: tuple[int, int] | None) -> Precision:
    """The number format that ``auto`` stands for on this worker.

    Args:
        precision: The setting.
        capability: Compute capability of the GPU; None on a CPU.

    Raises:
        TrainError: If the GPU lacks the format.
    """
    if precision is Precision.AUTO:
        if capability is None:
            return Precision.FP32
        return Precision.BF16 if has_bf16(capability) else Precision.FP16
    if precision is Precision.BF16 and not has_bf16(capability):
        raise TrainError(
            f"train.precision is bf16, which a GPU of compute capability {_name(capability)} "
            "lacks; use auto, fp16 or fp32"
        )
    return precision


def has_bf16(capability: tuple[int, int] | None) -> bool:
    """Whether a GPU computes in bf16.

    Args:
        capability: Its compute capability; None on a CPU.
    """
    return capability is None or capability[0] >= _BF16_MAJOR


def check_gpu_kernels(capability: tuple[int, int], *, architectures: Sequence[str]) -> None:
    """Refuse a torch that was built without code for the GPU at hand.

    Args:
        capability: Compute capability of the GPU, such as ``(7, 0)`` for a V100.
        architectures: ``torch.cuda.get_arch_list()``.

    Raises:
        TrainError: Saying what to install.
    """
    major, minor = capability
    # Code for an earlier minor version of the same major one runs too.
    wanted = {f"sm_{major}{lower}" for lower in range(minor + 1)} | {f"compute_{major}{minor}"}
    if wanted & set(architectures):
        return
    wheels = _WHEELS.get(major, "another CUDA version's")
    raise TrainError(
        f"this torch has no kernels for a GPU of compute capability {_name(capability)} (it has "
        f"{', '.join(architectures) or 'none'}); install its {wheels} wheels, e.g. pip install "
        f"torch --index-url https://download.pytorch.org/whl/{_WHEELS.get(major, 'cu126')}"
    )


def enable_fp16(model: torch.nn.Module, *, device_type: str) -> None:
    """Run a T5's forward pass in fp16 where that is safe; its weights stay as they are.

    Args:
        model: In fp32; changed in place.
        device_type: ``cuda`` or ``cpu``.
    """
    for name, module in model.named_modules():
        if name.rpartition(".")[2] == "wo":
            module.__class__ = _Fp32Linear
    _autocast(model, device_type, torch.float16)


def enable_cpu_bf16(model: torch.nn.Module) -> None:
    """Run a model's matrix products in bf16 on a CPU that has instructions for it.

    The weights and the optimiser stay in fp32, which DeepSpeed's own bf16 would not leave so.

    Args:
        model: In fp32; changed in place.
    """
    _autocast(model, "cpu", torch.bfloat16)


@dataclass(frozen=True)
class LossScale:
    """Dynamic loss scale of fp16: doubled after many good steps, halved after an overflow.

    Args:
        scale: What the loss is multiplied by.
        num_good: Steps without overflow since the last change.
        num_skipped: Steps skipped one after the other, up to now.
        total_skipped: Steps skipped in all.
    """

    scale: float = _FIRST_SCALE
    num_good: int = 0
    num_skipped: int = 0
    total_skipped: int = 0

    def updated(self, *, has_overflow: bool) -> "LossScale":
        """The scale for the next step.

        Args:
            has_overflow: Whether the step was skipped.

        Raises:
            DivergedError: If steps go on overflowing at the smallest scale.
        """
        if has_overflow:
            skipped = self.num_skipped + 1
            scale = max(MIN_SCALE, self.scale / 2)
            if self.scale <= MIN_SCALE and skipped >= _MAX_SKIPPED:
                raise DivergedError(
                    f"{skipped} steps in a row overflowed in fp16, the last ones at the smallest "
                    f"loss scale ({MIN_SCALE:g}); use train.precision=fp32, or a lower "
                    "train.learning_rate"
                )
            return LossScale(scale, 0, skipped, self.total_skipped + 1)
        if self.num_good + 1 >= _GROWTH_STEPS:
            return LossScale(self.scale * 2, 0, 0, self.total_skipped)
        return LossScale(self.scale, self.num_good + 1, 0, self.total_skipped)


def _autocast(model: torch.nn.Module, device_type: str, dtype: torch.dtype) -> None:
    plain = model.forward

    @wraps(plain)
    def forward(*args: Any, **kwargs: Any) -> Any:
        """The model's own pass, in half precision where that is safe."""
        with torch.autocast(device_type, dtype=dtype):
            return plain(*args, **kwargs)

    model.forward = forward


class _Fp32Linear(torch.nn.Linear):
    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """The layer's own pass, in full precision whatever is around it."""
        with torch.autocast(self.weight.device.type, enabled=False):
            return super().forward(hidden.float())


def _name(capability: tuple[int, int] | None) -> str:
    return ".".join(map(str, capability or ()))
