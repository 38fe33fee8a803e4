"""Training on a GPU: `make bench-gpu`, or `python -m bench.gpu --size tiny` to try it on a CPU.

Two questions, on generated reactions, forward task, one worker without Ray, each case in a process
of its own so that none finds the memory of another:

- How much of the GPU goes into the model? Tokens per second and model FLOP utilisation (MFU) of a
  T5 of base size in half precision: as the library's own examples train it (``plain``: its eager
  attention, AdamW, micro batches of 32 rows in order of arrival, padded to the longest), as raycrp
  does (``kernels``: fused attention, norms and AdamW, passes that fill the memory, adaptive
  instructions on), and with blocks compiled (``compiled``). Medians of windows after a warm-up.
- Does the fp16 recipe of GPUs without bf16 learn as fp32 does? The loss of 200 steps of each.

Padding counts neither as tokens nor as work. The last line is
``gpu: mfu=0.xx tokens_per_s=x vs_plain=x.xx fp16_vs_fp32=x.xxx``, of the faster of raycrp's cases
and of the losses at the end; the exit status is 1 where MFU is below its target. Where the peak of
the device is not known, a CPU's in particular, MFU is nan and nothing is judged.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, T5Config, T5ForConditionalGeneration

from bench.train import worker_settings, write_run
from raycrp.chem.corpus import CorpusReaction, generate_corpus
from raycrp.choices import Launcher, Precision, Preset
from raycrp.run import RunFolder
from raycrp.train.batches import IGNORED_LABEL
from raycrp.train.deepspeed import prepare_process
from raycrp.train.flops import flop_model, peak_flops
from raycrp.train.precision import resolve_precision
from raycrp.train.session import LocalSession
from raycrp.train.trainer import join_single_process_group
from raycrp.train.worker import Worker

SIZES: Mapping[str, Mapping[str, int]] = {
    "base": {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_heads": 12, "num_layers": 12},
    "small": {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_heads": 8, "num_layers": 6},
    "tiny": {"d_model": 128, "d_kv": 32, "d_ff": 512, "num_heads": 4, "num_layers": 2},
}
"""T5's published sizes, and one for trying this on a CPU."""
SPEED_CASES = ("plain", "kernels", "compiled")
PRECISION_CASES = (Precision.FP32, Precision.FP16)
PLAIN_MICRO_BATCH = 32
LEARNING_RATE = 3e-4
LOSS_EVERY = 20
TARGET_MFU = 0.40


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, and say whether the target is met."""
    options = read_options(arguments)
    if options.case:
        print(json.dumps(run_case(options)))
        return 0
    with tempfile.TemporaryDirectory(prefix="raycrp-bench-") as scratch:
        write_base_run(Path(scratch), size=options.size, num_rows=options.rows)
        print(f"{device_name()}, T5 {options.size}, batches of {options.batch_size} rows")
        speeds = {case: measure(case, scratch, arguments) for case in SPEED_CASES}
        print_speeds(speeds)
        losses = {str(case): measure(str(case), scratch, arguments) for case in PRECISION_CASES}
        print_losses(losses)
    ours = max((speeds[case] for case in SPEED_CASES[1:]), key=lambda each: each["tokens_per_s"])
    ratio = ours["tokens_per_s"] / speeds["plain"]["tokens_per_s"]
    ends = {case: each["losses"][-1] for case, each in losses.items()}
    print(
        f"gpu: mfu={ours['mfu']:.2f} tokens_per_s={ours['tokens_per_s']:.0f} vs_plain={ratio:.2f} "
        f"fp16_vs_fp32={ends['fp16'] / ends['fp32']:.3f}"
    )
    return int(ours["mfu"] < TARGET_MFU)


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--batch-size", type=int, default=512, help="rows of a step")
    parser.add_argument("--rows", type=int, default=20_000, help="rows to train on")
    parser.add_argument("--warm-up", type=int, default=10, help="steps before the clock starts")
    parser.add_argument("--steps", type=int, default=5, help="steps of a window")
    parser.add_argument("--windows", type=int, default=5)
    parser.add_argument("--precision-steps", type=int, default=200)
    parser.add_argument("--precision-batch-size", type=int, default=64)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def write_base_run(folder: Path, *, size: str, num_rows: int) -> None:
    """A run folder that is ready to train a T5 of a size, from scratch."""
    rows = [
        {"input": inputs_of(reaction), "output": reaction.product}
        for reaction in generate_corpus(num_rows, seed=0)
    ]
    run = write_run(folder, name="gpu", rows=rows, preset=Preset.TINY)
    model_dir = run.path("prompt/llm_crp")
    config = T5Config.from_pretrained(model_dir)
    config.update(dict(SIZES[size]) | {"num_decoder_layers": SIZES[size]["num_layers"]})
    config.dropout_rate = 0.1
    torch.manual_seed(0)
    T5ForConditionalGeneration(config).save_pretrained(model_dir)


def inputs_of(reaction: CorpusReaction) -> str:
    """Reactants and reagents, sorted so that their order tells no roles."""
    return ".".join(sorted(f"{reaction.reactants}.{reaction.reagents}".strip(".").split(".")))


def measure(case: str, scratch: str, arguments: Sequence[str] | None) -> dict[str, Any]:
    """What a case gives in a process of its own."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = [sys.executable, "-m", "bench.gpu", *given, "--case", case, "--folder", scratch]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def run_case(options: argparse.Namespace) -> dict[str, Any]:
    """Measure one case in this process."""
    run = RunFolder(options.folder, "gpu")
    use_gpu = torch.cuda.is_available()
    torch.set_num_threads(1 if not use_gpu else torch.get_num_threads())
    torch.manual_seed(0)
    if options.case == "plain":
        return measure_windows(plain_training(run, options), options)
    prepare_process(use_gpu=use_gpu)
    join_single_process_group(use_gpu=use_gpu)
    if options.case in PRECISION_CASES:
        worker = new_worker(
            run,
            precision=Precision(options.case),
            batch_size=options.precision_batch_size,
            max_steps=options.precision_steps,
        )
        return {"losses": list(losses_of(worker, num_steps=options.precision_steps))}
    worker = new_worker(run, batch_size=options.batch_size, compile=options.case == "compiled")
    return measure_windows(worker_training(worker), options)


