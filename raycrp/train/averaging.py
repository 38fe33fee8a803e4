"""Exponential moving average of the weights: smoother than the last step's."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

_PREFIX = "average."


class WeightAverage:
    """Average of a module's weights over its steps, kept whole and in float32 on each worker.

    Args:
        module: The module; its weights are the first average.
        decay: Share of the old average at each step; lower at first, so that the start is
            soon forgotten.
    """

    def __init__(self, module: torch.nn.Module, *, decay: float) -> None:
        self._decay = decay
        self._averages = {
            name: weights.detach().float().clone() for name, weights in module.named_parameters()
        }

    @torch.no_grad()
    def update(self, module: torch.nn.Module, *, step: int) -> None:
        """Take in the weights after a step.

        Args:
            module: The module.
            step: Optimiser steps done.
        """
        share = 1 - min(self._decay, (1 + step) / (10 + step))
        for name, weights in module.named_parameters():
            self._averages[name].lerp_(weights.detach().float(), share)

    @contextmanager
    def applied(self, module: torch.nn.Module) -> Iterator[None]:
        """The module has the averages as its weights inside the block."""
        kept = {name: weights.detach().clone() for name, weights in module.named_parameters()}
        self._copy(self._averages, module)
        try:
            yield
        finally:
            self._copy(kept, module)

    def state(self) -> dict[str, torch.Tensor]:
        """What a checkpoint keeps."""
        return {f"{_PREFIX}{name}": value for name, value in self._averages.items()}

    def load_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Go on from a checkpoint; other tensors in it are left alone."""
        for name, value in self._averages.items():
            value.copy_(tensors[f"{_PREFIX}{name}"])

    @torch.no_grad()
    def _copy(self, source: Mapping[str, Any], module: torch.nn.Module) -> None:
        for name, weights in module.named_parameters():
            weights.data.copy_(source[name])
