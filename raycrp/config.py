"""Settings of a run: frozen sections, one a stage, merged from YAML files and overrides.

A field marked ``EXECUTION`` says how a stage is carried out (actors, GPUs, concurrency), not what
comes out; changing it never makes a finished stage run again.
"""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    model_validator,
)
from yaml import YAMLError

from raycrp.errors import ConfigError


class _Execution:
    """Marks a field that changes how a stage runs, not what it makes."""


EXECUTION = _Execution()


class Task(StrEnum):
    """The three prediction tasks."""

    FORWARD = "forward"
    RETROSYNTHESIS = "retrosynthesis"
    REAGENT = "reagent"


class DataSource(StrEnum):
    """Where the reactions come from."""

    CORPUS = "corpus"
    MOL_INSTRUCTIONS = "mol_instructions"
    REACTIONS = "reactions"
    HUB = "hub"


class Notation(StrEnum):
    """How molecules are written in a file."""

    SMILES = "smiles"
    SELFIES = "selfies"


class LeakPolicy(StrEnum):
    """What happens to a training row whose reaction is in a validation or test split."""

    REJECT = "reject"
    REPORT = "report"


class Preset(StrEnum):
    """From-scratch T5 sizes."""

    TINY = "tiny"
    SMALL = "small"


class Encoding(StrEnum):
    """Which vectors describe a reaction to k-means (METHOD section 2)."""

    OUTPUT = "output"
    DIFFERENCE = "difference"
    CONCAT = "concat"
    INNER_PRODUCT = "inner_product"
    ELEMENTWISE_PRODUCT = "elementwise_product"
    FINGERPRINT = "fingerprint"
    CHANGE = "change"


PAPER_ENCODINGS = (
    Encoding.OUTPUT,
    Encoding.DIFFERENCE,
    Encoding.CONCAT,
    Encoding.INNER_PRODUCT,
)
"""The four of the paper; the others are ours."""


class LabelerKind(StrEnum):
    """How LLM-RT names a reaction type."""

    HEAD = "head"
    T5 = "t5"


class Scope(StrEnum):
    """What a reaction type belongs to (METHOD section 6.6)."""

    TASK = "task"
    REACTION = "reaction"


class Search(StrEnum):
    """How the pairs of encoding and N are searched."""

    GRID = "grid"
    HALVING = "halving"


class SelectionRule(StrEnum):
    """Which trial of the sweep is the best (METHOD section 6.3)."""

    ACCURACY = "accuracy"
    FLOOR = "floor"
    INFORMATION = "information"


class InstructionChoice(StrEnum):
    """How a row's instruction is chosen among the task's templates."""

    ADAPTIVE = "adaptive"
    RANDOM = "random"
    FIXED = "fixed"


class TrainReactionType(StrEnum):
    """Where the reaction type in a training prompt comes from."""

    CLUSTER = "cluster"
    CROSS_FITTED = "cross_fitted"
    PREDICTED = "predicted"


class Precision(StrEnum):
    """Number format of training."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


class Decay(StrEnum):
    """How the step size falls after warm-up."""

    COSINE = "cosine"
    INVERSE_SQRT = "inverse_sqrt"
    CONSTANT = "constant"


class Spelling(StrEnum):
    """How the molecules of training rows are written."""

    CANONICAL = "canonical"
    RANDOMIZED = "randomized"
    ALIGNED = "aligned"


class Launcher(StrEnum):
    """What starts the training workers."""

    RAY = "ray"
    LOCAL = "local"


class Device(StrEnum):
    """Where models run."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Section(BaseModel):
    """A frozen part of the configuration that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class RunConfig(Section):
    """The run itself: its name, where it is kept, its seed."""

    name: str = Field(default="demo", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run folder."""
    storage: Annotated[str, EXECUTION] = "runs"
    """Local folder or pyarrow.fs URI (``s3://bucket/prefix``) that holds the run folders."""
    seed: int = Field(default=0, ge=0)
    """Seed of every random choice."""
    num_cpus: Annotated[int | None, EXECUTION] = Field(default=None, ge=1)
    """CPUs of the Ray started on this machine; all of them if unset. Unused on a cluster."""
    device: Annotated[Device, EXECUTION] = Device.AUTO
    """Where models run; ``auto`` takes a GPU where the worker has one."""


