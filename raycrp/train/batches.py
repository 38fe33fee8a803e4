"""Which rows make up which step, and how they become padded tensors.

A step's rows depend on the seed, the epoch and the step alone, never on the number of workers, and
neither does the cut into micro batches: a resumed or resized run goes on with the very next batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from raycrp.arrays import IntArray
from raycrp.errors import TrainError
from raycrp.train.tokens import PrefixTable, TokenTable

IGNORED_LABEL = -100
_POOL_BATCHES = 128

Tensor = torch.Tensor


@dataclass(frozen=True)
class BatchShape:
    """How a global batch is cut.

    Args:
        batch_size: Rows of the global batch.
        num_micro: Micro batches of a global batch at least.
        num_workers: Workers asked for; the number of micro batches is a multiple of it.
        token_budget: Rows times longest prompt and target of one micro batch, in tokens.
    """

    batch_size: int
    num_micro: int
    num_workers: int
    token_budget: int


@dataclass(frozen=True)
class Visits:
    """Rows to train on; with tasks mixed by temperature a row may be among them more than once.

    Args:
        rows: Places of the rows in the token table, shape ``(visits,)``.
        passes: The pass over the rows of its task that each belongs to, same shape, from 0; a pass
            reads the next spelling.
    """

    rows: IntArray
    passes: IntArray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: IntArray | slice) -> "Visits":
        return Visits(self.rows[which], self.passes[which])


def batch_shape(
    batch_size: int,
    *,
    micro_batch_size: int | None,
    num_workers: tuple[int, int],
    token_budget: int,
) -> BatchShape:
    """Derive micro batch and accumulation from the global batch and the number of workers.

    The cut is made for the most workers among whom the batch divides; with another number of
    them some have a micro batch less to do in a step.

    Args:
        batch_size: Rows of the global batch.
        micro_batch_size: Rows of one forward pass on one worker; all of its share if None.
        num_workers: Training workers, least and most.
        token_budget: Rows times longest prompt and target of one micro batch, in tokens.

    Raises:
        TrainError: If the batch cannot be shared out evenly.
    """
    divisor = _dividing_workers(batch_size, *num_workers)
    micro = micro_batch_size or batch_size // divisor
    if batch_size % (micro * divisor):
        raise TrainError(
            f"train.batch_size ({batch_size}) is no multiple of train.micro_batch_size ({micro}) "
            f"times {divisor} workers; change one of the three"
        )
    return BatchShape(batch_size, batch_size // micro, divisor, token_budget)


def _dividing_workers(batch_size: int, least: int, most: int) -> int:
    for number in range(most, least - 1, -1):
        if batch_size % number == 0:
            return number
    allowed = f"{most}" if least == most else f"{least} to {most}"
    raise TrainError(
        f"train.batch_size ({batch_size}) does not divide among {allowed} workers; "
        f"use a multiple of {most}, e.g. {-(-batch_size // most) * most}"
    )


def num_batches(num_rows: int, *, batch_size: int) -> int:
    """Steps of one epoch; the last batch of an epoch may be smaller."""
    return -(-num_rows // batch_size)


def plan_epoch(
    input_lengths: IntArray, target_lengths: IntArray, *, batch_size: int, seed: int, epoch: int
) -> list[IntArray]:
    """Shuffled batches of rows of similar input and target lengths.

    Rows are shuffled, each pool of many batches is parted until the parts are batches, and the
    batches are shuffled again.

    Args:
        input_lengths: Tokens of each input.
        target_lengths: Tokens of each target.
        batch_size: Rows of a batch; one batch may be smaller.
        seed: Seed of the run.
        epoch: Number of the epoch, from 0.

    Returns:
        Places of the rows of each step of the epoch; every row occurs once.
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(input_lengths))
    pool_size = batch_size * _POOL_BATCHES
    lengths = np.stack([input_lengths, target_lengths])
    batches = [
        batch
        for start in range(0, len(order), pool_size)
        for batch in _part(order[start : start + pool_size], lengths, batch_size)
    ]
    return [batches[place] for place in rng.permutation(len(batches))]


