"""What one training worker runs, top to bottom; the same under Ray Train and in one process."""

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from raycrp.choices import Precision
from raycrp.model.dropout import seed_dropout
from raycrp.prometheus import observe, set_gauge, set_training, set_training_limits
from raycrp.tracking import Tracker
from raycrp.train.attempts import StepGuard
from raycrp.train.averaging import WeightAverage
from raycrp.train.batches import Batch, Visits, rows_of_micro_batch, summed_loss, to_device
from raycrp.train.checkpoint import Progress, check_finite, next_progress
from raycrp.train.deepspeed import learning_rate_at
from raycrp.train.due import Due, SaveClock
from raycrp.train.flops import flop_model, peak_flops
from raycrp.train.instructions import Instructions
from raycrp.train.memory import remembering_memory
from raycrp.train.meter import Meter, validation_line
from raycrp.train.precision import MIN_SCALE, LossScale
from raycrp.train.resume import load_training, save_training, save_weights
from raycrp.train.session import Session
from raycrp.train.setup import WorkerSettings, build_parts, check_machine
from raycrp.train.storage import wait_for_storage
from raycrp.train.trials import RESULT_FILE
from raycrp.train.validation import validate

BEST_DIR = "train/best"
USAGE_FILE = "train/instructions.json"
EVENTS_DIR = "tensorboard/train"

logger = logging.getLogger(__name__)


def run_worker(settings: WorkerSettings, *, session: Session) -> Progress:
    """Train until the steps, the epochs or the patience run out.

    Args:
        settings: What to train and how.
        session: The launcher, in whose process group this worker is.

    Returns:
        How training ended.
    """
    worker = Worker(settings, session=session)
    worker.restore()
    with worker.tracking():
        while not worker.progress.stop_reason:
            if worker.progress.owes_validation:
                worker.validate()
                worker.save()
                continue
            worker.train_step()
            due = worker.due()
            # A validation is followed by a checkpoint, but a node that goes does not wait for it.
            if due.saves and (due.is_notice or not worker.progress.owes_validation):
                worker.save()
            if due.waits_s:
                worker.wait_for_restart(due.waits_s)
    worker.finish()
    return worker.progress


