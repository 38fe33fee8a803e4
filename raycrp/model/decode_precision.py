"""The number format in which a T5 answers."""

from typing import TYPE_CHECKING, Any

import torch

from raycrp.choices import Precision

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

_BF16_MAJOR = 8


def use_precision(model: "T5ForConditionalGeneration", precision: Precision) -> None:
    """Turn a loaded model into the number format in which it is to answer.

    T5 overflows in fp16 in the layers ``wo``, so these stay in fp32 there.

    Args:
        model: In fp32, where it is to run; changed in place.
        precision: ``auto`` is bf16 on GPUs that have it, fp16 on older ones, fp32 on CPUs.
    """
    if precision is Precision.AUTO:
        precision = _automatic(model)
    module: Any = model
    if precision is Precision.BF16:
        module.to(torch.bfloat16)
    elif precision is Precision.FP16:
        module.to(torch.float16)
        for name, part in module.named_modules():
            if name.rpartition(".")[2] == "wo":
                part.float()


def _automatic(model: "T5ForConditionalGeneration") -> Precision:
    if model.device.type != "cuda":
        return Precision.FP32
    major, _ = torch.cuda.get_device_capability(model.device)
    return Precision.BF16 if major >= _BF16_MAJOR else Precision.FP16
