"""Scores of the models of an ablation, over seeds and rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from raycrp.ablate.trials import ALL_TASKS, Trial, run_folder, trial_config
from raycrp.choices import AblationRow
from raycrp.config import Config
from raycrp.errors import RunError
from raycrp.evaluate.bootstrap import Interval, seeded_differences, seeded_intervals
from raycrp.evaluate.prompt_job import PREDICTIONS_DIR
from raycrp.evaluate.stage import read_answers
from raycrp.evaluate.tables import AnsweredRow, Block, pair_scores
from raycrp.run import SUCCESS

SHOWN = ("bleu", "meteor", "exact_match", "similarity", "validity", "exact_top1")
"""The paper's metrics, and the strict exact match."""


class Kind(NamedTuple):
    """A row of a table.

    Attributes:
        row: What the prompts of its models hold.
        is_single: Whether there is one model a task.
    """

    row: AblationRow
    is_single: bool


@dataclass(frozen=True)
class Scored:
    """One kind of model, trained with every seed and scored.

    Args:
        kind: What it is.
        scores: Mean over the seeds by metric, with the interval over seeds and rows.
        gains: Difference to the same kind without RT, by metric; empty for that one itself.
        num_rows: Test rows.
        num_reactions: Different reactions among them.
        steps: Optimiser steps of each training.
        num_parameters: Weights of one model.
    """

    kind: Kind
    scores: Mapping[str, Interval]
    gains: Mapping[str, Interval]
    num_rows: int
    num_reactions: int
    steps: Sequence[int]
    num_parameters: int


@dataclass(frozen=True)
class _Trained:
    """The models of one kind and seed: their answers, and how their training ended."""

    answers: Sequence[AnsweredRow]
    row_ids: Sequence[int]
    trainings: Sequence[Mapping[str, Any]]


def score_models(config: Config, trials: Sequence[Trial]) -> dict[str, list[Scored]]:
    """Score all models: by task, and over all tasks under ``all``.

    Over all tasks, the single-task models stand together as one, each answering its own task.

    Args:
        config: The resolved configuration.
        trials: The trials, all of them finished.

    Raises:
        RunError: If trials answered other rows.
    """
    trained = {trial: _read_trained(trial_config(config, trial)) for trial in trials}
    return {group: _score_group(kinds, config=config) for group, kinds in _by_kind(trained).items()}


def _read_trained(config: Config) -> _Trained:
    run = run_folder(config)
    table = run.read_table(PREDICTIONS_DIR, columns=["row_id"])
    return _Trained(
        answers=read_answers(run),
        row_ids=sorted(table["row_id"].to_pylist()),
        trainings=[run.read_json(f"train/{SUCCESS}")["summary"]["result"]],
    )


def _by_kind(
    trained: Mapping[Trial, _Trained],
) -> dict[str, dict[Kind, list[_Trained]]]:
    """Models by group and kind, in the order of the seeds."""
    groups: dict[str, dict[Kind, list[_Trained]]] = {}
    for trial, model in trained.items():
        kind = Kind(trial.row, is_single=trial.group != ALL_TASKS)
        groups.setdefault(trial.group, {}).setdefault(kind, []).append(model)
    tasks = [group for group in groups if group != ALL_TASKS]
    if len(tasks) > 1:
        whole = groups.setdefault(ALL_TASKS, {})
        for kind in groups[tasks[0]]:
            whole[kind] = [
                _join(models)
                for models in zip(*(groups[task][kind] for task in tasks), strict=True)
            ]
    return groups


def _join(models: Sequence[_Trained]) -> _Trained:
    """Models of different tasks as one."""
    rows = sorted(
        (pair for model in models for pair in zip(model.row_ids, model.answers, strict=True)),
        key=lambda pair: pair[0],
    )
    return _Trained(
        answers=[answer for _, answer in rows],
        row_ids=[row_id for row_id, _ in rows],
        trainings=[training for model in models for training in model.trainings],
    )


def _score_group(kinds: Mapping[Kind, Sequence[_Trained]], *, config: Config) -> list[Scored]:
    _check_rows([model for models in kinds.values() for model in models])
    scores: dict[Kind, dict[str, Interval]] = {kind: {} for kind in kinds}
    gains: dict[Kind, dict[str, Interval]] = {kind: {} for kind in kinds}
    for block in Block:
        _score_block(kinds, block, scores=scores, gains=gains, config=config)
    first = next(iter(kinds.values()))[0]
    return [
        Scored(
            kind=kind,
            scores=scores[kind],
            gains=gains[kind],
            num_rows=len(first.answers),
            num_reactions=len({row.reaction_key for row in first.answers}),
            steps=[training["step"] for model in models for training in model.trainings],
            num_parameters=models[0].trainings[0]["num_parameters"],
        )
        for kind, models in kinds.items()
    ]


def _score_block(
    kinds: Mapping[Kind, Sequence[_Trained]],
    block: Block,
    *,
    scores: dict[Kind, dict[str, Interval]],
    gains: dict[Kind, dict[str, Interval]],
    config: Config,
) -> None:
    models = [model for of_kind in kinds.values() for model in of_kind]
    paired = pair_scores(
        [model.answers for model in models], block=block, num_answers=config.evaluate.top_k
    )
    runs = iter(paired.runs)
    estimates = {kind: [next(runs) for _ in of_kind] for kind, of_kind in kinds.items()}
    settings: dict[str, Any] = {
        "clusters": paired.clusters,
        "num_resamples": config.evaluate.num_resamples,
        "seed": config.run.seed,
    }
    for kind, of_kind in estimates.items():
        intervals = seeded_intervals(of_kind, **settings)
        scores[kind].update(zip(paired.metrics, intervals, strict=True))
        plain = estimates.get(Kind(AblationRow.NO_RT, kind.is_single))
        if plain is not None and kind.row is not AblationRow.NO_RT:
            differences = seeded_differences(plain, of_kind, **settings)
            gains[kind].update(zip(paired.metrics, differences, strict=True))


def _check_rows(models: Sequence[_Trained]) -> None:
    first = models[0].row_ids
    for model in models[1:]:
        if list(model.row_ids) != list(first):
            raise RunError(
                f"models of the ablation answered other rows: {len(model.row_ids)} and "
                f"{len(first)}; delete their evaluate folders and repeat the command"
            )
