"""Tables 1 and 2 of this ablation beside the paper's, as Markdown and JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from raycrp.ablate.paper import PaperRow, load_paper
from raycrp.ablate.results import SHOWN, Kind, Scored, score_models
from raycrp.ablate.trials import ALL_TASKS, Trial, run_folder, second_config
from raycrp.choices import AblationRow
from raycrp.config import Config
from raycrp.evaluate.bootstrap import Interval
from raycrp.evaluate.tables import METRICS, format_interval, spelling_note
from raycrp.run import SUCCESS, RunFolder

MARKDOWN_PATH = "ablate/tables.md"
JSON_PATH = "ablate/tables.json"

_GAINS = ("exact_match", "exact_top1", "similarity")
_NOTE = (
    "Rows marked *paper* are the paper's figures: a 220 million parameter T5, pretrained on "
    "chemistry, and other data, so they set the scale and are no baseline for the rows beside "
    "them. BLEU to Validity follow the published definitions; Exact top 1 is the strict one. "
    "Brackets hold 95 % intervals over seeds and reactions."
)


def write_tables(config: Config, run: RunFolder, *, trials: Sequence[Trial]) -> None:
    """Score all models and write the tables.

    Args:
        config: The resolved configuration.
        run: The run folder of the ablation.
        trials: Its trials, all of them finished.
    """
    tables = score_models(config, trials)
    facts = _describe(config, run, tables=tables)
    counts = _type_counts(config)
    run.write_json(JSON_PATH, {"settings": facts, "tables": _as_json(tables)})
    run.write_bytes(MARKDOWN_PATH, _as_markdown(tables, facts=facts, counts=counts).encode())


def _as_json(tables: Mapping[str, Sequence[Scored]]) -> dict[str, Any]:
    return {
        group: {
            "models": [_model_as_json(model) for model in models],
            "paper": [asdict(row) for row in load_paper().get(group, ())],
        }
        for group, models in tables.items()
    }


def _model_as_json(model: Scored) -> dict[str, Any]:
    return {
        "row": model.kind.row.value,
        "is_single": model.kind.is_single,
        "num_rows": model.num_rows,
        "num_reactions": model.num_reactions,
        "steps": list(model.steps),
        "num_parameters": model.num_parameters,
        "scores": {name: asdict(each) for name, each in model.scores.items()},
        "gains_over_no_rt": {name: asdict(each) for name, each in model.gains.items()},
    }


def _as_markdown(
    tables: Mapping[str, Sequence[Scored]],
    *,
    facts: Mapping[str, str],
    counts: Mapping[AblationRow, Mapping[str, str]],
) -> str:
    lines = ["# The paper's tables, here", ""]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    lines += ["", _NOTE, ""]
    singles = {group: models for group, models in tables.items() if group != ALL_TASKS}
    if any(model.kind.is_single for models in singles.values() for model in models):
        lines += ["## Table 1: one model a task", ""]
        for group, models in singles.items():
            lines += _section(group, models, counts=counts)
    if ALL_TASKS in tables:
        lines += ["## Table 2: all tasks", ""]
        lines += _section(ALL_TASKS, tables[ALL_TASKS], counts=counts)
    return "\n".join(lines)


def _section(
    group: str,
    models: Sequence[Scored],
    *,
    counts: Mapping[AblationRow, Mapping[str, str]],
) -> list[str]:
    rows = f"{models[0].num_rows:,} test rows of {models[0].num_reactions:,} reactions"
    lines = [f"### {group.capitalize()} ({rows})", ""]
    lines += _score_table(group, models, counts=counts)
    gains = [model for model in models if model.gains]
    if gains:
        lines += ["", "Difference to the model without RT:", ""]
        lines += _gain_table(group, gains, counts=counts)
    return [*lines, ""]


def _score_table(
    group: str, models: Sequence[Scored], *, counts: Mapping[AblationRow, Mapping[str, str]]
) -> list[str]:
    lines = [_row(["model", *(METRICS[name].title for name in SHOWN)])]
    lines.append(_row(["---", *["---:"] * len(SHOWN)]))
    paper = load_paper().get(group, ())
    beside = {
        model.kind: [row for row in paper if _stands_beside(row, model.kind, group)]
        for model in models
    }
    placed = [row for rows in beside.values() for row in rows]
    lines += [_paper_row(row) for row in paper if row not in placed]
    for model in models:
        cells = [_cell(model.scores, name) for name in SHOWN]
        lines.append(_row([f"**{_title(model.kind, group, counts)}**", *cells]))
        lines += [_paper_row(row) for row in beside[model.kind]]
    return lines


def _gain_table(
    group: str, models: Sequence[Scored], *, counts: Mapping[AblationRow, Mapping[str, str]]
) -> list[str]:
    titles = [f"{METRICS[name].title} ({METRICS[name].block})" for name in _GAINS]
    lines = [_row(["model", *titles]), _row(["---", *["---:"] * len(_GAINS)])]
    for model in models:
        cells = [_cell(model.gains, name) for name in _GAINS]
        lines.append(_row([_title(model.kind, group, counts), *cells]))
    return lines


def _title(kind: Kind, group: str, counts: Mapping[AblationRow, Mapping[str, str]]) -> str:
    names = {
        AblationRow.NO_RT: "no RT",
        AblationRow.RT: "RT",
        AblationRow.RT_IA: "RT+IA",
        AblationRow.RT_IA_SECOND: "RT+IA",
    }
    title = names[kind.row]
    if kind.row is not AblationRow.NO_RT:
        title += f", N = {counts[kind.row][group]}"
    if group == ALL_TASKS:
        title += ", single-task models together" if kind.is_single else ", one model"
    return title


def _stands_beside(row: PaperRow, kind: Kind, group: str) -> bool:
    is_same_form = group != ALL_TASKS or row.is_single is kind.is_single
    return row.row is kind.row and is_same_form


def _paper_row(row: PaperRow) -> str:
    cells = [f"{row.scores[name]:.3f}" if name in row.scores else "" for name in SHOWN]
    return _row([f"*paper: {row.model}*", *cells])


def _cell(values: Mapping[str, Interval], name: str) -> str:
    return format_interval(values[name]) if name in values else ""


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _type_counts(config: Config) -> dict[AblationRow, dict[str, str]]:
    """N of each row by task, and of all tasks together."""
    counts: dict[AblationRow, dict[str, str]] = {}
    for row in (AblationRow.RT, AblationRow.RT_IA):
        counts[row] = _count_types(run_folder(config))
    if AblationRow.RT_IA_SECOND in (
        *config.ablate.single_task_rows,
        *config.ablate.multi_task_rows,
    ):
        counts[AblationRow.RT_IA_SECOND] = _count_types(run_folder(second_config(config)))
    return counts


def _count_types(run: RunFolder) -> dict[str, str]:
    summary = run.read_json("elicit/summary.json")
    counts = {task: str(of_task["num_clusters"]) for task, of_task in summary.items()}
    return {**counts, ALL_TASKS: "/".join(dict.fromkeys(counts.values()))}


def _describe(
    config: Config, run: RunFolder, *, tables: Mapping[str, Sequence[Scored]]
) -> dict[str, str]:
    data, train = config.data, config.train
    backbone = config.model.llm_crp
    models = [model for of_group in tables.values() for model in of_group]
    splits = run.read_json(f"annotate/{SUCCESS}")["summary"]["splits"]
    rows = ", ".join(f"{name} {number:,}" for name, number in splits.items())
    sizes = sorted({model.num_parameters for model in models})
    steps = sorted({step for model in models for step in model.steps})
    limit = f"at most {train.max_epochs} epochs"
    if train.max_steps is not None:
        limit += f" or {train.max_steps:,} steps"
    note = spelling_note(train.spelling)
    return {
        "data": " ".join([data.source.value, *(Path(path).name for path in data.paths)])
        + f"; rows of all tasks: {rows}",
        "model": f"{backbone.preset or backbone.name_or_path}, "
        + " to ".join(f"{size:,}" for size in dict.fromkeys((sizes[0], sizes[-1])))
        + " parameters",
        "budget": f"{limit}, batches of {train.batch_size}, patience {train.patience}; "
        f"{steps[0]:,} to {steps[-1]:,} steps taken",
        "seeds": f"{', '.join(map(str, config.ablate.seeds))} of the models; "
        f"{config.run.seed} of data and reaction types",
        "answers": f"{config.evaluate.num_beams} beams",
        **({"published scores": note} if note else {}),
    }
