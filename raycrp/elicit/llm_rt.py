"""LLM-RT inside a trial: the model layer's labelers as Algorithm 1 uses them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from raycrp.config import Device, LabelerKind
from raycrp.elicit.feedback import LlmRt
from raycrp.elicit.rows import TaskRows
from raycrp.model.encode import TextEncoder
from raycrp.model.head import Head, fit_head
from raycrp.model.labeler import HeadLabeler
from raycrp.run import RunFolder

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

ENCODER = "embed/llm_rt"


@dataclass(frozen=True)
class LlmRtSettings:
    """How LLM-RT is built and trained.

    Args:
        kind: A head on the encoder, or the whole T5.
        has_feedback: Whether training is to change the encoder, for later rounds.
        token_budget: Rows times longest row of one padded batch, in tokens.
        max_tokens: Longer texts are cut to this many tokens.
        device: Where models run.
    """

    kind: LabelerKind
    has_feedback: bool
    token_budget: int
    max_tokens: int
    device: Device


def build_llm_rt(
    rows: TaskRows, *, num_types: int, settings: LlmRtSettings, run: RunFolder
) -> LlmRt:
    """A fresh LLM-RT for one trial.

    Args:
        rows: D_train of the trial's task.
        num_types: The N of the paper.
        settings: How it is built and trained.
        run: The run folder that holds the encoder.
    """
    return FrozenHead(rows, num_types=num_types, settings=settings, run=run)


class FrozenHead:
    """A head on the shared vectors; the encoder stays as it is, so that there is no feedback."""

    learns_vectors = False

    def __init__(
        self, rows: TaskRows, *, num_types: int, settings: LlmRtSettings, run: RunFolder
    ) -> None:
        self._rows = rows
        self._num_types = num_types
        self._settings = settings
        self._run = run
        self._head: Head | None = None

    def train(self, labels: IntArray, *, seed: int) -> None:
        """Fit the head on the input vectors of D'_train."""
        rows = self._rows
        self._head = fit_head(
            rows.input_vectors[rows.train],
            labels[rows.train],
            num_types=self._num_types,
            valid_vectors=rows.input_vectors[rows.valid],
            valid_labels=labels[rows.valid],
            seed=seed,
        )

    def name(self, indices: IntArray) -> FloatArray:
        """Probabilities from the input vectors alone."""
        return self._trained.predict(self._rows.input_vectors[indices])

    def embed(self) -> tuple[FloatArray, FloatArray]:
        """The shared vectors."""
        return self._rows.input_vectors, self._rows.output_vectors

    def save(self, folder: Path) -> None:
        """Write the encoder and the head."""
        settings = self._settings
        encoder = TextEncoder(
            self._run.local_dir(ENCODER),
            device=settings.device,
            token_budget=settings.token_budget,
            max_tokens=settings.max_tokens,
        )
        HeadLabeler(encoder, head=self._trained).save(folder)

    @property
    def _trained(self) -> Head:
        assert self._head is not None, "train comes first"
        return self._head
