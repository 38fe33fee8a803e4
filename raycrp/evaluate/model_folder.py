"""An exported model's folder as the train and evaluate stages wrote it."""

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from raycrp.choices import InstructionChoice, Task
from raycrp.errors import ModelError
from raycrp.evaluate.calibration import CALIBRATION_FILE, Calibration
from raycrp.prompt.templates import Template
from raycrp.run import RunFolder, reachable, split_folder

MODEL_DIR = "model"
MODEL_FILE = "raycrp.json"
MODEL_FORMAT = 1
_MAX_OUTPUT_TOKENS = 256


class ModelFolder:
    """What an exported model says of itself, beside its weights.

    Args:
        path: The exported ``model`` folder.

    Raises:
        ModelError: If it is no exported model, or of another format.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._card = _read_card(self.path)
        self.templates = _read_templates(self.path)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that the model was trained for."""
        return tuple(Task(name) for name in self._card["tasks"])

    @property
    def uses_reaction_types(self) -> bool:
        """Whether its prompts name a reaction type."""
        return bool(self._card["use_reaction_type"])

    @property
    def instruction(self) -> InstructionChoice:
        """How its instructions are chosen."""
        return InstructionChoice(self._card["instruction"])

    @property
    def part_end(self) -> str:
        """What ends a part of a prompt, where parts are encoded apart; else empty."""
        return str(self._card.get("part_end", ""))

    @property
    def seed(self) -> int:
        """Seed of the control ``random``."""
        return int(self._card.get("seed", 0))

    @property
    def max_output_tokens(self) -> int:
        """Longest target of training, in tokens."""
        return int(self._card.get("max_output_tokens", _MAX_OUTPUT_TOKENS))

    @cached_property
    def calibrations(self) -> dict[Task, Calibration]:
        """Calibration by task; empty before the model was evaluated."""
        path = self.path / CALIBRATION_FILE
        if not path.exists():
            return {}
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
            return {Task(name): Calibration(**values) for name, values in entries.items()}
        except (ValueError, TypeError) as error:
            raise ModelError(f"{path} is damaged; delete it, or run evaluate again") from error

    def check_task(self, task: Task | str) -> Task:
        """The task, if the model knows it.

        Raises:
            ModelError: If there is no such task, or the model was not trained for it.
        """
        names = [each.value for each in Task]
        if task not in names:
            raise ModelError(f"unknown task '{task}'; known: {', '.join(names)}")
        if task not in self.tasks:
            raise ModelError(
                f"{self.path} was trained for {', '.join(self.tasks)}, not for {task}; "
                "give a model of this task"
            )
        return Task(task)

    def check_type(self, reaction_type: int, *, task: Task) -> int:
        """The reaction type, if the task has it.

        Raises:
            ModelError: If it does not.
        """
        num_types = int(self._card["num_types"][task])
        if not 0 <= reaction_type < num_types:
            raise ModelError(
                f"reaction type {reaction_type} of {task} is not in 0 to {num_types - 1}"
            )
        return int(reaction_type)

    def labeler_path(self, task: Task) -> Path:
        """Folder of the task's LLM-RT."""
        return self.path / "llm_rt" / task.value


def find_model(path: Path | str) -> Path:
    """The exported model that a path means.

    Args:
        path: A run folder with a trained model, or the exported ``model`` folder itself; a path or
            a URI.

    Raises:
        ModelError: If a URI names no folder.
        RunError: If its storage does not answer, or there is no model.
    """
    if "://" in str(path):
        storage, name = split_folder(str(path))
        if not name:
            raise ModelError(f"{path} is no model, such as s3://BUCKET/raycrp/demo")
        run = reachable(RunFolder(storage, name))
        return run.local_dir("" if run.exists(MODEL_FILE) else MODEL_DIR)
    folder = Path(path)
    if not (folder / MODEL_FILE).exists() and (folder / MODEL_DIR / MODEL_FILE).exists():
        return folder / MODEL_DIR
    return folder


def _read_card(folder: Path) -> Mapping[str, Any]:
    path = folder / MODEL_FILE
    try:
        card: Any = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelError(
            f"{folder} is no exported model: it has no {MODEL_FILE}; give a run folder whose "
            "train stage is done, or its model folder"
        ) from error
    except ValueError as error:
        raise ModelError(f"{path} is not JSON; export the model again") from error
    found = card.get("format") if isinstance(card, dict) else None
    if found != MODEL_FORMAT:
        raise ModelError(
            f"{path} has format {found!r}, expected {MODEL_FORMAT}; export the model "
            "again with this version"
        )
    return dict(card)


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
