"""Checkpoints: saved by all workers, listed in manifests, verified before they are trusted."""

import hashlib
import json
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pyarrow import fs
from ray.train import Checkpoint

from raycrp.choices import SelectBy
from raycrp.errors import DivergedError, TrainError
from raycrp.run import RunFolder
from raycrp.tracking import validation_cost

_MISSED = {
    SelectBy.LOSS: "no lower validation loss",
    SelectBy.EXACT: "no higher validation exact match, nor a lower loss at the same,",
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far training is; part of every checkpoint.

    Args:
        step: Optimiser steps done.
        best_loss: Loss of the best validation so far; None before the first one.
        best_step: Step of the best validation.
        num_worse: Validations since then.
        stop_reason: Why training is over; empty while it is not.
        best_exact: Exact match of the best validation; None where it was not noted.
        owes_validation: Whether a validation of this step is still to be done.
    """

    step: int = 0
    best_loss: float | None = None
    best_step: int = 0
    num_worse: int = 0
    stop_reason: str = ""
    best_exact: float | None = None
    owes_validation: bool = False


def next_progress(
    progress: Progress,
    *,
    metrics: Mapping[str, float],
    select_by: SelectBy,
    num_steps: int,
    patience: int,
) -> Progress:
    """How far training is after a validation, and whether it is over.

    Args:
        progress: Before it.
        metrics: ``validation_loss`` and ``validation_exact``.
        select_by: Which of two validations is the better one; see ``validation_cost``.
        num_steps: Steps of the whole training.
        patience: Validations without a better one before training stops.

    Raises:
        DivergedError: If the first loss is no number: there are no weights worth keeping.
    """
    progress = replace(progress, owes_validation=False)
    if progress.best_loss is None:
        check_finite(metrics["validation_loss"], step=progress.step)
    if _is_better(metrics, progress, select_by=select_by):
        progress = replace(
            progress,
            best_loss=metrics["validation_loss"],
            best_exact=metrics["validation_exact"],
            best_step=progress.step,
            num_worse=0,
        )
    else:
        progress = replace(progress, num_worse=progress.num_worse + 1)
    if progress.num_worse >= patience:
        return replace(progress, stop_reason=f"{_MISSED[select_by]} in {patience} validations")
    if progress.step >= num_steps:
        return replace(progress, stop_reason="all steps done")
    return progress


def _is_better(metrics: Mapping[str, float], progress: Progress, *, select_by: SelectBy) -> bool:
    if progress.best_loss is None:
        return True
    best = {
        "validation_loss": progress.best_loss,
        "validation_exact": progress.best_exact or 0.0,
    }
    cost = validation_cost(metrics, select_by=select_by)
    return cost < validation_cost(best, select_by=select_by)


def check_finite(loss: float, *, step: int) -> None:
    """Refuse to go on after a loss that is no number.

    Args:
        loss: Of training or validation.
        step: Optimiser steps done.

    Raises:
        DivergedError: If it is infinite or not a number.
    """
    if not math.isfinite(loss):
        raise DivergedError(
            f"the loss is {loss} at step {step}; lower train.learning_rate or use "
            "train.precision fp32"
        )


@dataclass(frozen=True)
class Manifest:
    """What one worker put into a checkpoint.

    Args:
        step: Optimiser steps done.
        rank: The worker.
        world_size: Workers that saved together.
        model_digest: Digest of the model's configuration and the tokenizer.
        files: Size in bytes and hex SHA-256 by path inside the checkpoint.
        precision: Number format of the training; empty where it was not noted.
        token_budget: Tokens of a pass; 0 where it was not noted.
    """

    step: int
    rank: int
    world_size: int
    model_digest: str
    files: Mapping[str, tuple[int, str]]
    precision: str = ""
    token_budget: int = 0

    @property
    def name(self) -> str:
        """File name of the manifest."""
        return manifest_name(self.rank)


def manifest_name(rank: int) -> str:
    """File name of a worker's manifest."""
    return f"manifest-{rank:05d}.json"


def write_manifest(
    folder: Path,
    *,
    step: int,
    rank: int,
    world_size: int,
    model_digest: str,
    precision: str = "",
    token_budget: int = 0,
) -> Manifest:
    """List a worker's files of a checkpoint; the last file to be written.

    Args:
        folder: What this worker saved.
        step: Optimiser steps done.
        rank: The worker.
        world_size: Workers that save together.
        model_digest: Digest of the model's configuration and the tokenizer.
        precision: Number format of the training.
        token_budget: Tokens of a pass.
    """
    files = {
        path.relative_to(folder).as_posix(): (path.stat().st_size, file_digest(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    manifest = Manifest(step, rank, world_size, model_digest, files, precision, token_budget)
    (folder / manifest.name).write_text(json.dumps(vars(manifest), indent=1))
    return manifest


def check_checkpoint(folder: Path) -> Manifest:
    """Verify that a checkpoint is whole and undamaged.

    Args:
        folder: The checkpoint, with the files of all workers.

    Returns:
        The first worker's manifest.

    Raises:
        TrainError: Naming the first file that is missing, cut short or changed.
    """
    first = _read_manifest(folder, 0)
    for rank in range(first.world_size):
        manifest = first if rank == 0 else _read_manifest(folder, rank)
        if (manifest.step, manifest.world_size) != (first.step, first.world_size):
            raise TrainError(f"{folder}: its manifests are of different steps or world sizes")
        for name, (size, digest) in manifest.files.items():
            _check_file(folder / name, size=size, digest=digest)
    return first


def newest_good_checkpoint(
    candidates: list["StoredCheckpoint"], *, model_digest: str
) -> "GoodCheckpoint | None":
    """The first candidate that is whole; damaged ones are named in a warning.

    Args:
        candidates: Newest first.
        model_digest: Digest that the checkpoint must have been saved with.

    Raises:
        TrainError: If a whole checkpoint belongs to another model or tokenizer.
    """
    for candidate in candidates:
        try:
            with candidate.as_local_dir() as folder:
                manifest = check_checkpoint(folder)
        except (TrainError, OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("checkpoint %s is damaged, trying an older one: %s", candidate, error)
            continue
        if manifest.model_digest != model_digest:
            raise TrainError(
                f"checkpoint {candidate} belongs to another model or tokenizer; "
                "use another run.name, or delete the train folder of this run"
            )
        return GoodCheckpoint(candidate, manifest)
    return None


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint in the run's storage.

    Args:
        filesystem: Where it is.
        path: Path inside ``filesystem``.
    """

    filesystem: fs.FileSystem
    path: str

    def __post_init__(self) -> None:
        # Ray names a local copy by the handle, which stays the same when it is sent to others.
        object.__setattr__(self, "_handle", Checkpoint(self.path, filesystem=self.filesystem))

    def __str__(self) -> str:
        return self.path

    @contextmanager
    def as_local_dir(self) -> Iterator[Path]:
        """The checkpoint as local files: itself on a local disk, else a copy for the whole node.

        Workers that were sent this object by one of them share the copy: the first downloads it,
        and it goes with the last. None may leave before all have entered.
        """
        handle: Checkpoint = self.__dict__["_handle"]
        with handle.as_directory() as folder:
            yield Path(folder)


@dataclass(frozen=True)
class GoodCheckpoint:
    """A checkpoint that was found whole."""

    stored: StoredCheckpoint
    manifest: Manifest


def stored_checkpoints(run: RunFolder, *, folders: tuple[str, ...]) -> list[StoredCheckpoint]:
    """All checkpoints in these folders that name a step, newest step first.

    Args:
        run: The run folder.
        folders: Folders of checkpoints, relative to the run folder.
    """
    found = []
    for folder in folders:
        for name in run.list_names(folder):
            manifest = f"{folder}/{name}/{manifest_name(0)}"
            if name.startswith("checkpoint_") and run.exists(manifest):
                step = _step_of(run, manifest)
                found.append(
                    (step, name, StoredCheckpoint(run.filesystem, run.path(f"{folder}/{name}")))
                )
    return [stored for _, _, stored in sorted(found, key=lambda item: item[:2], reverse=True)]


def file_digest(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _step_of(run: RunFolder, manifest: str) -> int:
    try:
        return int(run.read_json(manifest)["step"])
    except (ValueError, KeyError, TypeError):
        return -1


def _read_manifest(folder: Path, rank: int) -> Manifest:
    path = folder / manifest_name(rank)
    if not path.exists():
        raise TrainError(f"{path} is missing")
    values: dict[str, Any] = json.loads(path.read_text())
    values["files"] = {name: (size, digest) for name, (size, digest) in values["files"].items()}
    return Manifest(**values)


def _check_file(path: Path, *, size: int, digest: str) -> None:
    if not path.exists():
        raise TrainError(f"{path} is missing")
    found = path.stat().st_size
    if found != size:
        raise TrainError(f"{path} holds {found} bytes, expected {size}")
    if file_digest(path) != digest:
        raise TrainError(f"{path} has changed since it was written")
