"""The stage: answers to the test split, scores with intervals, and the tables of both."""

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raycrp.config import Config, Device, EvaluateConfig, Task
from raycrp.evaluate.predict import Predictor
from raycrp.evaluate.tables import (
    AnsweredRow,
    Score,
    score_tasks,
    scores_as_json,
    scores_as_markdown,
)
from raycrp.ray_data import map_shards
from raycrp.run import RunFolder
from raycrp.schemas import PREDICTIONS, SCORES, Split

logger = logging.getLogger(__name__)

MODEL_DIR = "model"
ROWS_DIR = "evaluate/rows"
PREDICTIONS_DIR = "evaluate/predictions"


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
    rows_out = predict_rows(run, section, source=source, device=config.run.device)
    scores = score_tasks(
        read_answers(run),
        num_answers=section.top_k,
        num_resamples=section.num_resamples,
        seed=seed,
    )
    write_scores(run, scores, settings=_describe_run(config))
    seconds = time.monotonic() - started
    logger.info("evaluate: %d rows answered, %d scores, %.1f s", rows_out, len(scores), seconds)
    return {
        "rows_in": rows_in,
        "rows_out": rows_out,
        "rejected": 0,
        "left_out": rows_in - rows_out,
        "seconds": seconds,
        "scores": scores_as_json(scores),
    }


def choose_rows(run: RunFolder, *, max_rows: int | None, seed: int) -> str:
    """The table with the test rows to answer.

    Args:
        run: The run folder.
        max_rows: Rows of each task at most, chosen at random by the seed; all if None.
        seed: Seed of the choice.

    Returns:
        Folder of prompts, relative to the run folder.
    """
    source = f"prompt/{Split.TEST}"
    if max_rows is None:
        return source
    target = f"{ROWS_DIR}/part-00000.parquet"
    if not run.exists(target):
        table = run.read_table(source).sort_by("row_id")
        chosen = [_choose_of_task(table, task, max_rows=max_rows, seed=seed) for task in Task]
        run.write_table(target, table.take(np.sort(np.concatenate(chosen))))
    return ROWS_DIR


def predict_rows(run: RunFolder, section: EvaluateConfig, *, source: str, device: Device) -> int:
    """Answer a table of prompts, shard by shard.

    Args:
        run: The run folder.
        section: Settings of the search.
        source: Folder of prompts, relative to the run folder.
        device: Where the models run.

    Returns:
        Number of rows answered.
    """
    return map_shards(
        run,
        source=source,
        target=PREDICTIONS_DIR,
        function=PromptAnswerer,
        arguments={"run": run, "section": section, "device": device},
        schema=PREDICTIONS,
        rows_per_shard=section.rows_per_shard,
        num_actors=section.num_actors,
        gpus_per_actor=section.gpus_per_actor,
    )


class PromptAnswerer:
    """Answers shards of prompts with the run's model; built once per actor."""

    def __init__(self, run: RunFolder, section: EvaluateConfig, device: Device) -> None:
        self._top_k = section.top_k
        self._predictor = Predictor(
            run.local_dir(MODEL_DIR),
            device=device,
            num_beams=section.num_beams,
            token_budget=section.token_budget,
            max_output_tokens=section.max_output_tokens,
        )

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Answers of a shard's rows, in their order within each task."""
        tasks = rows["task"].unique().to_pylist()
        return pa.concat_tables(
            [self._answer(rows.filter(pc.equal(rows["task"], task)), task) for task in tasks]
        )

    def _answer(self, rows: pa.Table, task: str) -> pa.Table:
        types = rows["reaction_type"].to_pylist()
        predictions = self._predictor.predict(
            rows["input"].to_pylist(),
            task=task,
            top_k=self._top_k,
            reaction_types=None if None in types else types,
            row_ids=rows["row_id"].to_pylist(),
        )
        made: dict[str, list[Any]] = {
            "template_id": [each.template_id for each in predictions],
            "reaction_type": [each.reaction_type for each in predictions],
            "predictions": [each.raw_answers[: self._top_k] for each in predictions],
            "log_probabilities": [
                each.raw_log_probabilities[: self._top_k] for each in predictions
            ],
        }
        columns = {
            name: pa.array(made[name], PREDICTIONS.field(name).type) if name in made else rows[name]
            for name in PREDICTIONS.names
        }
        return pa.table(columns)


def read_answers(run: RunFolder) -> list[AnsweredRow]:
    """Answered test rows, in the order of ``row_id``."""
    columns = ["row_id", "reaction_key", "task", "output", "predictions"]
    table = run.read_table(PREDICTIONS_DIR, columns=columns).sort_by("row_id")
    return [
        AnsweredRow(
            reaction_key=row["reaction_key"],
            task=row["task"],
            output=row["output"],
            predictions=tuple(row["predictions"]),
        )
        for row in table.to_pylist()
    ]


def write_scores(run: RunFolder, scores: list[Score], *, settings: Mapping[str, str]) -> None:
    """Write the scores as Parquet, JSON and Markdown.

    Args:
        run: The run folder.
        scores: From ``score_tasks``.
        settings: What the scores are of, by name, for the head of the Markdown file.
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
    run.write_bytes("evaluate/scores.md", text.encode())


def _choose_of_task(
    table: pa.Table, task: Task, *, max_rows: int, seed: int
) -> "np.ndarray[Any, np.dtype[np.int64]]":
    places = np.flatnonzero(np.asarray(pc.equal(table["task"], task.value)))
    generator = np.random.default_rng([seed, list(Task).index(task)])
    return places if len(places) <= max_rows else generator.permutation(places)[:max_rows]


def _describe_run(config: Config) -> dict[str, str]:
    backbone = config.model.llm_crp
    data = config.data.source.value
    return {
        "run": config.run.name,
        "data": " ".join([data, *(Path(path).name for path in config.data.paths)]),
        "model": str(backbone.preset or backbone.name_or_path),
        "seed": str(config.run.seed),
        "beams": str(config.evaluate.num_beams),
    }
