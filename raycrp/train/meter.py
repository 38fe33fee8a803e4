"""Speed, loss and padding between two log lines, and the line that people read."""

import resource
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from raycrp.train.batches import Batch
from raycrp.train.checkpoint import Progress
from raycrp.train.flops import FlopModel

_LINE_EVERY_S = 10.0
_BYTES_PER_GIB = 2**30


class Meter:
    """Counts what is trained; the sums over all workers are made only when they are read.

    Args:
        world_size: Number of workers.
        device: Where losses are.
        flops: Counts operations, where the device's peak is known.
        peak_flops: Operations a second that each worker's device is built for; None for unknown.
    """

    def __init__(
        self,
        *,
        world_size: int,
        device: torch.device,
        flops: FlopModel | None = None,
        peak_flops: float | None = None,
    ) -> None:
        self._world_size = world_size
        self._device = device
        self._flop_model = flops if peak_flops else None
        self._peak_flops = (peak_flops or 0.0) * world_size
        self._line_time = 0.0
        self._paused_at: tuple[float, float] | None = None
        self._clear()

    def start(self, carried: Mapping[str, float] | None = None) -> None:
        """Begin to count now: what was before was no training.

        Args:
            carried: From `carry`, of the checkpoint that training goes on from.
        """
        self._clear()
        if carried is not None:
            self._carried_loss, self._carried_targets = carried["loss"], carried["targets"]

    def carry(self) -> dict[str, float]:
        """Loss since the last reading, over all workers, for a checkpoint; every worker calls this.

        The next reading after a resume tells the loss of all its steps then.
        """
        loss = self._loss.clone()
        dist.all_reduce(loss)
        return {
            "loss": loss.item() + self._carried_loss,
            "targets": self._targets + self._carried_targets,
        }

    def add(self, batch: Batch, *, loss: torch.Tensor) -> None:
        """Count a micro batch of this worker."""
        self._loss += loss.detach().double()
        if batch.is_counted:
            self._tokens += batch.num_tokens
            if self._flop_model is not None:
                self._flops += self._flop_model.training_flops(batch)
        self._places += batch.num_padded

    def end_step(self, *, num_rows: int, num_targets: int) -> None:
        """Count a step of all workers together."""
        self._steps += 1
        self._rows += num_rows
        self._targets += num_targets

    def pause(self) -> None:
        """Leave out the time from now on, spent on other things than training."""
        self._paused_at = (time.monotonic(), time.process_time())

    def resume(self) -> None:
        """Count time again."""
        if self._paused_at is not None:
            self._paused_s += time.monotonic() - self._paused_at[0]
            self._cpu_paused_s += time.process_time() - self._paused_at[1]
            self._paused_at = None

    def read(self) -> dict[str, float]:
        """Metrics since the last reading, over all workers; every worker calls this."""
        cpu_s = time.process_time() - self._cpu_started - self._cpu_paused_s
        counts = torch.tensor([self._tokens, self._places, cpu_s, self._flops]).to(self._loss)
        sums = torch.cat([self._loss.reshape(1), counts])
        dist.all_reduce(sums)
        loss, tokens, places, cpu_s, flops = sums.tolist()
        seconds = max(1e-9, time.monotonic() - self._started - self._paused_s)
        metrics = {
            "loss": (loss + self._carried_loss) / (self._targets + self._carried_targets),
            "samples_per_s": self._rows / seconds,
            "samples_per_cpu_s": self._rows / max(1e-9, cpu_s),
            "tokens_per_s": tokens / seconds,
            "padding_share": 1 - tokens / places,
            "step_s": seconds / max(1, self._steps),
            "memory_gib": peak_memory_bytes(self._device) / _BYTES_PER_GIB,
        }
        if self._peak_flops:
            metrics["mfu"] = flops / seconds / self._peak_flops
        self._clear()
        return metrics

    def is_line_due(self) -> bool:
        """Whether people have waited long enough for a line."""
        return time.monotonic() - self._line_time >= _LINE_EVERY_S

    def progress_line(
        self, progress: Progress, metrics: Mapping[str, float], num_steps: int
    ) -> str:
        """One line for people about the steps just done."""
        self._line_time = time.monotonic()
        mfu = f", MFU {metrics['mfu']:.1%}" if "mfu" in metrics else ""
        left = metrics["step_s"] * (num_steps - progress.step)
        return (
            f"step {progress.step}/{num_steps} (epoch {metrics['epoch']:.2f}): "
            f"loss {metrics['loss']:.4f}, {metrics['samples_per_s']:.1f} rows/s, "
            f"{metrics['tokens_per_s']:.0f} tokens/s{mfu}, padding {metrics['padding_share']:.1%}, "
            f"{metrics['workers']:.0f} workers, {timedelta(seconds=round(left))} left"
        )

    def _clear(self) -> None:
        self._loss = torch.zeros((), dtype=torch.float64, device=self._device)
        self._tokens = self._places = self._rows = self._targets = self._steps = 0
        self._flops = self._carried_loss = self._carried_targets = 0.0
        self._started, self._cpu_started = time.monotonic(), time.process_time()
        self._paused_s = self._cpu_paused_s = 0.0


def validation_line(progress: Progress, metrics: Mapping[str, float]) -> str:
    """One line for people about a validation.

    Args:
        progress: How far training is after it.
        metrics: What it found.
    """
    ending = f"; stopping: {progress.stop_reason}" if progress.stop_reason else ""
    exact = "" if progress.best_exact is None else f", exact {progress.best_exact:.3f}"
    return (
        f"step {progress.step}: validation loss {metrics['validation_loss']:.4f}, "
        f"token accuracy {metrics['validation_accuracy']:.3f}, exact answers "
        f"{metrics['validation_exact']:.3f}, best at step {progress.best_step} "
        f"(loss {progress.best_loss:.4f}{exact}){ending}"
    )


def peak_memory_bytes(device: Any) -> int:
    """Peak memory of this worker: of its GPU, else of its process."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return peak if sys.platform == "darwin" else peak * 1024
