"""Dropout that costs little on a CPU, where torch spends more time drawing than computing.

A random byte an element decides, so that rates are multiples of 1/256; the scale fits the rate that
is used. Which elements are dropped depends on the seed of the micro batch alone.
"""

from typing import Any

import numpy as np
import torch

_ATTENTION = "raycrp_cpu"
_LEVELS = 256


class DropoutSource:
    """Random bytes for all dropout of a model."""

    def __init__(self) -> None:
        self._generator = np.random.Generator(np.random.SFC64(0))

    def seed(self, seed: int) -> None:
        """Start anew; the same seed drops the same elements.

        Args:
            seed: At least 0.
        """
        self._generator = np.random.Generator(np.random.SFC64(seed))

    def apply(self, values: torch.Tensor, *, rate: float) -> torch.Tensor:
        """Values of which some are set to zero and the rest are scaled up.

        Args:
            values: Any shape, on the CPU.
            rate: Share that is dropped, to the nearest 1/256.
        """
        num_dropped = round(rate * _LEVELS)
        if num_dropped == 0:
            return values
        words = self._generator.integers(0, 2**64, size=-(-values.numel() // 8), dtype=np.uint64)
        drawn = torch.from_numpy(words.view(np.uint8)[: values.numel()]).view(values.shape)
        scale = _LEVELS / (_LEVELS - num_dropped)
        kept: torch.Tensor = torch.where(drawn >= num_dropped, scale, 0.0)
        return values * kept.to(values.dtype)


def seed_dropout(source: DropoutSource | None, numbers: tuple[int, ...]) -> None:
    """Seed all dropout of a micro batch, so that it drops the same on whichever worker it runs.

    Args:
        source: Source of dropout on a CPU; torch's own alone if None.
        numbers: What tells micro batches apart, such as seed, step and number.
    """
    seed = int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
    torch.manual_seed(seed)
    if source is not None:
        source.seed(seed)


def use_cheap_dropout(model: Any) -> DropoutSource:
    """Replace all dropout of a T5 in memory; what is saved of it stays the same.

    Args:
        model: A T5 on the CPU; changed in place.

    Returns:
        The source to seed before each micro batch.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    source = DropoutSource()
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, torch.nn.Dropout):
                setattr(module, name, _CheapDropout(child.p, source))
    AttentionInterface.register(_ATTENTION, _attention(source))
    AttentionMaskInterface.register(_ATTENTION, eager_mask)
    model.set_attn_implementation(_ATTENTION)
    return source


class _CheapDropout(torch.nn.Module):
    def __init__(self, rate: float, source: DropoutSource) -> None:
        super().__init__()
        self._rate = rate
        self._source = source

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """The values, some of them dropped while training."""
        return self._source.apply(values, rate=self._rate) if self.training else values


def _attention(source: DropoutSource) -> Any:
    def attend(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        *,
        scaling: float = 1.0,
        dropout: float = 0.0,
        position_bias: torch.Tensor | None = None,
        **_: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attention step by step: the fused one is slower on CPUs where a bias is trained."""
        scores = torch.matmul(query, key.transpose(2, 3))
        if scaling != 1.0:
            scores = scores * scaling
        for bias in (position_bias, attention_mask):
            scores = scores if bias is None else scores + bias
        weights = torch.softmax(scores, dim=-1)
        if module.training:
            weights = source.apply(weights, rate=dropout)
        return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights

    return attend
