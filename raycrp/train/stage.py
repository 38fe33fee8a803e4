"""The train stage: fine-tune LLM-CRP on the enhanced prompts and export it (Eq 13)."""

import logging
import time
from typing import Any

from raycrp.choices import InstructionChoice
from raycrp.config import Config
from raycrp.run import RunFolder
from raycrp.schemas import Split
from raycrp.tracking import read_metrics

logger = logging.getLogger(__name__)


def run_train(config: Config, run: RunFolder) -> dict[str, Any]:
    """Train to the end and leave a model folder that ``from_pretrained`` loads.

    Args:
        config: The resolved configuration.
        run: The run folder, with the prompt stage done.

    Returns:
        Rows in and out, steps, validation scores, seconds, and the training curve.
    """
    from raycrp.train.export import export_model
    from raycrp.train.search import search_training
    from raycrp.train.setup import WorkerSettings
    from raycrp.train.tokens import SpellingSettings, write_tokens
    from raycrp.train.trainer import train_model
    from raycrp.train.trials import RESULT_FILE

    started = time.monotonic()
    section = config.prompt
    write_tokens(
        run,
        settings=SpellingSettings(
            config.train.spelling, config.train.num_spellings, config.model_seed
        ),
        rows_per_shard=section.rows_per_shard,
        num_actors=section.num_actors,
    )
    is_adaptive = section.instruction is InstructionChoice.ADAPTIVE
    settings = WorkerSettings(
        run=run,
        train=config.train,
        instruction=section.instruction,
        refresh_steps=section.refresh_steps if is_adaptive else None,
        seed=config.model_seed,
    )
    if config.train.search is None:
        train_model(settings)
    else:
        config = config.model_copy(update={"train": search_training(settings)})
    result = run.read_json(RESULT_FILE)
    export_model(config, run, result=result)
    summary = _summarise(run, result) | {"seconds": time.monotonic() - started}
    logger.info(
        "train: %d rows, %d too long and left out, %d cut, %d steps, best validation at step %d "
        "(loss %.4f, exact answers %.3f), %.1f s",
        summary["rows_in"],
        summary["rejected"],
        result["num_cut"],
        result["step"],
        result["best_step"],
        result["best_loss"],
        result.get("best_exact") or 0.0,
        summary["seconds"],
    )
    return summary


def _summarise(run: RunFolder, result: dict[str, Any]) -> dict[str, Any]:
    from raycrp.train.restarts import read_restarts

    num_rows = run.num_rows(f"prompt/{Split.TRAIN}")
    restarts = read_restarts(run)
    return {
        "rows_in": num_rows,
        "rows_out": num_rows - result["num_too_long"],
        "rejected": result["num_too_long"],
        "result": result,
        "restarts": len(restarts),
        "steps_lost": sum(restart.steps_lost for restart in restarts),
        "curve": [_point(line) for line in read_metrics(run)],
    }


def _point(line: dict[str, Any]) -> dict[str, Any]:
    names = (
        "step",
        "loss",
        "learning_rate",
        "samples_per_s",
        "validation_loss",
        "validation_exact",
    )
    return {name: line[name] for name in names if name in line}
