"""Paired differences between two runs: every score, on the test rows that both answered."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import yaml

from raycrp.choices import Spelling, Task
from raycrp.errors import RunError
from raycrp.evaluate.bootstrap import Interval, bootstrap_differences, bootstrap_intervals
from raycrp.evaluate.prompt_job import PREDICTIONS_DIR
from raycrp.evaluate.tables import (
    ALL_TASKS,
    METRICS,
    AnsweredRow,
    Block,
    PairedScores,
    format_interval,
    pair_scores,
    spelling_note,
)
from raycrp.run import STARTED, SUCCESS, RunFolder
from raycrp.schemas import Split

_COLUMNS = ["row_id", "reaction_key", "task", "input", "output"]
_TEST_ROWS = f"prompt/{Split.TEST}"


class RowKey(NamedTuple):
    """What makes rows of two runs the same test row.

    Attributes:
        task: The task.
        reaction_key: The reaction.
        input: What was asked.
        output: What is right.
        repeat: How many rows before it say the same.
    """

    task: str
    reaction_key: str
    input: str
    output: str
    repeat: int


@dataclass(frozen=True)
class Difference:
    """One score of both runs, and how far they are apart.

    Args:
        task: A task, or ``all``.
        block: Which definitions the metric follows.
        metric: Its name in ``METRICS``.
        first: Score of the first run.
        second: Score of the second run.
        difference: Second minus first, paired by reaction.
        num_rows: Rows scored.
        num_reactions: Different reactions among them.
    """

    task: str
    block: str
    metric: str
    first: Interval
    second: Interval
    difference: Interval
    num_rows: int
    num_reactions: int

    @property
    def is_clear(self) -> bool:
        """Whether the interval of the difference leaves out 0."""
        return self.difference.low > 0 or self.difference.high < 0


@dataclass(frozen=True)
class Comparison:
    """Two runs on the same test rows.

    Args:
        names: Names of the runs; where they go by the same, what tells them apart.
        num_shared: Rows by task that both answered.
        num_unshared: Rows by task that only the first and only the second run answered.
        differences: All scores.
        notes: What is to be known of the scores.
    """

    names: tuple[str, str]
    num_shared: Mapping[str, int]
    num_unshared: Mapping[str, tuple[int, int]]
    differences: Sequence[Difference]
    notes: Sequence[str] = ()


def compare_runs(
    first: RunFolder, second: RunFolder, *, num_resamples: int, seed: int
) -> Comparison:
    """Compare two scored runs of the same test data.

    Args:
        first: A run folder with the evaluate stage done.
        second: Another one.
        num_resamples: Bootstrap draws behind each interval.
        seed: Seed of the draws.

    Raises:
        RunError: If a run is not scored, or the runs have other test data.
    """
    tasks = _shared_tasks(first, second)
    _check_same_data(first, second, tasks=tasks)
    rows = [_read_rows(run, tasks=tasks) for run in (first, second)]
    shared = [key for key in rows[0] if key in rows[1]]
    if not shared:
        raise RunError(
            f"{first.uri()} and {second.uri()} answered no test row in common; score both with "
            "the same evaluate.max_rows and run.seed"
        )
    pairs = [(rows[0][key], rows[1][key]) for key in shared]
    num_shared = Counter(key.task for key in shared)
    names = (first.name, second.name)
    if first.name == second.name:
        names = (first.uri(), second.uri())
    return Comparison(
        names=names,
        num_shared={task: num_shared[task] for task in tasks},
        num_unshared={
            task: (
                sum(key.task == task and key not in rows[1] for key in rows[0]),
                sum(key.task == task and key not in rows[0] for key in rows[1]),
            )
            for task in tasks
        },
        differences=_compare_tasks(pairs, num_resamples=num_resamples, seed=seed),
        notes=[
            f"published scores of {name}: {note}"
            for name, run in zip(names, (first, second), strict=True)
            if (note := _spelling_note(run))
        ],
    )


def comparison_as_json(comparison: Comparison) -> dict[str, Any]:
    """A comparison, JSON-ready: row counts, then scores by task, block and metric."""
    scores: dict[str, Any] = {}
    for each in comparison.differences:
        block = scores.setdefault(each.task, {}).setdefault(each.block, {})
        block[each.metric] = {
            "first": asdict(each.first),
            "second": asdict(each.second),
            "difference": asdict(each.difference),
            "num_rows": each.num_rows,
            "num_reactions": each.num_reactions,
        }
    return {
        "runs": list(comparison.names),
        "shared_rows": dict(comparison.num_shared),
        "rows_of_one_run_alone": {
            task: list(counts) for task, counts in comparison.num_unshared.items()
        },
        "notes": list(comparison.notes),
        "scores": scores,
    }


def comparison_as_markdown(comparison: Comparison) -> str:
    """A comparison as Markdown: a table a block and task."""
    first, second = comparison.names
    lines = [f"# {second} against {first}", ""]
    for task, number in comparison.num_shared.items():
        alone = comparison.num_unshared[task]
        lines.append(
            f"- {task}: {number:,} rows shared; {alone[0]:,} answered by {first} alone and "
            f"{alone[1]:,} by {second} alone are left out"
        )
    lines += [f"- {note}" for note in comparison.notes]
    lines += [
        "",
        "Differences are second minus first, paired by reaction, with 95 % bootstrap intervals; "
        "**bold** where the interval leaves out 0. Of many differences, one in twenty does so by "
        "chance.",
        "",
    ]
    for block in Block:
        for task in dict.fromkeys(each.task for each in comparison.differences):
            lines += _table(comparison, task=task, block=block)
    return "\n".join(lines)


def _table(comparison: Comparison, *, task: str, block: Block) -> list[str]:
    rows = [e for e in comparison.differences if e.task == task and e.block == block]
    if not rows:
        return []
    first, second = comparison.names
    counts = f"{rows[0].num_rows:,} rows of {rows[0].num_reactions:,} reactions"
    lines = [
        f"### {task.capitalize()}, {block} definitions ({counts})",
        "",
        f"| metric | {first} | {second} | difference |",
        "| --- | ---: | ---: | ---: |",
    ]
    for each in rows:
        difference = format_interval(each.difference)
        cells = [
            METRICS[each.metric].title,
            format_interval(each.first),
            format_interval(each.second),
            f"**{difference}**" if each.is_clear else difference,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def _compare_tasks(
    pairs: Sequence[tuple[AnsweredRow, AnsweredRow]], *, num_resamples: int, seed: int
) -> list[Difference]:
    present = {row.task for row, _ in pairs}
    tasks = [task.value for task in Task if task.value in present]
    groups: dict[str, list[tuple[AnsweredRow, AnsweredRow]]] = {
        task: [pair for pair in pairs if pair[0].task == task] for task in tasks
    }
    if len(tasks) > 1:
        groups[ALL_TASKS] = list(pairs)
    num_answers = min(_num_answers([pair[place] for pair in pairs]) for place in (0, 1))
    return [
        difference
        for task, group in groups.items()
        for block in Block
        for difference in _compare_block(
            task,
            pair_scores(
                [[_cut(pair[place], num_answers) for pair in group] for place in (0, 1)],
                block=block,
                num_answers=num_answers,
            ),
            block=block,
            num_resamples=num_resamples,
            seed=seed,
        )
    ]


def _compare_block(
    task: str, scores: PairedScores, *, block: Block, num_resamples: int, seed: int
) -> list[Difference]:
    settings: dict[str, Any] = {
        "clusters": scores.clusters,
        "num_resamples": num_resamples,
        "seed": seed,
    }
    first, second = (bootstrap_intervals(estimates, **settings) for estimates in scores.runs)
    differences = bootstrap_differences(*scores.runs, **settings)
    return [
        Difference(
            task=task,
            block=block.value,
            metric=name,
            first=one,
            second=two,
            difference=difference,
            num_rows=scores.num_rows,
            num_reactions=len(set(scores.clusters)),
        )
        for name, one, two, difference in zip(
            scores.metrics, first, second, differences, strict=True
        )
    ]


def _num_answers(rows: Sequence[AnsweredRow]) -> int:
    return max(len(row.predictions) for row in rows)


def _cut(row: AnsweredRow, num_answers: int) -> AnsweredRow:
    """The row as if no more answers had been asked for, lest more of them score better."""
    trips = row.round_trips
    return replace(
        row,
        predictions=row.predictions[:num_answers],
        round_trips=None if trips is None else trips[:num_answers],
    )


def _shared_tasks(first: RunFolder, second: RunFolder) -> list[str]:
    both = []
    for run in (first, second):
        if not run.list_names(PREDICTIONS_DIR):
            raise RunError(
                f"{run.uri()} has no predictions; give a run whose evaluate stage is done"
            )
        if run.exists(f"evaluate/{STARTED}") and not run.exists(f"evaluate/{SUCCESS}"):
            raise RunError(
                f"{run.uri()} has answered a part of its test rows only; repeat its command, which "
                "goes on with the evaluate stage"
            )
        table = run.read_table(PREDICTIONS_DIR, columns=["task"])
        both.append(set(table["task"].unique().to_pylist()))
    shared = [task.value for task in Task if task.value in both[0] & both[1]]
    if not shared:
        raise RunError(
            f"{first.uri()} answers {', '.join(sorted(both[0]))} and {second.uri()} "
            f"{', '.join(sorted(both[1]))}; runs must have a task in common"
        )
    return shared


def _spelling_note(run: RunFolder) -> str:
    """What is to be said of a run's published scores; its settings may be of another version."""
    if not run.exists("config.yaml"):
        return ""
    settings = yaml.safe_load(run.read_bytes("config.yaml"))
    spelling = settings.get("train", {}).get("spelling", Spelling.CANONICAL)
    return spelling_note(Spelling(spelling))


