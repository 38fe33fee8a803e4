"""LLM-RT inside a trial: the model layer's labelers as Algorithm 1 uses them."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

from raycrp.arrays import FloatArray, IntArray
from raycrp.choices import Device, LabelerKind
from raycrp.elicit.feedback import LlmRt
from raycrp.elicit.rows import TaskRows
from raycrp.elicit.vectors import RenewedVectors, Vectors
from raycrp.model.dropout import use_cheap_dropout
from raycrp.model.encode import TextEncoder, encode_texts, encode_token_ids, tokenize_texts
from raycrp.model.head import Head, fit_head
from raycrp.model.labeler import HeadLabeler, T5Labeler
from raycrp.model.t5 import load_encoder, resolve_device
from raycrp.model.tokenizers import load_tokenizer_dir
from raycrp.model.tuning import TuningSettings, fit_t5_labeler, tune_encoder
from raycrp.run import RunFolder

ENCODER = "embed/llm_rt"

_MAX_HEAD_ROWS = 200_000
# So many rows are enough for a small head, and fit in memory whatever the data.


@dataclass(frozen=True)
class LlmRtSettings:
    """How LLM-RT is built and trained.

    Args:
        kind: A head on the encoder, or the whole T5.
        has_feedback: Whether training is to change the encoder, for later rounds.
        tuning: How the encoder is trained, where it is.
        token_budget: Rows times longest row of one padded batch, in tokens.
        max_tokens: Longer texts are cut to this many tokens.
        device: Where models run.
    """

    kind: LabelerKind
    has_feedback: bool
    tuning: TuningSettings
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
    job = LlmRtJob(rows, num_types, settings, run)
    if settings.kind is LabelerKind.T5:
        return TunedT5(job)
    if settings.has_feedback:
        return TunedHead(job)
    return FrozenHead(job)


@dataclass(frozen=True)
class LlmRtJob:
    """What an LLM-RT is built for.

    Args:
        rows: D_train of the trial's task.
        num_types: The N of the paper.
        settings: How it is built and trained.
        run: The run folder that holds the encoder.
    """

    rows: TaskRows
    num_types: int
    settings: LlmRtSettings
    run: RunFolder


class FrozenHead:
    """A head on the shared vectors; the encoder stays as it is, so that there is no feedback.

    Args:
        job: What it is built for.
    """

    learns_vectors = False

    def __init__(self, job: LlmRtJob) -> None:
        self._job = job
        self._head: Head | None = None

    def train(self, labels: IntArray, *, seed: int) -> None:
        """Fit the head on the input vectors of D'_train."""
        self._head = _fit_head(
            self._job.rows,
            self._job.rows.vectors,
            labels=labels,
            num_types=self._job.num_types,
            seed=seed,
        )

    def name(self, indices: IntArray) -> FloatArray:
        """Probabilities from the input vectors alone."""
        assert self._head is not None, "train comes first"
        return self._head.predict(self._job.rows.vectors.take_inputs(indices))

    def embed(self) -> Vectors:
        """The shared vectors."""
        return self._job.rows.vectors

    def save(self, folder: Path) -> None:
        """Write the encoder and the head."""
        assert self._head is not None, "train comes first"
        encoder = _text_encoder(self._job.run.local_dir(ENCODER), settings=self._job.settings)
        HeadLabeler(encoder, head=self._head).save(folder)


class TunedHead:
    """A head and the encoder below it, trained together; the encoder goes on from round to round.

    Each round starts from a linear head fitted to the vectors as they are, so that the first steps
    do not wreck the encoder (Kumar et al., ICLR 2022: linear probing, then fine-tuning).

    Args:
        job: What it is built for.
    """

    learns_vectors = True

    def __init__(self, job: LlmRtJob) -> None:
        folder = job.run.local_dir(ENCODER)
        self._job = job
        encoder: Any = load_encoder(folder)
        device = resolve_device(job.settings.device)
        self._encoder = encoder.to(device)
        self._dropout = use_cheap_dropout(encoder) if device.type == "cpu" else None
        self._tokenizer = load_tokenizer_dir(folder)
        self._inputs = self._tokenize(job.rows.inputs)
        self._outputs = self._tokenize(job.rows.outputs)
        self._vectors = job.rows.vectors
        self._head: Head | None = None

    def train(self, labels: IntArray, *, seed: int) -> None:
        """Fit a linear head, then head and encoder together."""
        rows = self._job.rows
        head = _fit_head(
            rows,
            self._vectors,
            labels=labels,
            num_types=self._job.num_types,
            seed=seed,
            hidden_size=0,
        )
        self._head = tune_encoder(
            self._encoder,
            head=head,
            inputs=[self._inputs[i] for i in rows.train],
            labels=labels[rows.train],
            valid_inputs=[self._inputs[i] for i in rows.valid],
            valid_labels=labels[rows.valid],
            valid_vectors=self._vectors.take_inputs(rows.valid),
            pad_id=self._tokenizer.pad_token_id,
            token_budget=self._job.settings.token_budget,
            settings=self._job.settings.tuning,
            seed=seed,
            dropout=self._dropout,
        )

    def name(self, indices: IntArray) -> FloatArray:
        """Probabilities from the inputs alone, by the encoder as it is now."""
        assert self._head is not None, "train comes first"
        return self._head.predict(self._encode([self._inputs[i] for i in indices]))

    def embed(self) -> Vectors:
        """One pass of the encoder over all inputs and outputs."""
        self._vectors = RenewedVectors(
            self._encode(self._inputs), self._encode(self._outputs), before=self._job.rows.vectors
        )
        return self._vectors

    def save(self, folder: Path) -> None:
        """Write the encoder and the head."""
        assert self._head is not None, "train comes first"
        with TemporaryDirectory(prefix="raycrp-") as scratch:
            self._encoder.save_pretrained(scratch)
            self._tokenizer.save_pretrained(scratch)
            encoder = _text_encoder(Path(scratch), settings=self._job.settings)
            HeadLabeler(encoder, head=self._head).save(folder)

    def _tokenize(self, texts: pa.ChunkedArray) -> list[list[int]]:
        rows, _ = tokenize_texts(
            self._tokenizer, texts.to_pylist(), max_tokens=self._job.settings.max_tokens
        )
        return rows

    def _encode(self, rows: list[list[int]]) -> FloatArray:
        return encode_token_ids(
            self._encoder,
            rows=rows,
            pad_id=self._tokenizer.pad_token_id,
            token_budget=self._job.settings.token_budget,
        )


