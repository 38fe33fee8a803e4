"""Metrics out: every metric declared once, written as JSON Lines and as TensorBoard events.

Object storage cannot append to a file, so that the lines are cut into segments: ``metrics.jsonl``,
``metrics.000001.jsonl`` and so on. Only the last one is ever written, whole; what it costs to make
the newest lines safe does not grow with the number of steps.
"""

import json
import logging
import math
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pyarrow import fs

from raycrp.choices import SelectBy
from raycrp.mlflow_run import MlflowRun
from raycrp.run import RunFolder, copy_folder

METRICS_FILE = "train/metrics.jsonl"
"""The first segment, and the only one of a short training."""

SEGMENT_LINES = 1_000
"""Lines after which a segment is closed, once they are safe."""

EVENTS_EVERY_S = 30.0
"""Seconds after which new TensorBoard events are shown, where nothing is flushed before."""

_TIE_WEIGHT = 1e-9
_TIE_LOSS = 100.0
"""Together less than the exact match of one row in millions."""

_SEGMENT = re.compile(r"metrics(?:\.(\d{6}))?\.jsonl")

logger = logging.getLogger(__name__)

METRICS: Mapping[str, str] = {
    "loss": "Mean cross-entropy of the target tokens since the last line, in nats",
    "learning_rate": "Step size of AdamW",
    "gradient_norm": "Norm of the gradient before clipping, last step",
    "epoch": "Passes over the training rows",
    "samples_per_s": "Training rows per second, all workers together",
    "samples_per_cpu_s": "Training rows per second of CPU time, all workers' processes together",
    "tokens_per_s": "Real tokens per second, prompts and targets, all workers together",
    "step_s": "Seconds of an optimiser step, validations and checkpoints left out",
    "mfu": "Model FLOPs on real tokens over the peak of all workers' GPUs, where that is known",
    "padding_share": "Share of the positions computed that are padding",
    "micro_batches": "Micro batches of the last step, all workers together",
    "instruction_entropy": "Entropy of the instructions in use within their tasks, in bits",
    "memory_gib": "Peak memory of the first worker: of its GPU, else of its process",
    "workers": "Training workers at work",
    "loss_scale": "Loss scale of fp16",
    "skipped_steps": "Steps left out so far after an overflow in fp16",
    "seconds": "Seconds since this attempt started",
    "validation_loss": "Mean cross-entropy of the validation targets, in nats per token",
    "validation_loss_forward": "The same, forward rows alone",
    "validation_loss_retrosynthesis": "The same, retrosynthesis rows alone",
    "validation_loss_reagent": "The same, reagent rows alone",
    "validation_accuracy": "Share of validation target tokens that are the most probable ones",
    "validation_exact": "Share of validation rows whose greedy answer equals the target's text",
    "validation_exact_forward": "The same, forward rows alone",
    "validation_exact_retrosynthesis": "The same, retrosynthesis rows alone",
    "validation_exact_reagent": "The same, reagent rows alone",
}
"""What each metric means; a name that is not here is refused."""


