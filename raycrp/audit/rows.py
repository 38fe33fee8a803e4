"""The rows of an audit: test rows, training rows to learn from, and how a row is described.

Outputs of test rows are embedded here, and only here: for the oracle and for the probes. What is
made of them stays in the folder ``audit``, which no stage reads.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raycrp.arrays import FloatArray
from raycrp.chem.reactions import task_reaction
from raycrp.choices import Device, Encoding, Scope, Task
from raycrp.config import Config
from raycrp.elicit.encodings import encode_reactions, follows_llm_rt, sources
from raycrp.elicit.features import FEATURES
from raycrp.elicit.vectors import Block
from raycrp.embed.stage import LLM_RT_DIR
from raycrp.evaluate.model_folder import MODEL_DIR
from raycrp.evaluate.prompt_job import PREDICTIONS_DIR
from raycrp.model.encode import TextEncoder
from raycrp.model.labeler import Labeler, load_labeler
from raycrp.ray_data import map_shards
from raycrp.run import RunFolder
from raycrp.schemas import Split

SOURCE_DIR, DESCRIBED_DIR = "audit/rows", "audit/described"
MAX_FIT_ROWS = 2_000

ROWS = pa.schema(
    [
        pa.field("row_id", pa.int64(), nullable=False),
        pa.field("reaction_key", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("input", pa.string(), nullable=False),
        pa.field("output", pa.string(), nullable=False),
        pa.field("clustered_task", pa.string(), nullable=False),
        pa.field("clustered_input", pa.string(), nullable=False),
        pa.field("clustered_output", pa.string(), nullable=False),
    ]
)
"""Rows of an audit, each with its reaction as the task writes it whose rows were clustered."""

_VECTOR = pa.list_(pa.float32())
DESCRIBED = pa.schema(
    [
        *ROWS,
        pa.field("input_vector", _VECTOR, nullable=False),
        pa.field("output_vector", _VECTOR, nullable=False),
        pa.field("code", _VECTOR),
        pa.field("named", pa.int32()),
    ]
)
"""``code`` is what k-means would see of a row, ``named`` the RT that the exported LLM-RT names from
the input of a test row alone; both are null in a run without reaction types."""


@dataclass(frozen=True)
class Clustering:
    """How the reaction types of a task came about.

    Args:
        encoding: Which vectors describe a reaction.
        encoder_dir: Folder of the encoder that made them, relative to the run folder. Where a round
            with feedback was the best, it is the encoder at the end of that round, one training
            further than what k-means saw; the oracle's consistency shows what that costs.
    """

    encoding: Encoding
    encoder_dir: str


def read_clusterings(config: Config, run: RunFolder) -> dict[Task, Clustering]:
    """How the reaction types of each of the model's tasks came about.

    Args:
        config: Settings of the run.
        run: The run folder, with the elicit stage done.
    """
    summary = run.read_json("elicit/summary.json")
    return {task: _clustering(run, task, summary[task.value]) for task in config.model_tasks}


def choose_rows(config: Config, run: RunFolder, *, max_rows: int | None, has_labels: bool) -> None:
    """Write the rows of the audit: answered test rows, and training rows to learn from.

    Args:
        config: Settings of the run.
        run: The run folder, with the model trained.
        max_rows: Test rows of each task at most; those that the run answered if None.
        has_labels: Whether validation rows are wanted too, for labels that came with the data.
    """
    target = f"{SOURCE_DIR}/part-00000.parquet"
    if run.exists(target):
        return
    columns = [name for name in ROWS.names if not name.startswith("clustered")]
    tasks = list(config.model_tasks)
    test = run.read_table(f"prompt/{Split.TEST}", columns=columns)
    if run.list_names(PREDICTIONS_DIR):
        answered = run.read_table(PREDICTIONS_DIR, columns=["row_id"])["row_id"]
        test = test.filter(pc.is_in(test["row_id"], answered.combine_chunks()))
    parts = [_sample(test, tasks, max_rows=max_rows, seed=config.run.seed)]
    wanted = [Split.TRAIN, *([Split.VALIDATION] if has_labels else [])]
    for split in wanted:
        table = run.read_table(f"data/rows/{split}", columns=columns)
        parts.append(_sample(table, tasks, max_rows=MAX_FIT_ROWS, seed=config.run.seed))
    rows = pa.concat_tables(parts)
    for name, column in _clustered_texts(config, run, rows).items():
        rows = rows.append_column(name, pa.array(column))
    run.write_table(target, rows.select(ROWS.names).cast(ROWS))


def describe_rows(
    config: Config, run: RunFolder, *, clusterings: Mapping[Task, Clustering]
) -> pa.Table:
    """Vectors of the rows of the audit, by a Ray Data job.

    Args:
        config: Settings of the run.
        run: The run folder, with the rows chosen.
        clusterings: How the reaction types came about; empty in a run without them.

    Returns:
        Schema ``DESCRIBED``, by rising ``row_id``.
    """
    map_shards(
        run,
        tables={SOURCE_DIR: DESCRIBED_DIR},
        function=RowDescriber,
        arguments={
            "run": run,
            "clusterings": dict(clusterings),
            "device": config.run.device,
            "token_budget": config.embed.token_budget,
            "max_tokens": config.embed.max_tokens,
        },
        schema=DESCRIBED,
        rows_per_shard=config.embed.rows_per_shard,
        num_actors=config.embed.num_actors,
        gpus_per_actor=config.embed.gpus_per_actor,
    )
    return run.read_table(DESCRIBED_DIR).sort_by("row_id")


class RowDescriber:
    """Table function from rows to vectors of their texts; built once in each actor.

    Args:
        run: The run folder that holds the encoders and the exported LLM-RTs.
        clusterings: How the reaction types of each task came about.
        device: Where encoders run.
        token_budget: Rows times longest row of one padded batch, in tokens.
        max_tokens: Longer texts are cut to this many tokens.
    """

    def __init__(
        self,
        run: RunFolder,
        *,
        clusterings: Mapping[Task, Clustering],
        device: Device,
        token_budget: int,
        max_tokens: int,
    ) -> None:
        self._run = run
        self._clusterings = clusterings
        self._device = device
        self._limits = {"token_budget": token_budget, "max_tokens": max_tokens}
        self._encoders: dict[str, TextEncoder] = {}
        self._labelers: dict[Task, Labeler] = {}

    def __call__(self, rows: pa.Table) -> pa.Table:
        """The rows with vectors of input and output, and what k-means saw of them."""
        parts = [self._describe(part, task) for task, part in _by_task(rows)]
        return pa.concat_tables(parts)

    def _describe(self, rows: pa.Table, task: Task) -> pa.Table:
        clustering = self._clusterings.get(task)
        encoder = self._encoder(clustering.encoder_dir if clustering else LLM_RT_DIR)
        columns = {
            "input_vector": encoder.encode(rows["input"].to_pylist()),
            "output_vector": encoder.encode(rows["output"].to_pylist()),
            "code": (
                None if clustering is None else _codes(rows, clustering.encoding, encoder=encoder)
            ),
        }
        for name, vectors in columns.items():
            values = [None] * rows.num_rows if vectors is None else list(vectors)
            rows = rows.append_column(name, pa.array(values, _VECTOR))
        return rows.append_column("named", pa.array(self._name(rows, task), pa.int32()))

    def _name(self, rows: pa.Table, task: Task) -> list[int | None]:
        """Reaction types of the test rows from their inputs alone."""
        named: list[int | None] = [None] * rows.num_rows
        is_test = pc.equal(rows["split"], Split.TEST.value)
        places = np.flatnonzero(np.asarray(is_test))
        if task not in self._clusterings or not len(places):
            return named
        probabilities = self._labeler(task).predict(rows["input"].take(places).to_pylist())
        for place, best in zip(places, probabilities.argmax(axis=1), strict=True):
            named[place] = int(best)
        return named

    def _labeler(self, task: Task) -> Labeler:
        if task not in self._labelers:
            folder = self._run.local_dir(f"{MODEL_DIR}/llm_rt/{task}")
            self._labelers[task] = load_labeler(folder, device=self._device)
        return self._labelers[task]

    def _encoder(self, folder: str) -> TextEncoder:
        if folder not in self._encoders:
            path = self._run.local_dir(folder)
            self._encoders[folder] = TextEncoder(path, device=self._device, **self._limits)
        return self._encoders[folder]


def _by_task(rows: pa.Table) -> list[tuple[Task, pa.Table]]:
    present = rows["task"].unique().to_pylist()
    return [
        (task, rows.filter(pc.equal(rows["task"], task.value)))
        for task in Task
        if task.value in present
    ]


def _codes(rows: pa.Table, encoding: Encoding, *, encoder: TextEncoder) -> FloatArray:
    """What k-means would see of these rows."""
    tasks, inputs, outputs = (
        rows[f"clustered_{name}"].to_pylist() for name in ("task", "input", "output")
    )
    reactions = [
        task_reaction(Task(task), input_text=source, output_text=target)
        for task, source, target in zip(tasks, inputs, outputs, strict=True)
    ]
    block = Block(
        places=np.arange(len(inputs)),
        inputs=encoder.encode(inputs),
        outputs=encoder.encode(outputs),
        features={
            part: FEATURES[part](reactions) for part in sources(encoding) if part in FEATURES
        },
    )
    return encode_reactions(block, encoding=encoding)


def _clustering(run: RunFolder, task: Task, summary: Mapping[str, Any]) -> Clustering:
    encoding = Encoding(summary["encoding"])
    is_tuned = follows_llm_rt(encoding) and int(summary.get("best_round", 0)) > 0
    if not is_tuned:
        return Clustering(encoding, LLM_RT_DIR)
    folder = f"elicit/labelers/{task}"
    inner = next(name for name in ("encoder", "model") if run.exists(f"{folder}/{name}"))
    return Clustering(encoding, f"{folder}/{inner}")


def _clustered_texts(config: Config, run: RunFolder, rows: pa.Table) -> dict[str, list[str]]:
    columns = (rows[name].to_pylist() for name in ("task", "input", "output"))
    written = list(zip(*columns, strict=True))
    if config.elicit.scope is Scope.REACTION:
        first = next(task for task in Task if task in config.data.tasks)
        keys = rows["reaction_key"].to_pylist()
        known = _rows_of(run, first, wanted=set(keys))
        written = [known.get(key, row) for key, row in zip(keys, written, strict=True)]
    names = ("clustered_task", "clustered_input", "clustered_output")
    return {name: [row[place] for row in written] for place, name in enumerate(names)}


def _rows_of(
    run: RunFolder, task: Task, *, wanted: Collection[str]
) -> dict[str, tuple[str, str, str]]:
    """Reactions as one task writes them, by their key; a reaction's first row counts."""
    known: dict[str, tuple[str, str, str]] = {}
    for split in Split:
        for name in run.list_names(f"data/rows/{split}"):
            columns = ["reaction_key", "task", "input", "output"]
            table = run.read_table(f"data/rows/{split}/{name}", columns=columns)
            for row in table.filter(pc.equal(table["task"], task.value)).to_pylist():
                if row["reaction_key"] in wanted:
                    text = (row["task"], row["input"], row["output"])
                    known.setdefault(row["reaction_key"], text)
    return known


def _sample(table: pa.Table, tasks: Sequence[Task], *, max_rows: int | None, seed: int) -> pa.Table:
    """At most so many rows of each task, chosen by the seed, by rising ``row_id``."""
    table = table.sort_by("row_id")
    chosen = []
    for task in tasks:
        places = np.flatnonzero(np.asarray(pc.equal(table["task"], task.value)))
        if max_rows is not None and len(places) > max_rows:
            generator = np.random.default_rng([seed, list(Task).index(task)])
            places = generator.permutation(places)[:max_rows]
        chosen.append(places)
    return table.take(np.sort(np.concatenate(chosen)))


def part_of(rows: pa.Table, *, split: Split, task: Task) -> pa.Table:
    """Rows of one split and task, in their order.

    Args:
        rows: Rows of the audit.
        split: The split.
        task: The task.
    """
    mask = pc.and_(pc.equal(rows["split"], split.value), pc.equal(rows["task"], task.value))
    return rows.filter(mask)
