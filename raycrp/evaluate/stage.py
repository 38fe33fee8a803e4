"""The stage: answers to the test split, scores with intervals, and the tables of both."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from raycrp.config import Config
from raycrp.evaluate.calibration import (
    CALIBRATION_FILE,
    BestAnswers,
    Confidence,
    confidence_as_markdown,
    learn_confidence,
)
from raycrp.evaluate.model_folder import MODEL_DIR
from raycrp.evaluate.molecule_metrics import Answers, strict_exact
from raycrp.evaluate.prompt_job import PREDICTIONS_DIR, VALIDATION_DIR, choose_rows, predict_rows
from raycrp.evaluate.tables import (
    METRICS,
    AnsweredRow,
    Block,
    Score,
    score_tasks,
    scores_as_json,
    scores_as_markdown,
    spelling_note,
)
from raycrp.run import RunFolder
from raycrp.schemas import SCORES, Split

logger = logging.getLogger(__name__)

_CARD_METRICS = ("exact_top1", "exact_top5", "strict_validity")


def run_evaluate(config: Config, run: RunFolder) -> dict[str, Any]:
    """Answer the test split with the trained model and score the answers.

    Args:
        config: The resolved configuration.
        run: The run folder, with the prompt stage done and the model exported.

    Returns:
        Counts, and the scores by task, block and metric.
    """
    section, seed = config.evaluate, config.run.seed
    started = time.monotonic()
    rows_in = run.num_rows(f"prompt/{Split.TEST}")
    source = choose_rows(run, max_rows=section.max_rows, seed=seed)
    tables = {source: PREDICTIONS_DIR}
    is_calibrated = bool(section.calibration_rows and run.list_names(f"prompt/{Split.VALIDATION}"))
    if is_calibrated:
        known = choose_rows(
            run, max_rows=section.calibration_rows, seed=seed, split=Split.VALIDATION
        )
        tables[known] = VALIDATION_DIR
    rows_out = predict_rows(run, section, tables=tables, device=config.run.device)[source]
    # What other settings learned must not stay with the model.
    run.delete(f"{MODEL_DIR}/{CALIBRATION_FILE}")
    confidence = _learn_confidence(run) if is_calibrated else {}
    scores = score_tasks(
        read_answers(run),
        num_answers=section.top_k,
        num_resamples=section.num_resamples,
        seed=seed,
    )
    write_scores(run, scores, settings=_describe_run(config), confidence=confidence)
    update_model_card(run, scores)
    seconds = time.monotonic() - started
    logger.info("evaluate: %d rows answered, %d scores, %.1f s", rows_out, len(scores), seconds)
    return {
        "rows_in": rows_in,
        "rows_out": rows_out,
        "rejected": 0,
        "not_sampled": rows_in - rows_out,
        "seconds": seconds,
        "scores": scores_as_json(scores),
        "confidence": {task: asdict(each) for task, each in confidence.items()},
    }


def read_answers(run: RunFolder) -> list[AnsweredRow]:
    """Answered test rows, in the order of ``row_id``."""
    columns = ["row_id", "reaction_key", "task", "input", "output", "predictions", "round_trips"]
    table = run.read_table(PREDICTIONS_DIR, columns=columns).sort_by("row_id")
    return [
        AnsweredRow(
            reaction_key=row["reaction_key"],
            task=row["task"],
            output=row["output"],
            predictions=tuple(row["predictions"]),
            round_trips=None if row["round_trips"] is None else tuple(row["round_trips"]),
            input=row["input"],
        )
        for row in table.to_pylist()
    ]


def write_scores(
    run: RunFolder,
    scores: Sequence[Score],
    *,
    settings: Mapping[str, str],
    confidence: Mapping[str, Confidence] | None = None,
) -> None:
    """Write the scores as Parquet, JSON and Markdown.

    Args:
        run: The run folder.
        scores: From ``score_tasks``.
        settings: What the scores are of, by name, for the head of the Markdown file.
        confidence: How sure answers are, by task, for the end of it.
    """
    rows = [{**asdict(score.interval), **asdict(score)} for score in scores]
    run.write_table("evaluate/scores.parquet", pa.Table.from_pylist(rows, schema=SCORES))
    run.write_json("evaluate/scores.json", scores_as_json(scores))
    head = ["# Scores", "", *(f"- {name}: {value}" for name, value in settings.items()), ""]
    note = (
        "Values with 95 % bootstrap intervals over reactions. The published definitions compare "
        "texts and count an empty answer as valid; the strict ones compare canonical molecules "
        "over all rows."
    )
    text = "\n".join([*head, note, "", scores_as_markdown(scores)])
    text += confidence_as_markdown(confidence or {})
    run.write_bytes("evaluate/scores.md", text.encode())


def update_model_card(run: RunFolder, scores: Sequence[Score]) -> None:
    """Write the test scores into the exported model's card, where it has one."""
    if not run.exists(f"{MODEL_DIR}/README.md"):
        return
    from raycrp.train.export import write_model_card

    shown: dict[str, dict[str, float]] = {}
    for score in scores:
        if score.block == Block.PUBLISHED or score.metric in _CARD_METRICS:
            title = METRICS[score.metric].title
            shown.setdefault(score.task, {})[title] = score.interval.value
    write_model_card(run, scores=shown)


def _learn_confidence(run: RunFolder) -> dict[str, Confidence]:
    """Fit the calibrations on validation rows, keep them beside the model, try them on the test."""
    confidence = learn_confidence(
        _read_best_answers(run, VALIDATION_DIR), test=_read_best_answers(run, PREDICTIONS_DIR)
    )
    curves = {task: asdict(each.calibration) for task, each in confidence.items()}
    run.write_json(f"{MODEL_DIR}/{CALIBRATION_FILE}", curves)
    for task, each in confidence.items():
        logger.info(
            "confidence, %s: expected calibration error %.3f (%.3f before), %d test rows",
            task,
            each.error,
            each.error_before,
            each.num_test_rows,
        )
    return confidence


def _read_best_answers(run: RunFolder, folder: str) -> dict[str, BestAnswers]:
    columns = ["row_id", "task", "output", "predictions", "log_probabilities"]
    rows = run.read_table(folder, columns=columns).sort_by("row_id").to_pylist()
    groups: dict[str, BestAnswers] = {}
    for task in dict.fromkeys(row["task"] for row in rows):
        group = [row for row in rows if row["task"] == task and row["predictions"]]
        answers = Answers([row["output"] for row in group], [row["predictions"] for row in group])
        groups[task] = BestAnswers(
            log_probabilities=[row["log_probabilities"][0] for row in group],
            is_right=(strict_exact(answers, top=1) > 0).tolist(),
        )
    return groups


def _describe_run(config: Config) -> dict[str, str]:
    backbone = config.model.llm_crp
    data = config.data.source.value
    note = spelling_note(config.train.spelling)
    return {
        "run": config.run.name,
        "data": " ".join([data, *(Path(path).name for path in config.data.paths)]),
        "model": str(backbone.preset or backbone.name_or_path),
        "seed": str(config.run.seed),
        "beams": str(config.evaluate.num_beams),
        "reaction types ranked together": str(config.evaluate.num_reaction_types),
        "spellings": str(config.evaluate.num_spellings),
        **({"published scores": note} if note else {}),
    }