class Tracker:
    """Writes one run's metrics; lives in the first training worker.

    A resumed training goes on behind the lines of the one before: lines of steps that will be done
    again are taken out, so that each step has one line.

    Args:
        run: The run folder.
        events_dir: Folder of TensorBoard events, relative to the run folder.
        start_step: Steps done before this attempt.
        mlflow_uri: Tracking server that hears of them too; none if None.
        settings: What it is to note beside them, by dotted name.
        owes_validation: Whether the validation of ``start_step`` is still to be done.
    """

    def __init__(
        self,
        run: RunFolder,
        *,
        events_dir: str,
        start_step: int,
        mlflow_uri: str | None = None,
        settings: Mapping[str, Any] | None = None,
        owes_validation: bool = False,
    ) -> None:
        self._run = run
        self._events_dir = events_dir
        self._number, self._lines = _go_back(run, start_step, owes_validation=owes_validation)
        self._started = time.monotonic()
        self._is_behind = False
        self._events = _EventFile(run, events_dir, self._number, purge_step=start_step + 1)
        self._mlflow = (
            None if mlflow_uri is None else MlflowRun(run, uri=mlflow_uri, settings=settings or {})
        )
        self.flush()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record metrics of a step.

        A value that is infinite or no number is left out of all that is written: JSON has none.

        Args:
            step: Optimiser steps done.
            values: By name, each declared in ``METRICS``.

        Raises:
            ValueError: If a name is not declared.
        """
        unknown = sorted(set(values) - set(METRICS))
        if unknown:
            raise ValueError(f"metrics {unknown} are not declared in raycrp.tracking.METRICS")
        values = _finite(values)
        seconds = time.monotonic() - self._started
        text = _line_text({"step": step, "seconds": seconds, **values})
        self._lines.append(text)
        if self._run.is_local:
            self._append(text)
        self._events.add(step, values)
        if self._mlflow is not None:
            self._mlflow.log(step, values)

    def flush(self) -> None:
        """Make sure that all recorded so far is in the run folder."""
        self._write_segment()
        if len(self._lines) < SEGMENT_LINES:
            self._events.flush()
            return
        self._events.close()
        self._number, self._lines = self._number + 1, []
        self._events = _EventFile(self._run, self._events_dir, self._number)

    def _append(self, text: str) -> None:
        try:
            if self._is_behind:
                self._write_segment()
            else:
                path = Path(self._run.path(_segment_path(self._number)))
                with path.open("a", encoding="utf-8") as stream:
                    stream.write(text)
            self._is_behind = False
        except OSError as error:
            # Lines are kept, and written once storage is back: training need not end for them.
            logger.warning("metrics cannot be written: %s", error)
            self._is_behind = True

    def _write_segment(self) -> None:
        if self._lines or not self._number:
            data = "".join(self._lines).encode()
            self._run.write_bytes(_segment_path(self._number), data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._write_segment()
        self._events.close()
        if self._mlflow is not None and error is None:
            self._mlflow.close()


def read_metrics(run: RunFolder) -> list[dict[str, Any]]:
    """Lines of a training's metrics, in order of their steps; none where there are no files.

    Args:
        run: The run folder.
    """
    return [line for path in metrics_files(run) for line in _read_segment(run, path)]


def best_validation(
    lines: Iterable[Mapping[str, Any]], *, select_by: SelectBy
) -> Mapping[str, Any] | None:
    """The line of the validation whose weights are kept; None where there is none.

    Args:
        lines: Lines of metrics, in order of their steps.
        select_by: The rule.
    """
    validated = [
        line for line in lines if math.isfinite(validation_cost(line, select_by=select_by))
    ]
    return min(validated, key=lambda line: validation_cost(line, select_by=select_by), default=None)


def is_validation(line: Mapping[str, Any]) -> bool:
    """Whether a line of metrics is of a validation, be its loss a number or not.

    Args:
        line: Of the metrics.
    """
    return any(name.startswith("validation_") for name in line)


def validation_cost(line: Mapping[str, Any], *, select_by: SelectBy) -> float:
    """What the best of several validations has least of; of equals, the earliest is the best.

    Exact matches that are equal, as they are while there are none yet, are told apart by their
    losses, so that a training that gets better is not stopped for want of a whole right answer.

    Args:
        line: Metrics of a validation; of a step without one, the cost is infinite.
        select_by: The rule.

    Returns:
        Infinity where the loss is no finite number, whatever the rule.
    """
    # Rounded as in the file, so that the worker and those who read its lines agree.
    loss = _rounded(line.get("validation_loss", math.inf))
    if not math.isfinite(loss):
        return math.inf
    if select_by is SelectBy.LOSS:
        return loss
    exact = _rounded(line.get("validation_exact", 0.0))
    return _TIE_WEIGHT * min(loss, _TIE_LOSS) - exact


def metrics_files(run: RunFolder) -> list[str]:
    """The segments that are there, in order, relative to the run folder.

    Args:
        run: The run folder.
    """
    return [_segment_path(number) for number in _segment_numbers(run)]


def metrics_infos(run: RunFolder) -> list[fs.FileInfo]:
    """Path, size and time of change of each segment, in order, by a single look at the folder.

    Args:
        run: The run folder.
    """
    selector = fs.FileSelector(run.path("train"), allow_not_found=True)
    infos = run.filesystem.get_file_info(selector)
    return sorted(
        (info for info in infos if info.is_file and _SEGMENT.fullmatch(info.base_name)),
        key=lambda info: _segment_number(info.base_name),
    )


def copy_metrics(source: RunFolder, target: RunFolder) -> None:
    """Put the metrics of one run folder in the place of another one's.

    Args:
        source: The run folder that has them.
        target: The run folder that gets them.
    """
    for path in metrics_files(target):
        target.delete(path)
    for path in metrics_files(source):
        target.write_bytes(path, source.read_bytes(path))


class _EventFile:
    """TensorBoard events of one segment, written to a local file that is copied to the run folder.

    Storage that fails costs a copy alone. A writer of tensorboardX's own would wait without end
    for its thread, which the first error ends.

    Args:
        run: The run folder.
        folder: Folder of events, relative to the run folder.
        number: The segment.
        purge_step: Step from which TensorBoard forgets what earlier files say; none if None.
    """

    def __init__(
        self, run: RunFolder, folder: str, number: int, *, purge_step: int | None = None
    ) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._run = run
        self._folder = folder
        self._scratch = Path(tempfile.mkdtemp(prefix="raycrp-events-"))
        # The name has a time in seconds, which two files may share.
        self._writer = EventsWriter(str(self._scratch / "events"), f".{number:06d}")
        self._copied_at = time.monotonic()
        if purge_step is not None:
            start = SessionLog(status=SessionLog.START)
            self._writer.write_event(
                Event(wall_time=time.time(), step=purge_step, session_log=start)
            )

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Record metrics of a step; now and then, show what there is in the run folder."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        for name, value in values.items():
            summary = scalar(f"train/{name}", value)
            self._writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))
        if time.monotonic() - self._copied_at >= EVENTS_EVERY_S:
            try:
                self.flush()
            except OSError as error:
                logger.warning("events cannot be written: %s", error)

    def flush(self) -> None:
        """Bring what is written to storage."""
        self._copied_at = time.monotonic()
        self._writer.flush()
        self._copy()

    def close(self) -> None:
        """Bring all to storage; nothing can be added any more."""
        self._writer.close()
        self._copy()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _copy(self) -> None:
        target = (self._run.filesystem, self._run.path(self._folder))
        copy_folder(fs.LocalFileSystem(), str(self._scratch), target=target)


def _go_back(run: RunFolder, step: int, *, owes_validation: bool) -> tuple[int, list[str]]:
    """The segment to go on in and its lines up to a step.

    Segments behind it are deleted, the last one first: whenever this is cut off, what is left is
    in order, and the next attempt goes on here.
    """
    for number in reversed(_segment_numbers(run)):
        path = _segment_path(number)
        lines = [line for line in _read_segment(run, path) if line["step"] <= step]
        if owes_validation:
            lines = [line for line in lines if line["step"] < step or not is_validation(line)]
        if lines or not number:
            return number, [_line_text(line) for line in lines]
        run.delete(path)
    return 0, []


def _read_segment(run: RunFolder, path: str) -> Iterator[dict[str, Any]]:
    for text in run.read_bytes(path).decode().splitlines():
        try:
            yield json.loads(text)
        except json.JSONDecodeError:
            logger.warning("%s: a line was cut short and is left out", path)


def _segment_numbers(run: RunFolder) -> list[int]:
    return [_segment_number(info.base_name) for info in metrics_infos(run)]


def _segment_number(name: str) -> int:
    found = _SEGMENT.fullmatch(name)
    return int(found[1] or 0) if found else 0


def _segment_path(number: int) -> str:
    stem, dot, ending = METRICS_FILE.partition(".")
    return f"{stem}.{number:06d}{dot}{ending}" if number else METRICS_FILE


def _line_text(values: Mapping[str, float]) -> str:
    rounded = {name: _rounded(value) for name, value in _finite(values).items()}
    return json.dumps(rounded, allow_nan=False) + "\n"


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _rounded(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.9g}")
