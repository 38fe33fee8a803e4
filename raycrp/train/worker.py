"""What one training worker runs, top to bottom; the same under Ray Train and in one process."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from raycrp.config import InstructionChoice, TrainConfig
from raycrp.errors import TrainError
from raycrp.model.t5 import load_backbone, num_parameters
from raycrp.prompt.stage import LLM_CRP_DIR
from raycrp.run import RunFolder
from raycrp.schemas import Split
from raycrp.tracking import Tracker
from raycrp.train.batches import IGNORED_LABEL, Batch, SpecialIds, batch_shape
from raycrp.train.checkpoint import Progress
from raycrp.train.deepspeed import (
    OptimizerSettings,
    build_engine,
    learning_rate_at,
    resolve_precision,
)
from raycrp.train.instructions import Instructions
from raycrp.train.meter import Meter
from raycrp.train.resume import (
    agreed_checkpoint,
    load_training,
    model_digest,
    needs_resize,
    save_training,
    save_weights,
)
from raycrp.train.rows import Rows, Schedule
from raycrp.train.session import Session
from raycrp.train.tokens import IntArray, PrefixTable, plain_ids
from raycrp.train.validation import chosen_rows, validate

BEST_DIR = "train/best"
METRICS_FILE = "train/metrics.jsonl"
RESULT_FILE = "train/result.json"
EVENTS_DIR = "tensorboard/train"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkerSettings:
    """All that a worker needs to know; picklable.

    Args:
        run: The run folder, with the token tables written.
        train: Settings of training.
        instruction: How instructions are chosen.
        refresh_steps: Steps between refreshes of live instructions; None for none.
        seed: Seed of order and dropout.
    """

    run: RunFolder
    train: TrainConfig
    instruction: InstructionChoice
    refresh_steps: int | None
    seed: int


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
            worker.train_step()
            if worker.is_due():
                worker.validate()
                worker.save()
    worker.write_result()
    return worker.progress


class Worker:
    """One worker's share of training.

    Args:
        settings: What to train and how.
        session: The launcher.
    """

    def __init__(self, settings: WorkerSettings, *, session: Session) -> None:
        self._settings = settings
        self._session = session
        self.progress = Progress()
        self._find_checkpoint()
        self._load_model()
        self._load_rows()
        self._instructions = Instructions(
            self._rows.table,
            choice=settings.instruction,
            refresh_steps=settings.refresh_steps,
        )
        self._meter = Meter(world_size=session.world_size, device=self._engine.device)
        self._tracker: Tracker | None = None

    def restore(self) -> None:
        """Go on from the newest good checkpoint, if there is one."""
        if self._checkpoint is None:
            return
        self.progress, tensors = load_training(
            self._engine, self._checkpoint, is_resized=self._is_resized
        )
        self._instructions.load_state(tensors)
        if self._session.rank == 0:
            logger.info("going on after step %d of %d", self.progress.step, self._num_steps)

    @contextmanager
    def tracking(self) -> Iterator[None]:
        """Metrics are recorded inside the block, by the first worker."""
        if self._session.rank != 0:
            yield
            return
        with Tracker(
            self._settings.run,
            path=METRICS_FILE,
            events_dir=EVENTS_DIR,
            start_step=self.progress.step,
        ) as self._tracker:
            yield

    def train_step(self) -> None:
        """One optimiser step on one global batch."""
        step = self.progress.step
        parts = self._schedule.micro_batches(step)
        self._prepare_instructions(step, parts)
        epoch = self._schedule.epoch(step)
        num_targets = sum(self._rows.count_targets(part, spelling=epoch) for part in parts)
        self._set_learning_rate(step)
        for number in self._numbers(len(parts)):
            torch.manual_seed(_micro_seed(self._settings.seed, step, number))
            batch = self._batch(parts, number, spelling=epoch)
            loss, hidden = self._forward(batch)
            # DeepSpeed averages over workers; the mean wanted is over the global batch's tokens.
            scale = self._session.world_size / num_targets
            self._engine.backward(loss * scale, scale_wrt_gas=False)
            self._instructions.observe(batch, hidden=hidden)
            self._meter.add(batch, loss=loss)
        self._engine.step()
        self._meter.end_step(num_rows=sum(map(len, parts)), num_targets=num_targets)
        self.progress = replace(self.progress, step=step + 1)
        if self.progress.step % self._settings.train.log_every_steps == 0:
            self._log(parts)

    def is_due(self) -> bool:
        """Whether it is time to validate and to save."""
        step = self.progress.step
        return step % self._eval_every == 0 or step == self._num_steps

    def validate(self) -> None:
        """Score the validation rows; keep the best weights, and decide whether to go on."""
        metrics = validate(
            self._engine,
            rows=self._validation,
            chosen=self._validation_rows,
            tokenizer=self._tokenizer,
            is_live=self._instructions.is_live,
            rank=self._session.rank,
            world_size=self._session.world_size,
            token_budget=self._settings.train.token_budget,
        )
        self._meter.pause()
        self.progress = next_progress(
            self.progress,
            loss=metrics["validation_loss"],
            num_steps=self._num_steps,
            patience=self._settings.train.patience,
        )
        if self.progress.best_step == self.progress.step:
            save_weights(self._engine, run=self._settings.run, target=BEST_DIR, source=self._folder)
        self._track(metrics)
        self._metrics = metrics
        if self._session.rank == 0:
            logger.info("%s", self._meter.validation_line(self.progress, metrics))

    def save(self) -> None:
        """Hand a checkpoint to the launcher."""
        self._instructions.gather()
        folder = save_training(
            self._engine,
            progress=self.progress,
            tensors=self._instructions.state(),
            rank=self._session.rank,
            world_size=self._session.world_size,
            digest=self._digest,
        )
        self._session.report(self._metrics, step=self.progress.step, folder=folder)
        self._meter.resume()

    def write_result(self) -> None:
        """Say in the run folder how training ended; the first worker does."""
        if self._session.rank == 0:
            result = {
                **asdict(self.progress),
                "num_steps": self._num_steps,
                "steps_per_epoch": self._schedule.steps_per_epoch,
                "num_rows": len(self._rows.kept),
                "num_too_long": self._rows.num_too_long,
                "num_validation_too_long": self._validation.num_too_long,
                "num_spellings": self._rows.num_spellings,
                "num_aligned": self._rows.table.num_aligned,
                "num_validation_rows": len(self._validation_rows),
                "num_parameters": self._num_parameters,
            }
            self._settings.run.write_json(RESULT_FILE, result)

    def _find_checkpoint(self) -> None:
        self._folder = self._settings.run.local_dir(LLM_CRP_DIR)
        self._digest = model_digest(self._folder)
        self._checkpoint = agreed_checkpoint(
            self._session.checkpoints(), model_digest=self._digest, rank=self._session.rank
        )
        self._is_resized = self._checkpoint is not None and needs_resize(
            self._checkpoint,
            zero_stage=self._settings.train.zero_stage,
            world_size=self._session.world_size,
        )

    def _load_model(self) -> None:
        train = self._settings.train
        model, self._tokenizer = load_backbone(self._folder)
        self._num_parameters = num_parameters(model)
        self._start_id = int(model.config.decoder_start_token_id)
        self._shape = batch_shape(
            train.batch_size,
            micro_batch_size=train.micro_batch_size,
            num_workers=train.num_workers,
            token_budget=train.token_budget,
        )
        self._engine = build_engine(
            model.train(),
            optimizer=OptimizerSettings(
                train.learning_rate, train.weight_decay, train.gradient_clip
            ),
            zero_stage=train.zero_stage,
            micro_batch_size=train.batch_size // self._shape.num_micro,
            precision=resolve_precision(train.precision, use_gpu=train.use_gpu),
            load_universal=self._is_resized,
        )

    def _load_rows(self) -> None:
        settings, train = self._settings, self._settings.train
        prefixes = PrefixTable(self._tokenizer)
        special = special_ids(self._tokenizer, start=self._start_id)
        self._rows, self._validation = (
            Rows(settings.run, split=split, prefixes=prefixes, special=special, train=train)
            for split in (Split.TRAIN, Split.VALIDATION)
        )
        self._validation_rows = chosen_rows(
            self._validation, max_rows=train.max_validation_rows, seed=settings.seed
        )
        self._schedule = Schedule(self._rows, shape=self._shape, seed=settings.seed)
        self._num_steps = train.max_epochs * self._schedule.steps_per_epoch
        if train.max_steps is not None:
            self._num_steps = min(self._num_steps, train.max_steps)
        self._eval_every = train.eval_every_steps or self._schedule.steps_per_epoch

    def _numbers(self, num_parts: int) -> range:
        # Every worker takes as many micro batches as any other; those past the end count nothing.
        world_size = self._session.world_size
        num_rounds = -(-num_parts // world_size)
        return range(self._session.rank, num_rounds * world_size, world_size)

    def _batch(self, parts: list[IntArray], number: int, *, spelling: int) -> Batch:
        rows = parts[number] if number < len(parts) else parts[0][:0]
        is_counted = len(rows) > 0
        rows = rows if is_counted else parts[0][:1]
        return self._rows.collate(
            rows,
            templates=self._instructions.templates(rows),
            spelling=spelling,
            is_counted=is_counted,
        )

    def _forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        device = self._engine.device
        output = self._engine(
            input_ids=batch.input_ids.to(device),
            attention_mask=batch.attention_mask.to(device),
            decoder_input_ids=batch.decoder_input_ids.to(device),
            use_cache=False,
        )
        loss = cross_entropy(
            output.logits.float().flatten(0, 1),
            batch.labels.to(device).flatten(),
            ignore_index=IGNORED_LABEL,
            reduction="sum",
        )
        return loss, output.encoder_last_hidden_state

    def _prepare_instructions(self, step: int, parts: list[IntArray]) -> None:
        if self._schedule.starts_epoch(step):
            self._instructions.start_epoch()
        if not self._instructions.needs_refresh(step):
            return
        encoder = self._engine.module.get_encoder()
        self._instructions.refresh(encoder, tokenizer=self._tokenizer)
        if self._instructions.is_exact:
            mine = [parts[n] for n in self._numbers(len(parts)) if n < len(parts)]
            self._instructions.choose(
                encoder,
                rows=np.concatenate(mine),
                collator=self._rows.collate,
                pad_id=self._tokenizer.pad_token_id,
            )

    def _set_learning_rate(self, step: int) -> None:
        train = self._settings.train
        self._learning_rate = learning_rate_at(
            step,
            num_steps=self._num_steps,
            warmup_steps=round(train.warmup_fraction * self._num_steps),
            peak=train.learning_rate,
            decay=train.decay,
        )
        for group in self._engine.optimizer.param_groups:
            group["lr"] = self._learning_rate

    def _log(self, parts: list[IntArray]) -> None:
        metrics = self._meter.read()
        metrics["learning_rate"] = self._learning_rate
        norm = self._engine.get_global_grad_norm()
        if norm is not None:  # ZeRO 0 in fp32 clips without telling the norm.
            metrics["gradient_norm"] = float(norm)
        metrics["epoch"] = self.progress.step / self._schedule.steps_per_epoch
        metrics["micro_batches"] = len(parts)
        if self._instructions.is_live:
            metrics["instruction_entropy"] = self._instructions.entropy_bits(self._rows.kept)
        self._track(metrics)
        if not np.isfinite(metrics["loss"]):
            raise TrainError(
                f"the loss is {metrics['loss']} at step {self.progress.step}; lower "
                "train.learning_rate or use train.precision fp32"
            )
        if self._session.rank == 0 and self._meter.is_line_due():
            logger.info("%s", self._meter.progress_line(self.progress, metrics, self._num_steps))

    def _track(self, metrics: dict[str, float]) -> None:
        if self._tracker is not None:
            self._tracker.log(self.progress.step, metrics)


def next_progress(progress: Progress, *, loss: float, num_steps: int, patience: int) -> Progress:
    """How far training is after a validation, and whether it is over.

    Args:
        progress: Before it.
        loss: Validation loss.
        num_steps: Steps of the whole training.
        patience: Validations without a lower loss before training stops.
    """
    if progress.best_loss is None or loss < progress.best_loss:
        progress = replace(progress, best_loss=loss, best_step=progress.step, num_worse=0)
    else:
        progress = replace(progress, num_worse=progress.num_worse + 1)
    if progress.num_worse >= patience:
        return replace(progress, stop_reason=f"no lower validation loss in {patience} validations")
    if progress.step >= num_steps:
        return replace(progress, stop_reason="all steps done")
    return progress


def special_ids(tokenizer: Any, *, start: int) -> SpecialIds:
    """Ids that batches need, from a tokenizer.

    Args:
        tokenizer: LLM-CRP's tokenizer.
        start: First token of every answer.
    """
    with_blank, without = plain_ids(tokenizer, [" C", "C"])
    return SpecialIds(
        pad=tokenizer.pad_token_id,
        eos=tokenizer.eos_token_id,
        start=start,
        blank=with_blank[0] if len(with_blank) > len(without) else None,
    )


def _micro_seed(seed: int, step: int, number: int) -> int:
    """Seed of a micro batch's dropout, the same on whichever worker it runs."""
    return int(np.random.SeedSequence((seed, step, number)).generate_state(1, np.uint64)[0] >> 1)
