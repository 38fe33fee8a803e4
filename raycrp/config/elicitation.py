"""Settings of stage one: models, embedding, elicitation, annotation."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from raycrp.choices import (
    PAPER_ENCODINGS,
    Encoding,
    LabelerKind,
    Preset,
    Scope,
    Search,
    SelectionRule,
)
from raycrp.config.section import EXECUTION, Backbone, Section


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
    num_actors: Annotated[int, EXECUTION] = Field(default=1, ge=0)
    """Actors that embed at once; 0 works in the calling process."""
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
    """Rounds without a better accuracy before a trial stops; where the encoder is trained, epochs
    without a lower validation loss too."""
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
    num_actors: Annotated[int, EXECUTION] = Field(default=1, ge=0)
    """Actors that annotate at once; 0 works in the calling process."""
    gpus_per_actor: Annotated[float, EXECUTION] = Field(default=0, ge=0)
    """GPUs of each actor."""
