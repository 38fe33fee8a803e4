"""LLM-RT: from the input alone to the probabilities of the reaction types, by a head or a T5."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from scipy.special import softmax

from raycrp.arrays import FloatArray
from raycrp.choices import Device, LabelerKind, Task
from raycrp.errors import ModelError
from raycrp.model.annotation import annotation_prompt
from raycrp.model.decode import score_labels
from raycrp.model.encode import TextEncoder, tokenize_texts
from raycrp.model.head import Head, load_head
from raycrp.model.t5 import load_backbone

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration

logger = logging.getLogger(__name__)

_FILE = "labeler.json"
_FORMAT = 1
_ENCODER, _HEAD, _MODEL = "encoder", "head.safetensors", "model"
_CARD_KEYS = {
    LabelerKind.HEAD: {"format", "num_types", "token_budget", "max_tokens"},
    LabelerKind.T5: {"format", "num_types", "token_budget", "max_tokens", "task", "temperature"},
}


class Labeler(Protocol):
    """Names reaction types from inputs alone."""

    @property
    def num_types(self) -> int:
        """Number of reaction types, the N of the paper."""
        ...

    def predict(self, inputs: Sequence[str]) -> FloatArray:
        """Probabilities of the reaction types.

        Args:
            inputs: Input texts of task rows, in any order; a row's result depends on it alone.

        Returns:
            Shape ``(len(inputs), num_types)``, float32, each row summing to 1.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write a folder that ``load_labeler`` reads and that needs nothing else."""
        ...


def load_labeler(folder: Path, *, device: Device) -> Labeler:
    """A labeler that was saved.

    Args:
        folder: As written by ``Labeler.save``.
        device: Where its model runs.

    Raises:
        ModelError: If the folder is no labeler, or is damaged.
    """
    card = _read_card(folder)
    limits = {"token_budget": card["token_budget"], "max_tokens": card["max_tokens"]}
    if card["kind"] == LabelerKind.HEAD:
        encoder = TextEncoder(folder / _ENCODER, device=device, **limits)
        return HeadLabeler(encoder, head=load_head(folder / _HEAD))
    model, tokenizer = load_backbone(folder / _MODEL, device=device)
    return T5Labeler(
        model,
        tokenizer,
        task=Task(card["task"]),
        num_types=card["num_types"],
        temperature=card["temperature"],
        **limits,
    )


class HeadLabeler:
    """A frozen encoder and a head on its pooled vectors.

    Args:
        encoder: The encoder whose vectors the head was trained on.
        head: The trained head.
    """

    def __init__(self, encoder: TextEncoder, *, head: Head) -> None:
        self._encoder = encoder
        self._head = head

    @property
    def num_types(self) -> int:
        """Number of reaction types."""
        return self._head.num_types

    def predict(self, inputs: Sequence[str]) -> FloatArray:
        """Probabilities of the reaction types, shape ``(len(inputs), num_types)``."""
        return self._head.predict(self._encoder.encode(inputs))

    def save(self, folder: Path) -> None:
        """Write encoder, head and card into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self._encoder.save(folder / _ENCODER)
        self._head.save(folder / _HEAD)
        _write_card(
            folder,
            kind=LabelerKind.HEAD,
            num_types=self.num_types,
            token_budget=self._encoder.token_budget,
            max_tokens=self._encoder.max_tokens,
        )


class T5Labeler:
    """A whole T5 that is asked by the annotation prompt and whose answers are scored.

    Args:
        model: The fine-tuned T5.
        tokenizer: Its tokenizer.
        task: Task of the rows, named in the prompt.
        num_types: Number of reaction types; the labels are "0" to "N-1".
        temperature: Divides the label scores, so that probabilities are calibrated.
        token_budget: Rows times longest prompt of one padded batch, in tokens.
        max_tokens: Longer prompts are cut to this many tokens.
    """

    def __init__(
        self,
        model: "T5ForConditionalGeneration",
        tokenizer: "PreTrainedTokenizerBase",
        *,
        task: Task,
        num_types: int,
        temperature: float = 1.0,
        token_budget: int = 16_384,
        max_tokens: int = 512,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.task = task
        self.temperature = temperature
        self._num_types = num_types
        self._token_budget = token_budget
        self._max_tokens = max_tokens

    @property
    def num_types(self) -> int:
        """Number of reaction types."""
        return self._num_types

    def predict(self, inputs: Sequence[str]) -> FloatArray:
        """Probabilities of the reaction types, shape ``(len(inputs), num_types)``."""
        scores = self.scores(inputs) / self.temperature
        return np.asarray(softmax(scores, axis=1), dtype=np.float32)

    def scores(self, inputs: Sequence[str]) -> FloatArray:
        """Log-probabilities of the labels among all texts, before calibration."""
        return score_labels(
            self.model,
            self.tokenizer,
            self._prompts(inputs),
            labels=label_names(self.num_types),
            token_budget=self._token_budget,
            max_input_tokens=self._max_tokens,
        )

    def tokenize(self, inputs: Sequence[str]) -> tuple[list[list[int]], int]:
        """Token ids of the annotation prompts, and how many of them were cut."""
        rows, is_cut = tokenize_texts(
            self.tokenizer, self._prompts(inputs), max_tokens=self._max_tokens
        )
        return rows, sum(is_cut)

    def _prompts(self, inputs: Sequence[str]) -> list[str]:
        return [
            annotation_prompt(text, task=self.task, num_types=self.num_types) for text in inputs
        ]

    def save(self, folder: Path) -> None:
        """Write model and card into a folder; ``model`` in it loads as a ``TextEncoder`` too."""
        self.model.save_pretrained(folder / _MODEL)
        self.tokenizer.save_pretrained(folder / _MODEL)
        _write_card(
            folder,
            kind=LabelerKind.T5,
            num_types=self.num_types,
            task=self.task.value,
            temperature=self.temperature,
            token_budget=self._token_budget,
            max_tokens=self._max_tokens,
        )


def label_names(num_types: int) -> list[str]:
    """The answers that a T5 labeler may give: "0" to "N-1"."""
    return [str(number) for number in range(num_types)]


def _write_card(folder: Path, **values: Any) -> None:
    card = {"format": _FORMAT, **values}
    (folder / _FILE).write_text(json.dumps(card, indent=2) + "\n")


def _read_card(folder: Path) -> dict[str, Any]:
    path = folder / _FILE
    try:
        card: Any = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ModelError(f"'{folder}' is no labeler: it has no {_FILE}; run elicit") from error
    except ValueError as error:
        raise ModelError(f"'{path}' is damaged; run elicit again") from error
    kind = card.get("kind") if isinstance(card, dict) else None
    if kind not in _CARD_KEYS or not _CARD_KEYS[kind] <= card.keys():
        raise ModelError(f"'{path}' is damaged; run elicit again")
    if card["format"] != _FORMAT:
        raise ModelError(
            f"'{folder}' has format {card['format']}, expected {_FORMAT}; run elicit again"
        )
    return dict(card)
