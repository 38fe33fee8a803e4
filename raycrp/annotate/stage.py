"""The annotate stage: frozen LLM-RT names the reaction type of every row from its input (Eq 9)."""

import time
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from raycrp.choices import Device, Task
from raycrp.config import Config
from raycrp.model.labeler import Labeler, load_labeler
from raycrp.ray_data import THREADS_PER_ACTOR, map_shards
from raycrp.run import RunFolder
from raycrp.schemas import ANNOTATIONS, Split

LABELERS_DIR = "elicit/labelers"


def run_annotate(config: Config, run: RunFolder) -> dict[str, Any]:
    """Annotate the rows of every split.

    Args:
        config: The resolved configuration.
        run: The run folder, with the data and elicit stages done.

    Returns:
        Rows of each split, and for each task how often each reaction type was named.

    Raises:
        ModelError: If a task's labeler is missing or damaged.
    """
    started = time.monotonic()
    section = config.annotate
    num_rows = map_shards(
        run,
        tables={f"data/rows/{split}": f"annotate/{split}" for split in Split},
        function=RowAnnotator,
        arguments={"run": run, "device": config.run.device},
        schema=ANNOTATIONS,
        rows_per_shard=section.rows_per_shard,
        num_actors=section.num_actors,
        gpus_per_actor=section.gpus_per_actor,
    )
    return {
        "rows_in": sum(num_rows.values()),
        "rows_out": sum(num_rows.values()),
        "rejected": 0,
        "splits": {split.value: num_rows[f"data/rows/{split}"] for split in Split},
        "reaction_types": _count_types(run),
        "seconds": round(time.monotonic() - started, 1),
    }


class RowAnnotator:
    """Table function from task rows to annotated rows; built once in each actor.

    Args:
        run: The run folder that holds the labelers.
        device: Where they run.
    """

    def __init__(self, run: RunFolder, *, device: Device) -> None:
        torch.set_num_threads(THREADS_PER_ACTOR)
        self._run = run
        self._device = device
        self._labelers: dict[Task, Labeler] = {}

    def __call__(self, rows: pa.Table) -> pa.Table:
        """The rows with the reaction type that LLM-RT names and its probabilities."""
        # What names a reaction type sees these two columns and no other, least of all the output.
        probabilities = self._name_types(rows.select(["task", "input"]))
        reaction_types = [int(np.argmax(row)) for row in probabilities]
        return rows.append_column(
            "reaction_type", pa.array(reaction_types, pa.int32())
        ).append_column("probabilities", pa.array(probabilities, pa.list_(pa.float32())))

    def _name_types(self, rows: pa.Table) -> list[np.ndarray[Any, Any]]:
        inputs = rows["input"].to_pylist()
        places: dict[Task, list[int]] = defaultdict(list)
        for place, task in enumerate(rows["task"].to_pylist()):
            places[Task(task)].append(place)
        named: list[Any] = [None] * len(inputs)
        for task, of_task in places.items():
            predicted = self._labeler(task).predict([inputs[place] for place in of_task])
            for place, probabilities in zip(of_task, predicted, strict=True):
                named[place] = probabilities
        return named

    def _labeler(self, task: Task) -> Labeler:
        if task not in self._labelers:
            folder = self._run.local_dir(f"{LABELERS_DIR}/{task}")
            self._labelers[task] = load_labeler(folder, device=self._device)
        return self._labelers[task]


def _count_types(run: RunFolder) -> dict[str, dict[str, dict[str, int]]]:
    """For each task and split, how many rows each reaction type has."""
    counts: dict[str, dict[str, Counter[int]]] = defaultdict(lambda: defaultdict(Counter))
    for split in Split:
        for name in run.list_names(f"annotate/{split}"):
            table = run.read_table(f"annotate/{split}/{name}", columns=["task", "reaction_type"])
            pairs = zip(table["task"].to_pylist(), table["reaction_type"].to_pylist(), strict=True)
            for task, reaction_type in pairs:
                counts[task][split][reaction_type] += 1
    return {
        task: {
            split: {str(rt): number for rt, number in sorted(of_split.items())}
            for split, of_split in of_task.items()
        }
        for task, of_task in counts.items()
    }
