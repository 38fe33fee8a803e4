"""Training LLM-RT: an encoder together with the head on it, or a whole T5 on the prompt."""

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raycrp.arrays import FloatArray, IntArray
from raycrp.choices import Device, Task
from raycrp.model.dropout import DropoutSource, seed_dropout
from raycrp.model.encode import encode_token_ids, mean_pool, pad_rows, tokenize_texts
from raycrp.model.head import Head, fit_temperature, keep_best, log_loss
from raycrp.model.labeler import T5Labeler, label_names
from raycrp.model.t5 import load_backbone, seeded

_BATCHES_SORTED_TOGETHER = 32
_T5_BATCHES_SORTED_TOGETHER = 50
_GRADIENT_CLIP = 1.0
_IGNORED = -100

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TuningSettings:
    """How an encoder or a T5 is trained to name reaction types.

    Args:
        max_epochs: Passes over D'_train at most.
        patience: Epochs without a lower validation loss before training stops.
        batch_size: Rows of a step.
        learning_rate: Step size of AdamW.
    """

    max_epochs: int
    patience: int
    batch_size: int
    learning_rate: float


@dataclass(frozen=True)
class _State:
    weights: dict[str, torch.Tensor]
    head: Head
    valid_vectors: FloatArray


def tune_encoder(
    encoder: torch.nn.Module,
    *,
    head: Head,
    inputs: Sequence[Sequence[int]],
    labels: IntArray,
    valid_inputs: Sequence[Sequence[int]],
    valid_labels: IntArray,
    valid_vectors: FloatArray,
    pad_id: int,
    token_budget: int,
    settings: TuningSettings,
    seed: int,
    dropout: DropoutSource | None = None,
) -> Head:
    """Train an encoder and the head on its pooled vectors together.

    The state before training takes part in the choice of the best epoch: where training does not
    lower the validation loss, the encoder stays as it was.

    Args:
        encoder: A T5 encoder, changed in place.
        head: A linear head fitted to the encoder's vectors as they are.
        inputs: Token ids of the training rows.
        labels: Their reaction types.
        valid_inputs: Token ids of the rows that say when to stop; at least one.
        valid_labels: Their reaction types.
        valid_vectors: Their vectors by the encoder as it is.
        pad_id: Id of the padding token.
        token_budget: Rows times longest row of one padded batch when rows are only encoded.
        settings: How it is trained.
        seed: Seed of dropout and of the order of the rows.
        dropout: Source of the encoder's dropout; torch's own if None.

    Returns:
        The head of the epoch with the lowest validation loss, calibrated; the encoder is in the
        state of that epoch.
    """

    def states(heads: Iterator[Head]) -> Iterator[_State]:
        """The state before training, whose vectors are known, and after each epoch."""
        yield _State(_copy_weights(encoder), next(heads), valid_vectors)
        for tuned in heads:
            vectors = encode_token_ids(
                encoder, rows=valid_inputs, pad_id=pad_id, token_budget=token_budget
            )
            yield _State(_copy_weights(encoder), tuned, vectors)

    with seeded(seed):
        seed_dropout(dropout, (seed,))
        heads = _train_epochs(
            encoder, head=head, inputs=inputs, labels=labels, pad_id=pad_id, settings=settings
        )
        best = keep_best(
            states(islice(heads, settings.max_epochs + 1)),
            loss=lambda state: log_loss(
                state.head.predict(state.valid_vectors), labels=valid_labels
            ),
            patience=settings.patience,
        )
    encoder.load_state_dict(best.weights)
    encoder.eval()
    logits = best.head.logits(best.valid_vectors)
    return replace(best.head, temperature=fit_temperature(logits, labels=valid_labels))


def fit_t5_labeler(
    folder: Path,
    *,
    inputs: Sequence[str],
    labels: IntArray,
    num_types: int,
    task: Task,
    valid_inputs: Sequence[str],
    valid_labels: IntArray,
    settings: TuningSettings,
    seed: int,
    device: Device = Device.AUTO,
    token_budget: int = 16_384,
    max_tokens: int = 512,
) -> T5Labeler:
    """Fine-tune a T5 to answer the annotation prompt; dropout on, padding out of the loss.

    Args:
        folder: The T5 to start from, as written by ``save_backbone``.
        inputs: Input texts of the training rows.
        labels: Their reaction types, values in ``[0, num_types)``.
        num_types: Number of reaction types.
        task: Task of the rows.
        valid_inputs: Rows that say when to stop and set the temperature; may be none.
        valid_labels: Their reaction types.
        settings: How it is trained.
        seed: Seed of dropout and of the order of the rows.
        device: Where the model is trained.
        token_budget: Rows times longest prompt of a padded batch when labels are scored.
        max_tokens: Longer prompts are cut to this many tokens.

    Returns:
        The labeler of the epoch with the lowest validation loss, calibrated.

    Raises:
        ValueError: If there are no rows, or inputs and labels differ in length.
        ModelError: If the folder is not a T5.

    Source: Algorithm 1, Eq 6.
    """
    if len(inputs) == 0 or len(inputs) != len(labels):
        raise ValueError(f"found {len(inputs)} inputs and {len(labels)} labels, expected pairs")
    model, tokenizer = load_backbone(folder, device=device)
    labeler = T5Labeler(
        model,
        tokenizer,
        task=task,
        num_types=num_types,
        token_budget=token_budget,
        max_tokens=max_tokens,
    )
    with seeded(seed):
        epochs = _finetune_epochs(
            labeler,
            inputs=inputs,
            labels=labels,
            settings=settings,
        )
        states = (_copy_weights(model) for _ in islice(epochs, settings.max_epochs))
        if len(valid_inputs) == 0:
            deque(states, maxlen=1)
            return labeler
        best = keep_best(
            states,
            loss=lambda _: log_loss(labeler.predict(valid_inputs), labels=valid_labels),
            patience=settings.patience,
        )
    model.load_state_dict(best)
    labeler.temperature = fit_temperature(labeler.scores(valid_inputs), labels=valid_labels)
    return labeler


