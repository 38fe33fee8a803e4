"""The Ray Data job that answers prompts with the run's model."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raycrp.choices import Device, Task
from raycrp.config import EvaluateConfig
from raycrp.evaluate.predict import Predictor
from raycrp.ray_data import map_shards
from raycrp.run import RunFolder
from raycrp.schemas import PREDICTIONS, Split

MODEL_DIR = "model"
ROWS_DIR = "evaluate/rows"
PREDICTIONS_DIR = "evaluate/predictions"


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
    num_rows = map_shards(
        run,
        tables={source: PREDICTIONS_DIR},
        function=PromptAnswerer,
        arguments={"run": run, "section": section, "device": device},
        schema=PREDICTIONS,
        rows_per_shard=section.rows_per_shard,
        num_actors=section.num_actors,
        gpus_per_actor=section.gpus_per_actor,
    )
    return num_rows[source]


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


def _choose_of_task(
    table: pa.Table, task: Task, *, max_rows: int, seed: int
) -> "np.ndarray[Any, np.dtype[np.int64]]":
    places = np.flatnonzero(np.asarray(pc.equal(table["task"], task.value)))
    generator = np.random.default_rng([seed, list(Task).index(task)])
    return places if len(places) <= max_rows else generator.permutation(places)[:max_rows]
