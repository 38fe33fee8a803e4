"""Watches for a step that fails each time it is tried.

A lost node comes back and the step goes through; a row that breaks the code, or takes more memory
than there is, fails again and again. The step being done is noted in the run folder: once a
second, and at each step while a failed one is near. A step that was under way at the end of three
attempts stops the run, with its rows named.
"""

import time
from collections.abc import Callable, Sequence

import torch.distributed as dist

from raycrp.errors import TrainError
from raycrp.run import RunFolder

ATTEMPTS_FILE = "train/attempts.json"
_MAX_FAILURES = 3
_NOTE_EVERY_S = 1.0
_NEAR_STEPS = 200
_NAMED_ROWS = 50
_KEPT_FAILURES = 20


class StepGuard:
    """Notes the step under way; every worker has one, the first one writes.

    Args:
        run: The run folder.
        rank: Number of this worker.
        rows_of: Row ids of a step.
    """

    def __init__(
        self, run: RunFolder, *, rank: int, rows_of: Callable[[int], Sequence[int]]
    ) -> None:
        self._run = run
        self._rank = rank
        self._rows_of = rows_of
        self._failed: list[int] = []
        self._noted_at = 0.0

    def start(self) -> None:
        """Look at how earlier attempts ended; every worker calls this.

        Raises:
            TrainError: If three of them ended at the same step.
        """
        failed: list[list[int]] = [[]]
        if self._rank == 0 and self._run.exists(ATTEMPTS_FILE):
            noted = self._run.read_json(ATTEMPTS_FILE)
            failed = [[*noted["failed"], noted["step"]][-_KEPT_FAILURES:]]
        dist.broadcast_object_list(failed, src=0)
        self._failed = failed[0]
        if self._failed:
            step = self._failed[-1]
            if self._failed.count(step) >= _MAX_FAILURES:
                raise TrainError(self._explain(step))

    def enter(self, step: int) -> None:
        """Note that a step begins."""
        if self._rank != 0:
            return
        is_near = bool(self._failed) and step <= max(self._failed) + _NEAR_STEPS
        if is_near or time.monotonic() - self._noted_at >= _NOTE_EVERY_S:
            self._run.write_json(ATTEMPTS_FILE, {"failed": self._failed, "step": step})
            self._noted_at = time.monotonic()

    def finish(self) -> None:
        """Forget all: training is done."""
        if self._rank == 0:
            self._run.delete(ATTEMPTS_FILE)

    def _explain(self, step: int) -> str:
        rows = self._rows_of(step)
        named = ", ".join(map(str, rows[:_NAMED_ROWS]))
        more = f" and {len(rows) - _NAMED_ROWS} more" if len(rows) > _NAMED_ROWS else ""
        return (
            f"step {step + 1} was under way when training failed {_MAX_FAILURES} times; its rows "
            f"are row_id {named}{more}; look for what is odd about them and for the error in the "
            f"worker's log, then delete {self._run.uri(ATTEMPTS_FILE)} to try again"
        )
