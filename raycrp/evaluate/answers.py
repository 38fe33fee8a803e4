"""What a model answers to an input: checked inputs, merged answers, and how they are shown."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raycrp.chem.molecules import MAX_MOLECULE_CHARS, MoleculeError, canonical_smiles
from raycrp.choices import Task
from raycrp.prompt.templates import reaction_type_name

if TYPE_CHECKING:
    from raycrp.model.decode import Hypothesis


@dataclass(frozen=True)
class Answer:
    """One answer to one input.

    Args:
        smiles: Canonical SMILES; the text as decoded where it is no molecule.
        log_probability: Of the best of the decoded texts that mean this answer, in nats.
        is_valid: Whether it is one or more molecules.
        is_input: Whether it says nothing but molecules of the input.
    """

    smiles: str
    log_probability: float
    is_valid: bool
    is_input: bool


@dataclass(frozen=True)
class Prediction:
    """What the model answers to one input.

    Args:
        input: The input as it was given.
        task: The task.
        answers: Different answers, best first; empty where the input was rejected.
        raw_answers: Texts as decoded, best first.
        raw_log_probabilities: Their log-probabilities, in nats.
        reaction_type: RT in the prompt; None where the model uses none.
        reaction_type_probabilities: LLM-RT's probability of each RT; None where it was not asked.
        template_id: The instruction in the prompt; None where the input was rejected.
        problem: Why the input was rejected; None where it was answered.
    """

    input: str
    task: Task
    answers: tuple[Answer, ...] = ()
    raw_answers: tuple[str, ...] = ()
    raw_log_probabilities: tuple[float, ...] = ()
    reaction_type: int | None = None
    reaction_type_probabilities: tuple[float, ...] | None = None
    template_id: str | None = None
    problem: str | None = None


def check_input(text: str, *, task: Task) -> tuple[str | None, str | None]:
    """Canonical form of an input.

    Args:
        text: Molecules as SMILES; for reagents ``reactants>>product``.
        task: The task.

    Returns:
        The canonical input and None, or None and what is wrong with the input.
    """
    sides = text.strip().split(">>")
    if task is Task.REAGENT and len(sides) != 2:
        return None, f"'{_shorten(text)}' must be written reactants>>product"
    if task is not Task.REAGENT and len(sides) != 1:
        return None, f"'{_shorten(text)}' holds '>>', which {task} does not take"
    if any(len(molecule) > MAX_MOLECULE_CHARS for molecule in re.split(r"\.|>>", text)):
        return None, f"'{_shorten(text)}' holds more than {MAX_MOLECULE_CHARS} of one molecule"
    try:
        canonical = [canonical_smiles(side) for side in sides]
    except MoleculeError as error:
        return None, f"'{_shorten(text)}' is no input: {error}"
    return ">>".join(canonical), None


def merge_answers(
    hypotheses: Sequence["Hypothesis"], *, input_text: str, top_k: int
) -> tuple[Answer, ...]:
    """Different answers among decoded texts, best first.

    Args:
        hypotheses: Decoded texts with log-probabilities, best first.
        input_text: The canonical input, to flag answers that only repeat it.
        top_k: Answers kept.
    """
    given = set(input_text.replace(">>", ".").split("."))
    answers: dict[str, Answer] = {}
    for hypothesis in hypotheses:
        smiles, is_valid = _read_answer(hypothesis.text)
        is_input = is_valid and set(smiles.split(".")) <= given
        answers.setdefault(smiles, Answer(smiles, hypothesis.log_probability, is_valid, is_input))
    return tuple(answers.values())[:top_k]


def describe_predictions(predictions: Sequence[Prediction]) -> str:
    """Predictions as text for a terminal, answers numbered from 1."""
    lines: list[str] = []
    for prediction in predictions:
        if prediction.problem is not None:
            lines += [f"rejected: {prediction.problem}", ""]
            continue
        lines.append(f"{prediction.task}: {prediction.input}")
        lines.append(f"  {_describe_prompt(prediction)}")
        lines += [
            f"  {rank}. {answer.smiles or '(empty)'}  log p = {answer.log_probability:.2f}"
            f"{'' if answer.is_valid else '  (invalid)'}{'  (input)' if answer.is_input else ''}"
            for rank, answer in enumerate(prediction.answers, start=1)
        ]
        lines.append("")
    return "\n".join(lines).rstrip()


def _describe_prompt(prediction: Prediction) -> str:
    parts = [f"instruction {prediction.template_id}"]
    if prediction.reaction_type is not None:
        name = reaction_type_name(prediction.task, prediction.reaction_type)
        probabilities = prediction.reaction_type_probabilities
        known = probabilities[prediction.reaction_type] if probabilities else None
        parts.append(f"reaction type {name}" + (f" (p = {known:.2f})" if known else ""))
    return ", ".join(parts)


def _read_answer(text: str) -> tuple[str, bool]:
    try:
        return canonical_smiles(text), True
    except MoleculeError:
        return text, False


def _shorten(text: str, *, limit: int = 60) -> str:
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"
