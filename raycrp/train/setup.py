"""What a worker trains with: model, engine, rows and schedule, built from the settings."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from raycrp.arrays import IntArray
from raycrp.choices import InstructionChoice, Precision
from raycrp.config import TrainConfig
from raycrp.errors import TrainError
from raycrp.model.dropout import DropoutSource, use_cheap_dropout
from raycrp.model.fused import compile_blocks, use_fused_kernels
from raycrp.model.fusion import part_end
from raycrp.model.t5 import load_backbone, num_parameters
from raycrp.prompt.stage import LLM_CRP_DIR
from raycrp.run import RunFolder
from raycrp.schemas import Split
from raycrp.train.batches import BatchShape, SpecialIds, batch_shape
from raycrp.train.checkpoint import GoodCheckpoint
from raycrp.train.checks import check_settings
from raycrp.train.deepspeed import OptimizerSettings, build_engine
from raycrp.train.memory import CPU_TOKEN_BUDGET, Sizes, agreed_token_budget
from raycrp.train.precision import (
    check_gpu_kernels,
    enable_cpu_bf16,
    enable_fp16,
    has_bf16,
    resolve_precision,
)
from raycrp.train.resume import agreed_checkpoint, model_digest, needs_resize
from raycrp.train.rows import Rows, Schedule
from raycrp.train.session import Session
from raycrp.train.tokens import PrefixTable, plain_ids
from raycrp.train.validation import chosen_rows

_COMPILERS = ("g++", "c++", "clang++")


@dataclass(frozen=True)
class WorkerSettings:
    """All that a worker needs to know; picklable.

    Args:
        run: The run folder, with the token tables written.
        train: Settings of training.
        instruction: How instructions are chosen.
        refresh_steps: Steps between refreshes of live instructions; None for none.
        seed: Seed of order and dropout.
        inputs: The run folder with prompts, model and token tables, where it is another one.
    """

    run: RunFolder
    train: TrainConfig
    instruction: InstructionChoice
    refresh_steps: int | None
    seed: int
    inputs: RunFolder | None = None

    @property
    def source(self) -> RunFolder:
        """The run folder that training reads from."""
        return self.inputs or self.run


@dataclass(frozen=True)
class Parts:
    """What a worker trains with.

    Args:
        folder: LLM-CRP before training.
        digest: Of its configuration and tokenizer.
        checkpoint: Where to go on from; None at the start.
        is_resized: Whether it was saved by another number of workers.
        engine: The DeepSpeed engine.
        tokenizer: LLM-CRP's tokenizer.
        dropout: Source of dropout on a CPU; torch's own on a GPU and where blocks are compiled.
        precision: Number format in use.
        num_parameters: Weights of the model.
        token_budget: Rows times longest prompt and target of one pass.
        longest_row: Tokens of the longest prompt and the longest target.
        rows: Training rows.
        validation: Validation rows.
        validation_rows: Places of those that are scored.
        schedule: What each step trains on.
        num_steps: Steps of the whole training.
        eval_every: Steps between validations.
    """

    folder: Path
    digest: str
    checkpoint: GoodCheckpoint | None
    is_resized: bool
    engine: Any
    tokenizer: Any
    dropout: DropoutSource | None
    precision: Precision
    num_parameters: int
    token_budget: int
    longest_row: int
    rows: Rows
    validation: Rows
    validation_rows: IntArray
    schedule: Schedule
    num_steps: int
    eval_every: int

    def describe(self) -> dict[str, Any]:
        """Counts of rows, steps and weights, for the run folder."""
        return {
            "num_steps": self.num_steps,
            "steps_per_epoch": self.schedule.steps_per_epoch,
            "num_rows": len(self.rows.kept),
            "rows_per_epoch": self.schedule.rows_per_epoch,
            "num_too_long": self.rows.num_too_long,
            "num_cut": self.rows.num_cut,
            "num_spellings": self.rows.num_spellings,
            "num_aligned": self.rows.table.num_aligned,
            "num_validation_rows": len(self.validation_rows),
            "num_validation_too_long": self.validation.num_too_long,
            "num_parameters": self.num_parameters,
            "precision": self.precision.value,
            "token_budget": self.token_budget,
        }


def build_parts(settings: WorkerSettings, *, session: Session) -> Parts:
    """Build what a worker trains with; every worker calls this.

    Args:
        settings: What to train and how.
        session: The launcher.

    Raises:
        TrainError: If the settings, the rows and the machine do not go together.
    """
    train = settings.train
    folder = settings.source.local_dir(LLM_CRP_DIR)
    digest = model_digest(folder)
    checkpoint = agreed_checkpoint(session.checkpoints(), model_digest=digest, rank=session.rank)
    is_resized = checkpoint is not None and needs_resize(
        checkpoint, zero_stage=train.zero_stage, world_size=session.world_size
    )
    shape = _batch_shape(train)
    model, tokenizer = load_backbone(folder)
    special = special_ids(tokenizer, start=int(model.config.decoder_start_token_id))
    prefixes = PrefixTable(tokenizer, part_end=part_end(model, tokenizer))
    rows = _load_rows(settings, prefixes=prefixes, special=special)
    before = None if checkpoint is None else checkpoint.manifest
    precision = agreed_precision(train, before=before.precision if before else None)
    dropout = _use_kernels(model, train=train)
    sizes = _sizes(rows, model=model, shape=shape, world_size=session.world_size)
    engine = _load_engine(
        model, train=train, shape=shape, precision=precision, is_resized=is_resized
    )
    token_budget = agreed_token_budget(
        engine,
        train=train,
        precision=precision,
        sizes=sizes,
        run=settings.run,
        before=before.token_budget if before else 0,
    )
    shape = replace(shape, token_budget=token_budget)
    schedule = Schedule(
        rows[Split.TRAIN], shape=shape, seed=settings.seed, temperature=train.task_temperature
    )
    return Parts(
        folder=folder,
        digest=digest,
        checkpoint=checkpoint,
        is_resized=is_resized,
        engine=engine,
        tokenizer=tokenizer,
        dropout=dropout,
        precision=precision,
        num_parameters=sizes.num_parameters,
        token_budget=token_budget,
        longest_row=sizes.longest_row,
        rows=rows[Split.TRAIN],
        validation=rows[Split.VALIDATION],
        validation_rows=chosen_rows(
            rows[Split.VALIDATION], max_rows=train.max_validation_rows, seed=settings.seed
        ),
        schedule=schedule,
        num_steps=min(train.max_epochs * schedule.steps_per_epoch, train.max_steps or 2**62),
        eval_every=train.eval_every_steps or schedule.steps_per_epoch,
    )


def _use_kernels(model: Any, *, train: TrainConfig) -> DropoutSource | None:
    if not train.use_gpu and not train.compile:
        return use_cheap_dropout(model)
    use_fused_kernels(model)
    if train.compile:
        compile_blocks(model)
    return None


def _batch_shape(train: TrainConfig) -> BatchShape:
    return batch_shape(
        train.batch_size,
        micro_batch_size=train.micro_batch_size,
        num_workers=(train.min_workers, train.max_workers),
        token_budget=train.token_budget or CPU_TOKEN_BUDGET,
    )


def _sizes(rows: Mapping[Split, Rows], *, model: Any, shape: BatchShape, world_size: int) -> Sizes:
    prompts, targets = [], []
    for part in rows.values():
        for spelling in range(part.num_spellings):
            target = part.table.targets.lengths[part.kept, spelling]
            prompts.append((part.lengths(part.kept, passes=spelling) - target).max())
            targets.append(target.max())
    return Sizes(
        longest_prompt=int(max(prompts)),
        longest_target=int(max(targets)),
        most_rows=-(-shape.batch_size // shape.num_workers),
        num_parameters=num_parameters(model),
        world_size=world_size,
    )


def special_ids(tokenizer: Any, *, start: int) -> SpecialIds:
    """Ids that batches need, from a tokenizer.

    Args:
        tokenizer: LLM-CRP's tokenizer.
        start: First token of every answer.
    """
    with_blank, without = plain_ids(tokenizer, [" C", "C"])
    return SpecialIds(
        pad=tokenizer.pad_token_id,
        eos=tokenizer.eos_token_id,
        start=start,
        blank=with_blank[0] if len(with_blank) > len(without) else None,
    )


def agreed_precision(train: TrainConfig, *, before: str | None = None) -> Precision:
    """The number format of all workers, by the weakest of their GPUs; every worker calls this.

    Args:
        train: Settings of training.
        before: Number format of the checkpoint to go on from, which ``auto`` keeps to.

    Raises:
        TrainError: If it does not go together with a GPU or the other settings.
    """
    capability = _weakest_capability() if train.use_gpu else None
    precision = resolve_precision(train.precision, capability=capability)
    if train.precision is Precision.AUTO and before:
        precision = Precision(before)
        if precision is Precision.BF16 and not has_bf16(capability):
            raise TrainError(
                "training began in bf16, which one of the workers' GPUs lacks now; start it on "
                "GPUs like those before, or delete the train folder of this run to begin anew"
            )
    check_settings(train.model_copy(update={"precision": precision}))
    return precision


def _weakest_capability() -> tuple[int, int]:
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, torch.cuda.get_device_capability())
    weakest: tuple[int, int] = min(found)
    return weakest


def check_machine(train: TrainConfig) -> None:
    """Refuse a machine without a compiler that is asked for, or a torch that cannot use its GPU.

    Args:
        train: Settings of training.

    Raises:
        TrainError: Saying what to install.
    """
    if train.compile and not any(map(shutil.which, _COMPILERS)):
        raise TrainError(
            "train.compile needs a C compiler, which this machine lacks; install one, e.g. apt-get "
            "install g++, or unset it"
        )
    check_gpu(train)


def check_gpu(train: TrainConfig) -> None:
    """Refuse a torch without kernels for this worker's GPU, before a collective needs one.

    Args:
        train: Settings of training.

    Raises:
        TrainError: Saying what to install.
    """
    if not train.use_gpu:
        return
    if not torch.cuda.is_available():
        raise TrainError(
            f"train.use_gpu is true, but torch {torch.__version__} sees no GPU here; unset it, or "
            "install a torch that fits the GPU and its driver, e.g. for V100 pip install torch "
            "--index-url https://download.pytorch.org/whl/cu126"
        )
    capability = torch.cuda.get_device_capability()
    check_gpu_kernels(capability, architectures=torch.cuda.get_arch_list())


def _load_rows(
    settings: WorkerSettings, *, prefixes: PrefixTable, special: SpecialIds
) -> Mapping[Split, Rows]:
    return {
        split: Rows(
            settings.source, split=split, prefixes=prefixes, special=special, train=settings.train
        )
        for split in (Split.TRAIN, Split.VALIDATION)
    }


def _load_engine(
    model: Any,
    *,
    train: TrainConfig,
    shape: BatchShape,
    precision: Precision,
    is_resized: bool,
) -> Any:
    if precision is Precision.FP16:
        enable_fp16(model, device_type="cuda" if train.use_gpu else "cpu")
    if precision is Precision.BF16 and not train.use_gpu:
        enable_cpu_bf16(model)
        precision = Precision.FP32  # As DeepSpeed is to see the model.
    return build_engine(
        model.train(),
        optimizer=OptimizerSettings(train.learning_rate, train.weight_decay, train.gradient_clip),
        zero_stage=train.zero_stage,
        micro_batch_size=train.batch_size // shape.num_micro,
        precision=precision,
        offload=train.offload,
        load_universal=is_resized,
    )