def new_worker(run: RunFolder, **train: object) -> Worker:
    """The loop of raycrp in this process, on a GPU where there is one."""
    for name in ("local", "best", "metrics.jsonl", "attempts.json"):
        run.delete(f"train/{name}")
    settings = worker_settings(
        run,
        launcher=Launcher.LOCAL,
        use_gpu=torch.cuda.is_available(),
        learning_rate=LEARNING_RATE,
        log_every_steps=2**31,
        **train,
    )
    return Worker(settings, session=LocalSession(run, num_checkpoints=1))


def worker_training(worker: Worker) -> Callable[[int], dict[str, float]]:
    """Trains some steps, and tells the speed of these."""

    def train(steps: int) -> dict[str, float]:
        """Speed of so many further steps."""
        for _ in range(steps):
            worker.train_step()
        return worker.read_meter()

    return train


def losses_of(worker: Worker, *, num_steps: int) -> Iterator[float]:
    """Mean loss of a token of every so many steps."""
    train = worker_training(worker)
    for start in range(0, num_steps, LOSS_EVERY):
        yield train(min(LOSS_EVERY, num_steps - start))["loss"]


def plain_training(
    run: RunFolder, options: argparse.Namespace
) -> Callable[[int], dict[str, float]]:
    """Training as the library's own examples do it, on ids made before the clock starts."""
    folder = run.path("prompt/llm_crp")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = half_precision()
    dtype = {Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}.get(precision)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, attn_implementation="eager")
    model = model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    scaler = torch.amp.GradScaler(device.type, enabled=precision is Precision.FP16)
    batches = plain_batches(run, tokenizer=tokenizer, num_rows=options.batch_size)
    counted, peak = flop_model(model.config), peak_flops(device, precision)

    def train(steps: int) -> dict[str, float]:
        """Speed of so many further steps."""
        started, tokens, places, flops = time.monotonic(), 0, 0, 0.0
        for _ in range(steps):
            for part in next(batches):
                tokens += int(part.attention_mask.sum() + (part.labels != IGNORED_LABEL).sum())
                places += part.input_ids.numel() + part.labels.numel()
                flops += counted.training_flops(part)
                sent = {name: tensor.to(device) for name, tensor in vars(part).items()}
                with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
                    loss = model(**sent).loss
                scaler.scale(loss * len(part.labels) / options.batch_size).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        loss.item()  # Waits for the GPU.
        seconds = time.monotonic() - started
        read = {"tokens_per_s": tokens / seconds, "padding_share": 1 - tokens / places}
        return read | ({"mfu": flops / seconds / peak} if peak else {})

    return train


