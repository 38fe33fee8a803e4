"""Settings of stages two and three: prompts and training."""

from typing import Annotated, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from raycrp.choices import (
    Decay,
    Fusion,
    InstructionChoice,
    Launcher,
    Precision,
    SelectBy,
    Spelling,
    Task,
    TooLong,
    TrainReactionType,
)
from raycrp.config.section import EXECUTION, Section


class PromptConfig(Section):
    """Instruction and reaction type in front of the input (Eq 10-12)."""

    instruction: InstructionChoice = InstructionChoice.ADAPTIVE
    """How the instruction is chosen. ``random``, ``fixed`` and ``none`` are controls; ``none``
    leaves the task's name alone in front, since a model of several tasks needs it."""
    use_reaction_type: bool = True
    """Whether the prompt names the reaction type; without it and with instruction ``none``, the
    model is the plain T5 that gains are measured against."""
    fusion: Fusion = Fusion.TEXT
    """``text``: instruction, reaction type and input are one text that the encoder reads whole;
    ``hidden``: each is encoded apart, and their vectors are joined. The paper's code joins so too,
    but reads instruction and reaction type as one text."""
    train_reaction_type: TrainReactionType = TrainReactionType.CLUSTER
    """Whose reaction types training prompts carry: k-means' (the paper), those of LLM-RTs that did
    not see the row (``elicit.cross_fit_folds``), or those of the LLM-RT trained on it."""
    refresh_steps: int | None = Field(default=50, ge=1)
    """Training steps between refreshes of adaptive instructions by the live encoder. 1 is the
    paper: each step encodes its inputs once more to choose. Above 1 a row's next instruction is
    chosen from its own training pass. Null keeps the choices of LLM-CRP before training."""
    tasks: tuple[Task, ...] | None = None
    """Tasks that LLM-CRP learns, of those in ``data.tasks``; all of them if unset."""
    seed: int | None = Field(default=None, ge=0)
    """Seed of LLM-CRP: first weights, random instructions, batches, dropout; ``run.seed`` if unset.
    Runs that differ in it alone share data, reaction types and test rows."""
    rows_per_shard: int = Field(default=1_024, ge=1)
    """Rows of one shard: the unit of work, retry and resume."""
    num_actors: Annotated[int, EXECUTION] = Field(default=1, ge=0)
    """Actors that choose instructions at once; 0 works in the calling process, which suits
    small runs, where starting an actor takes longest."""
    gpus_per_actor: Annotated[float, EXECUTION] = Field(default=0, ge=0)
    """GPUs of each actor."""


class SearchConfig(Section):
    """Values of training to try; the best trial by ``train.select_by`` becomes the model."""

    learning_rate: tuple[PositiveFloat, ...] = (1e-4, 3e-4, 1e-3, 3e-3)
    """Peak step sizes."""
    batch_size: tuple[PositiveInt, ...] = (16, 32, 64)
    """Global batches, each tried with each step size."""
    first_rung: float = Field(default=0.1, gt=0, le=1)
    """Share of the rows to be seen after which the weaker trials are first stopped (ASHA)."""
    reduction: int = Field(default=3, ge=2)
    """One in so many trials goes on to the next rung, which is as many times as far."""
    max_concurrent_trials: Annotated[int | None, EXECUTION] = Field(default=None, ge=1)
    """Trials at once; as many as the cluster's CPUs or GPUs allow if unset."""


