"""How a run stands, read from its run folder alone: no cluster, no Ray, no torch."""

import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pyarrow as pa
import yaml
from pyarrow import fs

from raycrp.choices import SelectionRule
from raycrp.elicit.select import Selection, select_trial
from raycrp.errors import RunError
from raycrp.plan import GRAPH, Stage
from raycrp.run import STARTED, SUCCESS, RunFolder
from raycrp.schemas import Split

DONE, OUTDATED, UNDER_WAY, WAITING = "done", "outdated", "under way", "waiting"

_COLUMNS = ("stage", "state", "rows in", "rows out", "rejected", "seconds")
_TAIL_BYTES = 2**18


def _of_splits(folder: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{split}" for split in Split)


_TABLES: Mapping[Stage, tuple[tuple[str, ...], tuple[str, ...]]] = {
    Stage.EMBED: ((f"data/rows/{Split.TRAIN}",), (f"embed/{Split.TRAIN}",)),
    Stage.ANNOTATE: (_of_splits("data/rows"), _of_splits("annotate")),
    Stage.PROMPT: (_of_splits("annotate"), _of_splits("prompt")),
    Stage.EVALUATE: ((), ("evaluate/predictions",)),
}
"""Tables that stages work through row by row: where from, and where to."""


@dataclass(frozen=True)
class StageView:
    """One stage as its folder shows it.

    Args:
        stage: The stage.
        state: ``done``; ``outdated`` where a stage that it needs is not done; ``under way``;
            ``waiting``.
        summary: What it reported when it finished.
        started_at: When it started, in seconds since 1970; None if it has not.
    """

    stage: Stage
    state: str
    summary: Mapping[str, Any]
    started_at: float | None


def parse_run(text: str) -> RunFolder:
    """A run folder given as one path or URI, such as ``runs/demo`` or ``s3://bucket/raycrp/demo``.

    Raises:
        RunError: If nothing is left for the storage or for the name.
    """
    storage, _, name = text.rstrip("/").rpartition("/")
    if not name or storage.endswith(":/"):
        raise RunError(f"'{text}' is no run folder, such as runs/demo or s3://BUCKET/raycrp/demo")
    return RunFolder(storage or ("/" if text.startswith("/") else "."), name)


def describe_run(storage: str, name: str) -> str:
    """Stage by stage: state, rows and seconds; how far the one under way is.

    Args:
        storage: Local folder or ``pyarrow.fs`` URI that holds the run folders.
        name: Name of the run.

    Returns:
        Text for the terminal.

    Raises:
        RunError: If there is no such run.
    """
    run = RunFolder(storage, name)
    settings = _read_settings(run)
    views = stage_views(run)
    lines = [f"run folder: {run.uri()}", "", _row(_COLUMNS)]
    lines += [_row(_cells(view, run)) for view in views]
    for view in views:
        details = list(_details(view, run, settings))
        if details:
            lines += ["", *details]
    return "\n".join(lines)


def stage_views(run: RunFolder) -> list[StageView]:
    """All stages in order, as the run folder shows them.

    Args:
        run: The run folder.
    """
    views: dict[Stage, StageView] = {}
    for stage in Stage:
        done = run.read_json(f"{stage}/{SUCCESS}") if run.exists(f"{stage}/{SUCCESS}") else None
        started_at = _modified_at(run, f"{stage}/{STARTED}")
        state = WAITING if started_at is None else UNDER_WAY
        if done is not None:
            is_fresh = all(views[need].state == DONE for need in GRAPH[stage].needs)
            state = DONE if is_fresh else OUTDATED
        views[stage] = StageView(stage, state, done["summary"] if done else {}, started_at)
    return list(views.values())


def _read_settings(run: RunFolder) -> Mapping[str, Any]:
    if not run.exists("config.yaml"):
        raise RunError(f"no run at {run.uri()}: it has no config.yaml; check the path and the name")
    settings: Mapping[str, Any] = yaml.safe_load(run.read_bytes("config.yaml"))
    return settings


def _row(cells: Sequence[str]) -> str:
    first, second, *numbers = cells
    return (f"{first:<10}{second:<12}" + "".join(f"{cell:>12}" for cell in numbers)).rstrip()


def _cells(view: StageView, run: RunFolder) -> list[str]:
    summary = view.summary
    cells = [str(summary.get(key, "")) for key in ("rows_in", "rows_out", "rejected", "seconds")]
    if view.state == UNDER_WAY and view.stage in _TABLES:
        sources, targets = _TABLES[view.stage]
        cells[0] = str(sum(map(run.num_rows, sources))) if sources else ""
        cells[1] = str(sum(map(run.num_rows, targets)))
    return [view.stage.value, view.state, *cells]


def _details(view: StageView, run: RunFolder, settings: Mapping[str, Any]) -> Iterator[str]:
    if view.started_at is not None and view.state == UNDER_WAY:
        now = time.time()
        written_s = now - _last_written(run, view.stage)
        yield (
            f"{view.stage}: started {_span(now - view.started_at)} ago, "
            f"last wrote {_span(written_s)} ago"
        )
    if view.stage is Stage.ELICIT and view.state != WAITING:
        yield from _describe_sweep(view, run, settings)
    if view.stage is Stage.TRAIN and view.state != WAITING:
        yield from _describe_training(view, run, settings)


def _describe_sweep(view: StageView, run: RunFolder, settings: Mapping[str, Any]) -> Iterator[str]:
    elicit = settings["elicit"]
    tasks = settings["data"]["tasks"]
    total = len(tasks) * len(elicit["encodings"]) * len(elicit["num_clusters"])
    done = {name.removesuffix(".json") for name in run.list_names("elicit/tune/done")}
    rounds = _best_rounds(_json_lines(run, "elicit/rounds.jsonl", tail_bytes=None))
    running = sorted(set(rounds) - done)
    line = f"elicit: {len(done)} of {total} trials done"
    if view.state == UNDER_WAY:
        line += f", {len(running)} running with results" if running else ""
        if view.started_at is not None and done:
            seconds = (time.time() - view.started_at) / len(done) * (total - len(done))
            line += f", about {_span(seconds)} left"
    yield line
    selection = Selection(SelectionRule(elicit["rule"]), elicit["accuracy_floor"])
    for task in tasks:
        of_task = [row for row in rounds.values() if row["task"] == task]
        if of_task:
            best = rounds[select_trial(of_task, selection=selection)]
            yield (
                f"  {task:<15} best by {elicit['rule']}: {best['encoding']}, "
                f"N={best['num_clusters']}: accuracy {best['accuracy']:.3f} "
                f"(majority {best['majority_rate']:.3f}, kappa {best['kappa']:.3f}), "
                f"{best['information_bits']:.2f} bits, round {best['round']}"
            )


def _best_rounds(rows: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    best: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        known = best.get(row["trial_id"])
        if known is None or row["accuracy"] > known["accuracy"]:
            best[row["trial_id"]] = row
    return best


def _describe_training(
    view: StageView, run: RunFolder, settings: Mapping[str, Any]
) -> Iterator[str]:
    lines = list(_json_lines(run, "train/metrics.jsonl", tail_bytes=_TAIL_BYTES))
    if not lines:
        return
    steps = [line for line in lines if "loss" in line]
    yield f"train: step {lines[-1]['step']}" + _describe_step(steps, settings["train"], view.state)
    validations = [line for line in lines if "validation_loss" in line]
    if validations:
        last, best = validations[-1], min(validations, key=_validation_loss)
        yield (
            f"  validation loss {last['validation_loss']:.4f} at step {last['step']}, "
            f"best {best['validation_loss']:.4f} at step {best['step']}"
        )


def _describe_step(steps: Sequence[Mapping[str, Any]], train: Mapping[str, Any], state: str) -> str:
    if not steps:
        return ""
    last = steps[-1]
    parts = [
        f"epoch {last['epoch']:.2f} of {train['max_epochs']}",
        f"loss {last['loss']:.4f}",
        f"{last['samples_per_s']:.1f} rows/s",
        f"{last.get('workers', train['num_workers']):g} workers",
    ]
    left_s = _training_left_s(steps, train)
    if state == UNDER_WAY and left_s is not None:
        parts.append(f"at most {_span(left_s)} left")
    return "".join(f", {part}" for part in parts)


def _validation_loss(line: Mapping[str, Any]) -> float:
    return float(line["validation_loss"])


def _training_left_s(steps: Sequence[Mapping[str, Any]], train: Mapping[str, Any]) -> float | None:
    """Until the last epoch or step allowed; early stopping may come first."""
    last = steps[-1]
    attempt = [line for line in steps if line["seconds"] <= last["seconds"]]
    first = attempt[0]
    num_steps = last["step"] - first["step"]
    if num_steps <= 0:
        return None
    steps_left = last["step"] / last["epoch"] * (train["max_epochs"] - last["epoch"])
    if train["max_steps"] is not None:
        steps_left = min(steps_left, train["max_steps"] - last["step"])
    return max(0.0, float(steps_left * (last["seconds"] - first["seconds"]) / num_steps))


def _json_lines(
    run: RunFolder, relative: str, *, tail_bytes: int | None
) -> Iterator[dict[str, Any]]:
    """Lines of a file, or those near its end; one that is cut short is left out."""
    try:
        with run.filesystem.open_input_file(run.path(relative)) as file:
            start = max(0, file.size() - tail_bytes) if tail_bytes else 0
            file.seek(start)
            texts = file.read().decode(errors="replace").splitlines()
    except (FileNotFoundError, pa.ArrowInvalid):
        return
    for text in texts[1 if start else 0 :]:
        try:
            yield json.loads(text)
        except json.JSONDecodeError:
            continue


def _modified_at(run: RunFolder, relative: str) -> float | None:
    info = run.filesystem.get_file_info(run.path(relative))
    return None if info.type == fs.FileType.NotFound else info.mtime_ns / 1e9


def _last_written(run: RunFolder, relative: str) -> float:
    selector = fs.FileSelector(run.path(relative), allow_not_found=True, recursive=True)
    files = run.filesystem.get_file_info(selector)
    return max((info.mtime_ns / 1e9 for info in files if info.type == fs.FileType.File), default=0)


def _span(seconds: float) -> str:
    return str(timedelta(seconds=math.ceil(max(0.0, seconds))))