class ReactionColumns(Section):
    """Names of the columns of a ``reactions`` file."""

    reaction: str | None = None
    """Column with a whole reaction SMILES; if unset, the three role columns are read."""
    reactants: str = "reactants"
    """Column with the reactants, joined by dots."""
    reagents: str | None = None
    """Column with the reagents, joined by dots; none if unset."""
    product: str = "product"
    """Column with the product."""
    split: str | None = None
    """Column with the split (train, valid or validation, test)."""
    id: str | None = None
    """Column with an identifier; the row number if unset."""
    truth: tuple[str, ...] = ()
    """Columns kept apart for reports and audits alone, such as true reaction classes."""


class HubSource(Section):
    """A data set file on the Hugging Face hub."""

    repo_id: str = "zjunlp/Mol-Instructions"
    """Name of the data set repository."""
    revision: str | None = Field(default=None, pattern="^[0-9a-f]{40}$")
    """Commit to read (40 hex digits); required, so that a run can be repeated."""
    files: tuple[str, ...] = ("data/Molecule-oriented_Instructions.zip",)
    """Files inside the repository."""


class DataConfig(Section):
    """Reading, cleaning and splitting."""

    source: DataSource = DataSource.CORPUS
    """Where the reactions come from."""
    paths: tuple[str, ...] = ()
    """Files or ``pyarrow.fs`` URIs of ``mol_instructions`` and ``reactions``; globs of files too.

    JSON, JSON Lines or Parquet rows; for reactions CSV, TSV and lines of reaction SMILES too. Gzip
    and zip are taken off.
    """
    notation: Notation | None = None
    """How molecules are written; to be declared for ``mol_instructions`` and ``hub``.

    A row with a field ``notation`` of its own is read so.
    """
    columns: ReactionColumns = ReactionColumns()
    """Column names of the source ``reactions``."""
    hub: HubSource = HubSource()
    """Repository of the source ``hub``."""
    tasks: tuple[Task, ...] = tuple(Task)
    """Tasks to make rows for."""
    num_reactions: int = Field(default=20_000, ge=10)
    """Reactions generated by the source ``corpus``."""
    max_reactions: int | None = Field(default=None, ge=10)
    """At most this many reactions (all task rows of each), chosen by key and seed; all if unset."""
    validation_fraction: float = Field(default=0.02, gt=0, lt=0.5)
    """Share of reactions for validation where the data set marks none."""
    test_fraction: float = Field(default=0.05, gt=0, lt=0.5)
    """Share of reactions for the test split where the data set marks none."""
    rt_valid_fraction: float = Field(default=0.01, gt=0, lt=0.5)
    """Share of D_train set apart as D'_valid for LLM-RT (paper: 98:1:1)."""
    rt_test_fraction: float = Field(default=0.01, gt=0, lt=0.5)
    """Share of D_train set apart as D'_test for LLM-RT."""
    max_reject_fraction: float = Field(default=0.2, ge=0, le=1)
    """The run stops when more than this share of the rows is unusable.

    Leaks, duplicates, rows of other tasks, and reactions without reagents do not count.
    """
    leak_policy: LeakPolicy = LeakPolicy.REJECT
    """What happens to training rows whose reaction is in a validation or test split."""
    max_molecule_chars: int = Field(default=2_000, ge=10)
    """A molecule whose SMILES is longer is rejected."""
    rows_per_file: int = Field(default=8_192, ge=1)
    """Rows of one Parquet file of clean rows."""
    num_processes: Annotated[int | None, EXECUTION] = Field(default=None, ge=1)
    """Processes that canonicalise molecules; all CPUs if unset."""

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        needs_paths = self.source in (DataSource.MOL_INSTRUCTIONS, DataSource.REACTIONS)
        if needs_paths and not self.paths:
            raise ValueError(f"source '{self.source}' needs data.paths")
        if self.source in (DataSource.MOL_INSTRUCTIONS, DataSource.HUB) and self.notation is None:
            raise ValueError(f"source '{self.source}' needs data.notation: selfies or smiles")
        if self.source is DataSource.HUB and self.hub.revision is None:
            raise ValueError("source 'hub' needs data.hub.revision, a commit of the repository")
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError("validation_fraction + test_fraction must leave rows to train on")
        if not self.tasks or len(set(self.tasks)) != len(self.tasks):
            raise ValueError("tasks must name at least one task, each once")
        return self


