"""Prompts as token ids: made once by Ray Data, held by every training worker as flat arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from transformers import PreTrainedTokenizerBase

from raycrp.config import Task
from raycrp.errors import TrainError
from raycrp.model.tokenizers import load_tokenizer_dir
from raycrp.prompt.stage import LLM_CRP_DIR
from raycrp.prompt.templates import (
    compose_prefix,
    load_templates,
    reaction_type_name,
)
from raycrp.ray_data import map_shards
from raycrp.run import RunFolder
from raycrp.schemas import Split

TOKENS = pa.schema(
    [
        pa.field("row_id", pa.int64(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("task", pa.int8(), nullable=False),
        pa.field("template", pa.int8(), nullable=False),
        pa.field("reaction_type", pa.int32()),
        pa.field("input_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("target_ids", pa.list_(pa.int32()), nullable=False),
    ]
)
"""``task`` and ``template`` are places in ``Task`` and in the task's templates; ``input_ids`` are
those of a blank and the input, ``target_ids`` those of the output and the end of text."""

TOKENS_DIR = "train/tokens"
TASKS = tuple(Task)

IntArray = np.ndarray[Any, np.dtype[np.int64]]
TokenArray = np.ndarray[Any, np.dtype[np.int32]]


def write_tokens(run: RunFolder, *, rows_per_shard: int, num_actors: int) -> None:
    """Tokenise the prompts of the training and validation splits, once.

    Args:
        run: The run folder, with the prompt stage done.
        rows_per_shard: Rows of one shard.
        num_actors: Actors at once.
    """
    map_shards(
        run,
        tables={f"prompt/{split}": TOKENS_DIR for split in (Split.TRAIN, Split.VALIDATION)},
        function=TokenWriter,
        arguments={"run": run},
        schema=TOKENS,
        rows_per_shard=rows_per_shard,
        num_actors=num_actors,
    )


class TokenWriter:
    """Table function from prompts to token ids; built once in each actor.

    Args:
        run: The run folder, for LLM-CRP's tokenizer.
    """

    def __init__(self, run: RunFolder) -> None:
        self._tokenizer = load_tokenizer_dir(run.local_dir(LLM_CRP_DIR))
        self._places = {
            template.id: place
            for templates in load_templates().values()
            for place, template in enumerate(templates)
        }

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Token ids of these prompts, in their order."""
        inputs = [f" {text}" for text in rows["input"].to_pylist()]
        end = [self._tokenizer.eos_token_id]
        return pa.table(
            {
                "row_id": rows["row_id"],
                "split": rows["split"],
                "task": [TASKS.index(Task(name)) for name in rows["task"].to_pylist()],
                "template": [self._places[name] for name in rows["template_id"].to_pylist()],
                "reaction_type": rows["reaction_type"],
                "input_ids": plain_ids(self._tokenizer, inputs),
                "target_ids": [
                    [*ids, *end] for ids in plain_ids(self._tokenizer, rows["output"].to_pylist())
                ],
            },
            schema=TOKENS,
        )


def plain_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts without special tokens."""
    if not texts:
        return []
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return ids


class PrefixTable:
    """Token ids of the part of a prompt before the input, each made once.

    Args:
        tokenizer: LLM-CRP's tokenizer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._known: dict[tuple[int, int, int], TokenArray] = {}

    def ids(self, *, task: int, template: int, reaction_type: int) -> TokenArray:
        """Token ids of instruction and reaction type.

        Args:
            task: Place in ``Task``.
            template: Place in the task's templates.
            reaction_type: Number from 0; -1 leaves the sentence out.
        """
        key = (task, template, reaction_type)
        if key not in self._known:
            text = compose_prefix(
                load_templates()[TASKS[task]][template].text,
                reaction_type_name=(
                    None if reaction_type < 0 else reaction_type_name(TASKS[task], reaction_type)
                ),
            )
            self._known[key] = np.array(plain_ids(self._tokenizer, [text])[0], dtype=np.int32)
        return self._known[key]


@dataclass(frozen=True)
class TokenTable:
    """A split's token ids as flat arrays, in order of ``row_ids``.

    Args:
        row_ids: Shape ``(num_rows,)``, rising.
        tasks: Places in ``Task``.
        templates: Templates that the prompt stage chose.
        reaction_types: Numbers from 0, -1 where the prompt names none.
        input_tokens: All inputs, one after the other.
        input_offsets: Shape ``(num_rows + 1,)``; row ``i`` is ``[offsets[i], offsets[i + 1])``.
        target_tokens: All targets.
        target_offsets: As ``input_offsets``.
    """

    row_ids: IntArray
    tasks: IntArray
    templates: IntArray
    reaction_types: IntArray
    input_tokens: TokenArray
    input_offsets: IntArray
    target_tokens: TokenArray
    target_offsets: IntArray

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.row_ids)

    @property
    def input_lengths(self) -> IntArray:
        """Tokens of each input, the blank before it included."""
        return np.diff(self.input_offsets)

    @property
    def target_lengths(self) -> IntArray:
        """Tokens of each target, the end of text included."""
        return np.diff(self.target_offsets)

    def input_ids(self, row: int) -> TokenArray:
        """Token ids of a blank and a row's input."""
        return self.input_tokens[self.input_offsets[row] : self.input_offsets[row + 1]]

    def target_ids(self, row: int) -> TokenArray:
        """Token ids of a row's output and the end of text."""
        return self.target_tokens[self.target_offsets[row] : self.target_offsets[row + 1]]

    def longest_prefixes(self, prefixes: PrefixTable) -> IntArray:
        """Tokens of the longest prefix that each row may get, whichever instruction is chosen."""
        kinds = np.stack([self.tasks, self.reaction_types], axis=1)
        distinct, inverse = np.unique(kinds, axis=0, return_inverse=True)
        longest = [
            max(
                len(prefixes.ids(task=int(task), template=place, reaction_type=int(kind)))
                for place in range(len(load_templates()[TASKS[task]]))
            )
            for task, kind in distinct
        ]
        return np.array(longest, dtype=np.int64)[inverse.reshape(-1)]


def read_tokens(run: RunFolder, split: Split) -> TokenTable:
    """A split's token table.

    Args:
        run: The run folder.
        split: Training or validation.

    Raises:
        TrainError: If the split has no rows.
    """
    table = run.read_table(TOKENS_DIR)
    table = table.filter(pc.equal(table["split"], split.value)).sort_by("row_id").combine_chunks()
    if not table.num_rows:
        raise TrainError(f"the {split} split has no rows; give more data or a larger share of it")
    inputs, targets = _flat(table["input_ids"]), _flat(table["target_ids"])
    return TokenTable(
        row_ids=table["row_id"].to_numpy(),
        tasks=table["task"].to_numpy().astype(np.int64),
        templates=table["template"].to_numpy().astype(np.int64),
        reaction_types=table["reaction_type"].fill_null(-1).to_numpy().astype(np.int64),
        input_tokens=inputs[0],
        input_offsets=inputs[1],
        target_tokens=targets[0],
        target_offsets=targets[1],
    )


def _flat(column: pa.ChunkedArray) -> tuple[TokenArray, IntArray]:
    lists = column.combine_chunks()
    offsets = lists.offsets.to_numpy().astype(np.int64)
    return lists.flatten().to_numpy(), offsets - offsets[0]
