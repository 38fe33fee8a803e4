"""What a training worker needs of whatever started it: Ray Train, or one plain process."""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from raycrp.run import RunFolder
from raycrp.train.checkpoint import StoredCheckpoint, stored_checkpoints

RAY_RUN_NAME = "llm_crp"
RAY_DIR = "train/ray"
LOCAL_DIR = "train/local"
_UNKNOWN_DEADLINE_S = 120.0
CHECKPOINT_FOLDERS = (f"{RAY_DIR}/{RAY_RUN_NAME}", LOCAL_DIR)


class Session(Protocol):
    """The launcher as a worker sees it."""

    @property
    def rank(self) -> int:
        """Number of this worker."""

    @property
    def world_size(self) -> int:
        """Number of workers."""

    def checkpoints(self) -> list[StoredCheckpoint]:
        """Checkpoints to resume from, the one to try first in front."""

    def report(self, metrics: Mapping[str, Any], *, step: int, folder: Path) -> None:
        """Hand over this worker's part of a checkpoint; every worker calls this.

        Args:
            metrics: What the checkpoint is worth, from the first worker.
            step: Optimiser steps done.
            folder: What this worker saved; removed afterwards.
        """

    def seconds_left(self) -> float | None:
        """Time until a node of this training goes; None while none is about to.

        Every worker calls this; the first one's answer counts.
        """


class RaySession:
    """A worker of Ray Train.

    Args:
        run: The run folder.
    """

    def __init__(self, run: RunFolder) -> None:
        import ray.train

        self._run = run
        self._context = ray.train.get_context()
        self._noticed_at: float | None = None

    @property
    def rank(self) -> int:
        """Number of this worker."""
        return int(self._context.get_world_rank())

    @property
    def world_size(self) -> int:
        """Number of workers."""
        return int(self._context.get_world_size())

    def checkpoints(self) -> list[StoredCheckpoint]:
        """Ray's newest checkpoint, then all others by falling step."""
        import ray.train

        stored = stored_checkpoints(self._run, folders=CHECKPOINT_FOLDERS)
        newest = ray.train.get_checkpoint()
        if newest is None:
            return stored
        first = StoredCheckpoint(newest.filesystem, newest.path)
        return [first, *(other for other in stored if other.path != first.path)]

    def report(self, metrics: Mapping[str, Any], *, step: int, folder: Path) -> None:
        """Upload through Ray, which merges the parts of all workers."""
        import ray.train

        checkpoint = ray.train.Checkpoint.from_directory(str(folder))
        try:
            ray.train.report({"step": step, **metrics}, checkpoint=checkpoint)
        finally:
            # Storage that fails again and again must not fill the node's own disk.
            shutil.rmtree(folder, ignore_errors=True)

    def seconds_left(self) -> float | None:
        """Time until a node that Ray drains goes; as much as Ray waits where none is named."""
        import ray.train

        notice = ray.train.get_preemption_info()
        if notice is None:
            self._noticed_at = None
            return None
        self._noticed_at = self._noticed_at or time.time()
        if notice.deadline_ms is None:
            return self._noticed_at + _UNKNOWN_DEADLINE_S - time.time()
        return float(notice.deadline_ms / 1000 - time.time())


class LocalSession:
    """The only worker, in this process.

    Args:
        run: The run folder.
        num_checkpoints: Newest checkpoints to keep.
    """

    rank = 0
    world_size = 1

    def __init__(self, run: RunFolder, *, num_checkpoints: int) -> None:
        self._run = run
        self._num_checkpoints = num_checkpoints

    def checkpoints(self) -> list[StoredCheckpoint]:
        """All checkpoints by falling step."""
        return stored_checkpoints(self._run, folders=CHECKPOINT_FOLDERS)

    def report(self, metrics: Mapping[str, Any], *, step: int, folder: Path) -> None:
        """Copy into the run folder, and let the oldest go, and damaged ones of later steps."""
        newest = f"checkpoint_{step:08d}"
        with self._run.new_local_dir(f"{LOCAL_DIR}/{newest}") as target:
            shutil.copytree(folder, target, dirs_exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        names = [n for n in self._run.list_names(LOCAL_DIR) if n.startswith("checkpoint_")]
        good = [name for name in names if name <= newest]
        for name in set(names) - set(good[-self._num_checkpoints :]):
            self._run.delete(f"{LOCAL_DIR}/{name}")

    def seconds_left(self) -> float | None:
        """None: this machine is all there is."""
        return None
