"""The one place that derives DeepSpeed's settings and builds its engine."""

import logging
import math
import os
import warnings
from dataclasses import dataclass
from typing import Any

import torch

from raycrp.choices import Decay, Precision

REDUCE_BUCKET_SIZE = 50_000_000
"""Gradients that DeepSpeed sends at once; its own 500 million take 2 GB of a GPU in float32."""
_ADAM_BETAS = (0.9, 0.999)


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW and its step size.

    Args:
        learning_rate: Peak step size.
        weight_decay: Decoupled weight decay; norms and biases are left out.
        gradient_clip: Largest norm of the gradient.
    """

    learning_rate: float
    weight_decay: float
    gradient_clip: float


def prepare_process(*, use_gpu: bool) -> None:
    """Set what DeepSpeed reads from the environment; to be called before it is imported.

    Args:
        use_gpu: Whether this worker trains on a GPU.
    """
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # DeepSpeed calls collectives by names that torch has renamed, and torch says so every time.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    if use_gpu:
        return
    os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed.ops

    # The shared-memory collective is compiled on first use, and a machine may have no compiler.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def build_engine(
    model: torch.nn.Module,
    *,
    optimizer: OptimizerSettings,
    zero_stage: int,
    micro_batch_size: int,
    precision: Precision,
    offload: bool = False,
    load_universal: bool = False,
) -> Any:
    """A DeepSpeed engine around a model; every worker calls this.

    Args:
        model: In float32.
        optimizer: AdamW's settings.
        zero_stage: 0 to 3.
        micro_batch_size: Rows of one forward pass on one worker, for DeepSpeed's own records.
        precision: Number format, not ``auto``.
        offload: Whether the optimiser's state lies in the node's memory; not for stage 0.
        load_universal: Whether a universal checkpoint is to be loaded into it.
    """
    import deepspeed

    settings = deepspeed_settings(
        zero_stage=zero_stage,
        micro_batch_size=micro_batch_size,
        gradient_clip=optimizer.gradient_clip,
        precision=precision,
        offload=offload,
        load_universal=load_universal,
    )
    adamw = torch.optim.AdamW(
        decay_groups(model, weight_decay=optimizer.weight_decay),
        lr=optimizer.learning_rate,
        betas=_ADAM_BETAS,
        fused=True,
    )
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=adamw, config=settings, dist_init_required=False
    )
    _note_norm_of_clipping(engine)
    return engine


def _note_norm_of_clipping(engine: Any) -> None:
    """Keep the norm that DeepSpeed finds as it clips without ZeRO in fp32, and then forgets.

    Args:
        engine: DeepSpeed's; with ZeRO its optimiser clips, and tells the norm.
    """
    from deepspeed.runtime.utils import clip_grad_norm_

    def clip() -> None:
        """What the engine does, but for the norm."""
        engine._global_grad_norm = clip_grad_norm_(
            parameters=engine.module.parameters(), max_norm=engine.gradient_clipping()
        )

    engine.clip_fp32_gradients = clip


def deepspeed_settings(
    *,
    zero_stage: int,
    micro_batch_size: int,
    gradient_clip: float,
    precision: Precision,
    offload: bool = False,
    load_universal: bool = False,
) -> dict[str, Any]:
    """DeepSpeed's configuration.

    The worker loop owns gradient accumulation (the number of micro batches may differ from step
    to step), so DeepSpeed is told of none.

    Args:
        zero_stage: 0 to 3.
        micro_batch_size: Rows of one forward pass on one worker.
        gradient_clip: Largest norm of the gradient.
        precision: Number format, not ``auto``.
        offload: Whether the optimiser's state lies in the node's memory; not for stage 0.
        load_universal: Whether a universal checkpoint is to be loaded.
    """
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": micro_batch_size,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": gradient_clip,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": {
            "stage": zero_stage,
            "overlap_comm": False,
            "reduce_bucket_size": REDUCE_BUCKET_SIZE,
            "stage3_gather_16bit_weights_on_model_save": zero_stage == 3,
        },
        "steps_per_print": 2**31,
        "wall_clock_breakdown": False,
    }
    if offload:
        settings["zero_optimization"]["offload_optimizer"] = {"device": "cpu"}
    if precision is Precision.BF16:
        settings["bf16"] = {"enabled": True}
    if load_universal:
        settings["checkpoint"] = {"load_universal": True}
    return settings


def decay_groups(model: torch.nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups with and without weight decay.

    Args:
        model: Any model; parameters of one dimension and position biases are left undecayed.
        weight_decay: Decoupled weight decay of the rest.
    """
    decayed: list[torch.nn.Parameter] = []
    spared: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_spared = parameter.ndim < 2 or "bias" in name
        (spared if is_spared else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]


def learning_rate_at(
    step: int, *, num_steps: int, warmup_steps: int, peak: float, decay: Decay
) -> float:
    """Step size of AdamW at a step: a straight rise, then a decay.

    Args:
        step: From 0.
        num_steps: Steps of the whole training.
        warmup_steps: Steps of the rise.
        peak: Largest step size.
        decay: Shape of the decay.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    if decay is Decay.INVERSE_SQRT:
        start = max(1, warmup_steps)
        return peak * math.sqrt(start / max(start, step + 1))
    if decay is Decay.CONSTANT:
        return peak
    progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
