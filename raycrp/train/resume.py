"""The state of training, saved by all workers together and loaded again."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file

from raycrp.errors import TrainError
from raycrp.run import RunFolder
from raycrp.train.checkpoint import GoodCheckpoint, Progress, write_manifest

_STATE_TAG = "state"
_PROGRESS_FILE = "progress.json"
_TENSORS_FILE = "instructions.safetensors"


def save_training(
    engine: Any,
    *,
    progress: Progress,
    tensors: Mapping[str, Any],
    rank: int,
    world_size: int,
    digest: str,
) -> Path:
    """Save this worker's part of the state of training; every worker calls this.

    Args:
        engine: The DeepSpeed engine.
        progress: How far training is.
        tensors: State of the instructions, the same on every worker.
        rank: Number of this worker.
        world_size: Number of workers.
        digest: Of the model's configuration and the tokenizer.

    Returns:
        A new folder with this worker's files and its manifest.
    """
    folder = Path(tempfile.mkdtemp(prefix="raycrp-checkpoint-"))
    engine.save_checkpoint(str(folder), tag=_STATE_TAG)
    if rank == 0:
        (folder / _PROGRESS_FILE).write_text(json.dumps(asdict(progress)))
        save_file(dict(tensors), folder / _TENSORS_FILE)
    write_manifest(
        folder, step=progress.step, rank=rank, world_size=world_size, model_digest=digest
    )
    return folder


def load_training(
    engine: Any, checkpoint: GoodCheckpoint, *, world_size: int
) -> tuple[Progress, dict[str, Any]]:
    """Load the state of training into an engine; every worker calls this.

    Args:
        engine: The DeepSpeed engine, as it was built.
        checkpoint: A checkpoint that was found whole.
        world_size: Number of workers.

    Returns:
        How far training was, and the state of the instructions.

    Raises:
        TrainError: If the checkpoint was saved by another number of workers.
    """
    if checkpoint.manifest.world_size != world_size:
        raise TrainError(
            f"checkpoint {checkpoint.stored} was saved by {checkpoint.manifest.world_size} "
            f"workers, now there are {world_size}"
        )
    with checkpoint.stored.as_local_dir() as folder:
        # A pickle: only ever read from this run's own storage.
        engine.load_checkpoint(str(folder), tag=_STATE_TAG, load_lr_scheduler_states=False)
        progress = Progress(**json.loads((folder / _PROGRESS_FILE).read_text()))
        tensors = load_file(folder / _TENSORS_FILE)
        dist.barrier()
    return progress, tensors


def save_weights(engine: Any, *, run: RunFolder, target: str, source: Path) -> None:
    """Save the whole model as a folder that ``from_pretrained`` loads; every worker calls this.

    Args:
        engine: The DeepSpeed engine.
        run: The run folder.
        target: Folder to write, relative to the run folder.
        source: Folder of the model before training, for its tokenizer.
    """
    weights = _gather_weights(engine)
    if dist.get_rank() == 0:
        with run.new_local_dir(target) as folder:
            engine.module.save_pretrained(folder, state_dict=weights)
            for path in source.iterdir():
                if not (folder / path.name).exists() and path.suffix != ".safetensors":
                    shutil.copy(path, folder / path.name)
    dist.barrier()


def _gather_weights(engine: Any) -> dict[str, torch.Tensor]:
    if engine.zero_optimization_stage() < 3:
        return {name: value.cpu() for name, value in engine.module.state_dict().items()}
    return dict(engine._zero3_consolidated_16bit_state_dict() or {})


def model_digest(folder: Path) -> str:
    """Hex SHA-256 of a model folder's configuration and tokenizer.

    Args:
        folder: As written by ``save_pretrained``.
    """
    digest = hashlib.sha256()
    for name in ("config.json", "tokenizer.json"):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()
