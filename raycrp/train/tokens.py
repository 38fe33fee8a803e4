"""Prompts as token ids: made once by Ray Data, read by training workers as flat arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from raycrp.arrays import IntArray
from raycrp.chem.spelling import SpelledPair, aligned_pair, randomized_pair
from raycrp.choices import Spelling, Task
from raycrp.model.tokenizers import load_tokenizer_dir
from raycrp.prompt.stage import LLM_CRP_DIR
from raycrp.prompt.templates import (
    compose_prefix,
    known_templates,
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
        pa.field("is_aligned", pa.bool_(), nullable=False),
        pa.field("input_ids", pa.list_(pa.list_(pa.int32())), nullable=False),
        pa.field("target_ids", pa.list_(pa.list_(pa.int32())), nullable=False),
    ]
)
"""``task`` and ``template`` are places in ``Task`` and in the task's known templates;
``input_ids`` are those of a blank and the input, ``target_ids`` those of the output and the end of
text, one list a spelling."""

TOKENS_DIR = "train/tokens"
TASKS = tuple(Task)

TokenArray = np.ndarray[Any, np.dtype[np.int32]]


@dataclass(frozen=True)
class SpellingSettings:
    """How the molecules of training rows are spelled.

    Args:
        spelling: The kind of spelling.
        num_spellings: Spellings of each training row; an epoch takes the next one.
        seed: Seed of the draws.
    """

    spelling: Spelling
    num_spellings: int
    seed: int


def write_tokens(
    run: RunFolder, *, settings: SpellingSettings, rows_per_shard: int, num_actors: int
) -> None:
    """Tokenise the prompts of the training and validation splits, once.

    Args:
        run: The run folder, with the prompt stage done.
        settings: How the molecules are spelled.
        rows_per_shard: Rows of one shard.
        num_actors: Actors at once.
    """
    map_shards(
        run,
        tables={f"prompt/{split}": TOKENS_DIR for split in (Split.TRAIN, Split.VALIDATION)},
        function=TokenWriter,
        arguments={"run": run, "settings": settings},
        schema=TOKENS,
        rows_per_shard=rows_per_shard,
        num_actors=num_actors,
    )


class TokenWriter:
    """Table function from prompts to token ids; built once in each actor.

    Args:
        run: The run folder, for LLM-CRP's tokenizer.
        settings: How the molecules are spelled.
    """

    def __init__(self, run: RunFolder, settings: SpellingSettings) -> None:
        self._settings = settings
        self._tokenizer = load_tokenizer_dir(run.local_dir(LLM_CRP_DIR))
        self._places = {
            template.id: place
            for task in Task
            for place, template in enumerate(known_templates(task))
        }

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Token ids of these prompts, in their order."""
        spelled = [spell_row(row, settings=self._settings) for row in rows.to_pylist()]
        sources = [[f" {pair.source}" for pair in pairs] for pairs in spelled]
        targets = [[pair.target for pair in pairs] for pairs in spelled]
        end = [self._tokenizer.eos_token_id]
        return pa.table(
            {
                "row_id": rows["row_id"],
                "split": rows["split"],
                "task": [TASKS.index(Task(name)) for name in rows["task"].to_pylist()],
                "template": [self._places[name] for name in rows["template_id"].to_pylist()],
                "reaction_type": rows["reaction_type"],
                "is_aligned": [pairs[0].is_aligned for pairs in spelled],
                "input_ids": [plain_ids(self._tokenizer, texts) for texts in sources],
                "target_ids": [
                    [[*ids, *end] for ids in plain_ids(self._tokenizer, texts)] for texts in targets
                ],
            },
            schema=TOKENS,
        )


def spell_row(row: Mapping[str, Any], *, settings: SpellingSettings) -> list[SpelledPair]:
    """The spellings of a prompt's input and output; the input of the first is canonical.

    Args:
        row: A row of the prompt table.
        settings: How its molecules are spelled; a validation row has one spelling alone.
    """
    source, target = row["input"], row["output"]
    if settings.spelling is Spelling.CANONICAL:
        return [SpelledPair(source, target)]
    num_spellings = settings.num_spellings if row["split"] == Split.TRAIN else 1
    pairs = []
    for number in range(num_spellings):
        rng = None
        if number:
            rng = np.random.default_rng((settings.seed, row["row_id"], number))
        pairs.append(_spell(row, rng=rng, spelling=settings.spelling))
    return pairs


def _spell(
    row: Mapping[str, Any], *, rng: np.random.Generator | None, spelling: Spelling
) -> SpelledPair:
    if spelling is Spelling.ALIGNED:
        return aligned_pair(
            Task(row["task"]),
            source=row["input"],
            target=row["output"],
            mapped_reaction=row["mapped_reaction"],
            rng=rng,
        )
    if rng is None:
        return SpelledPair(row["input"], row["output"])
    return randomized_pair(row["input"], target=row["output"], rng=rng)


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
        part_end: What ends a part of a prompt, where parts are encoded apart.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, part_end: str = "") -> None:
        self._tokenizer = tokenizer
        self._part_end = part_end
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
                known_templates(TASKS[task])[template].text,
                reaction_type_name=(
                    None if reaction_type < 0 else reaction_type_name(TASKS[task], reaction_type)
                ),
                part_end=self._part_end,
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
        inputs: Inputs with the blank before them, by row and spelling.
        targets: Outputs with the end of text, by row and spelling.
        num_aligned: Rows whose target is written from the atoms of the input.
    """

    row_ids: IntArray
    tasks: IntArray
    templates: IntArray
    reaction_types: IntArray
    inputs: "Texts"
    targets: "Texts"
    num_aligned: int = 0

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.row_ids)

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


@dataclass(frozen=True)
class Texts:
    """Token ids of the spellings of many rows in one flat array, which may be a mapped file.

    Args:
        tokens: The texts, in any order.
        starts: Where each text begins, shape ``(num_rows, num_spellings)``.
        lengths: Tokens of each text, same shape.
        ends: Where the last token of each text lies, same shape, if texts are cut short and keep
            it all the same.
    """

    tokens: TokenArray
    starts: IntArray
    lengths: IntArray
    ends: IntArray | None = None

    @property
    def num_spellings(self) -> int:
        """Spellings of each row."""
        return int(self.lengths.shape[1])

    def ids(self, row: int, *, spelling: int = 0) -> TokenArray:
        """Token ids of one text.

        Args:
            row: Place of the row.
            spelling: Number of the spelling; counted round where there are fewer.
        """
        place = (row, spelling % self.num_spellings)
        start = self.starts[place]
        ids = self.tokens[start : start + self.lengths[place]]
        if self.ends is None:
            return ids
        return np.append(ids[:-1], self.tokens[self.ends[place]])

    def cut(self, limits: IntArray, *, keeps_last: bool) -> "Texts":
        """The same texts, none of them longer than its row's limit; no token is copied.

        Args:
            limits: Tokens at most, by row.
            keeps_last: Whether a text that is cut keeps its last token, the end of text.
        """
        return replace(
            self,
            lengths=np.minimum(self.lengths, limits[:, None]),
            ends=self.starts + self.lengths - 1 if keeps_last else None,
        )