def _part(rows: IntArray, lengths: IntArray, batch_size: int) -> list[IntArray]:
    """Halve the rows along the length that varies more, until each part is a batch."""
    if len(rows) <= batch_size:
        return [rows]
    spreads = np.ptp(lengths[:, rows], axis=1)
    rows = rows[np.argsort(lengths[np.argmax(spreads), rows], kind="stable")]
    middle = num_batches(len(rows), batch_size=batch_size) // 2 * batch_size
    return [
        *_part(rows[:middle], lengths, batch_size),
        *_part(rows[middle:], lengths, batch_size),
    ]


def cut_micro_batches(visits: Visits, *, lengths: IntArray, shape: BatchShape) -> list[Visits]:
    """Cut a global batch into micro batches of rows of similar length.

    Args:
        visits: The batch's rows.
        lengths: Tokens of each of these rows, prompt and target.
        shape: How to cut; the cut is made finer until each part fits the token budget.

    Returns:
        A multiple of ``shape.num_workers`` parts, longest rows first; parts may be empty.
    """
    order = np.argsort(-lengths, kind="stable")
    num_parts = shape.num_micro
    while True:
        parts = np.array_split(order, num_parts)
        fits = all(
            len(part) <= 1 or len(part) * lengths[part[0]] <= shape.token_budget for part in parts
        )
        if fits:
            return [visits[part] for part in parts]
        num_parts += shape.num_workers


def rows_of_micro_batch(parts: Sequence[Visits], number: int) -> tuple[Visits, bool]:
    """Rows of a micro batch, and whether they count.

    Args:
        parts: Rows of each micro batch of a step.
        number: Which; one that is empty or past the end has a row all the same, to keep its
            worker in step with the others.
    """
    if number < len(parts) and len(parts[number]):
        return parts[number], True
    return parts[0][:1], False


@dataclass(frozen=True)
class Batch:
    """Padded rows as tensors; all int64.

    Args:
        rows: Places of the rows in the token table, shape ``(rows,)``.
        input_ids: Prompts, shape ``(rows, prompt_length)``.
        attention_mask: 1 at real tokens, same shape.
        pooled_mask: 1 at tokens of the input and the end of text, same shape.
        decoder_input_ids: Targets moved right by one, shape ``(rows, target_length)``.
        labels: Targets, padding as -100, same shape.
        is_counted: Whether the rows count; a batch that only keeps workers in step does not.
        passes: The pass that each row's visit belongs to, shape ``(rows,)`` or one for all.
    """

    rows: IntArray
    input_ids: Tensor
    attention_mask: Tensor
    pooled_mask: Tensor
    decoder_input_ids: Tensor
    labels: Tensor
    is_counted: bool = True
    passes: IntArray | int = 0

    def model_inputs(self, device: torch.device) -> dict[str, Any]:
        """What a T5's forward pass takes.

        Args:
            device: Where the model is.
        """
        tensors = {
            "input_ids": self.input_ids,
            "attention_mask": self.attention_mask,
            "decoder_input_ids": self.decoder_input_ids,
        }
        sent = {name: to_device(tensor, device) for name, tensor in tensors.items()}
        return {**sent, "use_cache": False}

    @property
    def num_tokens(self) -> int:
        """Real tokens, prompts and targets."""
        return int(self.attention_mask.sum() + (self.labels != IGNORED_LABEL).sum())

    @property
    def num_padded(self) -> int:
        """Places in the tensors, padding included."""
        return self.input_ids.numel() + self.labels.numel()


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on a device; a GPU is sent it while both go on with other things.

    Args:
        tensor: On the CPU.
        device: Where it is wanted.
    """
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@dataclass(frozen=True)
class SpecialIds:
    """Ids that the tensors need.

    Args:
        pad: Padding.
        eos: End of text.
        start: First token of every answer.
        blank: The blank before an input where it is a token of its own, else None.
    """

    pad: int
    eos: int
    start: int
    blank: int | None


def summed_loss(logits: Tensor, *, labels: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy of all target tokens, summed, in nats; padding counts nothing.

    Args:
        logits: Shape ``(rows, target_length, vocabulary)``, any float type.
        labels: Token ids, padding as -100, shape ``(rows, target_length)``.
        smoothing: Share of each target's probability that is spread over all tokens.
    """
    return cross_entropy(
        logits.float().flatten(0, 1),
        labels.flatten(),
        ignore_index=IGNORED_LABEL,
        reduction="sum",
        label_smoothing=smoothing,
    )


