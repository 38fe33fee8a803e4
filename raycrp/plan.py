"""The stages in order, what each depends on, and which of them are done."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import yaml

from raycrp.choices import DataSource
from raycrp.config import Config, TrainConfig, dump_yaml, parse_config, result_settings
from raycrp.errors import RunError
from raycrp.run import STARTED, SUCCESS, RunFolder


class Stage(StrEnum):
    """A stage's name is its folder, subcommand and config section."""

    DATA = "data"
    EMBED = "embed"
    ELICIT = "elicit"
    ANNOTATE = "annotate"
    PROMPT = "prompt"
    TRAIN = "train"
    EVALUATE = "evaluate"
    REPORT = "report"


@dataclass(frozen=True)
class _Node:
    """What a stage's result depends on.

    ``version`` is raised when the code changes what comes out, so that old results run again.
    """

    needs: tuple[Stage, ...]
    settings: tuple[str, ...]
    version: int = 1


GRAPH: Mapping[Stage, _Node] = {
    Stage.DATA: _Node((), ("data", "model.llm_crp", "run.seed")),
    Stage.EMBED: _Node((Stage.DATA,), ("embed", "model.llm_rt")),
    Stage.ELICIT: _Node((Stage.DATA, Stage.EMBED), ("elicit",)),
    Stage.ANNOTATE: _Node((Stage.DATA, Stage.ELICIT), ("annotate",)),
    Stage.PROMPT: _Node((Stage.DATA, Stage.ELICIT, Stage.ANNOTATE), ("prompt",)),
    Stage.TRAIN: _Node((Stage.PROMPT,), ("train",)),
    Stage.EVALUATE: _Node((Stage.PROMPT, Stage.TRAIN), ("evaluate",), version=3),
    Stage.REPORT: _Node((Stage.EVALUATE,), ("report",)),
}
"""Settings are dotted paths into ``Config``; those of needed stages are inherited."""


@dataclass(frozen=True)
class StageStatus:
    """Where one stage stands.

    Args:
        stage: The stage.
        digest: Digest of everything its result depends on.
        summary: What it reported when it finished; None while it is not done.
        is_started: Whether an unfinished attempt with the same digest is there to resume.
    """

    stage: Stage
    digest: str
    summary: dict[str, Any] | None
    is_started: bool

    @property
    def is_done(self) -> bool:
        """Whether the stage finished with these very inputs and settings."""
        return self.summary is not None


def stage_digests(config: Config, *, inputs_digest: str) -> dict[Stage, str]:
    """Digest of each stage's inputs and settings, upstream stages included.

    Args:
        config: The resolved configuration.
        inputs_digest: Digest of the data files that the run reads.

    Returns:
        Hex SHA-256 by stage.
    """
    digests: dict[Stage, str] = {}
    for stage, node in GRAPH.items():
        parts = {
            "inputs": inputs_digest,
            "version": node.version,
            "needs": {need.value: digests[need] for need in node.needs},
            "settings": {path: _settings_at(config, path) for path in node.settings},
        }
        digests[stage] = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return digests


def stage_statuses(config: Config, run: RunFolder, *, inputs_digest: str) -> list[StageStatus]:
    """Where every stage stands, in order."""
    digests = stage_digests(config, inputs_digest=inputs_digest)
    return [_stage_status(run, stage, digests[stage]) for stage in Stage]


def read_run_config(run: RunFolder) -> Config:
    """Settings of a run, from its own folder.

    Args:
        run: The run folder.

    Raises:
        RunError: If it is no run folder.
        ConfigError: If its settings are of another version.
    """
    if not run.exists("config.yaml"):
        raise RunError(f"{run.uri()} is no run folder: it has no config.yaml")
    return parse_config(yaml.safe_load(run.read_bytes("config.yaml")))


def needed_stages(target: Stage) -> list[Stage]:
    """The stage and all that it needs, in order."""
    needed = {target}
    for stage in reversed(Stage):
        if stage in needed:
            needed.update(GRAPH[stage].needs)
    return [stage for stage in Stage if stage in needed]


