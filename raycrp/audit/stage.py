"""The audit of a run: five sources of the RT, controls, and what the labels give away."""

import logging
import time
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raycrp.audit.labels import find_label_leaks, find_run_leaks, has_labels
from raycrp.audit.questions import (
    Condition,
    answer_questions,
    list_conditions,
    source_types,
    write_questions,
)
from raycrp.audit.rows import choose_rows, describe_rows, read_clusterings
from raycrp.audit.scores import measure_survival, score_conditions
from raycrp.audit.tables import Audit, audit_as_json, audit_as_markdown
from raycrp.audit.types import TestTypes, name_test_rows
from raycrp.choices import Task
from raycrp.config import Config
from raycrp.errors import RunError
from raycrp.evaluate.model_folder import MODEL_DIR, MODEL_FILE
from raycrp.evaluate.tables import AnsweredRow
from raycrp.plan import Stage, needed_stages
from raycrp.run import STARTED, SUCCESS, RunFolder
from raycrp.schemas import Split

JSON_PATH, MARKDOWN_PATH = "audit/audit.json", "audit/audit.md"
_VERSION = 2

logger = logging.getLogger(__name__)


def run_audit(config: Config, run: RunFolder, *, max_rows: int | None = None) -> None:
    """Audit a trained model; what an interrupted audit has done is not done again.

    Args:
        config: Settings of the run.
        run: The run folder, with the model trained.
        max_rows: Test rows of each task at most; those that the run answered if None.

    Raises:
        RunError: If the run has no trained model, or is not finished.
    """
    check_finished(run)
    digest = _digest(run, max_rows=max_rows)
    if _read_digest(run, SUCCESS) == digest:
        logger.info("audit: done already")
        return
    if _read_digest(run, STARTED) != digest:
        run.delete("audit")
        run.write_json(f"audit/{STARTED}", {"digest": digest})
    started = time.monotonic()
    audit = _carry_out(config, run, max_rows=max_rows)
    run.write_json(JSON_PATH, audit_as_json(audit))
    run.write_bytes(MARKDOWN_PATH, audit_as_markdown(audit).encode())
    run.write_json(f"audit/{SUCCESS}", {"digest": digest})
    logger.info("audit: finished in %.1f s", time.monotonic() - started)


def check_finished(run: RunFolder) -> None:
    """Make sure that no stage was begun anew: the model would be of other rows and settings.

    Args:
        run: The run folder.

    Raises:
        RunError: If the run has no trained model, or a stage is not finished.
    """
    if not run.exists(f"{MODEL_DIR}/{MODEL_FILE}"):
        raise RunError(f"{run.uri()} has no trained model; give a run whose train stage is done")
    for stage in needed_stages(Stage.EVALUATE):
        if run.exists(f"{stage}/{STARTED}") and not run.exists(f"{stage}/{SUCCESS}"):
            raise RunError(
                f"{run.uri()} was cut off in its stage {stage}, and its model may be of another "
                "attempt; repeat the command of the run, then audit it"
            )


def _carry_out(config: Config, run: RunFolder, *, max_rows: int | None) -> Audit:
    uses_types, is_labelled = config.prompt.use_reaction_type, has_labels(run)
    choose_rows(config, run, max_rows=max_rows, has_labels=is_labelled)
    clusterings = read_clusterings(config, run) if uses_types else {}
    rows = describe_rows(config, run, clusterings=clusterings)
    test = rows.filter(pc.equal(rows["split"], Split.TEST.value))
    if not test.num_rows:
        raise RunError(f"{run.uri()} has no test rows of {', '.join(config.model_tasks)}")
    types = name_test_rows(config, run, rows) if uses_types else {}
    answers = _ask(config, run, test, types=types)
    settings: dict[str, Any] = {
        "num_resamples": config.evaluate.num_resamples,
        "seed": config.run.seed,
    }
    leaks = find_run_leaks(run, rows, types=types, **settings)
    if is_labelled:
        leaks += find_label_leaks(run, rows, **settings)
    return Audit(
        facts=_describe(config, run, test),
        scores=score_conditions(answers, num_answers=config.evaluate.top_k, **settings),
        survivals=measure_survival(answers, **settings) if uses_types else [],
        leaks=leaks,
        oracle_consistency={task.value: each.consistency for task, each in types.items()},
    )


def _ask(
    config: Config, run: RunFolder, test: pa.Table, *, types: Mapping[Task, TestTypes]
) -> dict[str, list[AnsweredRow]]:
    """Answers to the test rows under each condition."""
    conditions = list_conditions(config)
    tasks = test["task"].to_pylist()
    asked = write_questions(
        run,
        tasks=tasks,
        inputs=test["input"].to_pylist(),
        row_ids=test["row_id"].to_pylist(),
        types={each.name: _row_types(each, tasks, types, config=config) for each in conditions},
        conditions=conditions,
        seed=config.model_seed,
    )
    logger.info(
        "audit: %d rows under %d conditions, %d different prompts",
        test.num_rows,
        len(conditions),
        1 + max(number for numbers in asked.values() for number in numbers),
    )
    answers = answer_questions(run, config.evaluate, device=config.run.device)
    rows = test.select(["reaction_key", "task", "input", "output"]).to_pylist()
    return {
        name: [
            AnsweredRow(**row, predictions=tuple(answers[number]))
            for row, number in zip(rows, numbers, strict=True)
        ]
        for name, numbers in asked.items()
    }


def _row_types(
    condition: Condition,
    tasks: Sequence[str],
    types: Mapping[Task, TestTypes],
    *,
    config: Config,
) -> list[int | None]:
    """Reaction type of each test row under a condition; rows of a task come in its order."""
    if condition.source is None:
        return [None] * len(tasks)
    waiting = {
        task.value: iter(
            source_types(
                condition.source,
                predicted=named.predicted,
                oracle=named.oracle,
                constant=named.constant,
                seed=config.run.seed,
            )
        )
        for task, named in types.items()
    }
    return [next(waiting[task]) for task in tasks]


def _describe(config: Config, run: RunFolder, test: pa.Table) -> dict[str, str]:
    card = run.read_json(f"{MODEL_DIR}/{MODEL_FILE}")
    training, search = card["training"], config.evaluate
    return {
        "run": run.name,
        "data": f"{config.data.source}, {test.num_rows:,} test rows of "
        f"{len(test['reaction_key'].unique()):,} reactions",
        "model": f"{card['backbone']}, {training['num_parameters']:,} parameters, "
        f"{training['step']:,} steps of {training['batch_size']}, seed {card['seed']}",
        "prompts it was trained on": f"RTs {card['train_reaction_type']}, "
        f"{card['instruction']} instructions"
        if card["use_reaction_type"]
        else f"no RTs, {card['instruction']} instructions",
        "answers": f"{search.num_beams} beams",
    }


def _digest(run: RunFolder, *, max_rows: int | None) -> str:
    """What the audit depends on: the trained model, the rows answered, and what was asked for."""
    markers = [
        run.read_json(f"{stage}/{SUCCESS}")["digest"] if run.exists(f"{stage}/{SUCCESS}") else ""
        for stage in ("train", "evaluate")
    ]
    return sha256(repr([_VERSION, max_rows, markers]).encode()).hexdigest()


def _read_digest(run: RunFolder, name: str) -> str | None:
    path = f"audit/{name}"
    return str(run.read_json(path)["digest"]) if run.exists(path) else None
