"""The whole configuration: merged from YAML files and overrides, and checked."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, get_args

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError, model_validator
from yaml import YAMLError

from raycrp.choices import Task, TrainReactionType
from raycrp.config.data import DataConfig
from raycrp.config.elicitation import AnnotateConfig, ElicitConfig, EmbedConfig, ModelConfig
from raycrp.config.evaluation import AblateConfig, EvaluateConfig, ReportConfig
from raycrp.config.section import EXECUTION, RunConfig, Section
from raycrp.config.training import PromptConfig, TrainConfig
from raycrp.errors import ConfigError


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
    ablate: AblateConfig = AblateConfig()

    @property
    def model_tasks(self) -> tuple[Task, ...]:
        """Tasks that LLM-CRP learns."""
        return self.prompt.tasks or self.data.tasks

    @property
    def model_seed(self) -> int:
        """Seed of LLM-CRP."""
        return self.run.seed if self.prompt.seed is None else self.prompt.seed

    @model_validator(mode="after")
    def _check_model_tasks(self) -> Self:
        strange = [task.value for task in self.model_tasks if task not in self.data.tasks]
        if strange or len(set(self.model_tasks)) != len(self.model_tasks):
            raise ValueError(
                "prompt.tasks must name tasks of data.tasks "
                f"({', '.join(self.data.tasks)}), each once; found {', '.join(self.model_tasks)}"
            )
        return self

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
    return parse_config(values)


def parse_config(values: Any) -> Config:
    """The configuration that plain values hold.

    Args:
        values: Settings by section, as YAML gives them.

    Raises:
        ConfigError: Naming every wrong key at once.
    """
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
        annotation = section.model_fields[str(name)].annotation
        section = next(iter(get_args(annotation)), annotation)
    return sorted(section.model_fields)
