"""The Ray Data job that answers prompts with the run's model."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raycrp.choices import Device, Task
from raycrp.config import EvaluateConfig
from raycrp.evaluate.model_folder import MODEL_DIR
from raycrp.evaluate.predict import Prediction, Predictor
from raycrp.ray_data import map_shards
from raycrp.run import RunFolder
from raycrp.schemas import PREDICTIONS, Split

PREDICTIONS_DIR = "evaluate/predictions"
VALIDATION_DIR = "evaluate/validation"
_ROWS_DIRS = {Split.TEST: "evaluate/rows", Split.VALIDATION: "evaluate/validation_rows"}


def choose_rows(
    run: RunFolder, *, max_rows: int | None, seed: int, split: Split = Split.TEST
) -> str:
    """The table with the rows of a split to answer.

    Args:
        run: The run folder.
        max_rows: Rows of each task at most, chosen at random by the seed; all if None.
        seed: Seed of the choice.
        split: The split.

    Returns:
        Folder of prompts, relative to the run folder.
    """
    source = f"prompt/{split}"
    if max_rows is None:
        return source
    target = f"{_ROWS_DIRS[split]}/part-00000.parquet"
    if not run.exists(target):
        table = run.read_table(source).sort_by("row_id")
        chosen = [_choose_of_task(table, task, max_rows=max_rows, seed=seed) for task in Task]
        run.write_table(target, table.take(np.sort(np.concatenate(chosen))))
    return _ROWS_DIRS[split]


def predict_rows(
    run: RunFolder, section: EvaluateConfig, *, tables: Mapping[str, str], device: Device
) -> dict[str, int]:
    """Answer tables of prompts, shard by shard.

    Args:
        run: The run folder.
        section: Settings of the search.
        tables: Folder of answers by folder of prompts, relative to the run folder.
        device: Where the models run.

    Returns:
        Number of rows answered, by folder of prompts.
    """
    return map_shards(
        run,
        tables=tables,
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
        self._section = section
        self._predictor = Predictor(
            run.local_dir(MODEL_DIR),
            device=device,
            num_beams=section.num_beams,
            num_reaction_types=section.num_reaction_types,
            num_spellings=section.num_spellings,
            round_trip_beams=section.round_trip_beams or 1,
            precision=section.precision,
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
        top_k = self._section.top_k
        types = rows["reaction_type"].to_pylist()
        # Several types are weighed by their probabilities, which prompts do not hold.
        is_given = self._section.num_reaction_types == 1 and None not in types
        predictions = self._predictor.predict(
            rows["input"].to_pylist(),
            task=task,
            top_k=top_k,
            reaction_types=types if is_given else None,
            row_ids=rows["row_id"].to_pylist(),
        )
        templates = rows["template_id"].to_pylist()
        made: dict[str, list[Any]] = {
            "template_id": [
                each.template_id or template
                for each, template in zip(predictions, templates, strict=True)
            ],
            "reaction_type": [each.reaction_type for each in predictions],
            "predictions": [each.raw_answers[:top_k] for each in predictions],
            "log_probabilities": [each.raw_log_probabilities[:top_k] for each in predictions],
            "round_trips": self._round_trips(predictions, task=task),
        }
        columns = {
            name: pa.array(made[name], PREDICTIONS.field(name).type) if name in made else rows[name]
            for name in PREDICTIONS.names
        }
        return pa.table(columns)

    def _round_trips(
        self, predictions: Sequence[Prediction], *, task: str
    ) -> list[Sequence[bool] | None]:
        is_asked = self._section.round_trip_beams is not None and task == Task.RETROSYNTHESIS
        if not is_asked or Task.FORWARD not in self._predictor.tasks:
            return [None] * len(predictions)
        return list(
            self._predictor.round_trips(
                [each.input for each in predictions],
                answers=[each.raw_answers[: self._section.top_k] for each in predictions],
            )
        )


def _choose_of_task(
    table: pa.Table, task: Task, *, max_rows: int, seed: int
) -> "np.ndarray[Any, np.dtype[np.int64]]":
    places = np.flatnonzero(np.asarray(pc.equal(table["task"], task.value)))
    generator = np.random.default_rng([seed, list(Task).index(task)])
    return places if len(places) <= max_rows else generator.permutation(places)[:max_rows]
