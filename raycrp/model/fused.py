"""Fused kernels of a T5 on a GPU: attention, norms, and blocks compiled one by one.

T5 adds a trained position bias to its attention scores, the same in all layers, and each row has a
mask. A stack's first layer adds both up here, once, in the form that the fused kernel takes without
a copy; the other layers are handed the sum in the place of the bias. What is saved of a model stays
the same.
"""

from typing import Any

import torch
from torch.nn import functional

_ATTENTION = "raycrp_fused"
# A kernel for each kind of block, in training and in evaluation, of one row and of more.
_MOST_VARIANTS = 64
# The fused kernel copies a bias whose rows do not begin at multiples of this many numbers.
_ALIGNMENT = 8

Tensor = torch.Tensor


def use_fused_kernels(model: Any) -> None:
    """Let a T5 attend and normalise by fused kernels; changed in place.

    Args:
        model: A T5 with an encoder and a decoder.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.models.t5.modeling_t5 import T5Attention, T5LayerNorm

    AttentionInterface.register(_ATTENTION, _attend)
    AttentionMaskInterface.register(_ATTENTION, _mask)
    model.set_attn_implementation(_ATTENTION)
    for module in model.modules():
        if issubclass(type(module), T5Attention):
            module.register_forward_pre_hook(_add_up_bias, with_kwargs=True)
        elif issubclass(type(module), T5LayerNorm):
            module.__class__ = _FusedNorm


def compile_blocks(model: Any, *, backend: str = "inductor") -> None:
    """Compile each block of a T5 at its first pass, for rows of all lengths at once.

    Args:
        model: A T5 with an encoder and a decoder; changed in place, the names of its weights are
            not.
        backend: What ``torch.compile`` compiles with.
    """
    torch._dynamo.config.recompile_limit = _MOST_VARIANTS
    for stack in (model.encoder, model.decoder):
        for block in stack.block:
            block.compile(dynamic=True, backend=backend)


class _FusedNorm(torch.nn.Module):
    weight: Tensor
    variance_epsilon: float

    def forward(self, hidden: Tensor) -> Tensor:
        """T5's norm: scaled by the root of the mean square, computed in float32."""
        values = hidden.to(self.weight.dtype)
        return functional.rms_norm(
            values, self.weight.shape, weight=self.weight, eps=self.variance_epsilon
        )


def _mask(*args: Any, allow_is_bidirectional_skip: bool = False, **kwargs: Any) -> Any:
    """A mask in any case: to leave it out where nothing is padded, the CPU waits for the GPU."""
    from transformers.masking_utils import eager_mask

    return eager_mask(*args, **kwargs)


def _add_up_bias(
    module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if kwargs.get("past_key_values") is not None:
        return args, kwargs
    added = kwargs.get("position_bias")
    if added is None:
        added = _bias(module, args[0], kwargs.get("mask"))
    return args, kwargs | {"position_bias": added, "mask": None}


def _bias(module: Any, hidden: Tensor, mask: Tensor | None) -> Tensor | None:
    added = mask
    if module.has_relative_attention_bias:
        length = hidden.shape[1]
        added = module.compute_bias(length, length, device=hidden.device)
        added = added if mask is None else added + mask
    if added is None:
        return None
    kind = hidden.device.type
    is_cast = torch.is_autocast_enabled(kind)
    added = added.to(torch.get_autocast_dtype(kind) if is_cast else hidden.dtype)
    length = added.shape[-1]
    return functional.pad(added, (0, -length % _ALIGNMENT))[..., :length]


def _attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float = 1.0,
    dropout: float = 0.0,
    position_bias: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    if attention_mask is not None and position_bias is not None:
        position_bias = position_bias + attention_mask
    attended = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=position_bias, dropout_p=dropout, scale=scaling
    )
    return attended.transpose(1, 2).contiguous(), None