class TrainConfig(Section):
    """Fine-tuning of LLM-CRP (Eq 13)."""

    launcher: Annotated[Launcher, EXECUTION] = Launcher.RAY
    """Ray Train workers, or one plain process for debugging."""
    num_workers: Annotated[PositiveInt | tuple[PositiveInt, PositiveInt], EXECUTION] = 1
    """Training workers, or ``[least, most]`` where the cluster may shrink and grow."""
    resize_interval_s: Annotated[float, EXECUTION] = Field(default=900, gt=0)
    """Seconds between looks for added nodes, where ``num_workers`` is a range. A resize goes back
    to the newest checkpoint, so that this should be longer than ``checkpoint_every_s``: nodes that
    come one by one would else keep training from ever getting to its first checkpoint."""
    cpus_per_worker: Annotated[float, EXECUTION] = Field(default=1, gt=0)
    """CPUs of each worker."""
    use_gpu: Annotated[bool, EXECUTION] = False
    """One GPU for each worker."""
    max_failures: Annotated[int, EXECUTION] = Field(default=100, ge=-1)
    """Lost workers and nodes survived by one command; -1 is without limit. The same step failing
    three times, or ten starts without a step, end training whatever this says."""
    zero_stage: int = Field(default=2, ge=0, le=3)
    """DeepSpeed ZeRO stage."""
    offload: Annotated[bool, EXECUTION] = False
    """Whether the optimiser's state lies in the nodes' memory and it works on their CPUs, which
    saves memory of the GPUs and takes longer; for ``zero_stage`` 1 to 3."""
    spelling: Spelling = Spelling.CANONICAL
    """How molecules are written: canonical; inputs from random atoms; or outputs from the same
    atoms as their inputs, where the data has atom maps."""
    num_spellings: int = Field(default=1, ge=1)
    """Spellings of each training row that is not ``canonical``; each time that it is trained on
    takes the next. The input of the first is canonical."""
    batch_size: int = Field(default=32, ge=1)
    """Global batch in rows."""
    task_temperature: float = Field(default=1.0, ge=1, allow_inf_nan=False)
    """How tasks of unlike size are mixed: an epoch has as many rows as there are, and a task's
    share of them goes with its number of rows to the power of one through this. 1 is in
    proportion, each row once an epoch; a large number nears equal shares. Above 1 a small task's
    rows come up several times an epoch, each time in their next spelling, and a large task's take
    several epochs to be gone through."""
    micro_batch_size: int | None = Field(default=None, ge=1)
    """Rows of one forward pass on one worker; its whole share of the batch if unset."""
    token_budget: int | None = Field(default=None, ge=64)
    """Rows times longest prompt and target of one forward pass, in tokens; a micro batch above
    it is cut further. If unset, as many as the GPUs' memory holds, measured before the first step
    and kept in checkpoints; 16,384 on a CPU."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak step size of AdamW."""
    warmup_fraction: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps over which the step size rises."""
    decay: Decay = Decay.COSINE
    """How the step size falls after that."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled weight decay of AdamW; norms and biases are left out."""
    gradient_clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    label_smoothing: float = Field(default=0, ge=0, lt=1)
    """Share of a target token's probability spread over all tokens."""
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """Decay of a moving average of the weights, which is what is validated and exported; the
    weights themselves are if unset."""
    search: SearchConfig | None = None
    """Step sizes and batches to try in the place of one; a plain training if unset."""
    max_epochs: int = Field(default=40, ge=1)
    """Epochs at most, each of as many rows as there are to train on."""
    max_steps: int | None = Field(default=None, ge=1)
    """Optimiser steps at most; by epochs alone if unset."""
    patience: int = Field(default=2, ge=1)
    """Validations without a better one before training stops."""
    select_by: SelectBy = SelectBy.LOSS
    """Which validation is the best, whose weights are kept: that of the lowest ``loss``, or that of
    the most ``exact`` answers, of equally many the one of the lower loss."""
    eval_every_steps: int | None = Field(default=None, ge=1)
    """Steps between validations, each with a checkpoint; one epoch if unset."""
    checkpoint_every_steps: Annotated[int | None, EXECUTION] = Field(default=None, ge=1)
    """Steps between further checkpoints; none if unset."""
    checkpoint_every_s: Annotated[float | None, EXECUTION] = Field(default=600, gt=0)
    """Seconds after which there is a further checkpoint; none if null."""
    mlflow_uri: Annotated[str | None, EXECUTION] = None
    """MLflow tracking server (or folder) that is sent all metrics; needs ``raycrp[mlflow]``."""
    log_every_steps: Annotated[int, EXECUTION] = Field(default=10, ge=1)
    """Steps between two lines of metrics."""
    max_validation_rows: int = Field(default=2_000, ge=1)
    """Validation rows scored each time."""
    precision: Precision = Precision.AUTO
    """Number format: ``auto`` takes bf16 where all workers' GPUs have it, fp16 on older GPUs (fp32
    weights, the layers that overflow kept in fp32), fp32 on CPUs, and keeps to what it took.
    ``bf16`` on a CPU is for matrix products alone, and faster where the CPU has instructions for
    it."""
    compile: Annotated[bool, EXECUTION] = False
    """Whether the blocks of LLM-CRP are compiled (``torch.compile``), which takes minutes at the
    start and saves time at each step of a GPU; for ``zero_stage`` 0 to 2, needs a C compiler.
    Dropout then draws other numbers."""
    max_input_tokens: int = Field(default=512, ge=8)
    """Prompts longer than this are dropped or cut, and counted."""
    max_output_tokens: int = Field(default=256, ge=8)
    """Targets longer than this are dropped or cut, and counted."""
    too_long: TooLong = TooLong.DROP
    """What happens to a row that is longer than a limit; a cut target is no molecule."""
    num_checkpoints: int = Field(default=2, ge=1)
    """Newest checkpoints kept beside the best."""

    @property
    def min_workers(self) -> int:
        """Workers at least."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[0]

    @property
    def max_workers(self) -> int:
        """Workers at most."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[1]

    @model_validator(mode="after")
    def _check_workers(self) -> Self:
        if self.min_workers > self.max_workers:
            raise ValueError(
                f"num_workers [{self.min_workers}, {self.max_workers}] must be [least, most]"
            )
        return self
