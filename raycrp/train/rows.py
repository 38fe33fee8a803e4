"""The rows that training and validation read, and what each step takes of them."""

from dataclasses import replace

import numpy as np

from raycrp.arrays import IntArray
from raycrp.choices import TooLong
from raycrp.config import TrainConfig
from raycrp.errors import TrainError
from raycrp.run import RunFolder
from raycrp.schemas import Split
from raycrp.train.batches import (
    BatchShape,
    Collator,
    SpecialIds,
    Visits,
    cut_micro_batches,
    num_batches,
    plan_epoch,
)
from raycrp.train.mixing import epoch_shares, mix_epoch
from raycrp.train.token_store import read_tokens
from raycrp.train.tokens import TASKS, PrefixTable, TokenTable

# A blank and one token.
_LEAST_INPUT_TOKENS = 2


class Rows:
    """A split's rows that are short enough, with the means to make batches of them.

    Args:
        run: The run folder, with the token tables written.
        split: Training or validation.
        prefixes: Token ids of instructions and reaction types.
        special: Ids that the tensors need.
        train: Settings of training, for the length limits.

    Raises:
        TrainError: If no row is short enough.
    """

    def __init__(
        self,
        run: RunFolder,
        *,
        split: Split,
        prefixes: PrefixTable,
        special: SpecialIds,
        train: TrainConfig,
    ) -> None:
        table = read_tokens(run, split)
        # The longest prompt that a row may get decides, so that neither the choice of an
        # instruction nor that of a spelling decides whether a row is used.
        self._prefix_lengths = table.longest_prefixes(prefixes) + 1
        longest = self._prefix_lengths + table.inputs.lengths.max(axis=1)
        fits = (longest <= train.max_input_tokens) & (
            table.targets.lengths.max(axis=1) <= train.max_output_tokens
        )
        self.num_cut = 0
        if train.too_long is TooLong.CUT:
            room = train.max_input_tokens - self._prefix_lengths
            has_room = room >= _LEAST_INPUT_TOKENS
            self.num_cut = int((has_room & ~fits).sum())
            fits = has_room
            table = _cut(table, room=np.maximum(room, 1), longest_target=train.max_output_tokens)
        self.table: TokenTable = table
        self.collate = Collator(table, prefixes=prefixes, special=special)
        self.kept: IntArray = np.flatnonzero(fits)
        if not len(self.kept):
            raise TrainError(
                f"all {self.table.num_rows} {split} rows are longer than train.max_input_tokens "
                f"({train.max_input_tokens}) or train.max_output_tokens "
                f"({train.max_output_tokens}); the longest prompt has {longest.max()} tokens"
            )

    @property
    def num_too_long(self) -> int:
        """Rows left out because they are longer than a limit."""
        return self.table.num_rows - len(self.kept)

    @property
    def num_spellings(self) -> int:
        """Spellings of each row."""
        return self.table.inputs.num_spellings

    def text_lengths(
        self, rows: IntArray, *, passes: IntArray | int = 0
    ) -> tuple[IntArray, IntArray]:
        """Tokens of input and of target of these rows, in the spellings of these passes."""
        numbers = passes % self.num_spellings
        inputs = self.table.inputs.lengths[rows, numbers]
        return inputs, self.table.targets.lengths[rows, numbers]

    def lengths(self, rows: IntArray, *, passes: IntArray | int = 0) -> IntArray:
        """Tokens of longest prompt and target of these rows, in the spellings of these passes."""
        inputs, targets = self.text_lengths(rows, passes=passes)
        lengths: IntArray = self._prefix_lengths[rows] + inputs + targets
        return lengths

    def count_targets(self, visits: Visits) -> int:
        """Target tokens of these rows."""
        return int(self.text_lengths(visits.rows, passes=visits.passes)[1].sum())


def _cut(table: TokenTable, *, room: IntArray, longest_target: int) -> TokenTable:
    limits = np.full(table.num_rows, longest_target)
    return replace(
        table,
        inputs=table.inputs.cut(room, keeps_last=False),
        targets=table.targets.cut(limits, keeps_last=True),
    )


class Schedule:
    """What each step trains on; a pure function of seed and step.

    Args:
        rows: The training rows.
        shape: How a global batch is cut.
        seed: Seed of the run.
        temperature: How tasks are mixed, see `epoch_shares`.
    """

    def __init__(
        self, rows: Rows, *, shape: BatchShape, seed: int, temperature: float = 1.0
    ) -> None:
        self._rows = rows
        self._shape = shape
        self._seed = seed
        self._temperature = temperature
        self._planned: tuple[int, list[Visits]] = (-1, [])
        self.steps_per_epoch = num_batches(len(rows.kept), batch_size=shape.batch_size)

    @property
    def rows_per_epoch(self) -> dict[str, int]:
        """Rows that an epoch has of each task; a row that comes up twice counts twice."""
        tasks, counts = np.unique(self._rows.table.tasks[self._rows.kept], return_counts=True)
        shares = epoch_shares(counts, temperature=self._temperature)
        return {
            TASKS[task].value: share
            for task, share in zip(tasks.tolist(), shares.tolist(), strict=True)
        }

    def epoch(self, step: int) -> int:
        """Number of the epoch that a step belongs to, from 0."""
        return step // self.steps_per_epoch

    def starts_epoch(self, step: int) -> bool:
        """Whether a step is the first of an epoch other than the first."""
        return step > 0 and step % self.steps_per_epoch == 0

    def micro_batches(self, step: int) -> list[Visits]:
        """Rows of each micro batch of a step, all workers together; parts may be empty."""
        epoch = self.epoch(step)
        if self._planned[0] != epoch:
            self._planned = (epoch, self._plan(epoch))
        visits = self._planned[1][step % self.steps_per_epoch]
        lengths = self._rows.lengths(visits.rows, passes=visits.passes)
        return cut_micro_batches(visits, lengths=lengths, shape=self._shape)

    def _plan(self, epoch: int) -> list[Visits]:
        kept = self._rows.kept
        places, passes = mix_epoch(
            self._rows.table.tasks[kept],
            temperature=self._temperature,
            seed=self._seed,
            epoch=epoch,
        )
        visits = Visits(kept[places], passes)
        batches = plan_epoch(
            *self._rows.text_lengths(visits.rows, passes=passes),
            batch_size=self._shape.batch_size,
            seed=self._seed,
            epoch=epoch,
        )
        return [visits[batch] for batch in batches]
