"""The table of metrics, scores of a run per task with intervals, and how they are written down."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

import numpy as np
from numpy.typing import NDArray

from raycrp.choices import Spelling, Task
from raycrp.evaluate import molecule_metrics, text_metrics
from raycrp.evaluate.bootstrap import (
    Estimate,
    Interval,
    Reduce,
    bootstrap_intervals,
    ratio_of_sums,
)
from raycrp.evaluate.molecule_metrics import Answers

ALL_TASKS = "all"


class Block(StrEnum):
    """Which definitions a metric follows."""

    PUBLISHED = "published"
    STRICT = "strict"


@dataclass(frozen=True)
class Metric:
    """One score of a run.

    Args:
        title: Name in tables.
        block: Which definitions it follows.
        statistics: One value a row, or the statistics that ``reduce`` takes sums of.
        reduce: From summed statistics to the score; the mean over rows if None.
        is_share: Whether the score lies in [0, 1].
        answers_needed: Answers of each row that the metric looks at.
        needs_round_trips: Whether it is about round trips, which only retrosynthesis has.
    """

    title: str
    block: Block
    statistics: Callable[[Answers], NDArray[np.float64]]
    reduce: Reduce | None = None
    is_share: bool = True
    answers_needed: int = 1
    needs_round_trips: bool = False


@dataclass(frozen=True)
class AnsweredRow:
    """A test row with its answers.

    Args:
        reaction_key: The reaction; rows of one reaction are resampled together.
        task: The task.
        output: The right answer, as written in the data.
        predictions: Answers as decoded, best first.
        round_trips: Whether each passes its round trip; None where that was not asked.
        input: What was asked, canonical; rows of different inputs never repeat each other, such as
            those of one reaction with other reagents.
    """

    reaction_key: str
    task: str
    output: str
    predictions: tuple[str, ...]
    round_trips: tuple[bool, ...] | None = None
    input: str = ""


@dataclass(frozen=True)
class Score:
    """One metric of one task, or of the tasks together.

    Args:
        task: A task, or ``all``.
        block: Which definitions the metric follows.
        metric: Its name in ``METRICS``.
        interval: Value and 95 % interval.
        num_rows: Rows scored.
        num_reactions: Different reactions among them.
    """

    task: str
    block: str
    metric: str
    interval: Interval
    num_rows: int
    num_reactions: int


def _bleu(answers: Answers) -> NDArray[np.float64]:
    return text_metrics.bleu_statistics(answers.first, truths=answers.truths)


def _meteor(answers: Answers) -> NDArray[np.float64]:
    return text_metrics.meteor_scores(answers.first, truths=answers.truths)


def _component(answers: Answers, *, column: int) -> NDArray[np.float64]:
    return molecule_metrics.component_scores(answers)[:, column]


def _round_trip(
    title: str, statistics: Callable[[Answers], NDArray[np.float64]], reduce: Reduce | None = None
) -> Metric:
    return Metric(title, Block.STRICT, statistics, reduce=reduce, needs_round_trips=True)


def _strict_exact(title: str, *, top: int, flat: bool = False) -> Metric:
    function = molecule_metrics.strict_exact_flat if flat else molecule_metrics.strict_exact
    return Metric(title, Block.STRICT, partial(function, top=top), answers_needed=top)


METRICS: Mapping[str, Metric] = {
    "bleu": Metric("BLEU", Block.PUBLISHED, _bleu, reduce=text_metrics.bleu_of_sums),
    "meteor": Metric("METEOR", Block.PUBLISHED, _meteor),
    "exact_match": Metric("EM", Block.PUBLISHED, molecule_metrics.published_exact),
    "similarity": Metric(
        "Similarity", Block.PUBLISHED, molecule_metrics.published_similarity, reduce=ratio_of_sums
    ),
    "validity": Metric("Validity", Block.PUBLISHED, molecule_metrics.published_valid),
    "exact_top1": _strict_exact("Exact top 1", top=1),
    "exact_top3": _strict_exact("Exact top 3", top=3),
    "exact_top5": _strict_exact("Exact top 5", top=5),
    "exact_top10": _strict_exact("Exact top 10", top=10),
    "exact_flat_top1": _strict_exact("Exact top 1, no stereo", top=1, flat=True),
    "exact_flat_top3": _strict_exact("Exact top 3, no stereo", top=3, flat=True),
    "exact_flat_top5": _strict_exact("Exact top 5, no stereo", top=5, flat=True),
    "exact_flat_top10": _strict_exact("Exact top 10, no stereo", top=10, flat=True),
    "reciprocal_rank": Metric(
        "Mean reciprocal rank", Block.STRICT, molecule_metrics.reciprocal_rank
    ),
    "component_precision": Metric(
        "Component precision", Block.STRICT, partial(_component, column=0)
    ),
    "component_recall": Metric("Component recall", Block.STRICT, partial(_component, column=1)),
    "component_f1": Metric("Component F1", Block.STRICT, partial(_component, column=2)),
    "symmetric_similarity": Metric(
        "Symmetric similarity", Block.STRICT, molecule_metrics.symmetric_similarity
    ),
    "strict_validity": Metric(
        "Validity, empty is invalid", Block.STRICT, molecule_metrics.strict_valid
    ),
    "distinct_valid": Metric(
        "Distinct valid answers", Block.STRICT, molecule_metrics.num_distinct_valid, is_share=False
    ),
    "round_trip_top1": _round_trip("Round trip, best answer", molecule_metrics.round_trip_first),
    "round_trip": _round_trip(
        "Round trip, all answers", molecule_metrics.round_trip_share, reduce=ratio_of_sums
    ),
    "coverage": _round_trip("Coverage", molecule_metrics.coverage),
}
"""Every metric by its name in the score table; a new one is a function and an entry here."""


def score_tasks(
    rows: Sequence[AnsweredRow], *, num_answers: int, num_resamples: int, seed: int
) -> list[Score]:
    """Score each task and, where there are several, all rows together.

    The block ``published`` takes every row, as published scores do. In the block ``strict`` a row
    that repeats another (same task, reaction, input, right molecules and answered molecules) counts
    once.

    Args:
        rows: Answered rows of any tasks.
        num_answers: Answers asked for each row; metrics that need more are left out.
        num_resamples: Bootstrap draws behind each interval.
        seed: Seed of the draws.

    Returns:
        Scores in the order of tasks, then of ``METRICS``; none where there are no rows.
    """
    tasks = [task.value for task in Task if any(row.task == task for row in rows)]
    groups = {task: [row for row in rows if row.task == task] for task in tasks}
    if len(tasks) > 1:
        groups[ALL_TASKS] = list(rows)
    return [
        score
        for task, group in groups.items()
        for block in Block
        for score in _score_block(
            group,
            task=task,
            block=block,
            num_answers=num_answers,
            num_resamples=num_resamples,
            seed=seed,
        )
    ]


@dataclass(frozen=True)
class PairedScores:
    """Scores of several runs on the same rows, as functions of sums over rows.

    Args:
        metrics: Names of the scores.
        runs: For each run one estimate a score.
        clusters: Reaction key of each row.
    """

    metrics: Sequence[str]
    runs: Sequence[Sequence[Estimate]]
    clusters: Sequence[str]

    @property
    def num_rows(self) -> int:
        """Rows scored."""
        return len(self.clusters)


def pair_scores(
    runs: Sequence[Sequence[AnsweredRow]], *, block: Block, num_answers: int
) -> PairedScores:
    """Score several runs on the same rows.

    In the block ``strict`` a row counts once with all that repeat it: the same task, reaction,
    input, right molecules, and answered molecules in every run.

    Args:
        runs: For each run the same rows in the same order, with its own answers.
        block: Which definitions to follow.
        num_answers: Answers asked for each row; metrics that need more are left out.
    """
    places = _distinct_places(runs) if block is Block.STRICT else list(range(len(runs[0])))
    kept = [[rows[place] for place in places] for rows in runs]
    answers = [_answers_of(rows) for rows in kept]
    metrics = _metrics_of(block, num_answers=num_answers, answers=answers)
    return PairedScores(
        metrics=list(metrics),
        runs=[[_estimate(metric, each) for metric in metrics.values()] for each in answers],
        clusters=[row.reaction_key for row in kept[0]],
    )


def distinct_rows(rows: Sequence[AnsweredRow]) -> list[AnsweredRow]:
    """Rows without those that repeat an earlier one, molecule by molecule."""
    return [rows[place] for place in _distinct_places([rows])]


def spelling_note(spelling: Spelling) -> str:
    """What is to be said of published scores where a model was taught other spellings; else empty.

    Args:
        spelling: How the molecules of its training rows were written.
    """
    if spelling is not Spelling.ALIGNED:
        return ""
    return (
        "too low, since the model was taught to write molecules from the atoms of its input "
        "(train.spelling=aligned), and other spellings of right molecules count as wrong; the "
        "strict scores are not touched"
    )


def scores_as_json(scores: Sequence[Score]) -> dict[str, dict[str, dict[str, object]]]:
    """Scores by task, block and metric, JSON-ready."""
    nested: dict[str, dict[str, dict[str, object]]] = {}
    for score in scores:
        block = nested.setdefault(score.task, {}).setdefault(score.block, {})
        block[score.metric] = {
            "value": score.interval.value,
            "low": score.interval.low,
            "high": score.interval.high,
            "num_rows": score.num_rows,
            "num_reactions": score.num_reactions,
        }
    return nested


def scores_as_markdown(scores: Sequence[Score]) -> str:
    """One Markdown table a block: a row a metric, a column a task, each with its interval."""
    tasks = list(dict.fromkeys(score.task for score in scores))
    cells = {(score.task, score.metric): format_score(score) for score in scores}
    lines: list[str] = []
    for block in Block:
        in_block = [score for score in scores if score.block == block]
        if not in_block:
            continue
        names = list(dict.fromkeys(score.metric for score in in_block))
        counts = {score.task: score.num_rows for score in in_block}
        header = [f"{task} (n = {counts[task]:,})" for task in tasks]
        lines += [f"### {block.value.capitalize()} definitions", ""]
        lines += _markdown_row(["metric", *header])
        lines += _markdown_row(["---", *["---:"] * len(tasks)])
        for name in names:
            row = [cells.get((task, name), "") for task in tasks]
            lines += _markdown_row([METRICS[name].title, *row])
        lines.append("")
    return "\n".join(lines)


def format_score(score: Score) -> str:
    """Value and interval as text, such as ``.926 [.911, .940]``."""
    return format_interval(score.interval)


def format_interval(interval: Interval) -> str:
    """An interval as text, such as ``.926 [.911, .940]``."""
    return f"{_number(interval.value)} [{_number(interval.low)}, {_number(interval.high)}]"


def _score_block(
    rows: Sequence[AnsweredRow],
    *,
    task: str,
    block: Block,
    num_answers: int,
    num_resamples: int,
    seed: int,
) -> list[Score]:
    kept = distinct_rows(rows) if block is Block.STRICT else list(rows)
    answers, clusters = _answers_of(kept), [row.reaction_key for row in kept]
    metrics = _metrics_of(block, num_answers=num_answers, answers=[answers])
    intervals = bootstrap_intervals(
        [_estimate(metric, answers) for metric in metrics.values()],
        clusters=clusters,
        num_resamples=num_resamples,
        seed=seed,
    )
    counts = {"num_rows": len(kept), "num_reactions": len(set(clusters))}
    return [
        Score(task, block.value, name, interval, **counts)
        for name, interval in zip(metrics, intervals, strict=True)
    ]


def _metrics_of(block: Block, *, num_answers: int, answers: Sequence[Answers]) -> dict[str, Metric]:
    """Metrics of a block that these answers can be scored by."""
    has_round_trips = all(each.has_round_trips for each in answers)
    return {
        name: metric
        for name, metric in METRICS.items()
        if metric.block is block
        and metric.answers_needed <= num_answers
        and (has_round_trips or not metric.needs_round_trips)
    }


def _distinct_places(runs: Sequence[Sequence[AnsweredRow]]) -> list[int]:
    answers = [_answers_of(rows) for rows in runs]
    known: dict[tuple[object, ...], int] = {}
    for place, row in enumerate(runs[0]):
        answered = tuple(tuple(each.answered_molecules[place]) for each in answers)
        truth = answers[0].true_molecules[place]
        known.setdefault((row.task, row.reaction_key, row.input, truth, answered), place)
    return list(known.values())


def _answers_of(rows: Sequence[AnsweredRow]) -> Answers:
    return Answers(
        [row.output for row in rows],
        [row.predictions for row in rows],
        [row.round_trips for row in rows],
    )


def _estimate(metric: Metric, answers: Answers) -> Estimate:
    statistics = metric.statistics(answers)
    if metric.reduce is not None:
        return Estimate(statistics, metric.reduce, metric.is_share)
    counted = np.stack([statistics, np.ones(len(statistics))], axis=1)
    return Estimate(counted, ratio_of_sums, metric.is_share)


def _number(value: float) -> str:
    text = f"{value:.3f}"
    if text == "-0.000":
        text = "0.000"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def _markdown_row(cells: Sequence[str]) -> list[str]:
    return ["| " + " | ".join(cells) + " |"]
