"""What earlier attempts of a training left: steps that fail each time, restarts and their price.

A lost node comes back and the step goes through; a row that breaks the code, or takes more memory
than there is, fails again and again. The step being done is noted in the run folder: once a
second, and at each step while a failed one is near. A step that was under way at the end of three
attempts stops the run, with its rows named; so do many starts that never came to a step.
"""

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch.distributed as dist

from raycrp.errors import TrainError
from raycrp.prometheus import set_gauge
from raycrp.run import RunFolder
from raycrp.tracking import read_metrics
from raycrp.train.restarts import RESTARTS_FILE, Restart, read_restarts

ATTEMPTS_FILE = "train/attempts.json"
_MAX_FAILURES = 3
_MAX_STARTS = 10
_NOTE_EVERY_S = 1.0
_NEAR_STEPS = 200
_NAMED_ROWS = 50
_KEPT_FAILURES = 20

logger = logging.getLogger(__name__)


class StepGuard:
    """Notes the step under way; every worker has one, the first one writes.

    Args:
        run: The run folder.
        rank: Number of this worker.
        world_size: Number of workers.
        rows_of: Row ids of a step.
    """

    def __init__(
        self,
        run: RunFolder,
        *,
        rank: int,
        world_size: int = 1,
        rows_of: Callable[[int], Sequence[int]],
    ) -> None:
        self._run = run
        self._rank = rank
        self._world_size = world_size
        self._rows_of = rows_of
        self._failed: list[int] = []
        self._noted_at = 0.0
        self._before: dict[str, Any] | None = None
        self._step_resumed = 0

    def begin(self) -> None:
        """Count a start, before anything is loaded; every worker calls this.

        Raises:
            TrainError: If many starts before this one never came to a step.
        """
        num_starts = [0]
        if self._rank == 0:
            noted = self._read()
            num_starts = [noted["num_starts"]]
            self._write(noted | {"num_starts": num_starts[0] + 1})
        dist.broadcast_object_list(num_starts, src=0)
        if num_starts[0] >= _MAX_STARTS:
            raise TrainError(
                f"training was started {num_starts[0]} times without coming to a step; look for "
                f"the error in the worker's log, then delete {self._run.uri(ATTEMPTS_FILE)} to "
                "try again"
            )

    def start(self, step: int = 0) -> None:
        """Look at how earlier attempts ended; every worker calls this.

        Args:
            step: Optimiser steps of the checkpoint that this attempt goes on from.

        Raises:
            TrainError: If three of them ended at the same step.
        """
        failed: list[list[int]] = [[]]
        if self._rank == 0:
            noted = self._read()
            if noted["step"] is not None:
                failed = [[*noted["failed"], noted["step"]][-_KEPT_FAILURES:]]
                lines = read_metrics(self._run)
                self._before = noted | {"logged": lines[-1]["step"] if lines else 0}
            self._step_resumed = step
            self._show(read_restarts(self._run))
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
        self._record_restart()
        is_near = bool(self._failed) and step <= max(self._failed) + _NEAR_STEPS
        if is_near or time.monotonic() - self._noted_at >= _NOTE_EVERY_S:
            self._write({"failed": self._failed, "step": step, "num_starts": 0})
            self._noted_at = time.monotonic()

    def finish(self) -> None:
        """Forget all: training is done."""
        if self._rank == 0:
            # After the last step a validation may have been all that was left to do.
            self._record_restart()
            self._run.delete(ATTEMPTS_FILE)

    def _read(self) -> dict[str, Any]:
        noted = self._run.read_json(ATTEMPTS_FILE) if self._run.exists(ATTEMPTS_FILE) else {}
        return {"failed": [], "step": None, "num_starts": 0, **noted}

    def _write(self, values: dict[str, Any]) -> None:
        if values["step"] is not None:
            values = {"time": time.time(), **values}
        try:
            self._run.write_json(ATTEMPTS_FILE, values)
        except OSError as error:
            # A note is worth less than the training that it is about.
            logger.warning("the step under way cannot be noted: %s", error)

    def _record_restart(self) -> None:
        noted, self._before = self._before, None
        if noted is None:
            return
        restart = Restart(
            time=time.time(),
            step_reached=max(noted["step"], noted["logged"]),
            step_resumed=self._step_resumed,
            num_workers=self._world_size,
            seconds=max(0.0, time.time() - noted["time"]),
        )
        restarts = [*read_restarts(self._run), restart]
        text = "".join(json.dumps(asdict(each)) + "\n" for each in restarts)
        self._run.write_bytes(RESTARTS_FILE, text.encode())
        self._show(restarts)

    def _show(self, restarts: Sequence[Restart]) -> None:
        name = self._run.name
        set_gauge("raycrp_worker_restarts", len(restarts), run=name)
        set_gauge("raycrp_steps_lost", sum(each.steps_lost for each in restarts), run=name)

    def _explain(self, step: int) -> str:
        rows = self._rows_of(step)
        named = ", ".join(map(str, rows[:_NAMED_ROWS]))
        more = f" and {len(rows) - _NAMED_ROWS} more" if len(rows) > _NAMED_ROWS else ""
        return (
            f"step {step + 1} was under way when training failed {_MAX_FAILURES} times; its rows "
            f"are row_id {named}{more}; look for what is odd about them and for the error in the "
            f"worker's log, then delete {self._run.uri(ATTEMPTS_FILE)} to try again"
        )
