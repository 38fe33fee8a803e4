"""How many tokens a pass may have: as many as a GPU's memory holds, measured before the first step.

A pass over rows of one length takes a fixed part and a part for each row. Both come from passes
over one row and over several, on the very model that trains; they leave no gradients, and no random
number of training depends on them. What training allocates later, such as AdamW's moments at its
first step, is known from the number of weights and is kept free.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist

from raycrp.choices import Precision
from raycrp.config import TrainConfig
from raycrp.errors import TrainError
from raycrp.run import RunFolder
from raycrp.train.batches import summed_loss
from raycrp.train.deepspeed import REDUCE_BUCKET_SIZE

CPU_TOKEN_BUDGET = 16_384
"""Tokens of a pass on a CPU, where memory is not what limits speed."""
MEMORY_FILE = "train/out_of_memory.json"

_SHARE = 0.85
# A resumed training keeps its budget on like hardware, where free memory varies a little.
_SHARE_KEPT = 0.95
_ROUNDED_TO = 1_024
_PROBE_TOKENS = 8_192
_SHORT_PROMPT = 8
_ANY_TOKEN = 1
_MOMENT_BYTES = 8
_FULL_BYTES = 4
_HALF_BYTES = 2
_BYTES_PER_GIB = 2**30

logger = logging.getLogger(__name__)


class Probe(Protocol):
    """Measures one pass."""

    def __call__(self, *, rows: int, prompt: int, target: int) -> int:
        """Bytes at the peak of a forward and backward pass, beyond those before it.

        Args:
            rows: Number of rows.
            prompt: Tokens of each prompt.
            target: Tokens of each target.

        Raises:
            torch.OutOfMemoryError: If the memory does not hold it.
        """


@dataclass(frozen=True)
class Sizes:
    """What the passes of a training are made of.

    Args:
        longest_prompt: Tokens of the longest prompt.
        longest_target: Tokens of the longest target.
        most_rows: Rows of a worker's whole share of a global batch.
        num_parameters: Weights of the model.
        world_size: Number of workers.
    """

    longest_prompt: int
    longest_target: int
    most_rows: int
    num_parameters: int
    world_size: int

    @property
    def longest_row(self) -> int:
        """Tokens of the longest prompt and the longest target together."""
        return self.longest_prompt + self.longest_target


def agreed_token_budget(
    engine: Any,
    *,
    train: TrainConfig,
    precision: Precision,
    sizes: Sizes,
    run: RunFolder,
    before: int = 0,
) -> int:
    """Rows times longest prompt and target of one pass; every worker calls this.

    Args:
        engine: The DeepSpeed engine, before its first step.
        train: Settings of training.
        precision: Number format in use.
        sizes: Of rows, model and cluster.
        run: The run folder, for what earlier attempts ran out of memory with.
        before: The budget of the checkpoint to go on from, kept if it still fits; 0 for none.

    Raises:
        TrainError: If a GPU's memory does not hold a single one of the longest rows.
    """
    if train.token_budget is not None:
        return train.token_budget
    if engine.device.type != "cuda":
        return before or CPU_TOKEN_BUDGET
    to_come = bytes_to_come(train, precision=precision, sizes=sizes)
    own: list[int | TrainError] = [0]
    try:
        probe = cuda_probe(engine.module, device=engine.device, smoothing=train.label_smoothing)
        costs = measure_costs(probe, sizes=sizes)
        rooms = [_cuda_room(engine.device, share=s) - to_come for s in (_SHARE, _SHARE_KEPT)]
        own = [take_budget(costs, rooms=rooms, sizes=sizes, before=before)]
    except TrainError as error:
        own = [error]
    return _smallest(own[0], most=_noted_limit(run), before=before)


def measure_costs(probe: Probe, *, sizes: Sizes) -> "list[PassCost]":
    """What passes take: over the longest rows, and over those that are nearly all target.

    A target's token takes more than a prompt's, by its logits, so that the longest rows alone would
    not tell the most that tokens take.

    Args:
        probe: Measures one pass.
        sizes: Of the rows.

    Raises:
        TrainError: If a single row does not fit.
    """
    prompts = sorted({sizes.longest_prompt, min(_SHORT_PROMPT, sizes.longest_prompt)})
    return [_measure(probe, prompt=p, target=sizes.longest_target) for p in prompts]


@dataclass(frozen=True)
class PassCost:
    """Bytes that a pass over rows of one length takes.

    Args:
        row_tokens: Tokens of a row, prompt and target.
        fixed_bytes: However many rows.
        row_bytes: For each row.
    """

    row_tokens: int
    fixed_bytes: float
    row_bytes: float

    def tokens(self, room: float) -> int:
        """Tokens that fit.

        Args:
            room: Bytes.
        """
        return max(0, int((room - self.fixed_bytes) // self.row_bytes)) * self.row_tokens


def take_budget(
    costs: Sequence[PassCost], *, rooms: Sequence[float], sizes: Sizes, before: int
) -> int:
    """The largest budget that fits, at most a worker's whole share of a batch.

    Args:
        costs: From `measure_costs`.
        rooms: Bytes for a pass: those that a new budget may fill, and those that one that was
            taken before may.
        sizes: Of the rows.
        before: Budget taken before; 0 for none.

    Raises:
        TrainError: If a single one of the longest rows does not fit.
    """
    fitting, kept = (min(cost.tokens(room) for cost in costs) for room in rooms)
    # A row is never cut, and shorter ones in its place fit where it does.
    if min(cost.tokens(rooms[0]) // cost.row_tokens for cost in costs) < 1:
        raise _too_long(sizes, room=rooms[0])
    if 0 < before <= kept:
        return before
    rounded = fitting // _ROUNDED_TO * _ROUNDED_TO or fitting
    return min(rounded, sizes.most_rows * sizes.longest_row)


def bytes_to_come(train: TrainConfig, *, precision: Precision, sizes: Sizes) -> float:
    """Memory of a GPU that training takes beside its passes, and not before its first step.

    AdamW's two moments in float32, parted among the workers by ZeRO; the gradients, parted from
    stage 2 on; DeepSpeed's bucket of gradients; the weights' moving average.

    Args:
        train: Settings of training.
        precision: Number format in use.
        sizes: Of model and cluster.
    """
    weights, parts = sizes.num_parameters, sizes.world_size
    gradient = weights * (_HALF_BYTES if precision is Precision.BF16 else _FULL_BYTES)
    average = 0.0 if train.ema_decay is None else _FULL_BYTES * weights
    if train.offload:
        return average + gradient / weights * min(REDUCE_BUCKET_SIZE, weights)
    moments = _MOMENT_BYTES * weights / (parts if train.zero_stage else 1)
    gradients = gradient / (parts if train.zero_stage >= 2 else 1)
    bucket = gradient / weights * REDUCE_BUCKET_SIZE if train.zero_stage else 0.0
    return moments + gradients + bucket + average


def cuda_probe(module: torch.nn.Module, *, device: torch.device, smoothing: float) -> Probe:
    """Measures passes of a model on a GPU.

    Args:
        module: A T5 in training mode.
        device: The GPU.
        smoothing: Label smoothing of training.
    """

    def probe(*, rows: int, prompt: int, target: int) -> int:
        """Peak of one pass."""
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        with torch.random.fork_rng(devices=[device]):
            run_pass(module, rows=rows, prompt=prompt, target=target, smoothing=smoothing)
        torch.cuda.synchronize(device)
        peak = int(torch.cuda.max_memory_allocated(device)) - before
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return peak

    return probe


def run_pass(
    module: torch.nn.Module, *, rows: int, prompt: int, target: int, smoothing: float = 0.0
) -> None:
    """A forward and backward pass over made-up rows, which leaves the model as it is.

    The gradients go past the weights, so that neither they nor DeepSpeed hear of them.

    Args:
        module: A T5 in training mode.
        rows: Number of rows.
        prompt: Tokens of each prompt.
        target: Tokens of each target.
        smoothing: Label smoothing of training.
    """
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    device = weights[0].device
    ids, labels = (
        torch.full((rows, length), _ANY_TOKEN, device=device) for length in (prompt, target)
    )
    output = module(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        decoder_input_ids=labels,
        use_cache=False,
    )
    loss = summed_loss(output.logits, labels=labels, smoothing=smoothing)
    torch.autograd.grad(loss, weights, allow_unused=True)


@contextmanager
def remembering_memory(
    run: RunFolder, *, train: TrainConfig, token_budget: int, longest_row: int
) -> Iterator[None]:
    """Note inside the block that a GPU ran out of memory, so that the next attempt takes less.

    Args:
        run: The run folder.
        train: Settings of training.
        token_budget: The budget in use.
        longest_row: Tokens of the longest row.

    Raises:
        TrainError: If the memory ran out and it is for the user to lower something.
        torch.OutOfMemoryError: If it ran out and the next attempt takes less by itself.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        smaller = token_budget // 2
        if train.token_budget is not None or smaller < longest_row:
            raise TrainError(
                f"the GPU ran out of memory with passes of up to {token_budget} tokens; lower "
                "train.token_budget, train.micro_batch_size or train.max_input_tokens, or use "
                "train.offload or a higher train.zero_stage"
            ) from error
        run.write_json(MEMORY_FILE, {"token_budget": smaller})
        logger.warning(
            "the GPU ran out of memory with passes of up to %d tokens; the next attempt takes at "
            "most %d",
            token_budget,
            smaller,
        )
        raise