class Backbone(Section):
    """A T5: a from-scratch preset, a local ``save_pretrained`` folder or a hub id."""

    preset: Preset | None = None
    """From-scratch size, with a tokenizer built from the data."""
    name_or_path: str | None = None
    """Local folder or hub id, e.g. ``GT4SD/multitask-text-and-chemistry-t5-base-augm``."""
    revision: str | None = None
    """Commit of a hub id; required there."""

    @model_validator(mode="after")
    def _check_choice(self) -> Self:
        if (self.preset is None) == (self.name_or_path is None):
            raise ValueError("give either preset or name_or_path")
        return self


class ModelConfig(Section):
    """The two backbones of the method."""

    llm_rt: Backbone = Backbone(preset=Preset.TINY)
    """LLM-RT, which embeds and names reaction types."""
    llm_crp: Backbone = Backbone(preset=Preset.TINY)
    """LLM-CRP, which predicts reactions."""


class EmbedConfig(Section):
    """Embedding inputs and outputs of the training rows (Eq 4)."""

    max_tokens: int = Field(default=512, ge=8)
    """Longer texts are cut to this many tokens, and counted."""
    token_budget: int = Field(default=16_384, ge=64)
    """Rows times longest row of one padded batch, in tokens."""
    rows_per_shard: int = Field(default=1_024, ge=1)
    """Rows of one shard: the unit of work, retry and resume."""
    num_actors: Annotated[int, EXECUTION] = Field(default=1, ge=1)
    """Actors that embed at once."""
    gpus_per_actor: Annotated[float, EXECUTION] = Field(default=0, ge=0)
    """GPUs of each actor."""


