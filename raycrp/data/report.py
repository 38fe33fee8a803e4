"""The data report: what was read, kept and rejected, how long rows are, what splits share."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from raycrp.choices import Task
from raycrp.data.split import SPLITS, SharedReactions
from raycrp.data.tables import ROWS_DIR
from raycrp.run import RunFolder
from raycrp.schemas import RtSplit, Split

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class SplitCounts:
    """Rows and reactions kept, by split and task.

    Args:
        rows: Rows by split and task.
        reactions: Distinct reactions by split.
        rt_reactions: Distinct reactions of D'_train, D'_valid and D'_test.
    """

    rows: Mapping[Split, Mapping[Task, int]]
    reactions: Mapping[Split, int]
    rt_reactions: Mapping[RtSplit, int]


@dataclass(frozen=True)
class TokenCounts:
    """Lengths of the kept rows in tokens, and how many tokens are unknown.

    Args:
        lengths: By task and by ``input`` or ``output``: p50, p90, p99 and max.
        unk_rate: Share of ``<unk>`` among all tokens.
    """

    lengths: Mapping[Task, Mapping[str, Mapping[str, int]]]
    unk_rate: float


def count_splits(run: RunFolder) -> SplitCounts:
    """Count what the split tables hold."""
    rows = {split: dict.fromkeys(Task, 0) for split in SPLITS}
    reactions: dict[Split, set[str]] = {split: set() for split in SPLITS}
    rt_reactions: dict[RtSplit, set[str]] = {split: set() for split in RtSplit}
    for split in SPLITS:
        for part in _parts(run, split, ["task", "reaction_key", "rt_split"]):
            for task, key, rt_split in zip(*part, strict=True):
                rows[split][Task(task)] += 1
                reactions[split].add(key)
                if rt_split is not None:
                    rt_reactions[RtSplit(rt_split)].add(key)
    return SplitCounts(
        rows=rows,
        reactions={split: len(keys) for split, keys in reactions.items()},
        rt_reactions={split: len(keys) for split, keys in rt_reactions.items()},
    )


def iter_texts(run: RunFolder, split: Split) -> Iterator[str]:
    """Inputs and outputs of a split's rows."""
    for inputs, outputs in _parts(run, split, ["input", "output"]):
        yield from inputs
        yield from outputs


def count_tokens(run: RunFolder, *, tokenizer: "PreTrainedTokenizerBase") -> TokenCounts:
    """Tokenise every kept row.

    Args:
        run: The run folder with the split tables.
        tokenizer: LLM-CRP's.
    """
    lengths = {(task, side): array("q") for task in Task for side in ("input", "output")}
    num_tokens = num_unknown = 0
    for split in SPLITS:
        for tasks, *sides in _parts(run, split, ["task", "input", "output"]):
            for side, texts in zip(("input", "output"), sides, strict=True):
                rows = tokenizer(texts, return_attention_mask=False)["input_ids"] if texts else []
                for task, row in zip(tasks, rows, strict=True):
                    lengths[Task(task), side].append(len(row))
                    num_unknown += row.count(tokenizer.unk_token_id)
                    num_tokens += len(row)
    return TokenCounts(
        lengths={
            task: {side: _percentiles(lengths[task, side]) for side in ("input", "output")}
            for task in Task
            if lengths[task, "input"]
        },
        unk_rate=num_unknown / num_tokens if num_tokens else 0.0,
    )


def leak_rows(shared: Sequence[SharedReactions]) -> list[dict[str, Any]]:
    """The leak table as JSON-ready rows."""
    return [
        {
            "splits": [row.first[0].value, row.second[0].value],
            "tasks": [row.first[1].value, row.second[1].value],
            "shared_reactions": row.num_found,
            "left": row.num_left,
        }
        for row in shared
    ]


def report_text(report: Mapping[str, Any]) -> str:
    """The data report for people.

    Args:
        report: Contents of ``data/report.json``.
    """
    lines = [
        "data report",
        f"  rows in {report['rows_in']:,} = kept {report['rows_out']:,} + rejected "
        f"{report['rejected']:,} + not sampled {report['not_sampled']:,} "
        f"(repaired {report['repaired']:,}, repeated ids {report['repeated_ids']:,})",
    ]
    for split, counts in report["splits"].items():
        tasks = ", ".join(f"{task} {n:,}" for task, n in counts["rows"].items() if n)
        lines.append(f"  {split}: {counts['reactions']:,} reactions; rows: {tasks or 'none'}")
    rt_splits = ", ".join(f"{name} {n:,}" for name, n in report["rt_splits"].items())
    lines.append(f"  of train: {rt_splits} reactions")
    for reason, count in report["rejected_by_reason"].items():
        lines.append(f"  rejected {reason}: {count:,} (first: {report['reject_examples'][reason]})")
    for task, sides in report["tokens"].items():
        parts = [
            f"{side} " + " ".join(f"{name} {value}" for name, value in values.items())
            for side, values in sides.items()
        ]
        lines.append(f"  tokens, {task}: {'; '.join(parts)}")
    lines.append(f"  <unk> rate {report['unk_rate']:.6f}")
    return "\n".join([*lines, *_leak_lines(report["leak_table"])])


def _leak_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return ["  no reaction is in two splits"]
    return [
        f"  shared reactions: {row['splits'][0]} {row['tasks'][0]} with {row['splits'][1]} "
        f"{row['tasks'][1]}: {row['shared_reactions']:,}, left {row['left']:,}"
        for row in rows
    ]


def _percentiles(lengths: "array[int]") -> dict[str, int]:
    values = np.percentile(np.array(lengths), _PERCENTILES, method="inverted_cdf")
    named = {f"p{p}": int(value) for p, value in zip(_PERCENTILES, values, strict=True)}
    return {**named, "max": max(lengths)}


def _parts(run: RunFolder, split: Split, columns: list[str]) -> Iterator[list[list[Any]]]:
    for name in run.list_names(f"{ROWS_DIR}/{split}"):
        table = run.read_table(f"{ROWS_DIR}/{split}/{name}", columns)
        yield [table[column].to_pylist() for column in columns]
