"""How a run stands, read from its run folder alone: no cluster, no Ray, no torch."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from pyarrow import fs

from raycrp.board.search import SearchView
from raycrp.board.snapshot import RunReader, Snapshot
from raycrp.board.stages import UNDER_WAY, WAITING, StageView
from raycrp.board.sweep import SweepView, TrialState
from raycrp.board.training import Line, seconds_left
from raycrp.choices import SelectBy
from raycrp.errors import RunError
from raycrp.plan import Stage
from raycrp.run import RunFolder, reachable, split_folder
from raycrp.schemas import Split
from raycrp.train.restarts import Restart

_COLUMNS = ("stage", "state", "rows in", "rows out", "rejected", "not sampled", "seconds")


def _of_splits(folder: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{split}" for split in Split)


_TABLES: Mapping[Stage, tuple[tuple[str, ...], tuple[str, ...]]] = {
    Stage.EMBED: ((f"data/rows/{Split.TRAIN}",), (f"embed/{Split.TRAIN}",)),
    Stage.ANNOTATE: (_of_splits("data/rows"), _of_splits("annotate")),
    Stage.PROMPT: (_of_splits("annotate"), _of_splits("prompt")),
    Stage.EVALUATE: (
        ("evaluate/rows", "evaluate/validation_rows"),
        ("evaluate/predictions", "evaluate/validation"),
    ),
}
"""Tables that stages work through row by row: where from, and where to."""


def parse_run(text: str) -> RunFolder:
    """A run folder given as one path or URI, such as ``runs/demo`` or ``s3://bucket/raycrp/demo``.

    Raises:
        RunError: If nothing is left for the storage or for the name.
    """
    storage, name = split_folder(text)
    if not name:
        raise RunError(f"'{text}' is no run folder, such as runs/demo or s3://BUCKET/raycrp/demo")
    return RunFolder(storage, name)


def open_run(text: str) -> RunFolder:
    """The run folder that ``parse_run`` names, on a storage that answers.

    Raises:
        RunError: If it names none, or the storage cannot be reached.
    """
    return reachable(parse_run(text))


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
    if not run.exists("config.yaml"):
        raise RunError(f"no run at {run.uri()}: it has no config.yaml; check the path and the name")
    snapshot = RunReader(run).read()
    lines = [f"run folder: {run.uri()}", "", _row(_COLUMNS)]
    settings = snapshot.settings
    counts = {view.stage: _count_rows(view, run, settings) for view in snapshot.stages}
    lines += [_row(_cells(view, counts[view.stage])) for view in snapshot.stages]
    for view in snapshot.stages:
        details = list(_details(view, run, snapshot, counts[view.stage]))
        if details:
            lines += ["", *details]
    lines += [f"not readable just now: {problem}" for problem in snapshot.problems]
    return "\n".join(lines)


def _count_rows(
    view: StageView, run: RunFolder, settings: Mapping[str, Any]
) -> tuple[int | None, int | None]:
    """Rows to work through and rows written, of a stage under way; None where unknown."""
    if view.state != UNDER_WAY or view.stage not in _TABLES:
        return None, None
    sources, targets = _TABLES[view.stage]
    if view.stage is Stage.EVALUATE and settings["evaluate"]["max_rows"] is None:
        sources = (f"prompt/{Split.TEST}", *sources[1:])
    return sum(map(run.num_rows, sources)), sum(map(run.num_rows, targets))


def _row(cells: Sequence[str]) -> str:
    first, second, *numbers = cells
    return (f"{first:<10}{second:<12}" + "".join(f"{cell:>13}" for cell in numbers)).rstrip()


def _cells(view: StageView, counts: tuple[int | None, int | None]) -> list[str]:
    keys = ("rows_in", "rows_out", "rejected", "not_sampled", "seconds")
    cells = [str(view.summary.get(key, "")) for key in keys]
    for place, count in enumerate(counts):
        if count is not None:
            cells[place] = str(count)
    return [view.stage.value, view.state, *cells]


def _details(
    view: StageView, run: RunFolder, snapshot: Snapshot, counts: tuple[int | None, int | None]
) -> Iterator[str]:
    if view.started_at is not None and view.state == UNDER_WAY:
        now = time.time()
        num_in, num_out = counts
        line = (
            f"{view.stage}: started {_span(now - view.started_at)} ago, "
            f"last wrote {_span(now - _last_written(run, view.stage))} ago"
        )
        if num_in and num_out:
            left_s = (now - view.started_at) / num_out * (num_in - num_out)
            line += f", about {_span(left_s)} left"
        yield line
    if view.stage is Stage.ELICIT and view.state != WAITING:
        yield from _describe_sweep(view, snapshot.sweep)
    if view.stage is Stage.TRAIN and view.state != WAITING:
        yield from _describe_search(view, snapshot.search)
        yield from _describe_training(view, snapshot)


def _describe_sweep(view: StageView, sweep: SweepView) -> Iterator[str]:
    num_running, num_stopped = sweep.num_in(TrialState.RUNNING), sweep.num_in(TrialState.STOPPED)
    num_ended = sweep.num_in(TrialState.DONE) + num_stopped
    line = f"elicit: {num_ended} of {len(sweep.trials)} trials done"
    line += f" ({num_stopped} of them stopped early)" if num_stopped else ""
    if view.state == UNDER_WAY and view.started_at is not None:
        left_s = sweep.seconds_left(time.time() - view.started_at)
        line += f", {num_running} running" if num_running else ""
        line += f", about {_span(left_s)} left" if left_s is not None else ""
    yield line
    for task, choice in sweep.choices.items():
        best = choice.trial.best or {}
        yield (
            f"  {task:<15} best by {sweep.selection.rule}: {choice.trial.encoding}, "
            f"N={choice.trial.num_clusters}: accuracy {best['accuracy']:.3f} "
            f"(majority {best['majority_rate']:.3f}, kappa {best['kappa']:.3f}), "
            f"{best['information_bits']:.2f} bits, round {best['round']}"
        )


def _describe_search(view: StageView, search: SearchView) -> Iterator[str]:
    if not search.trials:
        return
    num_running, num_stopped = search.num_in(TrialState.RUNNING), search.num_in(TrialState.STOPPED)
    line = f"train: search over step size and batch: {search.num_ended} of {len(search.trials)}"
    line += " trials done" + (f" ({num_stopped} of them stopped early)" if num_stopped else "")
    if view.state == UNDER_WAY and num_running:
        line += f", {num_running} running"
    yield line
    best = search.best
    if best is not None and best.best is not None:
        scores = _scores(best.best, search.select_by)
        yield f"  best {best.name}: validation {scores}, {best.state}"
    for trial in search.trials:
        if view.state == UNDER_WAY and trial.state is TrialState.RUNNING:
            yield f"  running {trial.name}: step {trial.step}"


def _describe_training(view: StageView, snapshot: Snapshot) -> Iterator[str]:
    training = snapshot.training
    steps = [line["step"] for line in (training.last, *training.validations[-1:]) if line]
    if steps:
        yield f"train: step {max(steps)}" + _describe_step(training.last, snapshot, view)
    if training.best is not None:
        last, best = training.validations[-1], training.best
        yield (
            f"  validation {_scores(last, training.select_by)}, "
            f"best {_scores(best, training.select_by).removeprefix('loss ')}"
        )
    if snapshot.restarts:
        yield _describe_restarts(snapshot.restarts)


def _scores(line: Line, select_by: SelectBy) -> str:
    exact = (
        f"exact {line.get('validation_exact', 0.0):.3f}, " if select_by is SelectBy.EXACT else ""
    )
    return f"{exact}loss {line['validation_loss']:.4f} at step {line['step']}"


def _describe_restarts(restarts: Sequence[Restart]) -> str:
    last = restarts[-1]
    times = "once" if len(restarts) == 1 else f"{len(restarts)} times"
    return (
        f"  workers started anew {times}, {sum(each.steps_lost for each in restarts)} steps done "
        f"again; last {_span(time.time() - last.time)} ago: from step {last.step_resumed} with "
        f"{_count_workers(last.num_workers)}, {_span(last.seconds)} "
        "after the last step before it"
    )


def _describe_step(last: Line | None, snapshot: Snapshot, view: StageView) -> str:
    if last is None:
        return ""
    settings = snapshot.settings["train"]
    workers = last.get("workers", settings["num_workers"])
    parts = [
        f"epoch {last['epoch']:.2f} of {settings['max_epochs']}",
        f"loss {last['loss']:.4f}",
        f"{last['samples_per_s']:.1f} rows/s",
        _count_workers(workers),
    ]
    left_s = seconds_left(snapshot.training, train=settings)
    if view.state == UNDER_WAY and left_s is not None:
        parts.append(f"at most {_span(left_s)} left")
    return "".join(f", {part}" for part in parts)


def _count_workers(workers: float | Sequence[int]) -> str:
    """Workers at work, or the range that is asked for."""
    if isinstance(workers, int | float):
        return f"{workers:g} worker" + ("" if workers == 1 else "s")
    return f"{workers[0]} to {workers[1]} workers"


def _last_written(run: RunFolder, relative: str) -> float:
    selector = fs.FileSelector(run.path(relative), allow_not_found=True, recursive=True)
    files = run.filesystem.get_file_info(selector)
    return max((info.mtime_ns / 1e9 for info in files if info.type == fs.FileType.File), default=0)


def _span(seconds: float) -> str:
    return str(timedelta(seconds=math.ceil(max(0.0, seconds))))