class ElicitConfig(Section):
    """The search for reaction types (Algorithm 1)."""

    encodings: tuple[Encoding, ...] = PAPER_ENCODINGS
    """Encodings to try."""
    num_clusters: tuple[int, ...] = tuple(range(3, 13))
    """Cluster counts N to try."""
    labeler: LabelerKind = LabelerKind.HEAD
    """How LLM-RT names a reaction type."""
    scope: Scope = Scope.TASK
    """``task`` clusters each task's rows (the paper); ``reaction`` clusters each reaction once, so
    that a type means the same in all tasks, and names it from each task's own input."""
    search: Search = Search.GRID
    """``grid`` carries out every trial; ``halving`` first probes all with a head on the shared
    vectors and one round, and carries out the best encodings of each N alone."""
    survivors: int = Field(default=1, ge=1)
    """Encodings of each N that survive the probes of ``halving``."""
    rule: SelectionRule = SelectionRule.ACCURACY
    """Which trial is the best."""
    accuracy_floor: float = Field(default=0.70, ge=0, le=1)
    """Least accuracy of the rule ``floor``."""
    tuning_epochs: int = Field(default=5, ge=1)
    """Passes over D'_train at most each time the encoder is trained: kind ``t5``, and ``head``
    where there is feedback."""
    tuning_learning_rate: float = Field(default=5e-4, gt=0)
    """Peak step size of AdamW when the encoder is trained."""
    tuning_batch_size: int = Field(default=32, ge=1)
    """Rows of a step when the encoder is trained."""
    max_rounds: int = Field(default=1, ge=1)
    """Self-feedback rounds at most; 1 is no feedback."""
    patience: int = Field(default=2, ge=1)
    """Rounds without a better accuracy before a trial stops."""
    cross_fit_folds: int = Field(default=0, ge=0)
    """Folds in which the training rows are named by an LLM-RT that did not see them; 0 is none."""
    kmeans_num_init: int = Field(default=3, ge=1)
    """Restarts of k-means; the lowest inertia wins."""
    num_feature_actors: Annotated[int, EXECUTION] = Field(default=1, ge=1)
    """Actors that compute fingerprints at once, where an encoding needs them."""
    full_kmeans_max_rows: int = Field(default=200_000, ge=1)
    """Above this many rows of a task, vectors stay in blocks of the object store, and k-means and
    heads take them block by block or by sample."""
    collapse_fraction: float = Field(default=0.5, gt=0, lt=1)
    """A trial stops when its effective number of reaction types falls below this share of what it
    was in round 0."""
    max_concurrent_trials: Annotated[int | None, EXECUTION] = Field(default=None, ge=1)
    """Trials at once; as many as fit if unset."""
    cpus_per_trial: Annotated[float, EXECUTION] = Field(default=1, gt=0)
    """CPUs of each trial."""
    gpus_per_trial: Annotated[float, EXECUTION] = Field(default=0, ge=0)
    """GPUs of each trial."""
    max_failures: Annotated[int, EXECUTION] = Field(default=2, ge=-1)
    """Times a trial starts again after its worker was lost; -1 is without limit."""

    @model_validator(mode="after")
    def _check_axes(self) -> Self:
        if not self.encodings or len(set(self.encodings)) != len(self.encodings):
            raise ValueError("encodings must name at least one encoding, each once")
        if not self.num_clusters or len(set(self.num_clusters)) != len(self.num_clusters):
            raise ValueError("num_clusters must name at least one N, each once")
        if min(self.num_clusters) < 2:
            raise ValueError(f"num_clusters must be at least 2, found {min(self.num_clusters)}")
        if self.scope is Scope.REACTION and self.max_rounds > 1:
            raise ValueError(
                "scope 'reaction' shares one clustering between tasks, but feedback "
                f"(max_rounds={self.max_rounds}) gives each task an encoder of its own; "
                "set max_rounds to 1"
            )
        is_probe = self.labeler is LabelerKind.HEAD and self.max_rounds == 1
        if self.search is Search.HALVING and is_probe:
            raise ValueError(
                "search 'halving' probes with labeler 'head' and one round, which these settings "
                "ask for themselves; set search to 'grid', or max_rounds above 1, or labeler 't5'"
            )
        if self.cross_fit_folds == 1:
            raise ValueError("cross_fit_folds must be 0 or at least 2, found 1")
        return self


class AnnotateConfig(Section):
    """Naming reaction types from the input alone (Eq 9)."""

    rows_per_shard: int = Field(default=1_024, ge=1)
    """Rows of one shard: the unit of work, retry and resume."""
    num_actors: Annotated[int, EXECUTION] = Field(default=1, ge=1)
    """Actors that annotate at once."""
    gpus_per_actor: Annotated[float, EXECUTION] = Field(default=0, ge=0)
    """GPUs of each actor."""


class PromptConfig(Section):
    """Instruction and reaction type in front of the input (Eq 10-12)."""

    instruction: InstructionChoice = InstructionChoice.ADAPTIVE
    """How the instruction is chosen; ``random`` and ``fixed`` are controls."""
    use_reaction_type: bool = True
    """Whether the prompt names the reaction type."""
    train_reaction_type: TrainReactionType = TrainReactionType.CLUSTER
    """Whose reaction types training prompts carry: k-means' (the paper), those of LLM-RTs that did
    not see the row (``elicit.cross_fit_folds``), or those of the LLM-RT trained on it."""
    refresh_steps: int | None = Field(default=50, ge=1)
    """Training steps between refreshes of adaptive instructions by the live encoder. 1 is the
    paper: each step encodes its inputs once more to choose. Above 1 a row's next instruction is
    chosen from its own training pass. Null keeps the choices of LLM-CRP before training."""
    rows_per_shard: int = Field(default=1_024, ge=1)
    """Rows of one shard: the unit of work, retry and resume."""
    num_actors: Annotated[int, EXECUTION] = Field(default=1, ge=1)
    """Actors that choose instructions at once."""
    gpus_per_actor: Annotated[float, EXECUTION] = Field(default=0, ge=0)
    """GPUs of each actor."""


