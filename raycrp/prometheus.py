"""Every Prometheus metric of raycrp, declared once, and the way to set them from any process.

Ray exports them on each node as ``ray_<name>``, counters as ``ray_<name>_total``, with its own tags
(node, process) beside ours; so ``sum by`` and ``max by`` the tags that are declared here. A gauge
goes half a minute after its process, and a counter is not known before its first step; so whatever
counts over a whole run is a gauge that one process sets to the sum, restarts included. Where Ray is
not running nothing happens, so that code that is measured also runs in a plain process.
"""

import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any


class Kind(StrEnum):
    """How a metric behaves over time."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True)
class Metric:
    """One metric.

    Args:
        name: Without Ray's prefix, and for counters without ``_total``.
        kind: How it behaves over time.
        unit: What one is.
        description: One sentence.
        tag_keys: What tells its series apart.
        boundaries: Upper ends of a histogram's buckets.
    """

    name: str
    kind: Kind
    unit: str
    description: str
    tag_keys: tuple[str, ...] = ("run",)
    boundaries: tuple[float, ...] = ()

    @property
    def exported_names(self) -> tuple[str, ...]:
        """Names that Prometheus sees."""
        name = f"ray_{self.name}"
        if self.kind is Kind.COUNTER:
            return (f"{name}_total",)
        if self.kind is Kind.HISTOGRAM:
            return (f"{name}_bucket", f"{name}_sum", f"{name}_count")
        return (name,)


_STAGE = ("run", "stage")
_TASK = ("run", "task")
_TRIAL = ("run", "task", "encoding", "num_clusters")
_SECONDS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)


def _counter(
    name: str, unit: str, description: str, tag_keys: tuple[str, ...] = ("run",)
) -> Metric:
    return Metric(name, Kind.COUNTER, unit, description, tag_keys)


def _gauge(name: str, unit: str, description: str, tag_keys: tuple[str, ...] = ("run",)) -> Metric:
    return Metric(name, Kind.GAUGE, unit, description, tag_keys)


def _histogram(name: str, unit: str, description: str) -> Metric:
    return Metric(name, Kind.HISTOGRAM, unit, description, boundaries=_SECONDS)


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        _gauge("raycrp_stage_running", "1", "Whether a stage is at work, 1 or 0", _STAGE),
        _gauge("raycrp_stage_progress_time_seconds", "s", "Time of a stage's last step", _STAGE),
        _gauge("raycrp_stage_seconds", "s", "Time that a finished stage took", _STAGE),
        _gauge("raycrp_stage_rows", "rows", "Rows that a stage has written so far", _STAGE),
        _gauge("raycrp_stage_rows_wanted", "rows", "Rows that it will write in all", _STAGE),
        _gauge("raycrp_stage_rows_rejected", "rows", "Rows that it could not use", _STAGE),
        _gauge("raycrp_trials", "trials", "Trials of the sweep", ("run", "state")),
        _gauge("raycrp_trial_accuracy", "1", "Share of RTs named rightly, newest round", _TRIAL),
        _gauge("raycrp_trial_kappa", "1", "Cohen's kappa of the same", _TRIAL),
        _gauge("raycrp_trial_information_bits", "bits", "What the named RT tells", _TRIAL),
        _gauge("raycrp_trial_effective_types", "types", "Exp of the RTs' entropy", _TRIAL),
        _gauge("raycrp_trial_round", "rounds", "Self-feedback rounds done", _TRIAL),
        _histogram("raycrp_trial_seconds", "s", "Time of a finished trial"),
        _gauge("raycrp_train_step", "steps", "Optimiser steps done"),
        _gauge("raycrp_train_epoch", "epochs", "Passes over the training rows"),
        _gauge("raycrp_train_loss", "nats", "Mean cross-entropy of a target token"),
        _gauge("raycrp_train_validation_loss", "nats", "The same, validation rows", _TASK),
        _gauge("raycrp_train_validation_exact", "1", "Share of validation answers exact", _TASK),
        _gauge("raycrp_train_validation_accuracy", "1", "Share of validation tokens right"),
        _gauge("raycrp_train_learning_rate", "1", "Step size of AdamW"),
        _gauge("raycrp_train_gradient_norm", "1", "Norm of the gradient before clipping"),
        _gauge("raycrp_train_samples_per_second", "rows/s", "Training rows, all workers"),
        _gauge("raycrp_train_tokens_per_second", "tokens/s", "Real tokens, all workers"),
        _gauge("raycrp_train_flop_utilisation", "1", "Model FLOPs over the GPUs' peak (MFU)"),
        _gauge("raycrp_train_padding_share", "1", "Share of positions that are padding"),
        _gauge("raycrp_train_instruction_entropy_bits", "bits", "Spread of the instructions used"),
        _gauge("raycrp_train_memory_bytes", "bytes", "Peak memory of the first worker"),
        _gauge("raycrp_train_loss_scale", "1", "Loss scale of fp16"),
        _gauge("raycrp_train_loss_scale_minimum", "1", "Least loss scale allowed"),
        _gauge("raycrp_train_skipped_steps", "steps", "Steps left out after an overflow"),
        _counter("raycrp_train_nonfinite_losses", "steps", "Losses that were NaN or infinite"),
        _gauge("raycrp_workers", "workers", "Training workers at work"),
        _gauge("raycrp_workers_wanted", "workers", "Training workers asked for, at most"),
        _gauge("raycrp_worker_restarts", "restarts", "Times that the workers started anew"),
        _gauge("raycrp_steps_lost", "steps", "Steps done again after a loss"),
        _histogram("raycrp_checkpoint_seconds", "s", "Time to save a checkpoint"),
        _gauge("raycrp_checkpoint_time_seconds", "s", "Time of the newest checkpoint"),
        _gauge("raycrp_checkpoint_interval_seconds", "s", "Longest time wanted between two"),
    )
}
"""All metrics by name. Times of an event are in seconds since 1970."""

TRAINING: Mapping[str, str] = {
    "loss": "raycrp_train_loss",
    "learning_rate": "raycrp_train_learning_rate",
    "gradient_norm": "raycrp_train_gradient_norm",
    "epoch": "raycrp_train_epoch",
    "samples_per_s": "raycrp_train_samples_per_second",
    "tokens_per_s": "raycrp_train_tokens_per_second",
    "mfu": "raycrp_train_flop_utilisation",
    "padding_share": "raycrp_train_padding_share",
    "instruction_entropy": "raycrp_train_instruction_entropy_bits",
    "loss_scale": "raycrp_train_loss_scale",
    "skipped_steps": "raycrp_train_skipped_steps",
    "validation_accuracy": "raycrp_train_validation_accuracy",
    "workers": "raycrp_workers",
}
"""Names in the training log (``raycrp.tracking.METRICS``) and the metrics that show them."""

_VALIDATION: Mapping[str, str] = {
    "validation_loss": "raycrp_train_validation_loss",
    "validation_exact": "raycrp_train_validation_exact",
}
"""The same of what each task has too, by the start of its name."""

_BYTES_PER_GIB = 2**30


def count(name: str, value: float = 1.0, **tags: str) -> None:
    """Add to a counter.

    Args:
        name: A counter of ``METRICS``.
        value: How much; nothing happens at 0.
        tags: One for each of the metric's tag keys.

    Raises:
        ValueError: If the metric or its tags are not declared, or the value is negative.
    """
    _check(name, Kind.COUNTER, tags)
    if value < 0:
        raise ValueError(f"counter {name} cannot go down by {-value}")
    if value > 0 and _is_ray_running():
        _handle(name).inc(value, tags=tags)


def set_gauge(name: str, value: float, **tags: str) -> None:
    """Set a gauge; a value that is not finite leaves it as it was.

    Args:
        name: A gauge of ``METRICS``.
        value: The new value.
        tags: One for each of the metric's tag keys.

    Raises:
        ValueError: If the metric or its tags are not declared.
    """
    _check(name, Kind.GAUGE, tags)
    if math.isfinite(value) and _is_ray_running():
        _handle(name).set(float(value), tags=tags)


def observe(name: str, value: float, **tags: str) -> None:
    """Add one value to a histogram.

    Args:
        name: A histogram of ``METRICS``.
        value: The value.
        tags: One for each of the metric's tag keys.

    Raises:
        ValueError: If the metric or its tags are not declared.
    """
    _check(name, Kind.HISTOGRAM, tags)
    if _is_ray_running():
        _handle(name).observe(float(value), tags=tags)


def note_progress(
    *,
    run: str,
    stage: str,
    rows: int | None = None,
    wanted: int | None = None,
    rejected: int | None = None,
) -> None:
    """Say that a stage has got further just now; without it an alert rings after ten minutes.

    Args:
        run: Name of the run.
        stage: The stage.
        rows: Rows written so far, by earlier attempts too; left as it was if None.
        wanted: Rows that it will write in all.
        rejected: Rows that it could not use so far.
    """
    set_gauge("raycrp_stage_progress_time_seconds", time.time(), run=run, stage=stage)
    numbers = {"rows": rows, "rows_wanted": wanted, "rows_rejected": rejected}
    for name, number in numbers.items():
        if number is not None:
            set_gauge(f"raycrp_stage_{name}", number, run=run, stage=stage)


@contextmanager
def stage_shown(stage: str, *, run: str) -> Iterator[None]:
    """Show a stage as running for as long as the block lasts, and its seconds once it has ended.

    Args:
        stage: The stage.
        run: Name of the run.
    """
    started = time.monotonic()
    set_gauge("raycrp_stage_running", 1, run=run, stage=stage)
    note_progress(run=run, stage=stage)
    try:
        yield
        seconds = time.monotonic() - started
        set_gauge("raycrp_stage_seconds", seconds, run=run, stage=stage)
    finally:
        set_gauge("raycrp_stage_running", 0, run=run, stage=stage)


def set_training(step: int, values: Mapping[str, float], *, run: str) -> None:
    """Show a line of the training log as metrics.

    Args:
        step: Optimiser steps done.
        values: By name as in ``raycrp.tracking``; names without a metric are left out.
        run: Name of the run.
    """
    set_gauge("raycrp_train_step", step, run=run)
    for name, value in values.items():
        if name in TRAINING:
            set_gauge(TRAINING[name], value, run=run)
        for start, metric in _VALIDATION.items():
            if name.startswith(start):
                task = name.removeprefix(start).lstrip("_") or "all"
                set_gauge(metric, value, run=run, task=task)
    if "memory_gib" in values:
        num_bytes = values["memory_gib"] * _BYTES_PER_GIB
        set_gauge("raycrp_train_memory_bytes", num_bytes, run=run)
    if not math.isfinite(values.get("loss", 0.0)):
        count("raycrp_train_nonfinite_losses", run=run)
    note_progress(run=run, stage="train")


def set_training_limits(
    *,
    run: str,
    workers_wanted: int,
    checkpoint_interval_s: float | None,
    least_loss_scale: float | None,
) -> None:
    """Show what training is held against by dashboards and alerts.

    Args:
        run: Name of the run.
        workers_wanted: Workers asked for, at most.
        checkpoint_interval_s: Longest time wanted between two checkpoints; None for none.
        least_loss_scale: Least loss scale allowed; None where none is used.
    """
    set_gauge("raycrp_workers_wanted", workers_wanted, run=run)
    if checkpoint_interval_s is not None:
        set_gauge("raycrp_checkpoint_interval_seconds", checkpoint_interval_s, run=run)
    if least_loss_scale is not None:
        set_gauge("raycrp_train_loss_scale_minimum", least_loss_scale, run=run)


def set_round(values: Mapping[str, Any], *, run: str) -> None:
    """Show a round of a trial as metrics.

    Args:
        values: A line of ``elicit/rounds.jsonl``.
        run: Name of the run.
    """
    tags = {key: str(values[key]) for key in _TRIAL if key != "run"}
    for name in ("accuracy", "kappa", "information_bits", "effective_types"):
        set_gauge(f"raycrp_trial_{name}", values[name], run=run, **tags)
    set_gauge("raycrp_trial_round", values["round"], run=run, **tags)
    note_progress(run=run, stage="elicit")


def _check(name: str, kind: Kind, tags: Mapping[str, str]) -> None:
    metric = METRICS.get(name)
    if metric is None or metric.kind is not kind:
        raise ValueError(f"no {kind} '{name}' is declared in raycrp.prometheus")
    if set(tags) != set(metric.tag_keys):
        raise ValueError(f"metric {name} has tags {metric.tag_keys}, found {tuple(sorted(tags))}")


def _is_ray_running() -> bool:
    """Without importing Ray: a process that has not imported it is not connected either."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


@cache
def _handle(name: str) -> Any:
    from ray.util import metrics

    metric = METRICS[name]
    if metric.kind is Kind.HISTOGRAM:
        boundaries = list(metric.boundaries)
        return metrics.Histogram(name, metric.description, boundaries, metric.tag_keys)
    kind = metrics.Counter if metric.kind is Kind.COUNTER else metrics.Gauge
    return kind(name, metric.description, metric.tag_keys)
