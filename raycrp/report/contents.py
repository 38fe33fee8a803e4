"""What the report tells, read from the run folder; a table that is not there is left out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from raycrp.choices import LeakPolicy, SelectBy, Task, TrainReactionType
from raycrp.config import Config
from raycrp.errors import RunError
from raycrp.evaluate.bootstrap import Interval
from raycrp.evaluate.tables import METRICS, Block, Score, format_score, spelling_note
from raycrp.plan import Stage
from raycrp.report.agreement import Agreement, measure_agreement
from raycrp.report.examples import Example, choose_examples
from raycrp.report.figures import (
    accuracy_figure,
    interval_figure,
    legend_swatch,
    loss_figure,
    style_of,
)
from raycrp.report.types import TypeTable, read_types
from raycrp.run import STARTED, SUCCESS, RunFolder
from raycrp.tracking import read_metrics

_MAX_CURVE_POINTS = 400


@dataclass(frozen=True)
class StageLine:
    """One finished stage."""

    name: str
    rows_in: int | None
    rows_out: int | None
    rejected: int | None
    not_sampled: int | None
    seconds: float | None


@dataclass(frozen=True)
class SweepPanel:
    """The sweep of one task: its figure, the chosen trial, and all trials."""

    task: str
    figure: str
    chosen: Mapping[str, Any] | None
    test: Mapping[str, Any] | None
    trials: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class ScoreTable:
    """One block of scores: a row a metric, a column a task."""

    block: str
    tasks: Sequence[str]
    num_rows: Sequence[int]
    rows: Sequence[tuple[str, Sequence[str]]]


@dataclass(frozen=True)
class Contents:
    """All that the page shows.

    Args:
        run_name: Name of the run.
        made_at: When the page was made, in UTC.
        digest: Digest of inputs and settings of the whole run.
        seed: Seed of the run.
        environment: Versions by package.
        config_yaml: The resolved configuration.
        facts: The few numbers at the top: label, value, note.
        stages: Finished stages in order.
        data: The data report.
        legend: Swatch and name of each encoding.
        sweeps: The sweep of each task.
        types: What the reaction types of each task stand for.
        agreements: How far reaction types and true classes agree.
        audit: What ``raycrp audit`` found; None where there was none.
        loss_figure: Training curves; None where there are none.
        training: How training ended.
        exact_figure: Strict exact matches with intervals; None where there are none.
        score_tables: Both blocks.
        examples: Drawn predictions by task.
        notes: How labels and scores are kept honest.
    """

    run_name: str
    made_at: str
    digest: str | None
    seed: int
    environment: Mapping[str, str]
    config_yaml: str
    facts: Sequence[tuple[str, str, str]]
    stages: Sequence[StageLine]
    data: Mapping[str, Any] | None
    legend: Sequence[tuple[str, str]]
    sweeps: Sequence[SweepPanel]
    types: Sequence[TypeTable]
    agreements: Sequence[Agreement]
    audit: Mapping[str, Any] | None
    loss_figure: str | None
    training: Mapping[str, Any] | None
    exact_figure: str | None
    score_tables: Sequence[ScoreTable]
    examples: Mapping[str, Sequence[Example]]
    notes: Sequence[str]


def gather_contents(config: Config, run: RunFolder) -> Contents:
    """Read everything that the report shows.

    Args:
        config: The resolved configuration.
        run: The run folder.
    """
    sweeps = _read_sweeps(run)
    scores = _read_scores(run)
    summaries = {stage: _read_json(run, f"{stage}/{SUCCESS}") for stage in Stage}
    data = _read_json(run, "data/report.json")
    started = _read_json(run, f"{Stage.REPORT}/{STARTED}")
    return Contents(
        run_name=config.run.name,
        made_at=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        digest=started["digest"] if started else None,
        seed=config.run.seed,
        environment=_read_environment(run),
        config_yaml=_read_text(run, "config.yaml"),
        facts=_facts(data, sweeps, scores),
        stages=_stage_lines(summaries),
        data=data,
        legend=_legend(sweeps),
        sweeps=sweeps,
        types=read_types(run),
        agreements=measure_agreement(
            run, seed=config.run.seed, num_named=config.report.num_named_reactions
        ),
        audit=_read_json(run, "audit/audit.json"),
        loss_figure=_loss_figure(run, select_by=config.train.select_by),
        training=_training(summaries[Stage.TRAIN]),
        exact_figure=_exact_figure(scores),
        score_tables=_score_tables(scores),
        examples=choose_examples(
            run, num_examples=config.report.num_examples, seed=config.run.seed
        ),
        notes=_notes(config),
    )


def _read_sweeps(run: RunFolder) -> list[SweepPanel]:
    if not run.exists("elicit/trials.parquet"):
        return []
    rows = run.read_table("elicit/trials.parquet").to_pylist()
    summary = _read_json(run, "elicit/summary.json") or {}
    return [
        _sweep_panel(task, [row for row in rows if row["task"] == task], summary.get(task, {}))
        for task in Task
        if any(row["task"] == task for row in rows)
    ]


def _sweep_panel(
    task: str, trials: list[Mapping[str, Any]], summary: Mapping[str, Any]
) -> SweepPanel:
    ordered = sorted(trials, key=lambda trial: (trial["encoding"], trial["num_clusters"]))
    chosen = next((trial for trial in ordered if trial["is_best"]), None)
    figure = accuracy_figure(trials, title=f"Annotation accuracy over N, {task}")
    return SweepPanel(str(task), figure, chosen, summary.get("test"), ordered)


def _legend(sweeps: Sequence[SweepPanel]) -> list[tuple[str, str]]:
    names = list(dict.fromkeys(t["encoding"] for sweep in sweeps for t in sweep.trials))
    return [(legend_swatch(style_of(name)), name.replace("_", " ")) for name in names]


def _read_scores(run: RunFolder) -> list[Score]:
    if not run.exists("evaluate/scores.parquet"):
        return []
    return [
        Score(
            task=row["task"],
            block=row["block"],
            metric=row["metric"],
            interval=Interval(row["value"], row["low"], row["high"]),
            num_rows=row["num_rows"],
            num_reactions=row["num_reactions"],
        )
        for row in run.read_table("evaluate/scores.parquet").to_pylist()
        if row["metric"] in METRICS
    ]


def _score_tables(scores: Sequence[Score]) -> list[ScoreTable]:
    tables = []
    for block in Block:
        part = [score for score in scores if score.block == block]
        if not part:
            continue
        tasks = list(dict.fromkeys(score.task for score in part))
        names = list(dict.fromkeys(score.metric for score in part))
        cells = {(score.metric, score.task): format_score(score) for score in part}
        counts = {score.task: score.num_rows for score in part}
        rows = [(METRICS[n].title, [cells.get((n, task), "") for task in tasks]) for n in names]
        tables.append(ScoreTable(block.value, tasks, [counts[task] for task in tasks], rows))
    return tables


def _exact_figure(scores: Sequence[Score]) -> str | None:
    series: dict[str, list[tuple[str, float, float, float]]] = {}
    for score in scores:
        if score.metric.startswith("exact_top"):
            top = f"top {score.metric.removeprefix('exact_top')}"
            value = score.interval
            series.setdefault(score.task, []).append((top, value.value, value.low, value.high))
    if not series:
        return None
    return interval_figure(
        series,
        label="strict exact match (share of rows), 95 % interval",
        title="Strict exact match by task",
    )


def _loss_figure(run: RunFolder, *, select_by: SelectBy) -> str | None:
    points = read_metrics(run)
    if not any("loss" in point or "validation_loss" in point for point in points):
        return None
    title = "Training and validation loss"
    return loss_figure(_thin(points), title=title, select_by=select_by)


def _thin(points: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Every so many of the points, and all with a validation."""
    every = -(-len(points) // _MAX_CURVE_POINTS)
    return [p for i, p in enumerate(points) if i % every == 0 or "validation_loss" in p]


def _training(marker: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    result = marker["summary"].get("result") if marker else None
    return result if isinstance(result, Mapping) else None


def _facts(
    data: Mapping[str, Any] | None, sweeps: Sequence[SweepPanel], scores: Sequence[Score]
) -> list[tuple[str, str, str]]:
    facts = []
    if data:
        note = f"of {data['rows_in']:,} read; {data['rejected']:,} rejected"
        facts.append(("rows kept", f"{data['rows_out']:,}", note))
    if sweeps:
        num_trials = sum(len(sweep.trials) for sweep in sweeps)
        chosen = Counter(s.chosen["encoding"].replace("_", " ") for s in sweeps if s.chosen)
        counts = sorted({str(s.chosen["num_clusters"]) for s in sweeps if s.chosen}, key=int)
        note = f"{', '.join(chosen)}; N = {', '.join(counts)}" if chosen else "none chosen"
        facts.append(("trials of the sweep", f"{num_trials:,}", f"chosen: {note}"))
    by_metric = {score.metric: score for score in scores}
    for metric, label in (("exact_top1", "strict exact match"), ("strict_validity", "validity")):
        if metric in by_metric:
            value, _, interval = format_score(by_metric[metric]).partition(" ")
            facts.append((f"{label}, {by_metric[metric].task} tasks", value, interval))
    return facts


def _stage_lines(summaries: Mapping[Stage, Mapping[str, Any] | None]) -> list[StageLine]:
    return [
        StageLine(
            name=stage.value,
            **{
                key: marker["summary"].get(key)
                for key in ("rows_in", "rows_out", "rejected", "not_sampled", "seconds")
            },
        )
        for stage, marker in summaries.items()
        if marker
    ]


def _notes(config: Config) -> list[str]:
    notes = [
        "k-means sees inputs and outputs of training rows alone. No stage embeds an output of a "
        "validation or test row; an audit does, for what it shows alone.",
        "The reaction type of a validation or test row is named by LLM-RT from the row's input "
        "alone, so that it cannot tell the model about the answer.",
        _leak_note(config.data.leak_policy),
        "True reaction classes are read by this report alone, never by a stage before it.",
        "Accuracies of the sweep are on rows that LLM-RT was not trained on; the chosen trial "
        "alone is scored once on rows that took no part in choosing it.",
        "Published definitions compare texts as sets, count an empty answer as valid, and average "
        "similarity over valid rows, one way. Strict definitions compare canonical molecules as "
        "multisets over all rows; invalid and empty answers score 0.",
        "Intervals of scores are 95 % bootstrap intervals over reactions; those of annotation "
        "accuracy are Wilson's over rows, and those of AMI tell of another draw of rows.",
    ]
    if note := spelling_note(config.train.spelling):
        notes.append(f"Published scores are {note}.")
    if not config.prompt.use_reaction_type:
        return [*notes, "In this run prompts carry no reaction type."]
    if config.prompt.train_reaction_type is TrainReactionType.CLUSTER:
        source = "training prompts carry the cluster of the row, which its output has shaped"
    else:
        source = "training prompts carry the reaction type that LLM-RT names from the input"
    return [*notes, f"In this run {source}; prompts of other rows carry LLM-RT's."]


def _leak_note(policy: LeakPolicy) -> str:
    if policy is LeakPolicy.REPORT:
        return (
            "Reactions that are in the training split of any task and in a test or validation "
            "split too were left in, as data.leak_policy=report asks; the leak table counts them, "
            "and scores are too good by what they give away."
        )
    return (
        "A reaction in the test or validation split of one task is kept out of the training split "
        "of every task; the leak table counts what was found and what was left."
    )


def _read_environment(run: RunFolder) -> dict[str, str]:
    environment = _read_json(run, "environment.json") or {}
    plain = {name: value for name, value in environment.items() if isinstance(value, str)}
    return {**plain, **environment.get("packages", {})}


def _read_json(run: RunFolder, relative: str) -> Any:
    return run.read_json(relative) if run.exists(relative) else None


def _read_text(run: RunFolder, relative: str) -> str:
    try:
        return run.read_bytes(relative).decode()
    except RunError:
        return ""