class TrainConfig(Section):
    """Fine-tuning of LLM-CRP (Eq 13)."""

    launcher: Annotated[Launcher, EXECUTION] = Launcher.RAY
    """Ray Train workers, or one plain process for debugging."""
    num_workers: Annotated[PositiveInt | tuple[PositiveInt, PositiveInt], EXECUTION] = 1
    """Training workers, or ``[least, most]`` where the cluster may shrink and grow."""
    resize_interval_s: Annotated[float, EXECUTION] = Field(default=300, gt=0)
    """Seconds between looks for added nodes, where ``num_workers`` is a range; a resize goes back
    to the newest checkpoint."""
    cpus_per_worker: Annotated[float, EXECUTION] = Field(default=1, gt=0)
    """CPUs of each worker."""
    use_gpu: Annotated[bool, EXECUTION] = False
    """One GPU for each worker."""
    max_failures: Annotated[int, EXECUTION] = Field(default=3, ge=-1)
    """Worker failures survived; -1 is without limit."""
    zero_stage: int = Field(default=2, ge=0, le=3)
    """DeepSpeed ZeRO stage."""
    spelling: Spelling = Spelling.CANONICAL
    """How molecules are written: canonical; inputs from random atoms; or outputs from the same
    atoms as their inputs, where the data has atom maps."""
    num_spellings: int = Field(default=1, ge=1)
    """Spellings of each training row that is not ``canonical``; each epoch takes the next. The
    input of the first is canonical."""
    batch_size: int = Field(default=32, ge=1)
    """Global batch in rows."""
    micro_batch_size: int | None = Field(default=None, ge=1)
    """Rows of one forward pass on one worker; its whole share of the batch if unset."""
    token_budget: int = Field(default=16_384, ge=64)
    """Rows times longest prompt and target of one forward pass, in tokens; a micro batch above
    it is cut further."""
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
    max_epochs: int = Field(default=40, ge=1)
    """Passes over the training rows at most."""
    max_steps: int | None = Field(default=None, ge=1)
    """Optimiser steps at most; by epochs alone if unset."""
    patience: int = Field(default=2, ge=1)
    """Validations without a lower loss before training stops."""
    eval_every_steps: int | None = Field(default=None, ge=1)
    """Steps between validations, each with a checkpoint; one epoch if unset."""
    checkpoint_every_steps: Annotated[int | None, EXECUTION] = Field(default=None, ge=1)
    """Steps between further checkpoints; none if unset."""
    checkpoint_every_s: Annotated[float | None, EXECUTION] = Field(default=600, gt=0)
    """Seconds after which there is a further checkpoint; none if null."""
    log_every_steps: Annotated[int, EXECUTION] = Field(default=10, ge=1)
    """Steps between two lines of metrics."""
    max_validation_rows: int = Field(default=2_000, ge=1)
    """Validation rows scored each time."""
    precision: Precision = Precision.AUTO
    """Number format: ``auto`` takes bf16 where the GPU has it, fp16 on older GPUs (fp32 weights,
    the layers that overflow kept in fp32), and fp32 on CPUs."""
    max_input_tokens: int = Field(default=512, ge=8)
    """Prompts longer than this are dropped from training, and counted."""
    max_output_tokens: int = Field(default=256, ge=8)
    """Targets longer than this are dropped from training, and counted."""
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


class EvaluateConfig(Section):
    """Predictions and scores."""

    num_beams: int = Field(default=5, ge=1)
    """Beams of the search."""
    top_k: int = Field(default=5, ge=1)
    """Answers kept for each row."""
    max_rows: int | None = Field(default=None, ge=1)
    """Test rows scored for each task, chosen by seed; all if unset."""
    max_output_tokens: int = Field(default=256, ge=8)
    """Longest answer in tokens."""
    token_budget: int = Field(default=8_192, ge=64)
    """Rows times longest row of one padded batch, in tokens."""
    rows_per_shard: int = Field(default=256, ge=1)
    """Rows of one shard: the unit of work, retry and resume."""
    num_resamples: int = Field(default=2_000, ge=100)
    """Bootstrap draws behind each 95 % interval."""
    num_actors: Annotated[int, EXECUTION] = Field(default=1, ge=1)
    """Actors that predict at once."""
    gpus_per_actor: Annotated[float, EXECUTION] = Field(default=0, ge=0)
    """GPUs of each actor."""

    @model_validator(mode="after")
    def _check_beams(self) -> Self:
        if self.top_k > self.num_beams:
            raise ValueError(f"top_k ({self.top_k}) cannot exceed num_beams ({self.num_beams})")
        return self