class TunedT5:
    """The paper's LLM-RT: a T5 fine-tuned to answer the annotation prompt, round after round.

    Args:
        job: What it is built for.
    """

    learns_vectors = True

    def __init__(self, job: LlmRtJob) -> None:
        self._job = job
        self._start = job.run.local_dir(ENCODER)
        self._labeler: T5Labeler | None = None

    def train(self, labels: IntArray, *, seed: int) -> None:
        """Fine-tune the T5 of the round before."""
        if self._labeler is None:
            self._labeler = self._fine_tune(self._start, labels=labels, seed=seed)
            return
        with TemporaryDirectory(prefix="raycrp-") as scratch:
            self._labeler.model.save_pretrained(scratch)
            self._labeler.tokenizer.save_pretrained(scratch)
            self._labeler = self._fine_tune(Path(scratch), labels=labels, seed=seed)

    def name(self, indices: IntArray) -> FloatArray:
        """Probabilities of the labels as answers to the annotation prompt."""
        assert self._labeler is not None, "train comes first"
        return self._labeler.predict(_take(self._job.rows.inputs, indices))

    def embed(self) -> Vectors:
        """One pass of the T5's encoder over all inputs and outputs."""
        return RenewedVectors(
            self._encode(self._job.rows.inputs),
            self._encode(self._job.rows.outputs),
            before=self._job.rows.vectors,
        )

    def save(self, folder: Path) -> None:
        """Write the T5."""
        assert self._labeler is not None, "train comes first"
        self._labeler.save(folder)

    def _fine_tune(self, start: Path, *, labels: IntArray, seed: int) -> T5Labeler:
        rows, settings = self._job.rows, self._job.settings
        return fit_t5_labeler(
            start,
            inputs=_take(rows.inputs, rows.train),
            labels=labels[rows.train],
            num_types=self._job.num_types,
            task=rows.task,
            valid_inputs=_take(rows.inputs, rows.valid),
            valid_labels=labels[rows.valid],
            settings=settings.tuning,
            seed=seed,
            device=settings.device,
            token_budget=settings.token_budget,
            max_tokens=settings.max_tokens,
        )

    def _encode(self, texts: pa.ChunkedArray) -> FloatArray:
        assert self._labeler is not None, "train comes first"
        vectors, _ = encode_texts(
            self._labeler.model.get_encoder(),
            tokenizer=self._labeler.tokenizer,
            texts=texts.to_pylist(),
            token_budget=self._job.settings.token_budget,
            max_tokens=self._job.settings.max_tokens,
        )
        return vectors


def _fit_head(
    rows: TaskRows,
    vectors: Vectors,
    *,
    labels: IntArray,
    num_types: int,
    seed: int,
    hidden_size: int = 128,
) -> Head:
    train = rows.train
    if len(train) > _MAX_HEAD_ROWS:
        train = np.sort(np.random.default_rng(seed).choice(train, _MAX_HEAD_ROWS, replace=False))
    return fit_head(
        vectors.take_inputs(train),
        labels[train],
        num_types=num_types,
        valid_vectors=vectors.take_inputs(rows.valid),
        valid_labels=labels[rows.valid],
        seed=seed,
        hidden_size=hidden_size,
    )


def _text_encoder(folder: Path, *, settings: LlmRtSettings) -> TextEncoder:
    return TextEncoder(
        folder,
        device=settings.device,
        token_budget=settings.token_budget,
        max_tokens=settings.max_tokens,
    )


def _take(texts: pa.ChunkedArray, indices: IntArray) -> list[str]:
    taken: list[str] = texts.take(indices).to_pylist()
    return taken
