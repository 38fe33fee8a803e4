"""Metrics out: every metric declared once, written as JSON Lines and as TensorBoard events."""

import json
import logging
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pyarrow import fs

from raycrp.experiments import MlflowRun
from raycrp.run import RunFolder

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

    A resumed training goes on in the same file: lines of steps that will be done again are taken
    out, so that each step has one line.

    Args:
        run: The run folder.
        path: JSON Lines file, relative to the run folder.
        events_dir: Folder of TensorBoard events, relative to the run folder.
        start_step: Steps done before this attempt.
        mlflow_uri: Tracking server that hears of them too; none if None.
        settings: What it is to note beside them, by dotted name.
    """

    def __init__(
        self,
        run: RunFolder,
        *,
        path: str,
        events_dir: str,
        start_step: int,
        mlflow_uri: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        from tensorboardX import SummaryWriter

        self._run = run
        self._path = path
        self._events_dir = events_dir
        self._lines = _kept_lines(run, path, start_step)
        self._started = time.monotonic()
        self._is_behind = False
        self._scratch = None if run.is_local else Path(tempfile.mkdtemp(prefix="raycrp-events-"))
        self._writer = SummaryWriter(
            logdir=str(self._scratch or run.path(events_dir)), purge_step=start_step + 1
        )
        self._mlflow = (
            None if mlflow_uri is None else MlflowRun(run, uri=mlflow_uri, settings=settings or {})
        )
        self.flush()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record metrics of a step.

        Args:
            step: Optimiser steps done.
            values: By name, each declared in ``METRICS``.

        Raises:
            ValueError: If a name is not declared.
        """
        unknown = sorted(set(values) - set(METRICS))
        if unknown:
            raise ValueError(f"metrics {unknown} are not declared in raycrp.tracking.METRICS")
        line = {"step": step, "seconds": time.monotonic() - self._started, **values}
        text = json.dumps({name: _rounded(value) for name, value in line.items()}) + "\n"
        self._lines.append(text)
        if self._run.is_local:
            self._append(text)
        for name, value in values.items():
            self._writer.add_scalar(f"train/{name}", value, step)
        if self._mlflow is not None:
            self._mlflow.log(step, values)

    def _append(self, text: str) -> None:
        try:
            if self._is_behind:
                self._run.write_bytes(self._path, "".join(self._lines).encode())
            else:
                with Path(self._run.path(self._path)).open("a", encoding="utf-8") as stream:
                    stream.write(text)
            self._is_behind = False
        except OSError as error:
            # Lines are kept, and written once storage is back: training need not end for them.
            logger.warning("metrics cannot be written: %s", error)
            self._is_behind = True

    def flush(self) -> None:
        """Make sure that all recorded so far is in the run folder."""
        self._run.write_bytes(self._path, "".join(self._lines).encode())
        self._writer.flush()
        if self._scratch is not None:
            fs.copy_files(
                str(self._scratch),
                self._run.path(self._events_dir),
                destination_filesystem=self._run.filesystem,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.flush()
        self._writer.close()
        if self._mlflow is not None and error is None:
            self._mlflow.close()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)


def read_metrics(run: RunFolder, path: str) -> list[dict[str, Any]]:
    """Lines of a JSON Lines file of metrics, in order of their steps; none if it is not there.

    Args:
        run: The run folder.
        path: The file, relative to the run folder.
    """
    if not run.exists(path):
        return []
    lines: list[dict[str, Any]] = []
    for text in run.read_bytes(path).decode().splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            logger.warning("%s: a line was cut short and is left out", path)
    return lines


def _kept_lines(run: RunFolder, path: str, start_step: int) -> list[str]:
    kept = [line for line in read_metrics(run, path) if line["step"] <= start_step]
    return [json.dumps(line) + "\n" for line in kept]


def _rounded(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.9g}")
