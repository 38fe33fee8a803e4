"""Settings of evaluation, the report and the ablation."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from raycrp.choices import AblationRow, Precision
from raycrp.config.section import EXECUTION, Section


class EvaluateConfig(Section):
    """Predictions and scores."""

    num_beams: int = Field(default=5, ge=1)
    """Beams of the search."""
    top_k: int = Field(default=5, ge=1)
    """Answers kept for each row; 10, with as many beams, adds the scores at 10."""
    num_reaction_types: int = Field(default=1, ge=1)
    """Reaction types whose prompts are decoded and ranked together, the most probable ones; the
    first has ``top_k`` beams, further ones are shared by probability. 1 is the paper."""
    num_spellings: int = Field(default=1, ge=1)
    """Spellings of each input that are decoded and vote; each has ``num_beams`` beams."""
    round_trip_beams: int | None = Field(default=1, ge=1)
    """Beams of the forward search that says whether answers to retrosynthesis give back their
    product; not asked if null."""
    precision: Precision = Precision.AUTO
    """Number format of the search: ``auto`` is bf16 on GPUs that have it, fp16 on older ones (the
    layers that overflow kept in fp32), and fp32 on CPUs."""
    calibration_rows: int = Field(default=200, ge=0)
    """Validation rows of each task, chosen by seed, on which confidence is learned."""
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
    num_actors: Annotated[int, EXECUTION] = Field(default=1, ge=0)
    """Actors that predict at once; 0 works in the calling process, which suits
    small runs, where starting an actor takes longest."""
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
    num_named_reactions: int = Field(default=300, ge=0)
    """Training reactions of each task that are named for comparison with the reaction types, where
    the extra ``raycrp[names]`` is installed; 0 for none."""


class AblateConfig(Section):
    """The paper's tables: models that differ in their prompts alone (``raycrp ablate``)."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of LLM-CRP; each row of a table is trained once with each."""
    second_num_clusters: int = Field(default=6, ge=2)
    """N of the row that asks whether N matters; the paper's is 6."""
    single_task_rows: tuple[AblationRow, ...] = tuple(AblationRow)
    """Rows trained for each task alone (Table 1)."""
    multi_task_rows: tuple[AblationRow, ...] = (AblationRow.NO_RT, AblationRow.RT_IA)
    """Rows trained on all tasks together (Table 2)."""
    cpus_per_trial: Annotated[float, EXECUTION] = Field(default=0, ge=0)
    """CPUs that a trial holds beside those of its stages' own workers."""
    max_concurrent_trials: Annotated[int, EXECUTION] = Field(default=2, ge=1)
    """Trials at once; the cluster needs room for the workers of as many."""
    max_failures: Annotated[int, EXECUTION] = Field(default=2, ge=-1)
    """Times a trial starts again after its worker was lost; -1 is without limit."""

    @model_validator(mode="after")
    def _check_rows(self) -> Self:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ValueError("seeds must name at least one seed, each once, none below 0")
        if not self.single_task_rows and not self.multi_task_rows:
            raise ValueError("single_task_rows and multi_task_rows cannot both be empty")
        return self