def start_stage(run: RunFolder, status: StageStatus) -> None:
    """Make room for a stage: leftovers of other settings go, those of the same stay to resume."""
    if not status.is_started:
        # The marks first: cut off in between, what is left must not pass for a stage of before.
        for mark in (SUCCESS, STARTED):
            run.delete(f"{status.stage}/{mark}")
        run.delete(status.stage)
        run.write_json(f"{status.stage}/{STARTED}", {"digest": status.digest})


def finish_stage(run: RunFolder, status: StageStatus, *, summary: Mapping[str, Any]) -> None:
    """Mark a stage as done; written last."""
    run.write_json(f"{status.stage}/{SUCCESS}", {"digest": status.digest, "summary": dict(summary)})


def describe_plan(config: Config, *, inputs_digest: str) -> str:
    """The resolved settings, and for each stage what is done, what will run and what it takes.

    Args:
        config: The resolved configuration.
        inputs_digest: Digest of the data files that the run reads.

    Returns:
        Text for the terminal.
    """
    run = RunFolder(config.run.storage, config.run.name)
    statuses = stage_statuses(config, run, inputs_digest=inputs_digest)
    resources = stage_resources(config)
    lines = [dump_yaml(config), f"run folder: {run.uri()}", ""]
    lines.append(f"{'stage':<10} {'state':<10} {'rows in':>10} {'rows out':>10}  resources")
    for status in statuses:
        summary = status.summary or {}
        state = "done" if status.is_done else "resume" if status.is_started else "run"
        rows_in = summary.get("rows_in", _expected_rows(config, status.stage))
        rows_out = summary.get("rows_out", "?")
        lines.append(
            f"{status.stage:<10} {state:<10} {rows_in!s:>10} {rows_out!s:>10}  "
            f"{resources[status.stage]}"
        )
    return "\n".join(lines)


def stage_resources(config: Config) -> dict[Stage, str]:
    """What each stage asks of the Ray cluster, in words."""
    trials = config.elicit.max_concurrent_trials
    train = config.train
    return {
        Stage.DATA: f"{config.data.num_processes or 'all'} local CPUs",
        Stage.EMBED: _actors(config.embed.num_actors, config.embed.gpus_per_actor),
        Stage.ELICIT: (
            f"{trials or 'as many as fit'} trials at once x ({config.elicit.cpus_per_trial:g} CPU, "
            f"{config.elicit.gpus_per_trial:g} GPU)"
        ),
        Stage.ANNOTATE: _actors(config.annotate.num_actors, config.annotate.gpus_per_actor),
        Stage.PROMPT: _actors(config.prompt.num_actors, config.prompt.gpus_per_actor),
        Stage.TRAIN: (
            f"{_workers(train)} workers x ({train.cpus_per_worker:g} CPU, {train.use_gpu:d} GPU)"
        ),
        Stage.EVALUATE: _actors(config.evaluate.num_actors, config.evaluate.gpus_per_actor),
        Stage.REPORT: "1 local CPU",
    }


def _workers(train: TrainConfig) -> str:
    if train.min_workers == train.max_workers:
        return str(train.max_workers)
    return f"{train.min_workers} to {train.max_workers}"


def _actors(num_actors: int, gpus_per_actor: float) -> str:
    if not num_actors:
        return "the driver's process"
    return f"{num_actors} actors x (1 CPU, {gpus_per_actor:g} GPU)"


def _expected_rows(config: Config, stage: Stage) -> str:
    if stage is Stage.DATA and config.data.source is DataSource.CORPUS:
        return str(config.data.num_reactions)
    return "?"


def _stage_status(run: RunFolder, stage: Stage, digest: str) -> StageStatus:
    done = _read_marker(run, f"{stage}/{SUCCESS}", digest)
    started = _read_marker(run, f"{stage}/{STARTED}", digest)
    summary = done["summary"] if done else None
    return StageStatus(stage, digest, summary, is_started=started is not None)


def _read_marker(run: RunFolder, relative: str, digest: str) -> dict[str, Any] | None:
    if not run.exists(relative):
        return None
    marker: dict[str, Any] = run.read_json(relative)
    return marker if marker["digest"] == digest else None


def _settings_at(config: Config, path: str) -> Any:
    section, _, key = path.partition(".")
    settings = result_settings(getattr(config, section))
    return settings[key] if key else settings
