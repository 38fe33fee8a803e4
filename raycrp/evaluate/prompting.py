"""From inputs to the prompts that are decoded: reaction types, instruction, spellings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from raycrp.choices import Device, InstructionChoice, Task
from raycrp.evaluate.model_folder import ModelFolder
from raycrp.evaluate.ranking import Variant, make_variants
from raycrp.evaluate.spellings import spell_input
from raycrp.model.encode import encode_texts
from raycrp.model.labeler import Labeler, load_labeler
from raycrp.prompt.select import (
    adaptability,
    choose_instructions,
    fixed_instructions,
    random_instructions,
)
from raycrp.prompt.templates import (
    Template,
    bare_template,
    compose_prompt,
    reaction_type_name,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration

_MAX_INPUT_TOKENS = 512


@dataclass(frozen=True)
class SearchSettings:
    """How answers are looked for.

    Args:
        num_beams: Beams of each spelling of an input.
        num_reaction_types: Reaction types that are ranked together, the most probable ones.
        num_spellings: Spellings of an input that vote.
        num_wanted: Answers wanted, for which the most probable type has beams of its own.
    """

    num_beams: int = 5
    num_reaction_types: int = 1
    num_spellings: int = 1
    num_wanted: int = 1


@dataclass(frozen=True)
class Question:
    """What decides an answer.

    Args:
        text: Canonical input.
        reaction_type: RT to take for certain; named by LLM-RT if None.
        row_id: Number of the row where instructions are random, else 0.
    """

    text: str
    reaction_type: int | None
    row_id: int


@dataclass(frozen=True)
class Plan:
    """How a question is asked.

    Args:
        text: Canonical input.
        template_id: The instruction.
        probabilities: LLM-RT's probability of each RT; None where it was not asked.
        variants: The ways in which it is asked.
        prompts: Prompt of each variant.
    """

    text: str
    template_id: str
    probabilities: tuple[float, ...] | None
    variants: Sequence[Variant]
    prompts: Sequence[str]


class Prompter:
    """Plans questions; LLM-RTs and vectors of instructions are loaded when first needed.

    Args:
        folder: The exported model.
        model: Its weights; instructions are chosen by its encoder.
        tokenizer: Its tokenizer.
        device: Where LLM-RT runs.
        token_budget: Rows times longest row of one padded batch, in tokens.
    """

    def __init__(
        self,
        folder: ModelFolder,
        *,
        model: "T5ForConditionalGeneration",
        tokenizer: "PreTrainedTokenizerBase",
        device: Device,
        token_budget: int,
    ) -> None:
        self._folder = folder
        self._model = model
        self._tokenizer = tokenizer
        self._device = device
        self._token_budget = token_budget
        self._template_vectors: dict[Task, np.ndarray] = {}
        self._labelers: dict[Task, Labeler] = {}

    def question(
        self, text: str, *, task: Task, reaction_type: int | None, row_id: int
    ) -> Question:
        """A question without what does not matter to this model.

        Raises:
            ModelError: If the task has no such reaction type.
        """
        is_random = self._folder.instruction is InstructionChoice.RANDOM
        if not self._folder.uses_reaction_types:
            reaction_type = None
        elif reaction_type is not None:
            reaction_type = self._folder.check_type(reaction_type, task=task)
        return Question(text, reaction_type, row_id if is_random else 0)

    def plan(
        self, questions: Sequence[Question], *, task: Task, settings: SearchSettings
    ) -> list[Plan]:
        """How questions are asked; reaction types and instruction go by the canonical input.

        Args:
            questions: Questions of one task.
            task: The task.
            settings: How answers are looked for.
        """
        probabilities = self._type_probabilities(questions, task=task)
        templates = self._choose_templates(
            [question.text for question in questions],
            task=task,
            row_ids=[question.row_id for question in questions],
        )
        end = self._folder.part_end
        return [
            _make_plan(
                question,
                probabilities=row,
                template=template,
                task=task,
                settings=settings,
                end=end,
            )
            for question, row, template in zip(questions, probabilities, templates, strict=True)
        ]

    def _type_probabilities(
        self, questions: Sequence[Question], *, task: Task
    ) -> list[tuple[float, ...] | None]:
        asked = [i for i, question in enumerate(questions) if question.reaction_type is None]
        rows: list[tuple[float, ...] | None] = [None] * len(questions)
        if self._folder.uses_reaction_types and asked:
            scores = self._labeler(task).predict([questions[i].text for i in asked])
            for place, row in zip(asked, scores, strict=True):
                rows[place] = tuple(map(float, row))
        return rows

    def _choose_templates(
        self, texts: Sequence[str], *, task: Task, row_ids: Sequence[int]
    ) -> list[Template]:
        templates = self._folder.templates[task]
        choice = self._folder.instruction
        if choice is InstructionChoice.NONE:
            return [bare_template(task)] * len(texts)
        if choice is InstructionChoice.FIXED or not texts:
            numbers = fixed_instructions(len(texts))
        elif choice is InstructionChoice.RANDOM:
            numbers = random_instructions(
                row_ids, num_templates=len(templates), seed=self._folder.seed
            )
        else:
            if task not in self._template_vectors:
                self._template_vectors[task] = self._embed([each.text for each in templates])
            scores = adaptability(self._embed(texts), template_vectors=self._template_vectors[task])
            numbers = choose_instructions(scores)
        return [templates[number] for number in numbers]

    def _embed(self, texts: Sequence[str]) -> np.ndarray:
        vectors, _ = encode_texts(
            self._model.get_encoder(),
            tokenizer=self._tokenizer,
            texts=texts,
            token_budget=self._token_budget,
            max_tokens=_MAX_INPUT_TOKENS,
        )
        return vectors

    def _labeler(self, task: Task) -> Labeler:
        if task not in self._labelers:
            self._labelers[task] = load_labeler(
                self._folder.labeler_path(task), device=self._device
            )
        return self._labelers[task]


def _make_plan(
    question: Question,
    *,
    probabilities: tuple[float, ...] | None,
    template: Template,
    task: Task,
    settings: SearchSettings,
    end: str,
) -> Plan:
    spellings = spell_input(question.text, num_spellings=settings.num_spellings)
    variants = make_variants(
        probabilities,
        reaction_type=question.reaction_type,
        num_beams=settings.num_beams,
        num_reaction_types=settings.num_reaction_types,
        num_spellings=len(spellings),
        num_wanted=settings.num_wanted,
    )
    prompts = [
        compose_prompt(
            template.text,
            reaction_type_name=(
                None
                if variant.reaction_type is None
                else reaction_type_name(task, variant.reaction_type)
            ),
            input_text=spellings[variant.spelling],
            part_end=end,
        )
        for variant in variants
    ]
    return Plan(question.text, template.id, probabilities, variants, prompts)
