"""Speed of training against a plain baseline: `make bench-train REAL_DATA=folder`.

Two questions, both in rows per second of CPU time, so that a busy machine matters little:

- How much faster is raycrp's loop, adaptive instructions on, than plain Hugging Face training of
  the same T5 on the same prompts (AdamW, batches in order of arrival, dynamic padding)?
- What does Ray Train cost over the same loop launched in a plain process?

Repeats are interleaved and the median ratio counts. The last line is
``train: vs_plain_hf=x.xx ray_vs_local=x.xx padding_share=0.xx``; the exit status is 1 where a
ratio is below its target.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from raycrp.choices import (
    Device,
    InstructionChoice,
    Launcher,
    Preset,
    Spelling,
    Task,
    TrainReactionType,
)
from raycrp.config import Backbone, Config, TrainConfig
from raycrp.model.t5 import save_backbone
from raycrp.model.tokenizers import prepare_tokenizer
from raycrp.prompt.stage import PromptSettings, PromptWriter
from raycrp.prompt.templates import prompt_words, reaction_type_name
from raycrp.ray_session import connected_ray
from raycrp.run import RunFolder
from raycrp.schemas import ANNOTATIONS, PROMPTS, Split
from raycrp.tracking import read_metrics
from raycrp.train.deepspeed import prepare_process
from raycrp.train.session import LocalSession
from raycrp.train.setup import WorkerSettings
from raycrp.train.tokens import TOKENS_DIR, SpellingSettings, TokenWriter
from raycrp.train.trainer import join_single_process_group, train_model
from raycrp.train.worker import Worker

DATA_FILE = "full/forward_reaction_prediction.smiles.parquet"
NUM_TYPES = 10
BATCH_SIZE = 32
TARGET_VS_PLAIN = 1.35
TARGET_RAY_VS_LOCAL = 0.95


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and say whether the targets are met."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("data_dir", type=Path, help="folder of real reactions")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="steps of each repeat")
    parser.add_argument("--rows", type=int, default=6_000)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="raycrp-bench-"))
    try:
        rows = read_rows(options.data_dir / DATA_FILE, num_rows=options.rows)
        small = write_run(folder, name="small", rows=rows, preset=Preset.SMALL)
        vs_plain, padding = compare_with_plain(small, repeats=options.repeats, steps=options.steps)
        tiny = write_run(folder, name="tiny", rows=rows, preset=Preset.TINY)
        vs_local = compare_ray_with_local(tiny, repeats=3, steps=25 * options.steps)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(
        f"train: vs_plain_hf={vs_plain:.2f} ray_vs_local={vs_local:.2f} padding_share={padding:.2f}"
    )
    return int(vs_plain < TARGET_VS_PLAIN or vs_local < TARGET_RAY_VS_LOCAL)


def read_rows(path: Path, *, num_rows: int) -> list[dict[str, str]]:
    """Forward rows of the training split, the precursors sorted."""
    rows = pq.read_table(path).slice(0, 2 * num_rows).to_pylist()
    kept = [row for row in rows if row["metadata"]["split"] == "train"][:num_rows]
    return [
        {"input": ".".join(sorted(row["input"].split("."))), "output": row["output"]}
        for row in kept
    ]


def write_run(folder: Path, *, name: str, rows: list[dict[str, str]], preset: Preset) -> RunFolder:
    """A run folder that is ready to train; one row in twenty is for validation."""
    run = RunFolder(str(folder), name)
    words = prompt_words([Task.FORWARD])
    texts = [text for row in rows for text in row.values()]
    tokenizer = prepare_tokenizer(Backbone(preset=preset), smiles=texts, words=words).tokenizer
    with run.new_local_dir("data/tokenizer") as target:
        tokenizer.save_pretrained(target)
    with run.new_local_dir("prompt/llm_crp") as target:
        save_backbone(
            Backbone(preset=preset),
            tokenizer_dir=run.local_dir("data/tokenizer"),
            target=target,
            seed=0,
            new_tokens=[reaction_type_name(Task.FORWARD, n) for n in range(NUM_TYPES)],
        )
    for split, part in ((Split.TRAIN, rows[len(rows) // 20 :]), (Split.VALIDATION, rows[:100])):
        write_split(run, split=split, rows=part)
    return run


def write_split(run: RunFolder, *, split: Split, rows: list[dict[str, str]]) -> None:
    """Prompts and token ids of a split; instructions drawn, reaction types by turns."""
    values = [
        row
        | {
            "row_id": number,
            "source_id": str(number),
            "reaction_key": str(number),
            "task": Task.FORWARD.value,
            "split": split.value,
            "reaction_type": number % NUM_TYPES,
            "probabilities": [1.0],
        }
        for number, row in enumerate(rows)
    ]
    settings = PromptSettings(
        instruction=InstructionChoice.RANDOM,
        use_reaction_type=True,
        train_reaction_type=TrainReactionType.PREDICTED,
        seed=0,
        device=Device.CPU,
        token_budget=4_096,
        max_tokens=512,
    )
    table = PromptWriter(run, settings)(pa.Table.from_pylist(values, schema=ANNOTATIONS))
    run.write_table(f"prompt/{split}/shard-000000.parquet", table.cast(PROMPTS))
    writer = TokenWriter(run, SpellingSettings(Spelling.CANONICAL, 1, 0))
    run.write_table(f"{TOKENS_DIR}/shard-{split}.parquet", writer(table))


def worker_settings(run: RunFolder, **train: object) -> WorkerSettings:
    """Adaptive instructions on, the rest by default."""
    section = Config().train.model_dump() | {"batch_size": BATCH_SIZE} | train
    return WorkerSettings(
        run=run,
        train=TrainConfig.model_validate(section),
        instruction=InstructionChoice.ADAPTIVE,
        refresh_steps=Config().prompt.refresh_steps,
        seed=0,
    )


def compare_with_plain(run: RunFolder, *, repeats: int, steps: int) -> tuple[float, float]:
    """Median ratio of rows per CPU second, ours over plain, and our share of padding."""
    prepare_process(use_gpu=False)
    join_single_process_group(use_gpu=False)
    settings = worker_settings(run, launcher=Launcher.LOCAL, log_every_steps=2**31)
    worker = Worker(settings, session=LocalSession(run, num_checkpoints=1))
    plain = plain_step(run)
    for step in (worker.train_step, plain):
        cpu_seconds(step, steps=2)
    print(f"{'repeat':>6} {'plain':>12} {'raycrp':>12} {'ratio':>6}   rows per CPU second")
    ratios = []
    for number in range(repeats):
        seconds = [cpu_seconds(step, steps=steps) for step in (plain, worker.train_step)]
        rates = [steps * BATCH_SIZE / each for each in seconds]
        ratios.append(rates[1] / rates[0])
        print(f"{number:>6} {rates[0]:>12.2f} {rates[1]:>12.2f} {ratios[-1]:>6.2f}", flush=True)
    return statistics.median(ratios), worker.read_meter()["padding_share"]


def plain_step(run: RunFolder) -> Callable[[], None]:
    """Training as the library's own examples do it."""
    folder = run.path("prompt/llm_crp")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    rows = run.read_table("prompt/train").to_pylist()
    order = iter(np.random.default_rng(0).permutation(len(rows)).tolist())

    def step() -> None:
        """One optimiser step on the next batch."""
        batch = [rows[next(order)] for _ in range(BATCH_SIZE)]
        inputs = tokenizer([row["prompt"] for row in batch], return_tensors="pt", padding=True)
        labels = tokenizer([row["output"] for row in batch], return_tensors="pt", padding=True)
        labels = labels.input_ids.masked_fill(labels.input_ids == tokenizer.pad_token_id, -100)
        loss = model(
            input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, labels=labels
        ).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def cpu_seconds(step: Callable[[], None], *, steps: int) -> float:
    """CPU time of this process for some steps."""
    started = time.process_time()
    for _ in range(steps):
        step()
    return time.process_time() - started