def _train_epochs(
    encoder: torch.nn.Module,
    *,
    head: Head,
    inputs: Sequence[Sequence[int]],
    labels: IntArray,
    pad_id: int,
    settings: TuningSettings,
) -> Iterator[Head]:
    """The head before training and after each epoch; the encoder is trained with it."""
    device = next(encoder.parameters()).device
    live_head = _LiveHead(head).to(device)
    parameters = [*encoder.parameters(), *live_head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate)
    lengths = np.array([len(row) for row in inputs])
    targets = torch.from_numpy(labels).to(device)
    while True:
        yield live_head.freeze()
        encoder.train()
        for places in _shuffled_batches(
            lengths, batch_size=settings.batch_size, num_sorted=_BATCHES_SORTED_TOGETHER
        ):
            ids, mask = pad_rows([inputs[i] for i in places], pad_id=pad_id, device=device)
            hidden = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
            logits = live_head(mean_pool(hidden, mask=mask))
            loss = torch.nn.functional.cross_entropy(logits, targets[places])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, _GRADIENT_CLIP)
            optimizer.step()


def _finetune_epochs(
    labeler: T5Labeler,
    *,
    inputs: Sequence[str],
    labels: IntArray,
    settings: TuningSettings,
) -> Iterator[None]:
    model: Any = labeler.model
    pad_id = int(model.config.pad_token_id)
    rows, num_cut = labeler.tokenize(inputs)
    if num_cut:
        logger.warning("%d of %d annotation prompts were cut", num_cut, len(rows))
    answers, _ = tokenize_texts(labeler.tokenizer, label_names(labeler.num_types), max_tokens=None)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate)
    lengths = np.array([len(row) for row in rows])
    while True:
        model.train()
        for places in _shuffled_batches(
            lengths, batch_size=settings.batch_size, num_sorted=_T5_BATCHES_SORTED_TOGETHER
        ):
            ids, mask = pad_rows([rows[i] for i in places], pad_id=pad_id, device=model.device)
            targets, is_real = pad_rows(
                [answers[labels[i]] for i in places], pad_id=pad_id, device=model.device
            )
            targets = targets.masked_fill(is_real == 0, _IGNORED)
            loss = model(input_ids=ids, attention_mask=mask, labels=targets).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), _GRADIENT_CLIP)
            optimizer.step()
        model.eval()
        yield


class _LiveHead(torch.nn.Module):
    """A linear ``Head`` whose layer learns; the standardisation stays."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        ((weight, bias),) = head.layers
        self.mean: torch.Tensor
        self.scale: torch.Tensor
        self.register_buffer("mean", torch.from_numpy(head.mean.copy()))
        self.register_buffer("scale", torch.from_numpy(head.scale.copy()))
        self.weight = torch.nn.Parameter(torch.from_numpy(weight.copy()))
        self.bias = torch.nn.Parameter(torch.from_numpy(bias.copy()))
        self._frozen = head

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Logits of the reaction types, shape ``(len(vectors), num_types)``."""
        logits: torch.Tensor = (vectors - self.mean) / self.scale @ self.weight.T + self.bias
        return logits

    def freeze(self) -> Head:
        """The head as it is now, for prediction; not calibrated."""
        weight, bias = (p.detach().cpu().numpy().copy() for p in (self.weight, self.bias))
        return replace(self._frozen, layers=((weight, bias),), temperature=1.0)


def _shuffled_batches(lengths: IntArray, *, batch_size: int, num_sorted: int) -> Iterator[IntArray]:
    """Batches in random order, each of rows of similar length among those of so many batches."""
    order = torch.randperm(len(lengths)).numpy()
    size = batch_size * num_sorted
    batches: list[IntArray] = []
    for start in range(0, len(order), size):
        chunk = order[start : start + size]
        chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
        batches += [chunk[i : i + batch_size] for i in range(0, len(chunk), batch_size)]
    for number in torch.randperm(len(batches)).tolist():
        yield batches[number]


def _copy_weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
