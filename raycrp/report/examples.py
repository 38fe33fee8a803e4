"""A few predictions of each task, drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from raycrp.chem.reactions import ARROW
from raycrp.choices import Task
from raycrp.evaluate.molecule_metrics import (
    Answers,
    read_molecules,
    reciprocal_rank,
    strict_exact,
    strict_exact_flat,
)
from raycrp.prompt.templates import known_templates, reaction_type_name
from raycrp.report.drawings import draw_molecules
from raycrp.run import RunFolder

PREDICTIONS_DIR = "evaluate/predictions"


class Verdict(StrEnum):
    """What became of an answer."""

    RIGHT = "right"
    STEREO = "right but for stereo"
    WRONG = "wrong"
    INVALID = "invalid"
    EMPTY = "empty"


@dataclass(frozen=True)
class Picture:
    """A text of molecules and the drawing of each; none where it cannot be drawn."""

    smiles: str
    drawings: Sequence[str]


@dataclass(frozen=True)
class RankedAnswer:
    """One answer as text."""

    rank: int
    smiles: str
    verdict: Verdict
    log_probability: float


@dataclass(frozen=True)
class Example:
    """One test row with its answers.

    Args:
        row_id: Number of the row.
        given: Pictures of the input; two for ``reactants>>product``.
        expected: The right answer.
        answer: The best answer.
        verdict: What the best answer is.
        rank: Place of the first right answer; None where there is none.
        reaction_type: Name of the RT in the prompt; None where it had none.
        instruction: Text of the instruction in the prompt.
        answers: All answers, best first.
    """

    row_id: int
    given: Sequence[Picture]
    expected: Picture
    answer: Picture
    verdict: Verdict
    rank: int | None
    reaction_type: str | None
    instruction: str
    answers: Sequence[RankedAnswer]


def choose_examples(
    run: RunFolder, *, num_examples: int, seed: int
) -> dict[str, Sequence[Example]]:
    """Predictions of each task, drawn at random by the seed.

    Args:
        run: The run folder.
        num_examples: Predictions of each task at most.
        seed: Seed of the choice.

    Returns:
        Examples by task; none where nothing was predicted.
    """
    if not run.list_names(PREDICTIONS_DIR):
        return {}
    ids = run.read_table(PREDICTIONS_DIR, columns=["row_id", "task"]).sort_by("row_id")
    chosen: list[int] = []
    for task in Task:
        rows = [
            row
            for row, name in zip(ids["row_id"].to_pylist(), ids["task"].to_pylist(), strict=True)
            if name == task
        ]
        generator = np.random.default_rng([seed, list(Task).index(task)])
        chosen += generator.permutation(rows)[:num_examples].astype(int).tolist()
    examples: dict[str, list[Example]] = {}
    for row in _read_rows(run, set(chosen)):
        examples.setdefault(row["task"], []).append(make_example(row))
    return {task.value: examples[task] for task in Task if task in examples}


def make_example(row: Mapping[str, Any]) -> Example:
    """One row of the table of predictions as it is shown."""
    task, answers = Task(row["task"]), row["predictions"]
    pair = Answers([row["output"]], [answers])
    reciprocal = float(reciprocal_rank(pair)[0])
    number = row["reaction_type"]
    best = answers[0] if answers else ""
    return Example(
        row_id=row["row_id"],
        given=[_picture(side) for side in row["input"].split(ARROW)],
        expected=_picture(row["output"]),
        answer=_picture(best),
        verdict=judge_answer(best, truth=row["output"]),
        rank=round(1 / reciprocal) if reciprocal else None,
        reaction_type=None if number is None else reaction_type_name(task, number),
        instruction=_instruction(task, row["template_id"]),
        answers=[
            RankedAnswer(rank, text, judge_answer(text, truth=row["output"]), score)
            for rank, (text, score) in enumerate(
                zip(answers, row["log_probabilities"], strict=True), start=1
            )
        ],
    )


def judge_answer(text: str, *, truth: str) -> Verdict:
    """What an answer is, by the strict definitions.

    Args:
        text: The answer as decoded.
        truth: The right answer.
    """
    pair = Answers([truth], [[text]])
    if not text.strip():
        return Verdict.EMPTY
    if read_molecules(text) is None:
        return Verdict.INVALID
    if strict_exact(pair, top=1)[0]:
        return Verdict.RIGHT
    return Verdict.STEREO if strict_exact_flat(pair, top=1)[0] else Verdict.WRONG


def _picture(smiles: str) -> Picture:
    return Picture(smiles, () if read_molecules(smiles) is None else draw_molecules(smiles))


def _instruction(task: Task, template_id: str) -> str:
    texts = {template.id: template.text for template in known_templates(task)}
    return texts.get(template_id, template_id)


def _read_rows(run: RunFolder, wanted: set[int]) -> list[Mapping[str, Any]]:
    rows: list[Mapping[str, Any]] = []
    for name in run.list_names(PREDICTIONS_DIR):
        table = run.read_table(f"{PREDICTIONS_DIR}/{name}")
        rows += [row for row in table.to_pylist() if row["row_id"] in wanted]
    return sorted(rows, key=lambda row: int(row["row_id"]))
