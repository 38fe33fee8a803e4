"""The state of training, saved by all workers together and loaded again."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file

from raycrp.choices import Precision
from raycrp.errors import TrainError
from raycrp.run import RunFolder
from raycrp.train.checkpoint import (
    GoodCheckpoint,
    Progress,
    StoredCheckpoint,
    newest_good_checkpoint,
    write_manifest,
)

_STATE_TAG = "state"
_PROGRESS_FILE = "state.json"
_TENSORS_FILE = "state.safetensors"


@dataclass(frozen=True)
class LoadedState:
    """What a checkpoint keeps beside the engine's own state.

    Args:
        progress: How far training was.
        tensors: State of the instructions and of the weights' average.
        notes: Other state that is JSON-ready.
    """

    progress: Progress
    tensors: Mapping[str, torch.Tensor]
    notes: Mapping[str, Any]


def save_training(
    engine: Any,
    *,
    progress: Progress,
    tensors: Mapping[str, Any],
    notes: Mapping[str, Any],
    rank: int,
    world_size: int,
    digest: str,
    precision: Precision,
    token_budget: int,
) -> Path:
    """Save this worker's part of the state of training; every worker calls this.

    Args:
        engine: The DeepSpeed engine.
        progress: How far training is.
        tensors: Other state, the same on every worker.
        notes: Other state that is JSON-ready.
        rank: Number of this worker.
        world_size: Number of workers.
        digest: Of the model's configuration and the tokenizer.
        precision: Number format of the training.
        token_budget: Tokens of a pass.

    Returns:
        A new folder with this worker's files and its manifest.
    """
    folder = Path(tempfile.mkdtemp(prefix="raycrp-checkpoint-"))
    engine.save_checkpoint(str(folder), tag=_STATE_TAG)
    if rank == 0:
        state = {"progress": asdict(progress), "notes": dict(notes)}
        (folder / _PROGRESS_FILE).write_text(json.dumps(state))
        save_file(dict(tensors), folder / _TENSORS_FILE)
    write_manifest(
        folder,
        step=progress.step,
        rank=rank,
        world_size=world_size,
        model_digest=digest,
        precision=precision.value,
        token_budget=token_budget,
    )
    return folder


def agreed_checkpoint(
    candidates: list[StoredCheckpoint], *, model_digest: str, rank: int
) -> GoodCheckpoint | None:
    """The checkpoint that all workers go on from; every worker calls this.

    Args:
        candidates: What this worker sees; the first worker's decide.
        model_digest: Digest that the checkpoint must have been saved with.
        rank: Number of this worker.

    Raises:
        TrainError: If a whole checkpoint belongs to another model or tokenizer.
    """
    found: list[GoodCheckpoint | TrainError | None] = [None]
    if rank == 0:
        try:
            found = [newest_good_checkpoint(candidates, model_digest=model_digest)]
        except TrainError as error:
            found = [error]
    dist.broadcast_object_list(found, src=0)
    if isinstance(found[0], TrainError):
        raise found[0]
    return found[0]


def load_training(engine: Any, checkpoint: GoodCheckpoint, *, is_resized: bool) -> "LoadedState":
    """Load the state of training into an engine; every worker calls this.

    Args:
        engine: The DeepSpeed engine, as it was built.
        checkpoint: A checkpoint that was found whole.
        is_resized: Whether it is to be loaded by way of a universal checkpoint.

    Returns:
        What is kept beside the engine's own state.
    """
    with checkpoint.stored.as_local_dir() as folder:
        source = _universal_copy(folder, stored=checkpoint.stored) if is_resized else folder
        own_settings = [dict(group) for group in engine.optimizer.param_groups]
        # A pickle: only ever read from this run's own storage.
        engine.load_checkpoint(str(source), tag=_STATE_TAG, load_lr_scheduler_states=False)
        if is_resized:
            _part_groups(engine.optimizer, own_settings)
        _own_step_counts(engine.basic_optimizer)
        state = json.loads((folder / _PROGRESS_FILE).read_text())
        tensors = load_file(folder / _TENSORS_FILE)
        dist.barrier()
        if is_resized and _is_first_of_node():
            shutil.rmtree(source)
    return LoadedState(Progress(**state["progress"]), tensors, state["notes"])


def _part_groups(optimizer: Any, own_settings: Sequence[Mapping[str, Any]]) -> None:
    """Give each group of parameters its own settings again.

    From a universal checkpoint, DeepSpeed's ZeRO 3 gives all groups the settings of the first,
    weight decay among them.

    Args:
        optimizer: DeepSpeed's, around PyTorch's.
        own_settings: Of each group, before the checkpoint was loaded.
    """
    for group, own in zip(optimizer.param_groups, own_settings, strict=True):
        group.update({name: value for name, value in own.items() if name != "params"})


def _own_step_counts(optimizer: torch.optim.Optimizer) -> None:
    """Give each parameter a count of steps of its own, beside it, as fused AdamW wants it.

    From a universal checkpoint DeepSpeed gives all of them one common count, on the CPU, which then
    grows once for each group.

    Args:
        optimizer: PyTorch's.
    """
    for parameter, state in optimizer.state.items():
        if "step" in state:
            steps = torch.as_tensor(state["step"], dtype=torch.float32)
            state["step"] = steps.to(parameter.device, copy=True)


def needs_resize(checkpoint: GoodCheckpoint, *, zero_stage: int, world_size: int) -> bool:
    """Whether a checkpoint's optimiser state is cut for another number of workers.

    Args:
        checkpoint: A checkpoint that was found whole.
        zero_stage: Stage that it was saved with; 0 cuts nothing.
        world_size: Number of workers now.
    """
    return zero_stage > 0 and checkpoint.manifest.world_size != world_size


def _universal_copy(folder: Path, *, stored: StoredCheckpoint) -> Path:
    """The checkpoint in DeepSpeed's universal form, made once on each node."""
    # By its place in storage: where that is not a local disk, each worker has a copy of its own.
    name = hashlib.sha256(str(stored).encode()).hexdigest()[:16]
    target = Path(tempfile.gettempdir()) / f"raycrp-universal-{os.getuid()}-{name}"
    problem = _convert(folder / _STATE_TAG, target) if _is_first_of_node() else ""
    problems: list[str] = [""] * dist.get_world_size()
    dist.all_gather_object(problems, problem)
    if any(problems):
        raise TrainError(f"{folder} cannot be resized: {max(problems)}")
    return target


def _convert(source: Path, target: Path) -> str:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True, mode=0o700)
    command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--input_folder"]
    command += [str(source), "--output_folder", str(target / _STATE_TAG)]
    command += ["--num_extract_workers", "1", "--num_merge_workers", "1", "--inject_missing_state"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


def _is_first_of_node() -> bool:
    return os.environ.get("LOCAL_RANK", "0") == "0"


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