def plain_batches(
    run: RunFolder, *, tokenizer: Any, num_rows: int
) -> Iterator[list[SimpleNamespace]]:
    """Batches of rows in random order, each as padded micro batches."""
    rows = run.read_table("prompt/train")
    prompts, answers = (
        tokenizer(rows.column(name).to_pylist())["input_ids"] for name in ("prompt", "output")
    )
    rng = np.random.default_rng(0)
    while True:
        order = rng.permutation(rows.num_rows)
        for start in range(0, len(order) - num_rows + 1, num_rows):
            batch = order[start : start + num_rows]
            yield [
                plain_batch(
                    [prompts[place] for place in part],
                    [answers[place] for place in part],
                    tokenizer=tokenizer,
                )
                for part in np.split(batch, range(PLAIN_MICRO_BATCH, num_rows, PLAIN_MICRO_BATCH))
            ]


def plain_batch(
    prompts: list[list[int]], answers: list[list[int]], *, tokenizer: Any
) -> SimpleNamespace:
    """A micro batch as the library's collator makes it."""
    inputs = tokenizer.pad({"input_ids": prompts}, return_tensors="pt")
    labels = tokenizer.pad({"input_ids": answers}, return_tensors="pt")
    hidden = labels.input_ids.masked_fill(labels.attention_mask == 0, IGNORED_LABEL)
    return SimpleNamespace(
        input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, labels=hidden
    )


def measure_windows(
    train: Callable[[int], dict[str, float]], options: argparse.Namespace
) -> dict[str, Any]:
    """Medians over the windows after a warm-up."""
    train(options.warm_up)
    windows = [train(options.steps) for _ in range(options.windows)]
    read = {
        name: statistics.median(window.get(name, math.nan) for window in windows)
        for name in ("tokens_per_s", "mfu", "padding_share")
    }
    peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else math.nan
    rates = [window["tokens_per_s"] for window in windows]
    return read | {"gib": peak, "slowest": min(rates), "fastest": max(rates)}


def half_precision() -> Precision:
    """What ``auto`` takes here."""
    has_gpu = torch.cuda.is_available()
    capability = torch.cuda.get_device_capability() if has_gpu else None
    return resolve_precision(Precision.AUTO, capability=capability)


def device_name() -> str:
    """The GPU, or that there is none, and the number format."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU, one CPU thread"
    return f"{name}, {half_precision()}"


def print_speeds(speeds: Mapping[str, Mapping[str, float]]) -> None:
    """One row a case."""
    print("| case | tokens/s | slowest to fastest window | MFU | padding | peak GiB |")
    print("|---|---:|---:|---:|---:|---:|")
    for case, read in speeds.items():
        print(
            f"| {case} | {read['tokens_per_s']:.0f} | {read['slowest']:.0f} to "
            f"{read['fastest']:.0f} | {read['mfu']:.3f} | {read['padding_share']:.3f} | "
            f"{read['gib']:.1f} |"
        )


def print_losses(losses: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """The curves of both number formats side by side."""
    print("| steps | " + " | ".join(losses) + " |")
    print("|---:" * (1 + len(losses)) + "|")
    curves = [each["losses"] for each in losses.values()]
    for number, values in enumerate(zip(*curves, strict=True)):
        cells = [f"{value:.4f}" for value in values]
        print(f"| to {(number + 1) * LOSS_EVERY} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    sys.exit(main())