def _measure(probe: Probe, *, prompt: int, target: int) -> PassCost:
    row_tokens = prompt + target
    rows = max(2, _PROBE_TOKENS // row_tokens)
    one = _bytes_or_none(probe, rows=1, prompt=prompt, target=target)
    if one is None:
        raise TrainError(_unfitting(prompt=prompt, target=target))
    while rows > 1:
        several = _bytes_or_none(probe, rows=rows, prompt=prompt, target=target)
        if several is not None:
            # What is measured is coarse where rows are few: a row takes something in any case.
            row_bytes = max(1.0, (several - one) / (rows - 1))
            return PassCost(row_tokens, max(0.0, one - row_bytes), row_bytes)
        rows //= 2
    return PassCost(row_tokens, 0.0, float(one))


def _bytes_or_none(probe: Probe, *, rows: int, prompt: int, target: int) -> int | None:
    try:
        return probe(rows=rows, prompt=prompt, target=target)
    except torch.OutOfMemoryError:
        return None


def _cuda_room(device: torch.device, *, share: float) -> float:
    free, total = torch.cuda.mem_get_info(device)
    others = total - free - torch.cuda.memory_reserved(device)
    return share * total - others - torch.cuda.memory_allocated(device)


def _smallest(own: int | TrainError, *, most: int | None, before: int) -> int:
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, own)
    for each in found:
        if isinstance(each, TrainError):
            raise each
    budget = min(found if most is None else [*found, most])
    if budget < before:
        logger.info("passes of up to %d tokens from now on; they were of %d", budget, before)
    return int(budget)


def _noted_limit(run: RunFolder) -> int | None:
    noted: list[int | None] = [None]
    if dist.get_rank() == 0 and run.exists(MEMORY_FILE):
        noted = [int(run.read_json(MEMORY_FILE)["token_budget"])]
    dist.broadcast_object_list(noted, src=0)
    return noted[0]


def _too_long(sizes: Sizes, *, room: float) -> TrainError:
    reason = _unfitting(prompt=sizes.longest_prompt, target=sizes.longest_target)
    return TrainError(f"{reason}; {max(0.0, room) / _BYTES_PER_GIB:.1f} GiB are left for a pass")


def _unfitting(*, prompt: int, target: int) -> str:
    return (
        f"a single row of {prompt + target} tokens ({prompt} of the prompt, {target} of the target)"
        " does not fit into the GPU's memory; lower train.max_input_tokens or "
        "train.max_output_tokens, or use train.offload or a higher train.zero_stage"
    )
