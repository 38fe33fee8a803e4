"""What a model answers to an input: checked inputs, flagged answers, and how they are shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest

from raycrp.chem.molecules import (
    MAX_MOLECULE_CHARS,
    MoleculeError,
    MoleculeFault,
    canonical_smiles,
    heavy_atom_counter,
)
from raycrp.chem.reactions import ARROW
from raycrp.choices import Task
from raycrp.evaluate.ranking import Ranked
from raycrp.prompt.templates import reaction_type_name

MAX_INPUT_CHARS = 4_000
"""Longer inputs are rejected; training texts are cut off far below."""


class InputFault(StrEnum):
    """Why an input is rejected, where no molecule is to blame."""

    MISSING = "missing_input"
    TOO_LONG = "input_too_long"
    ARROW_MISSING = "arrow_missing"
    ARROW_UNEXPECTED = "arrow_unexpected"


@dataclass(frozen=True)
class Rejection:
    """Why an input is not answered.

    Args:
        reason: Name to count by: an ``InputFault`` or a ``MoleculeFault``.
        detail: One line that says what was found.
    """

    reason: str
    detail: str


@dataclass(frozen=True)
class Answer:
    """One answer to one input.

    Args:
        smiles: Canonical SMILES; the text as decoded where it is no molecule.
        log_probability: In nats: of the best of the decoded texts that mean this answer, summed
            over the reaction types used and averaged over spellings.
        is_valid: Whether it is one or more molecules.
        is_input: Whether it says nothing but molecules of the input, or as precursors holds the
            product itself.
        has_new_atoms: Whether the products need atoms other than hydrogen that the other side of
            the reaction lacks, each molecule counted as often as it is written.
        passes_round_trip: Whether the forward task of the same model makes the input of it; None
            where that was not asked.
        confidence: Probability that the answer is right, by the curve learned from best answers; 0
            where it is invalid, None where the model has no calibration.
    """

    smiles: str
    log_probability: float
    is_valid: bool
    is_input: bool
    has_new_atoms: bool = False
    passes_round_trip: bool | None = None
    confidence: float | None = None

    @property
    def flags(self) -> tuple[str, ...]:
        """Words for what should make a reader careful, and for a round trip that went well."""
        named = {
            "invalid": not self.is_valid,
            "input": self.is_input,
            "new atoms": self.has_new_atoms,
            "round trip": self.passes_round_trip is True,
            "no round trip": self.passes_round_trip is False,
        }
        return tuple(name for name, holds in named.items() if holds)


@dataclass(frozen=True)
class Prediction:
    """What the model answers to one input.

    Args:
        input: The input as it was given.
        task: The task.
        answers: Different answers, best first; empty where the input was rejected.
        raw_answers: Texts as decoded, best first: all that the beam search gave, or one for each
            different answer where several reaction types or spellings were decoded.
        raw_log_probabilities: Their log-probabilities, in nats.
        reaction_type: The most probable RT; None where the model uses none.
        reaction_type_probabilities: LLM-RT's probability of each RT; None where it was not asked.
        reaction_types_used: RTs whose prompts took part in the ranking.
        template_id: The instruction in the prompt; None where the input was rejected.
        rejection: Why the input was rejected; None where it was answered.
    """

    input: str
    task: Task
    answers: tuple[Answer, ...] = ()
    raw_answers: tuple[str, ...] = ()
    raw_log_probabilities: tuple[float, ...] = ()
    reaction_type: int | None = None
    reaction_type_probabilities: tuple[float, ...] | None = None
    reaction_types_used: tuple[int, ...] = ()
    template_id: str | None = None
    rejection: Rejection | None = None

    @property
    def problem(self) -> str | None:
        """What is wrong with the input in one line; None where it was answered."""
        return None if self.rejection is None else self.rejection.detail


def check_input(text: str | None, *, task: Task) -> str | Rejection:
    """Canonical form of an input, or why it is not answered.

    Args:
        text: Molecules as SMILES; for reagents ``reactants>>product``; None where there is none.
        task: The task.
    """
    if not isinstance(text, str):  # Missing values of pandas are no text either.
        return Rejection(InputFault.MISSING, "the row has no input")
    shown = _shorten(text)
    if len(text) > MAX_INPUT_CHARS:
        detail = f"'{shown}' is too long: at most {MAX_INPUT_CHARS} characters are read"
        return Rejection(InputFault.TOO_LONG, detail)
    sides = text.strip().split(ARROW)
    if task is Task.REAGENT and len(sides) != 2:
        detail = f"'{shown}' must be written reactants>>product"
        return Rejection(InputFault.ARROW_MISSING, detail)
    if task is not Task.REAGENT and len(sides) != 1:
        return Rejection(
            InputFault.ARROW_UNEXPECTED, f"'{shown}' holds '>>', which {task} does not take"
        )
    if any(len(each) > MAX_MOLECULE_CHARS for side in sides for each in side.split(".")):
        detail = f"'{shown}' holds more than {MAX_MOLECULE_CHARS} characters of one molecule"
        return Rejection(MoleculeFault.TOO_LONG, detail)
    try:
        return ARROW.join(canonical_smiles(side) for side in sides)
    except MoleculeError as error:
        return Rejection(error.reason, f"'{shown}' is no input: {error}")


def flag_answer(ranked: Ranked, *, task: Task, input_text: str) -> Answer:
    """An answer of the ranking with what can be said of it without a model.

    Args:
        ranked: The answer.
        task: The task.
        input_text: The canonical input.
    """
    given = set(input_text.replace(ARROW, ".").split("."))
    is_input = set(ranked.smiles.split(".")) <= given or (
        task is Task.RETROSYNTHESIS and holds_product(ranked.smiles, input_text)
    )
    return Answer(
        smiles=ranked.smiles,
        log_probability=ranked.log_probability,
        is_valid=ranked.is_valid,
        is_input=ranked.is_valid and is_input,
        has_new_atoms=ranked.is_valid and _has_new_atoms(ranked.smiles, task, input_text),
    )


def holds_product(precursors: str, product: str) -> bool:
    """Whether all molecules of a product are among the precursors, so that nothing is made of them.

    Args:
        precursors: Canonical SMILES.
        product: Canonical SMILES.
    """
    return set(product.split(".")) <= set(precursors.split("."))


def describe_predictions(
    predictions: Sequence[Prediction], *, names: Sequence[str | None] = ()
) -> str:
    """Predictions as text for a terminal, answers numbered from 1.

    Args:
        predictions: One for each input.
        names: What the inputs are called, None for those without a name.
    """
    lines: list[str] = []
    for prediction, name in zip_longest(predictions, names):
        ending = f"  ({name})" if name else ""
        if prediction.problem is not None:
            lines += [f"rejected: {prediction.problem}{ending}", ""]
            continue
        lines.append(f"{prediction.task}: {prediction.input}{ending}")
        lines.append(f"  {_describe_prompt(prediction)}")
        lines += [
            f"  {rank}. {_describe_answer(answer)}"
            for rank, answer in enumerate(prediction.answers, start=1)
        ]
        lines.append("")
    return "\n".join(lines).rstrip()


def _has_new_atoms(answer: str, task: Task, input_text: str) -> bool:
    sides = input_text.split(ARROW)
    if task is Task.FORWARD:
        precursors, products = sides[0], answer
    elif task is Task.RETROSYNTHESIS:
        precursors, products = answer, sides[0]
    else:
        precursors, products = f"{sides[0]}.{answer}", sides[1]
    return not heavy_atom_counter(products) <= heavy_atom_counter(precursors)


def _describe_answer(answer: Answer) -> str:
    parts = [answer.smiles or "(empty)", f"log p = {answer.log_probability:.2f}"]
    if answer.confidence is not None:
        parts.append(f"confidence {answer.confidence:.2f}")
    parts += [f"({flag})" for flag in answer.flags]
    return "  ".join(parts)


def _describe_prompt(prediction: Prediction) -> str:
    parts = [f"instruction {prediction.template_id}"]
    types = prediction.reaction_types_used
    if types:
        probabilities = prediction.reaction_type_probabilities
        names = [
            reaction_type_name(prediction.task, number)
            + (f" (p = {probabilities[number]:.2f})" if probabilities else "")
            for number in types
        ]
        parts.append(f"reaction type{'s' if len(types) > 1 else ''} {', '.join(names)}")
    return ", ".join(parts)


def _shorten(text: str, *, limit: int = 60) -> str:
    shown = text[:limit].replace("\n", " ").replace("\r", " ")
    return shown if len(text) <= limit else f"{shown}... ({len(text)} characters)"