class Worker:
    """One worker's share of training.

    Args:
        settings: What to train and how.
        session: The launcher.
    """

    def __init__(self, settings: WorkerSettings, *, session: Session) -> None:
        check_machine(settings.train)
        self._settings = settings
        self._session = session
        self._guard = StepGuard(
            settings.run,
            rank=session.rank,
            world_size=session.world_size,
            rows_of=self._row_ids,
        )
        self._wait_for_storage()
        self._guard.begin()
        self._parts = build_parts(settings, session=session)
        self._engine = self._parts.engine
        self._rows = self._parts.rows
        self._schedule = self._parts.schedule
        self.progress = Progress()
        self._instructions = Instructions(
            self._rows.table,
            choice=settings.instruction,
            refresh_steps=settings.refresh_steps,
            device=self._engine.device,
        )
        is_fp16 = self._parts.precision is Precision.FP16
        self._loss_scale = LossScale() if is_fp16 else None
        decay = settings.train.ema_decay
        module = self._engine.module
        self._average = None if decay is None else WeightAverage(module, decay=decay)
        self._meter = Meter(
            world_size=session.world_size,
            device=self._engine.device,
            flops=flop_model(module.config),
            peak_flops=peak_flops(self._engine.device, self._parts.precision),
        )
        self._carried: dict[str, float] | None = None
        self._metrics: dict[str, float] = {}
        self._tracker: Tracker | None = None
        self._clock = SaveClock(
            session,
            every_steps=settings.train.checkpoint_every_steps,
            every_s=settings.train.checkpoint_every_s,
            device=self._engine.device,
        )

    def restore(self) -> None:
        """Go on from the newest good checkpoint, if there is one."""
        if self._parts.checkpoint is not None:
            loaded = load_training(
                self._engine, self._parts.checkpoint, is_resized=self._parts.is_resized
            )
            self.progress = loaded.progress
            self._instructions.load_state(loaded.tensors)
            self._carried = loaded.notes.get("meter")
            if self._average is not None:
                self._average.load_state(loaded.tensors)
            if self._loss_scale is not None:
                self._loss_scale = LossScale(**loaded.notes["loss_scale"])
            self._say("going on after step %d of %d", self.progress.step, self._parts.num_steps)
        if not self.progress.stop_reason:
            self._guard.start(self.progress.step)
            self._say(
                "training in %s on %d workers, passes of up to %d tokens",
                self._parts.precision,
                self._session.world_size,
                self._parts.token_budget,
            )

    @contextmanager
    def tracking(self) -> Iterator[None]:
        """Metrics are recorded inside the block, and a GPU's running out of memory is noted."""
        with ExitStack() as stack:
            memory = remembering_memory(
                self._settings.run,
                train=self._settings.train,
                token_budget=self._parts.token_budget,
                longest_row=self._parts.longest_row,
            )
            stack.enter_context(memory)
            if self._session.rank == 0:
                tracker = Tracker(
                    self._settings.run,
                    events_dir=EVENTS_DIR,
                    start_step=self.progress.step,
                    mlflow_uri=self._settings.train.mlflow_uri,
                    settings=self._settings.train.model_dump(mode="json"),
                    owes_validation=self.progress.owes_validation,
                )
                self._tracker = stack.enter_context(tracker)
                set_training_limits(
                    run=self._settings.run.name,
                    workers_wanted=self._settings.train.max_workers,
                    checkpoint_interval_s=self._settings.train.checkpoint_every_s,
                    least_loss_scale=None if self._loss_scale is None else MIN_SCALE,
                )
            self._meter.start(self._carried)
            yield

    def train_step(self) -> None:
        """One optimiser step on one global batch."""
        step = self.progress.step
        self._guard.enter(step)
        parts = self._schedule.micro_batches(step)
        num_targets = sum(self._rows.count_targets(part) for part in parts)
        self._prepare_instructions(step, parts)
        self._set_rates(step)
        for number in self._numbers(len(parts)):
            seed_dropout(self._parts.dropout, (self._settings.seed, step, number))
            batch = self._batch(parts, number)
            loss, hidden = self._forward(batch)
            # DeepSpeed averages over workers; the mean wanted is over the global batch's tokens.
            scale = self._session.world_size / num_targets
            self._engine.backward(loss * scale, scale_wrt_gas=False)
            self._instructions.observe(batch, hidden=hidden)
            self._meter.add(batch, loss=loss)
        self._engine.step()
        self._meter.end_step(num_rows=sum(map(len, parts)), num_targets=num_targets)
        self.progress = replace(
            self.progress, step=step + 1, owes_validation=self._is_validation_due(step + 1)
        )
        self._after_step(len(parts))

    def read_meter(self) -> dict[str, float]:
        """Speed, loss and padding since the last reading; every worker calls this."""
        return self._meter.read()

    def due(self) -> Due:
        """Whether it is time for a checkpoint; the same on every worker."""
        due = self._clock.due(self.progress.step)
        if due.is_notice and due.saves:
            self._say("a node is about to go: saving at step %d", self.progress.step)
        return due

    def wait_for_restart(self, seconds: float) -> None:
        """Do nothing while a node goes: steps done now would be lost with it.

        Args:
            seconds: After this much time the node has stayed, and training goes on.
        """
        self._meter.pause()
        self._say("all is saved; waiting for workers without the node that goes")
        time.sleep(seconds)
        self._meter.resume()

    def validate(self) -> None:
        """Score the validation rows; keep the best weights, and decide whether to go on."""
        self._meter.pause()
        with self._averaged():
            metrics = validate(
                self._engine,
                rows=self._parts.validation,
                chosen=self._parts.validation_rows,
                tokenizer=self._parts.tokenizer,
                is_live=self._instructions.is_live,
                rank=self._session.rank,
                world_size=self._session.world_size,
                token_budget=self._parts.token_budget,
            )
            self.progress = next_progress(
                self.progress,
                metrics=metrics,
                select_by=self._settings.train.select_by,
                num_steps=self._parts.num_steps,
                patience=self._settings.train.patience,
            )
            if self.progress.best_step == self.progress.step:
                self._wait_for_storage()
                save_weights(
                    self._engine,
                    run=self._settings.run,
                    target=BEST_DIR,
                    source=self._parts.folder,
                )
        self._track(metrics)
        self._metrics = metrics | {"validated_step": float(self.progress.step)}
        self._say("%s", validation_line(self.progress, metrics))
        self._meter.resume()

    def save(self) -> None:
        """Hand a checkpoint to the launcher."""
        self._meter.pause()
        started = time.monotonic()
        self._instructions.gather()
        tensors = self._instructions.state()
        if self._average is not None:
            tensors |= self._average.state()
        notes = {"meter": self._meter.carry()}
        if self._loss_scale is not None:
            notes["loss_scale"] = asdict(self._loss_scale)
        folder = save_training(
            self._engine,
            progress=self.progress,
            tensors=tensors,
            notes=notes,
            rank=self._session.rank,
            world_size=self._session.world_size,
            digest=self._parts.digest,
            precision=self._parts.precision,
            token_budget=self._parts.token_budget,
        )
        self._wait_for_storage()
        if self._tracker is not None:
            # Before the checkpoint: steps that it holds are not done again, nor are their lines.
            self._tracker.flush()
        self._session.report(self._metrics, step=self.progress.step, folder=folder)
        seconds = time.monotonic() - started
        self._clock.note_saved(seconds=seconds)
        if self._session.rank == 0:
            run = self._settings.run.name
            observe("raycrp_checkpoint_seconds", seconds, run=run)
            set_gauge("raycrp_checkpoint_time_seconds", time.time(), run=run)
            usage = {"step": self.progress.step, **self._instructions.usage(self._rows.kept)}
            self._settings.run.write_json(USAGE_FILE, usage)
        self._meter.resume()

    def finish(self) -> None:
        """Say in the run folder how training ended; the first worker does."""
        self._guard.finish()
        if self._session.rank == 0:
            result = asdict(self.progress) | self._parts.describe()
            self._settings.run.write_json(RESULT_FILE, result)

    def _is_validation_due(self, step: int) -> bool:
        return step % self._parts.eval_every == 0 or step == self._parts.num_steps

    def _numbers(self, num_parts: int) -> range:
        # Every worker takes as many micro batches as any other; those past the end count nothing.
        world_size = self._session.world_size
        num_rounds = -(-num_parts // world_size)
        return range(self._session.rank, num_rounds * world_size, world_size)

    def _batch(self, parts: list[Visits], number: int) -> Batch:
        visits, is_counted = rows_of_micro_batch(parts, number)
        return self._rows.collate(
            visits.rows,
            templates=self._instructions.templates(visits.rows),
            passes=visits.passes,
            is_counted=is_counted,
        )

    def _forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        output = self._engine(**batch.model_inputs(self._engine.device))
        loss = summed_loss(
            output.logits,
            labels=to_device(batch.labels, self._engine.device),
            smoothing=self._settings.train.label_smoothing,
        )
        return loss, output.encoder_last_hidden_state

    def _prepare_instructions(self, step: int, parts: list[Visits]) -> None:
        if self._schedule.starts_epoch(step):
            self._instructions.start_epoch()
        if not self._instructions.needs_refresh(step):
            return
        encoder = self._engine.module.get_encoder()
        self._instructions.refresh(encoder, tokenizer=self._parts.tokenizer)
        if self._instructions.is_exact:
            for number in self._numbers(len(parts)):
                self._instructions.choose(
                    encoder,
                    rows=rows_of_micro_batch(parts, number)[0].rows,
                    collator=self._rows.collate,
                    pad_id=self._parts.tokenizer.pad_token_id,
                )

    def _set_rates(self, step: int) -> None:
        train = self._settings.train
        self._learning_rate = learning_rate_at(
            step,
            num_steps=self._parts.num_steps,
            warmup_steps=round(train.warmup_fraction * self._parts.num_steps),
            peak=train.learning_rate,
            decay=train.decay,
        )
        for group in self._engine.optimizer.param_groups:
            group["lr"] = self._learning_rate
        if self._loss_scale is not None:
            self._engine.optimizer.override_loss_scale(self._loss_scale.scale)

    def _after_step(self, num_parts: int) -> None:
        if self._average is not None:
            self._average.update(self._engine.module, step=self.progress.step)
        if self._loss_scale is not None:
            has_overflow = bool(self._engine.optimizer.overflow)
            self._loss_scale = self._loss_scale.updated(has_overflow=has_overflow)
        if self.progress.step % self._settings.train.log_every_steps == 0:
            self._log(num_parts)

    def _log(self, num_parts: int) -> None:
        metrics = self._meter.read()
        metrics["learning_rate"] = self._learning_rate
        metrics["epoch"] = self.progress.step / self._schedule.steps_per_epoch
        metrics["micro_batches"] = num_parts
        metrics["workers"] = self._session.world_size
        norm = self._engine.get_global_grad_norm()
        if norm is not None:
            metrics["gradient_norm"] = float(norm)
        if self._loss_scale is not None:
            metrics["loss_scale"] = self._loss_scale.scale
            metrics["skipped_steps"] = self._loss_scale.total_skipped
        if self._instructions.is_live:
            metrics["instruction_entropy"] = self._instructions.entropy_bits(self._rows.kept)
        self._track(metrics)
        if self._loss_scale is None:  # In fp16 such steps are skipped, and too many end training.
            check_finite(metrics["loss"], step=self.progress.step)
        if self._meter.is_line_due():
            line = self._meter.progress_line(self.progress, metrics, self._parts.num_steps)
            self._say("%s", line)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        if self._average is None:
            yield
            return
        with self._average.applied(self._engine.module):
            yield

    def _wait_for_storage(self) -> None:
        settings = self._settings
        wait_for_storage(settings.run, source=settings.source, rank=self._session.rank)

    def _row_ids(self, step: int) -> list[int]:
        parts = self._schedule.micro_batches(step)
        places = np.concatenate([part.rows for part in parts])
        ids: list[int] = np.unique(self._rows.table.row_ids[places]).tolist()
        return ids

    def _track(self, metrics: dict[str, float]) -> None:
        if self._tracker is not None:
            self._tracker.log(self.progress.step, metrics)
            set_training(self.progress.step, metrics, run=self._settings.run.name)

    def _say(self, message: str, *values: Any) -> None:
        if self._session.rank == 0:
            logger.info(message, *values)
