"""Answers of an exported model, without Ray: reaction type, instruction, beam search."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from raycrp.choices import Device, InstructionChoice, Task
from raycrp.errors import ModelError
from raycrp.evaluate.answers import (
    Answer,
    Prediction,
    check_input,
    describe_predictions,
    merge_answers,
)
from raycrp.model.decode import Hypothesis, beam_search
from raycrp.model.encode import encode_texts
from raycrp.model.labeler import Labeler, load_labeler
from raycrp.model.t5 import load_backbone
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

__all__ = ["Answer", "Prediction", "Predictor", "describe_predictions", "load_predictor"]

MODEL_FILE = "raycrp.json"
MODEL_FORMAT = 1
_MAX_INPUT_TOKENS, _MAX_OUTPUT_TOKENS = 512, 256


class Predictor:
    """An exported model, loaded once.

    Args:
        folder: The exported ``model`` folder.
        device: Where the models run.
        num_beams: Beams of the search.
        token_budget: Rows times longest row of one padded batch, in tokens.
        max_output_tokens: Longest answer, in tokens; that of training if None.

    Raises:
        ModelError: If the folder is no exported model, or of another format.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        device: Device = Device.AUTO,
        num_beams: int = 5,
        token_budget: int = 8_192,
        max_output_tokens: int | None = None,
    ) -> None:
        self._folder = Path(folder)
        self._card = _read_card(self._folder)
        self._device = device
        self._num_beams = num_beams
        self._token_budget = token_budget
        limit = max_output_tokens or self._card.get("max_output_tokens", _MAX_OUTPUT_TOKENS)
        self._max_output_tokens = int(limit)
        self._templates = _read_templates(self._folder)
        self._model, self._tokenizer = load_backbone(self._folder, device=device)
        self._template_vectors: dict[Task, np.ndarray] = {}
        self._labelers: dict[Task, Labeler] = {}

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that the model was trained for."""
        return tuple(Task(name) for name in self._card["tasks"])

    def predict(
        self,
        inputs: Sequence[str],
        *,
        task: Task | str,
        top_k: int = 5,
        reaction_types: Sequence[int] | None = None,
        row_ids: Sequence[int] | None = None,
    ) -> list[Prediction]:
        """Answers to inputs; a bad one is rejected with its reason and the others are answered.

        Args:
            inputs: Molecules as SMILES, joined by dots; for reagents ``reactants>>product``.
            task: The task.
            top_k: Different answers wanted for each input.
            reaction_types: RT of each input; named by LLM-RT if None.
            row_ids: Numbers of the inputs for the control ``random``; their places if None.

        Returns:
            One prediction an input, in their order.

        Raises:
            ModelError: If the model was not trained for the task.
        """
        task = self._check_task(task)
        checked = [check_input(text, task=task) for text in inputs]
        places = [place for place, (text, _) in enumerate(checked) if text is not None]
        texts = [text for text, _ in checked if text is not None]
        prompts = self._make_prompts(
            texts,
            task=task,
            reaction_types=None if reaction_types is None else [reaction_types[i] for i in places],
            row_ids=[i if row_ids is None else row_ids[i] for i in places],
        )
        answered = dict(zip(places, zip(texts, prompts, strict=True), strict=True))
        found = dict(zip(places, self._decode(prompts, top_k=top_k), strict=True))
        return [
            _make_prediction(
                text,
                task=task,
                canonical=answered[i][0],
                prompt=answered[i][1],
                hypotheses=found[i],
                top_k=top_k,
            )
            if i in answered
            else Prediction(text, task, problem=checked[i][1])
            for i, text in enumerate(inputs)
        ]

    def _check_task(self, task: Task | str) -> Task:
        names = [each.value for each in Task]
        if task not in names:
            raise ModelError(f"unknown task '{task}'; known: {', '.join(names)}")
        if task not in self.tasks:
            raise ModelError(
                f"{self._folder} was trained for {', '.join(self.tasks)}, not for {task}; "
                "give a model of this task"
            )
        return Task(task)

    def _make_prompts(
        self,
        texts: Sequence[str],
        *,
        task: Task,
        reaction_types: Sequence[int] | None,
        row_ids: Sequence[int],
    ) -> list["_Prompt"]:
        probabilities: list[tuple[float, ...] | None] = [None] * len(texts)
        types: list[int | None] = [None] * len(texts)
        if self._card["use_reaction_type"] and texts:
            if reaction_types is None:
                scores = self._labeler(task).predict(texts)
                probabilities = [tuple(map(float, row)) for row in scores]
                types = [int(best) for best in np.argmax(scores, axis=1)]
            else:
                types = [self._check_type(number, task) for number in reaction_types]
        chosen = self._choose_templates(texts, task=task, row_ids=row_ids)
        rows = zip(texts, types, probabilities, chosen, strict=True)
        return [
            _Prompt(
                text=compose_prompt(
                    template.text,
                    reaction_type_name=None if rt is None else reaction_type_name(task, rt),
                    input_text=text,
                ),
                template_id=template.id,
                reaction_type=rt,
                probabilities=row_probabilities,
            )
            for text, rt, row_probabilities, template in rows
        ]

    def _check_type(self, reaction_type: int, task: Task) -> int:
        num_types = int(self._card["num_types"][task])
        if not 0 <= reaction_type < num_types:
            raise ModelError(
                f"reaction type {reaction_type} of {task} is not in 0 to {num_types - 1}"
            )
        return int(reaction_type)

    def _choose_templates(
        self, texts: Sequence[str], *, task: Task, row_ids: Sequence[int]
    ) -> list[Template]:
        templates = self._templates[task]
        choice = InstructionChoice(self._card["instruction"])
        if choice is InstructionChoice.NONE:
            return [bare_template(task)] * len(texts)
        if choice is InstructionChoice.FIXED or not texts:
            numbers = fixed_instructions(len(texts))
        elif choice is InstructionChoice.RANDOM:
            numbers = random_instructions(
                row_ids, num_templates=len(templates), seed=int(self._card.get("seed", 0))
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
                self._folder / "llm_rt" / task.value, device=self._device
            )
        return self._labelers[task]

    def _decode(self, prompts: Sequence["_Prompt"], *, top_k: int) -> list[list[Hypothesis]]:
        if not prompts:
            return []
        num_beams = max(self._num_beams, top_k)
        return beam_search(
            self._model,
            self._tokenizer,
            [prompt.text for prompt in prompts],
            num_beams=num_beams,
            num_return=num_beams,
            max_new_tokens=self._max_output_tokens,
            token_budget=self._token_budget,
        )


def load_predictor(
    path: Path | str,
    *,
    device: Device | str = Device.AUTO,
    num_beams: int = 5,
    max_output_tokens: int | None = None,
) -> Predictor:
    """The predictor of a run or of an exported model.

    Args:
        path: A run folder with a trained model, or the exported ``model`` folder itself.
        device: Where the models run.
        num_beams: Beams of the search.
        max_output_tokens: Longest answer, in tokens; that of training if None.

    Raises:
        ModelError: If neither is there.
    """
    folder = Path(path)
    if not (folder / MODEL_FILE).exists() and (folder / "model" / MODEL_FILE).exists():
        folder = folder / "model"
    return Predictor(
        folder,
        device=Device(device),
        num_beams=num_beams,
        max_output_tokens=max_output_tokens,
    )


@dataclass(frozen=True)
class _Prompt:
    text: str
    template_id: str
    reaction_type: int | None
    probabilities: tuple[float, ...] | None


def _make_prediction(
    text: str,
    *,
    task: Task,
    canonical: str,
    prompt: _Prompt,
    hypotheses: Sequence[Hypothesis],
    top_k: int,
) -> Prediction:
    return Prediction(
        input=text,
        task=task,
        answers=merge_answers(hypotheses, input_text=canonical, top_k=top_k),
        raw_answers=tuple(each.text for each in hypotheses),
        raw_log_probabilities=tuple(float(each.log_probability) for each in hypotheses),
        reaction_type=prompt.reaction_type,
        reaction_type_probabilities=prompt.probabilities,
        template_id=prompt.template_id,
    )


def _read_card(folder: Path) -> Mapping[str, Any]:
    path = folder / MODEL_FILE
    try:
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelError(
            f"{folder} is no exported model: it has no {MODEL_FILE}; give a run folder whose "
            "train stage is done, or its model folder"
        ) from error
    except ValueError as error:
        raise ModelError(f"{path} is not JSON; export the model again") from error
    if card.get("format") != MODEL_FORMAT:
        raise ModelError(
            f"{path} has format {card.get('format')!r}, expected {MODEL_FORMAT}; export the model "
            "again with this version"
        )
    return card


def _read_templates(folder: Path) -> Mapping[Task, tuple[Template, ...]]:
    path = folder / "templates.yaml"
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{path} is missing; export the model again") from error
    return {
        Task(name): tuple(Template(each["id"], Task(name), each["text"]) for each in group)
        for name, group in entries.items()
    }