class Collator:
    """Makes tensors of rows of a token table.

    Args:
        table: The token table.
        prefixes: Token ids of instructions and reaction types.
        special: Ids that the tensors need.
    """

    def __init__(self, table: TokenTable, *, prefixes: PrefixTable, special: SpecialIds) -> None:
        self._table = table
        self._prefixes = prefixes
        self._special = special

    def __call__(
        self,
        rows: IntArray,
        *,
        templates: Sequence[int] | IntArray,
        passes: IntArray | int = 0,
        is_counted: bool = True,
    ) -> Batch:
        """Pad these rows.

        Args:
            rows: Places in the token table, at least one.
            templates: Place of the instruction of each row.
            passes: Number of each row's spelling, or one for all; counted round.
            is_counted: False for a batch whose loss is zero whatever it says.
        """
        spellings = np.broadcast_to(passes, len(rows))
        prompts, starts = self._prompts(rows, templates, spellings)
        targets = [
            self._table.targets.ids(row, spelling=spelling)
            for row, spelling in zip(rows, spellings, strict=True)
        ]
        input_ids = _pad(prompts, self._special.pad)
        columns = np.arange(input_ids.shape[1])
        ends = np.array([len(prompt) for prompt in prompts])[:, None]
        labels = _pad(targets, IGNORED_LABEL)
        shifted = [np.concatenate([[self._special.start], target[:-1]]) for target in targets]
        if not is_counted:
            labels[:] = IGNORED_LABEL
        return Batch(
            rows=rows,
            input_ids=torch.from_numpy(input_ids),
            attention_mask=_mask(columns < ends),
            pooled_mask=_mask((columns >= np.array(starts)[:, None]) & (columns < ends)),
            decoder_input_ids=torch.from_numpy(_pad(shifted, self._special.pad)),
            labels=torch.from_numpy(labels),
            is_counted=is_counted,
            passes=passes,
        )

    def plain_inputs(self, rows: IntArray) -> list[list[int]]:
        """Token ids of the inputs alone, as the encoder sees them when instructions are chosen."""
        return [
            [*self._table.inputs.ids(row)[self._num_blank(row) :].tolist(), self._special.eos]
            for row in rows
        ]

    def _prompts(
        self, rows: IntArray, templates: Sequence[int] | IntArray, spellings: IntArray
    ) -> tuple[list[Any], list[int]]:
        prompts, starts = [], []
        for row, template, spelling in zip(rows, templates, spellings, strict=True):
            prefix = self._prefixes.ids(
                task=int(self._table.tasks[row]),
                template=int(template),
                reaction_type=int(self._table.reaction_types[row]),
            )
            input_ids = self._table.inputs.ids(row, spelling=spelling)
            prompts.append(np.concatenate([prefix, input_ids, [self._special.eos]]))
            starts.append(len(prefix) + self._num_blank(row))
        return prompts, starts

    def _num_blank(self, row: int) -> int:
        return int(self._table.inputs.ids(row)[0] == self._special.blank)


def _pad(rows: Sequence[Any], value: int) -> IntArray:
    padded = np.full((len(rows), max(map(len, rows))), value, dtype=np.int64)
    for place, row in enumerate(rows):
        padded[place, : len(row)] = row
    return padded


def _mask(condition: Any) -> Tensor:
    return torch.from_numpy(condition.astype(np.int64))