def compare_ray_with_local(run: RunFolder, *, repeats: int, steps: int) -> float:
    """Median ratio of rows per CPU second, one Ray worker over one plain process."""
    print(f"{'repeat':>6} {'local':>12} {'ray':>12} {'ratio':>6}   rows per CPU second")
    ratios = []
    with connected_ray(num_cpus=2):
        for number in range(repeats):
            rates = [
                launched_rate(run, launcher=launcher, steps=steps)
                for launcher in (Launcher.LOCAL, Launcher.RAY)
            ]
            ratios.append(rates[1] / rates[0])
            print(f"{number:>6} {rates[0]:>12.2f} {rates[1]:>12.2f} {ratios[-1]:>6.2f}", flush=True)
    return statistics.median(ratios)


def launched_rate(run: RunFolder, *, launcher: Launcher, steps: int) -> float:
    """Rows per CPU second of a whole training after its warm-up."""
    for name in ("ray", "local", "best", "metrics.jsonl", "attempts.json"):
        run.delete(f"train/{name}")
    settings = worker_settings(
        run, launcher=launcher, max_steps=steps, eval_every_steps=steps, log_every_steps=10
    )
    train_model(settings)
    lines = [line for line in read_metrics(run) if "samples_per_cpu_s" in line]
    return statistics.harmonic_mean([line["samples_per_cpu_s"] for line in lines[2:]])


if __name__ == "__main__":
    sys.exit(main())
