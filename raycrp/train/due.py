"""When a checkpoint is due between validations: by steps, by time, and before a node goes."""

import time
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from raycrp.train.session import Session

_CHECK_EVERY_S = 2.0
_MAX_STEPS_BETWEEN = 1_000
_LEAST_MARGIN_S = 3.0
_AFTER_DEADLINE_S = 60.0


@dataclass(frozen=True)
class Due:
    """What is to be done after a step; the same on every worker.

    Args:
        saves: Whether a checkpoint is to be saved.
        waits_s: Seconds to wait after it, for the end of a node that is about to go.
        is_notice: Whether a node's notice is the reason.
    """

    saves: bool = False
    waits_s: float = 0.0
    is_notice: bool = False


class SaveClock:
    """Decides when to save; the first worker's clock decides for all.

    The clock is looked at about every two seconds. A notice is answered by a checkpoint at once;
    training goes on, and just before the node goes there is a last checkpoint, after which the
    workers wait for Ray to start them anew: no step is lost.

    Args:
        session: The launcher.
        every_steps: Steps between checkpoints; None for none by steps.
        every_s: Seconds between checkpoints; None for none by time.
        device: Where collectives want their tensors.
    """

    def __init__(
        self, session: Session, *, every_steps: int | None, every_s: float | None, device: Any
    ) -> None:
        self._session = session
        self._every_steps = every_steps
        self._every_s = every_s
        self._device = device
        self._saved_at = time.monotonic()
        self._save_s = 0.0
        self._looked_at = (time.monotonic(), 0)
        self._next_look = 0
        self._has_answered = False
        self._has_waited = False

    def note_saved(self, *, seconds: float) -> None:
        """Count from now on.

        Args:
            seconds: What saving took.
        """
        self._saved_at = time.monotonic()
        self._save_s = seconds

    def due(self, step: int) -> Due:
        """What is to be done after this step; every worker calls this.

        Args:
            step: Optimiser steps done.
        """
        by_steps = bool(self._every_steps) and step % (self._every_steps or 1) == 0
        if step < self._next_look:
            return Due(saves=by_steps)
        seconds_left = self._session.seconds_left()
        answer = self._answer(seconds_left, step=step)
        shared = torch.tensor(answer, dtype=torch.float64, device=self._device)
        dist.broadcast(shared, src=0)
        saves, waits_s, is_notice, num_steps = shared.tolist()
        self._next_look = step + int(num_steps)
        return Due(bool(saves) or by_steps, waits_s, bool(is_notice))

    def _answer(self, seconds_left: float | None, *, step: int) -> list[float]:
        saves = self._every_s is not None and time.monotonic() - self._saved_at >= self._every_s
        step_s = self._step_seconds(step)
        waits_s = 0.0
        if seconds_left is None:
            self._has_answered = self._has_waited = False
        else:
            margin = max(_LEAST_MARGIN_S, 3 * self._save_s) + 2 * _CHECK_EVERY_S + 2 * step_s
            is_last = seconds_left <= margin and not self._has_waited
            if is_last:
                waits_s = max(0.0, seconds_left) + _AFTER_DEADLINE_S
            saves = saves or is_last or not self._has_answered
            self._has_answered, self._has_waited = True, self._has_waited or is_last
        num_steps = min(_MAX_STEPS_BETWEEN, max(1, round(_CHECK_EVERY_S / max(step_s, 1e-6))))
        return [float(saves), waits_s, float(seconds_left is not None), float(num_steps)]

    def _step_seconds(self, step: int) -> float:
        """Seconds of a step since the last look; as if it were long at the first look."""
        then, step_then = self._looked_at
        self._looked_at = (time.monotonic(), step)
        if step <= step_then or self._next_look == 0:
            return _CHECK_EVERY_S
        return (time.monotonic() - then) / (step - step_then)
