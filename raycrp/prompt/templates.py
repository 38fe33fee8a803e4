"""Instruction templates, names of reaction types, and the enhanced prompt made of both (Eq 12)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from omegaconf import OmegaConf

from raycrp.choices import Task
from raycrp.model.annotation import annotation_words

TEMPLATES_FILE = "templates.yaml"
_TYPE_LETTERS = {Task.FORWARD: "F", Task.RETROSYNTHESIS: "R", Task.REAGENT: "G"}


@dataclass(frozen=True)
class Template:
    """One instruction.

    Args:
        id: Name that never changes its meaning, e.g. ``forward-01``.
        task: The task it belongs to.
        text: The instruction, in English.
    """

    id: str
    task: Task
    text: str


@cache
def load_templates() -> Mapping[Task, tuple[Template, ...]]:
    """The template library, twelve instructions for each task, in order of their ids."""
    entries: Any = OmegaConf.create(templates_text())
    return {
        task: tuple(Template(entry["id"], task, entry["text"]) for entry in entries[task.value])
        for task in Task
    }


def bare_template(task: Task) -> Template:
    """What stands in a prompt without an instruction: the task's name.

    Args:
        task: The task.
    """
    return Template(f"{task.value}-00", task, f"{task.value}:")


def known_templates(task: Task) -> tuple[Template, ...]:
    """All that may stand in front of a task's prompts: its twelve instructions and the bare one.

    Args:
        task: The task.
    """
    return (*load_templates()[task], bare_template(task))


def templates_text() -> str:
    """The library's file as it is shipped, to be kept beside an exported model."""
    return (files("raycrp.prompt") / TEMPLATES_FILE).read_text(encoding="utf-8")


def prompt_words(tasks: Sequence[Task]) -> list[str]:
    """English texts that prompts of these tasks may hold, for a tokenizer to learn.

    Args:
        tasks: Tasks of the run.
    """
    templates = load_templates()
    instructions = [template.text for task in tasks for template in templates[task]]
    return [*instructions, "The reaction type is.", *annotation_words()]


def reaction_type_name(task: Task, reaction_type: int) -> str:
    """Name of a reaction type that no other task's type shares, such as ``F5`` (forward).

    Args:
        task: Task whose reaction types these are.
        reaction_type: Number from 0.
    """
    return f"{_TYPE_LETTERS[task]}{reaction_type}"


def compose_prompt(
    instruction: str, *, reaction_type_name: str | None, input_text: str, part_end: str = ""
) -> str:
    """Enhanced prompt: instruction, then reaction type, then the input.

    Args:
        instruction: Text of the chosen template.
        reaction_type_name: From `reaction_type_name`; None leaves the sentence out.
        input_text: The row's input.
        part_end: What ends a part before the input, where parts are encoded apart.

    Source:
        Eq 12.
    """
    prefix = compose_prefix(instruction, reaction_type_name=reaction_type_name, part_end=part_end)
    return f"{prefix} {input_text}"


def compose_prefix(instruction: str, *, reaction_type_name: str | None, part_end: str = "") -> str:
    """The part of a prompt that comes before the input, without the blank between them.

    Args:
        instruction: Text of the chosen template.
        reaction_type_name: From `reaction_type_name`; None leaves the sentence out.
        part_end: What ends each part, where parts are encoded apart.
    """
    if reaction_type_name is None:
        return f"{instruction}{part_end}"
    return f"{instruction}{part_end} The reaction type is {reaction_type_name}.{part_end}"
