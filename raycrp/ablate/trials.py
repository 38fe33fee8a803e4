"""The trials of an ablation: which model each trains, and the run folder it does so in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raycrp.choices import AblationRow, InstructionChoice, Task
from raycrp.config import Config
from raycrp.errors import ConfigError
from raycrp.plan import Stage
from raycrp.run import RunFolder, share_stages

TRIALS_DIR = "ablate/trials"
SECOND_DIR = "ablate/second"
ALL_TASKS = "all"

DATA_STAGES = (Stage.DATA, Stage.EMBED)
BASE_STAGES = (Stage.DATA, Stage.EMBED, Stage.ELICIT, Stage.ANNOTATE)


@dataclass(frozen=True)
class PromptKind:
    """What the prompts of a row of the tables hold.

    Args:
        use_reaction_type: Whether they name the reaction type.
        instruction: How their instruction is chosen.
        is_second: Whether the reaction types are those of the second N.
    """

    use_reaction_type: bool
    instruction: InstructionChoice
    is_second: bool = False


PROMPT_KINDS: Mapping[AblationRow, PromptKind] = {
    AblationRow.NO_RT: PromptKind(False, InstructionChoice.NONE),
    AblationRow.RT: PromptKind(True, InstructionChoice.NONE),
    AblationRow.RT_IA: PromptKind(True, InstructionChoice.ADAPTIVE),
    AblationRow.RT_IA_SECOND: PromptKind(True, InstructionChoice.ADAPTIVE, is_second=True),
}
"""Each row adds one thing to the one before; the last takes another N."""


@dataclass(frozen=True)
class Trial:
    """One model of the tables.

    Args:
        group: The task it learns, or ``all``.
        row: What its prompts hold.
        seed: Seed of the model.
    """

    group: str
    row: AblationRow
    seed: int

    @property
    def trial_id(self) -> str:
        """Name of the trial and of its run folder."""
        return f"{self.group}-{self.row}-seed{self.seed}"


def list_trials(config: Config) -> list[Trial]:
    """All models to train: seeds go slowest, so that the tables fill evenly.

    Args:
        config: The resolved configuration.

    Raises:
        ConfigError: If there is none.
    """
    section, tasks = config.ablate, config.data.tasks
    groups = [(task.value, section.single_task_rows) for task in tasks]
    if len(tasks) > 1:
        groups.append((ALL_TASKS, section.multi_task_rows))
    if not any(rows for _, rows in groups):
        raise ConfigError(
            "ablate: no model to train; one task alone needs ablate.single_task_rows, such as "
            f"[{', '.join(AblationRow)}]"
        )
    return [
        Trial(group, row, seed) for seed in section.seeds for group, rows in groups for row in rows
    ]


def second_config(config: Config) -> Config:
    """Settings of the run folder that elicits the second N.

    Args:
        config: The resolved configuration.
    """
    base = RunFolder(config.run.storage, config.run.name)
    elicit = config.elicit.model_copy(update={"num_clusters": (config.ablate.second_num_clusters,)})
    return _in_folder(config, base, SECOND_DIR).model_copy(update={"elicit": elicit})


def trial_config(config: Config, trial: Trial) -> Config:
    """Settings of a trial's own run folder.

    Args:
        config: The resolved configuration.
        trial: The model to train.
    """
    base = RunFolder(config.run.storage, config.run.name)
    kind = PROMPT_KINDS[trial.row]
    settings = second_config(config) if kind.is_second else config
    tasks = None if trial.group == ALL_TASKS else (Task(trial.group),)
    prompt = config.prompt.model_copy(
        update={
            "use_reaction_type": kind.use_reaction_type,
            "instruction": kind.instruction,
            "tasks": tasks,
            "seed": trial.seed,
        }
    )
    folder = _in_folder(settings, base, f"{TRIALS_DIR}/{trial.trial_id}")
    return folder.model_copy(update={"prompt": prompt})


def make_second_folder(config: Config) -> RunFolder:
    """The run folder of the second N, which shares data and vectors.

    Args:
        config: The resolved configuration.
    """
    base = RunFolder(config.run.storage, config.run.name)
    return _share(second_config(config), stages=DATA_STAGES, base=base)


def make_trial_folder(config: Config, trial: Trial) -> RunFolder:
    """A trial's run folder, which shares all stages before the prompts.

    Args:
        config: The resolved configuration.
        trial: The model to train.
    """
    base = RunFolder(config.run.storage, config.run.name)
    if PROMPT_KINDS[trial.row].is_second:
        base = run_folder(second_config(config))
    return _share(trial_config(config, trial), stages=BASE_STAGES, base=base)


def run_folder(config: Config) -> RunFolder:
    """The run folder that settings name."""
    return RunFolder(config.run.storage, config.run.name)


def describe_trial(trial: Trial) -> dict[str, Any]:
    """What tells a trial from all others, JSON-ready."""
    return {"group": trial.group, "row": trial.row.value, "seed": trial.seed}


def parse_trial(values: Mapping[str, Any]) -> Trial:
    """The trial that ``describe_trial`` describes."""
    return Trial(values["group"], AblationRow(values["row"]), values["seed"])


def _in_folder(config: Config, base: RunFolder, relative: str) -> Config:
    folder, _, name = relative.rpartition("/")
    run = config.run.model_copy(update={"name": name, "storage": base.uri(folder)})
    return config.model_copy(update={"run": run})


def _share(config: Config, *, stages: Sequence[Stage], base: RunFolder) -> RunFolder:
    run = run_folder(config)
    return share_stages(run, stages=[stage.value for stage in stages], base=base)
