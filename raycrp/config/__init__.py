"""Settings of a run: frozen sections, one a stage, merged from YAML files and overrides.

A field marked ``EXECUTION`` says how a stage is carried out (actors, GPUs, concurrency), not what
comes out; changing it never makes a finished stage run again.
"""

from raycrp.config.data import DataConfig, HubSource, ReactionColumns
from raycrp.config.elicitation import AnnotateConfig, ElicitConfig, EmbedConfig, ModelConfig
from raycrp.config.evaluation import AblateConfig, EvaluateConfig, ReportConfig
from raycrp.config.load import Config, dump_yaml, load_config, parse_config, result_settings
from raycrp.config.section import EXECUTION, Backbone, RunConfig, Section
from raycrp.config.training import PromptConfig, SearchConfig, TrainConfig

__all__ = [
    "EXECUTION",
    "AblateConfig",
    "AnnotateConfig",
    "Backbone",
    "Config",
    "DataConfig",
    "ElicitConfig",
    "EmbedConfig",
    "EvaluateConfig",
    "HubSource",
    "ModelConfig",
    "PromptConfig",
    "ReactionColumns",
    "ReportConfig",
    "RunConfig",
    "SearchConfig",
    "Section",
    "TrainConfig",
    "dump_yaml",
    "load_config",
    "parse_config",
    "result_settings",
]