class ReportConfig(Section):
    """The HTML page."""

    num_examples: int = Field(default=10, ge=0)
    """Predictions drawn for each task."""


class Config(Section):
    """Everything a run depends on."""

    run: RunConfig = RunConfig()
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    embed: EmbedConfig = EmbedConfig()
    elicit: ElicitConfig = ElicitConfig()
    annotate: AnnotateConfig = AnnotateConfig()
    prompt: PromptConfig = PromptConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    report: ReportConfig = ReportConfig()

    @model_validator(mode="after")
    def _check_cross_fit(self) -> Self:
        asks = self.prompt.train_reaction_type is TrainReactionType.CROSS_FITTED
        if asks and self.elicit.cross_fit_folds == 0:
            raise ValueError(
                "prompt.train_reaction_type 'cross_fitted' needs elicit.cross_fit_folds, such as 5"
            )
        return self


def load_config(paths: Sequence[Path | str], overrides: Sequence[str] = ()) -> Config:
    """Merge YAML files and ``section.key=value`` overrides, later ones winning.

    Args:
        paths: YAML files, merged in this order.
        overrides: Dotted assignments, such as ``elicit.rule=floor``.

    Raises:
        ConfigError: If a file is missing or not YAML, or naming every wrong key at once.
    """
    merged = OmegaConf.merge(*(_load_yaml(Path(path)) for path in paths), _dotlist(overrides))
    try:
        values = OmegaConf.to_container(merged, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"settings cannot be resolved: {str(error).splitlines()[0]}") from error
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_explain(error)) from error


def result_settings(section: Section) -> dict[str, Any]:
    """Settings of a section that decide what comes out, for digests.

    Returns:
        JSON-ready values without the fields marked ``EXECUTION``, nested sections included.
    """
    kept: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        if EXECUTION in field.metadata:
            continue
        value = getattr(section, name)
        if isinstance(value, Section):
            kept[name] = result_settings(value)
        else:
            kept[name] = section.model_dump(mode="json", include={name})[name]
    return kept


def dump_yaml(config: Config) -> str:
    """The whole resolved configuration as YAML text."""
    return OmegaConf.to_yaml(OmegaConf.create(config.model_dump(mode="json")))


def _load_yaml(path: Path) -> Any:
    try:
        loaded = OmegaConf.load(path)
    except FileNotFoundError as error:
        raise ConfigError(f"config file not found: {path}") from error
    except IsADirectoryError as error:
        raise ConfigError(f"config file is a folder: {path}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"config file is not text: {path}") from error
    except (YAMLError, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"config file is not YAML: {path}: {reason}") from error
    if not OmegaConf.is_dict(loaded):
        raise ConfigError(f"config file must hold 'section:' mappings: {path}")
    return loaded


def _dotlist(overrides: Sequence[str]) -> Any:
    for override in overrides:
        if "=" not in override:
            raise ConfigError(f"override '{override}' is not of the form section.key=value")
    try:
        return OmegaConf.from_dotlist(list(overrides))
    except (YAMLError, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"overrides cannot be read: {reason}") from error


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        where = ".".join(map(str, problem["loc"]))
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = f"unknown key; known: {', '.join(_known_keys(problem['loc']))}"
        lines.append(f"{where}: {message}" if where else message)
    return "\n".join(lines)


def _known_keys(location: Sequence[int | str]) -> list[str]:
    section: Any = Config
    for name in location[:-1]:
        section = section.model_fields[str(name)].annotation
    return sorted(section.model_fields)