def _check_same_data(first: RunFolder, second: RunFolder, *, tasks: Sequence[str]) -> None:
    """Refuse runs whose whole test splits, answered or not, differ."""
    both = [
        _number_rows(run.read_table(_TEST_ROWS, columns=_COLUMNS).to_pylist(), tasks=tasks)
        for run in (first, second)
    ]
    alone = (both[0].keys() - both[1].keys(), both[1].keys() - both[0].keys())
    if any(alone):
        raise RunError(
            f"{first.uri()} and {second.uri()} have other test data: {len(alone[0]):,} of "
            f"{len(both[0]):,} test rows are in the first alone, {len(alone[1]):,} of "
            f"{len(both[1]):,} in the second alone; compare runs with the same data settings "
            "and run.seed"
        )


def _read_rows(run: RunFolder, *, tasks: Sequence[str]) -> dict[RowKey, AnsweredRow]:
    table = run.read_table(PREDICTIONS_DIR)
    keyed = _number_rows(table.to_pylist(), tasks=tasks)
    return {
        key: AnsweredRow(
            reaction_key=row["reaction_key"],
            task=row["task"],
            output=row["output"],
            predictions=tuple(row["predictions"]),
            round_trips=None if row["round_trips"] is None else tuple(row["round_trips"]),
            input=row["input"],
        )
        for key, row in keyed.items()
    }


def _number_rows(
    rows: Sequence[Mapping[str, Any]], *, tasks: Sequence[str]
) -> dict[RowKey, Mapping[str, Any]]:
    seen: Counter[tuple[str, ...]] = Counter()
    keyed: dict[RowKey, Mapping[str, Any]] = {}
    for row in sorted(rows, key=lambda each: int(each["row_id"])):
        if row["task"] not in tasks:
            continue
        content = (row["task"], row["reaction_key"], row["input"], row["output"])
        keyed[RowKey(*content, repeat=seen[content])] = row
        seen[content] += 1
    return keyed
