"""The whole run, top to bottom: the stages in order, each skipped when it is done."""

import logging
import os
import platform
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

from raycrp.annotate.stage import run_annotate
from raycrp.config import Config, dump_yaml
from raycrp.data.read import inputs_digest
from raycrp.data.stage import run_data
from raycrp.elicit.stage import run_elicit
from raycrp.embed.stage import run_embed
from raycrp.errors import RunError
from raycrp.evaluate.stage import run_evaluate
from raycrp.plan import (
    Stage,
    StageStatus,
    finish_stage,
    needed_stages,
    stage_statuses,
    start_stage,
)
from raycrp.prometheus import note_progress, stage_shown
from raycrp.prompt.stage import run_prompt
from raycrp.prompt.templates import prompt_words
from raycrp.ray_session import connected_ray
from raycrp.ray_storage import check_storage
from raycrp.report.stage import run_report
from raycrp.run import RunFolder
from raycrp.train.stage import run_train

logger = logging.getLogger(__name__)


def run_pipeline(
    config: Config, *, until: Stage = Stage.REPORT, known_inputs: str | None = None
) -> RunFolder:
    """Carry out a stage and all it needs; what is done already is not done again.

    Args:
        config: The resolved configuration, written to the run folder before any work.
        until: The last stage wanted.
        known_inputs: Digest of the data files; made from them if None.

    Returns:
        The run folder.

    Raises:
        RunError: If the storage cannot be written.
        ClusterError: If no cluster answers, or one of its nodes cannot use the storage.
    """
    run = RunFolder(config.run.storage, config.run.name)
    _write_settings(config, run)
    wanted = needed_stages(until)
    digest = known_inputs or inputs_digest(config.data)
    statuses = stage_statuses(config, run, inputs_digest=digest)
    waiting = [status for status in statuses if status.stage in wanted and not status.is_done]
    done = [status.stage for status in statuses if status.is_done and status.stage in wanted]
    if done:
        logger.info("done already: %s", ", ".join(done))
    if waiting:
        with connected_ray(num_cpus=config.run.num_cpus):
            if not done and "RAY_ADDRESS" in os.environ:
                check_storage(config.run.storage)
            for status in waiting:
                _run_stage(status, config, run)
    return run


def _run_stage(status: StageStatus, config: Config, run: RunFolder) -> None:
    stage = status.stage
    logger.info("%s: %s", stage, "resuming" if status.is_started else "starting")
    started = time.monotonic()
    start_stage(run, status)
    with stage_shown(stage.value, run=run.name):
        summary = STAGE_FUNCTIONS[stage](config, run)
    summary["seconds"] = round(time.monotonic() - started, 1)
    note_progress(
        run=run.name, stage=stage.value, rows=summary["rows_out"], rejected=summary["rejected"]
    )
    finish_stage(run, status, summary=summary)
    logger.info("%s: finished in %.1f s", stage, summary["seconds"])


def _run_data(config: Config, run: RunFolder) -> dict[str, Any]:
    return run_data(config, run, words=prompt_words(config.data.tasks))


def _run_report(config: Config, run: RunFolder) -> dict[str, Any]:
    from raycrp.board.export import export_board

    board_bytes = export_board(run)
    return run_report(config, run) | {"board_bytes": board_bytes}


STAGE_FUNCTIONS: Mapping[Stage, Callable[[Config, RunFolder], dict[str, Any]]] = {
    Stage.DATA: _run_data,
    Stage.EMBED: run_embed,
    Stage.ELICIT: run_elicit,
    Stage.ANNOTATE: run_annotate,
    Stage.PROMPT: run_prompt,
    Stage.TRAIN: run_train,
    Stage.EVALUATE: run_evaluate,
    Stage.REPORT: _run_report,
}


def _write_settings(config: Config, run: RunFolder) -> None:
    try:
        run.write_bytes("config.yaml", dump_yaml(config).encode())
    except OSError as error:
        raise RunError(
            f"run.storage '{run.storage}' cannot be written: {error}; give a folder, or object "
            "storage, that this machine has rights on"
        ) from error
    packages = ("raycrp", "ray", "torch", "transformers", "deepspeed", "scikit-learn", "rdkit")
    environment = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in packages},
    }
    run.write_json("environment.json", environment)
