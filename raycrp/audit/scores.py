"""Scores under each condition of an audit, and what part of a gain survives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raycrp.choices import AuditSource, Task
from raycrp.evaluate.bootstrap import (
    Estimate,
    Interval,
    bootstrap_differences,
    bootstrap_intervals,
)
from raycrp.evaluate.tables import ALL_TASKS, AnsweredRow, Block, pair_scores

MEASURE = "exact_top1"
"""The score in which gains are counted: the strict exact match of the best answer."""

UNINFORMED = (AuditSource.NONE, AuditSource.SHUFFLED, AuditSource.CONSTANT)
"""Sources that tell nothing about the row."""


@dataclass(frozen=True)
class ConditionScore:
    """One score under one condition.

    Args:
        condition: Name of the condition.
        task: A task, or ``all``.
        block: Which definitions the metric follows.
        metric: Its name in ``METRICS``.
        score: Value and interval.
        difference: This condition minus the first one, paired; None for the first itself.
        num_rows: Rows scored.
        num_reactions: Different reactions among them.
    """

    condition: str
    task: str
    block: str
    metric: str
    score: Interval
    difference: Interval | None
    num_rows: int
    num_reactions: int


@dataclass(frozen=True)
class Survival:
    """What part of the gain that oracle RTs would show is left with predicted RTs.

    Args:
        task: A task, or ``all``.
        baseline: The uninformed source with the highest score, so that gains are not overstated.
        oracle_gain: Oracle minus baseline.
        predicted_gain: Predicted minus baseline.
        part: Their quotient; None where even the oracle's gain may be nothing.
    """

    task: str
    baseline: str
    oracle_gain: Interval
    predicted_gain: Interval
    part: Interval | None


def score_conditions(
    answers: Mapping[str, Sequence[AnsweredRow]],
    *,
    num_answers: int,
    num_resamples: int,
    seed: int,
) -> list[ConditionScore]:
    """Score all conditions on the same rows, by task and over all tasks.

    Args:
        answers: By condition, the same rows in the same order; differences are to the first.
        num_answers: Answers asked for each row.
        num_resamples: Bootstrap draws behind each interval.
        seed: Seed of the draws.
    """
    return [
        score
        for task, group in _groups(answers).items()
        for block in Block
        for score in _score_block(
            task, group, block, num_answers=num_answers, num_resamples=num_resamples, seed=seed
        )
    ]


def measure_survival(
    answers: Mapping[str, Sequence[AnsweredRow]], *, num_resamples: int, seed: int
) -> list[Survival]:
    """What part of a gain survives, by task and over all tasks.

    Args:
        answers: By condition, the same rows in the same order; all five sources among them.
        num_resamples: Bootstrap draws behind each interval.
        seed: Seed of the draws.
    """
    return [
        _survival(task, group, num_resamples=num_resamples, seed=seed)
        for task, group in _groups(answers).items()
    ]


def _groups(
    answers: Mapping[str, Sequence[AnsweredRow]],
) -> dict[str, dict[str, list[AnsweredRow]]]:
    present = {row.task for row in next(iter(answers.values()))}
    tasks = [task.value for task in Task if task.value in present]
    groups: dict[str, dict[str, list[AnsweredRow]]] = {
        task: {name: [row for row in rows if row.task == task] for name, rows in answers.items()}
        for task in tasks
    }
    if len(tasks) > 1:
        groups[ALL_TASKS] = {name: list(rows) for name, rows in answers.items()}
    return groups


def _score_block(
    task: str,
    answers: Mapping[str, Sequence[AnsweredRow]],
    block: Block,
    *,
    num_answers: int,
    num_resamples: int,
    seed: int,
) -> list[ConditionScore]:
    paired = pair_scores(list(answers.values()), block=block, num_answers=num_answers)
    settings: dict[str, Any] = {
        "clusters": paired.clusters,
        "num_resamples": num_resamples,
        "seed": seed,
    }
    scores = []
    for place, (name, estimates) in enumerate(zip(answers, paired.runs, strict=True)):
        intervals = bootstrap_intervals(estimates, **settings)
        differences: list[Interval | None] = [None] * len(intervals)
        if place:
            differences = [*bootstrap_differences(paired.runs[0], estimates, **settings)]
        scores += [
            ConditionScore(
                condition=name,
                task=task,
                block=block.value,
                metric=metric,
                score=interval,
                difference=difference,
                num_rows=paired.num_rows,
                num_reactions=len(set(paired.clusters)),
            )
            for metric, interval, difference in zip(
                paired.metrics, intervals, differences, strict=True
            )
        ]
    return scores


def _survival(
    task: str, answers: Mapping[str, Sequence[AnsweredRow]], *, num_resamples: int, seed: int
) -> Survival:
    names = [AuditSource.PREDICTED, AuditSource.ORACLE, *UNINFORMED]
    paired = pair_scores([answers[name] for name in names], block=Block.STRICT, num_answers=1)
    place = paired.metrics.index(MEASURE)
    estimates = {name: run[place] for name, run in zip(names, paired.runs, strict=True)}
    baseline = max(UNINFORMED, key=lambda name: _value(estimates[name]))
    settings: dict[str, Any] = {
        "clusters": paired.clusters,
        "num_resamples": num_resamples,
        "seed": seed,
    }
    oracle_gain, predicted_gain = (
        bootstrap_differences([estimates[baseline]], [estimates[name]], **settings)[0]
        for name in (AuditSource.ORACLE, AuditSource.PREDICTED)
    )
    part = None
    if oracle_gain.low > 0:
        quotient = _quotient(estimates, baseline)
        (part,) = bootstrap_intervals([quotient], **settings)
    return Survival(task, baseline.value, oracle_gain, predicted_gain, part)


def _value(estimate: Estimate) -> float:
    return float(estimate.reduce(estimate.statistics.sum(axis=0)))


def _quotient(estimates: Mapping[AuditSource, Estimate], baseline: AuditSource) -> Estimate:
    """Predicted gain over oracle gain, as a function of sums of exact matches over rows."""
    names = (AuditSource.PREDICTED, AuditSource.ORACLE, baseline)
    columns = [estimates[name].statistics[:, 0] for name in names]
    return Estimate(np.stack(columns, axis=1), _divide_gains, is_share=False)


def _divide_gains(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    predicted, oracle, baseline = sums[..., 0], sums[..., 1], sums[..., 2]
    gain = oracle - baseline
    return np.divide(predicted - baseline, gain, out=np.zeros_like(gain), where=gain > 0)
