"""The questions of an audit: each test row under every source of the RT and every control.

Rows that come out alike under two conditions are asked once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from raycrp.arrays import IntArray
from raycrp.choices import AuditSource, Device, InstructionChoice, Task
from raycrp.config import Config, EvaluateConfig
from raycrp.evaluate.model_folder import MODEL_DIR
from raycrp.model.decode import beam_search
from raycrp.model.decode_precision import use_precision
from raycrp.model.encode import encode_texts
from raycrp.model.fusion import part_end
from raycrp.model.t5 import load_backbone
from raycrp.prompt.select import (
    adaptability,
    choose_instructions,
    random_instructions,
)
from raycrp.prompt.templates import (
    bare_template,
    compose_prompt,
    known_templates,
    load_templates,
    reaction_type_name,
)
from raycrp.ray_data import map_shards
from raycrp.run import RunFolder

QUESTIONS_DIR, ANSWERS_DIR = "audit/questions", "audit/answers"
_MAX_INPUT_TOKENS = 512

QUESTIONS = pa.schema(
    [
        pa.field("question", pa.int64(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("input", pa.string(), nullable=False),
        pa.field("reaction_type", pa.int32()),
        pa.field("template_id", pa.string()),
    ]
)
"""Different prompts; where ``template_id`` is null, the trained encoder chooses (Eq 10-11)."""

ANSWERS = pa.schema(
    [
        pa.field("question", pa.int64(), nullable=False),
        pa.field("predictions", pa.list_(pa.string()), nullable=False),
    ]
)
"""Answers to each question, best first."""


@dataclass(frozen=True)
class Condition:
    """One way to ask all test rows.

    Args:
        source: Where the RT comes from; None in a model without RTs.
        instruction: How the instruction is chosen.
        is_own: Whether it is the choice that the model was trained with.
    """

    source: AuditSource | None
    instruction: InstructionChoice
    is_own: bool

    @property
    def name(self) -> str:
        """Name in tables and files."""
        if self.is_own:
            return str(self.source or "own")
        return f"{self.instruction} instructions"


def list_conditions(config: Config) -> list[Condition]:
    """The five sources of the RT under the model's own instructions, then the controls.

    Args:
        config: Settings of the run.
    """
    own = config.prompt.instruction
    has_types = config.prompt.use_reaction_type
    sources: list[AuditSource | None] = list(AuditSource) if has_types else [None]
    controls = [
        choice
        for choice in (InstructionChoice.RANDOM, InstructionChoice.FIXED)
        if choice is not own
    ]
    return [
        *(Condition(source, own, is_own=True) for source in sources),
        *(Condition(sources[0], choice, is_own=False) for choice in controls),
    ]


def source_types(
    source: AuditSource, *, predicted: IntArray, oracle: IntArray, constant: int, seed: int
) -> list[int | None]:
    """Reaction type of each test row of one task under a source.

    Args:
        source: Where it comes from.
        predicted: Named from the input by LLM-RT, shape ``(num_rows,)``.
        oracle: Named from the true pair, same shape.
        constant: The most frequent type of the training rows.
        seed: Seed of the shuffle, which deals the predicted types among the rows.
    """
    if source is AuditSource.NONE:
        return [None] * len(predicted)
    if source is AuditSource.CONSTANT:
        return [constant] * len(predicted)
    if source is AuditSource.SHUFFLED:
        predicted = np.random.default_rng(seed).permutation(predicted)
    types = oracle if source is AuditSource.ORACLE else predicted
    return [int(each) for each in types]


def write_questions(
    run: RunFolder,
    *,
    tasks: Sequence[str],
    inputs: Sequence[str],
    row_ids: Sequence[int],
    types: Mapping[str, Sequence[int | None]],
    conditions: Sequence[Condition],
    seed: int,
) -> dict[str, list[int]]:
    """Write every different prompt of all conditions once.

    Args:
        run: The run folder.
        tasks: Task of each test row.
        inputs: Its input.
        row_ids: Its number, which decides its random instruction.
        types: Its reaction type, by name of the condition.
        conditions: All ways to ask.
        seed: Seed of random instructions.

    Returns:
        By name of the condition, the question of each row.
    """
    numbers: dict[tuple[Any, ...], int] = {}
    asked: dict[str, list[int]] = {}
    for condition in conditions:
        templates = _templates(condition.instruction, tasks=tasks, row_ids=row_ids, seed=seed)
        prompts = zip(tasks, inputs, types[condition.name], templates, strict=True)
        asked[condition.name] = [numbers.setdefault(key, len(numbers)) for key in prompts]
    names = QUESTIONS.names[1:]
    rows = [{"question": n, **dict(zip(names, key, strict=True))} for key, n in numbers.items()]
    run.write_table(
        f"{QUESTIONS_DIR}/part-00000.parquet", pa.Table.from_pylist(rows, schema=QUESTIONS)
    )
    return asked


def answer_questions(run: RunFolder, section: EvaluateConfig, *, device: Device) -> list[list[str]]:
    """Answer all questions, shard by shard.

    Args:
        run: The run folder, with the questions written.
        section: Settings of the search.
        device: Where the model runs.

    Returns:
        The answers to each question, best first.
    """
    map_shards(
        run,
        tables={QUESTIONS_DIR: ANSWERS_DIR},
        function=QuestionAnswerer,
        arguments={"run": run, "section": section, "device": device},
        schema=ANSWERS,
        rows_per_shard=section.rows_per_shard,
        num_actors=section.num_actors,
        gpus_per_actor=section.gpus_per_actor,
    )
    answers: list[list[str]] = (
        run.read_table(ANSWERS_DIR).sort_by("question")["predictions"].to_pylist()
    )
    return answers


class QuestionAnswerer:
    """Table function from questions to answers by plain beam search; built once in each actor.

    Every condition is decoded alike, under one RT at most, so that the RT alone differs.

    Args:
        run: The run folder with the exported model.
        section: Settings of the search.
        device: Where the model runs.
    """

    def __init__(self, run: RunFolder, *, section: EvaluateConfig, device: Device) -> None:
        self._section = section
        self._model, self._tokenizer = load_backbone(run.local_dir(MODEL_DIR), device=device)
        use_precision(self._model, section.precision)
        self._part_end = part_end(self._model, self._tokenizer)
        self._template_vectors: dict[Task, np.ndarray[Any, Any]] = {}

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Answers to these questions, in their order."""
        section = self._section
        found = beam_search(
            self._model,
            self._tokenizer,
            self._prompts(rows),
            num_beams=section.num_beams,
            num_return=section.top_k,
            max_new_tokens=section.max_output_tokens,
            token_budget=section.token_budget,
        )
        texts = [[hypothesis.text for hypothesis in hypotheses] for hypotheses in found]
        columns = {"question": rows["question"], "predictions": pa.array(texts)}
        return pa.table(columns).cast(ANSWERS)

    def _prompts(self, rows: pa.Table) -> list[str]:
        tasks = [Task(name) for name in rows["task"].to_pylist()]
        inputs = rows["input"].to_pylist()
        given = rows["template_id"].to_pylist()
        for task in set(tasks):
            places = [i for i, each in enumerate(tasks) if each is task and given[i] is None]
            chosen = self._choose(task, [inputs[i] for i in places])
            for place, template_id in zip(places, chosen, strict=True):
                given[place] = template_id
        texts = {each.id: each.text for task in set(tasks) for each in known_templates(task)}
        return [
            compose_prompt(
                texts[template_id],
                reaction_type_name=None if rt is None else reaction_type_name(task, rt),
                input_text=text,
                part_end=self._part_end,
            )
            for task, text, rt, template_id in zip(
                tasks, inputs, rows["reaction_type"].to_pylist(), given, strict=True
            )
        ]

    def _choose(self, task: Task, inputs: Sequence[str]) -> list[str]:
        if not inputs:
            return []
        templates = load_templates()[task]
        if task not in self._template_vectors:
            self._template_vectors[task] = self._embed([each.text for each in templates])
        scores = adaptability(self._embed(inputs), template_vectors=self._template_vectors[task])
        return [templates[place].id for place in choose_instructions(scores)]

    def _embed(self, texts: Sequence[str]) -> "np.ndarray[Any, Any]":
        vectors, _ = encode_texts(
            self._model.get_encoder(),
            tokenizer=self._tokenizer,
            texts=texts,
            token_budget=self._section.token_budget,
            max_tokens=_MAX_INPUT_TOKENS,
        )
        return vectors


def _templates(
    choice: InstructionChoice, *, tasks: Sequence[str], row_ids: Sequence[int], seed: int
) -> list[str | None]:
    if choice is InstructionChoice.ADAPTIVE:
        return [None] * len(tasks)
    if choice is InstructionChoice.NONE:
        return [bare_template(Task(task)).id for task in tasks]
    library = load_templates()
    if choice is InstructionChoice.FIXED:
        return [library[Task(task)][0].id for task in tasks]
    num_templates = len(library[Task(tasks[0])]) if tasks else 1
    places = random_instructions(row_ids, num_templates=num_templates, seed=seed)
    return [library[Task(task)][place].id for task, place in zip(tasks, places, strict=True)]
