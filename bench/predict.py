"""Speed of prediction against plain loops: `make bench-predict REAL_DATA=folder`.

Two questions, both in rows per second of CPU time, the same model and rows in the same run:

- Beam search, 5 beams and 5 answers: how much faster is raycrp than a loop over the library's
  ``generate`` on batches of 32 in order of arrival? Both rank by log-probability, so the share of
  equal best answers is printed beside.
- Reaction types: how much faster is the score of every label than a beam search that writes the
  label? Printed beside it: how much of the label's time is the encoder, which both need, and the
  rate of a head on vectors that are there already, which is what a trial of the sweep pays.

The model is a ``tiny`` one trained here for a moment, so that its answers end; a trained one is
named with ``--model``. The last line is ``predict: vs_plain_generate=x.xx label_vs_beam=x.x``; the
exit status is 1 where a ratio is below its target.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from raycrp.choices import Device, Preset, Task
from raycrp.config import Backbone
from raycrp.evaluate.model_folder import find_model
from raycrp.model.annotation import annotation_prompt
from raycrp.model.decode import beam_search
from raycrp.model.encode import encode_texts
from raycrp.model.head import fit_head
from raycrp.model.labeler import T5Labeler
from raycrp.model.t5 import load_backbone, save_backbone, seeded
from raycrp.model.tokenizers import prepare_tokenizer
from raycrp.model.tuning import TuningSettings, fit_t5_labeler
from raycrp.prompt.templates import compose_prompt, load_templates, prompt_words

DATA_FILE = "full/forward_reaction_prediction.smiles.parquet"
BATCH_SIZE = 32
NUM_BEAMS = 5
MAX_NEW_TOKENS = 128
NUM_TYPES = 10
TARGET_VS_PLAIN = 2.5
TARGET_LABEL = 50.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, and say whether the targets are met."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("data_dir", type=Path, help="folder of real reactions")
    parser.add_argument("--model", type=Path, help="run or model folder; trained here if unset")
    parser.add_argument("--rows", type=int, default=96, help="rows of each repeat")
    parser.add_argument("--label-rows", type=int, default=384)
    parser.add_argument("--train-rows", type=int, default=3_200)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = read_rows(options.data_dir / DATA_FILE)
    with tempfile.TemporaryDirectory(prefix="raycrp-bench-") as scratch:
        folder = train_model(rows[: options.train_rows], folder=Path(scratch) / "model")
        if options.model is not None:
            folder = find_model(options.model)
        inputs = [row["input"] for row in rows[-options.rows * options.repeats :]]
        vs_plain = compare_beam_searches(folder, inputs=inputs, num_rows=options.rows)
        vs_beam = compare_labels(
            folder, inputs=[row["input"] for row in rows], num_rows=options.label_rows
        )
    print(f"predict: vs_plain_generate={vs_plain:.2f} label_vs_beam={vs_beam:.1f}")
    return int(vs_plain < TARGET_VS_PLAIN or vs_beam < TARGET_LABEL)


def read_rows(path: Path, *, num_rows: int = 8_000) -> list[dict[str, str]]:
    """Forward rows, the precursors sorted so that their order tells no roles."""
    rows = pq.read_table(path, columns=["input", "output"]).slice(0, num_rows).to_pylist()
    return [
        {"input": ".".join(sorted(row["input"].split("."))), "output": row["output"]}
        for row in rows
    ]


def forward_prompt(text: str) -> str:
    """A prompt of the forward task."""
    instruction = load_templates()[Task.FORWARD][0].text
    return compose_prompt(instruction, reaction_type_name=None, input_text=text)


def train_model(rows: Sequence[dict[str, str]], *, folder: Path) -> Path:
    """A ``tiny`` model that has seen so many rows once."""
    texts = [text for row in rows for text in row.values()]
    backbone = Backbone(preset=Preset.TINY)
    prepared = prepare_tokenizer(backbone, smiles=texts, words=prompt_words([Task.FORWARD]))
    prepared.tokenizer.save_pretrained(folder.parent / "tokenizer")
    save_backbone(backbone, tokenizer_dir=folder.parent / "tokenizer", target=folder, seed=0)
    model, tokenizer = load_backbone(folder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    model.train()
    with seeded(0):
        for batch in batches_of(rows):
            inputs = pad(tokenizer, [forward_prompt(row["input"]) for row in batch])
            labels = pad(tokenizer, [row["output"] for row in batch])["input_ids"]
            labels = labels.masked_fill(labels == tokenizer.pad_token_id, -100)
            loss = model(**inputs, labels=labels).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    print(f"model: tiny, {len(rows)} rows seen, last loss {loss.item():.2f}")
    model.save_pretrained(folder)
    return folder


def compare_beam_searches(folder: Path, *, inputs: Sequence[str], num_rows: int) -> float:
    """Median ratio of rows per CPU second, ours over plain."""
    model, tokenizer = load_backbone(folder)
    prompts = [forward_prompt(text) for text in inputs]

    def plain(texts: Sequence[str]) -> list[str]:
        """The best answers of ``generate``."""
        answers = generate(
            model,
            tokenizer,
            texts,
            num_beams=NUM_BEAMS,
            num_return_sequences=NUM_BEAMS,
            max_new_tokens=MAX_NEW_TOKENS,
            length_penalty=0.0,
        )
        return answers[::NUM_BEAMS]

    def ours(texts: Sequence[str]) -> list[str]:
        """The best answers of our beam search."""
        found = beam_search(
            model,
            tokenizer,
            texts,
            num_beams=NUM_BEAMS,
            num_return=NUM_BEAMS,
            max_new_tokens=MAX_NEW_TOKENS,
            token_budget=8_192,
        )
        return [hypotheses[0].text for hypotheses in found]

    for function in (plain, ours):
        function(prompts[:2])
    print(f"{'repeat':>6} {'generate':>10} {'raycrp':>10} {'ratio':>6} {'equal':>6}   rows / CPU s")
    ratios = []
    for number, start in enumerate(range(0, len(prompts), num_rows)):
        part = prompts[start : start + num_rows]
        (expected, slow), (found, fast) = timed(plain, part), timed(ours, part)
        equal = np.mean([one == other for one, other in zip(expected, found, strict=True)])
        ratios.append(slow / fast)
        rates = f"{len(part) / slow:>10.2f} {len(part) / fast:>10.2f}"
        print(f"{number:>6} {rates} {ratios[-1]:>6.2f} {equal:>6.2f}", flush=True)
    return statistics.median(ratios)


def compare_labels(folder: Path, *, inputs: Sequence[str], num_rows: int) -> float:
    """Ratio of rows per CPU second, label scores over a beam search of the label."""
    labels = np.array([min(NUM_TYPES - 1, text.count("N")) for text in inputs])
    labeler = fit_t5_labeler(
        folder,
        inputs=inputs[:num_rows],
        labels=labels[:num_rows],
        num_types=NUM_TYPES,
        task=Task.FORWARD,
        valid_inputs=[],
        valid_labels=labels[:0],
        settings=TuningSettings(max_epochs=2, patience=2, batch_size=32, learning_rate=1e-3),
        seed=0,
        device=Device.CPU,
    )
    asked = inputs[-num_rows:]
    prompts = [annotation_prompt(text, task=Task.FORWARD, num_types=NUM_TYPES) for text in asked]
    vectors, encoding = timed(lambda texts: encode(labeler, texts), prompts)
    head = fit_head(
        vectors,
        labels[-num_rows:],
        num_types=NUM_TYPES,
        valid_vectors=vectors[:0],
        valid_labels=labels[:0],
        seed=0,
        max_epochs=2,
    )
    scores, scoring = timed(labeler.scores, asked)
    written, searching = timed(
        lambda texts: generate(labeler.model, labeler.tokenizer, texts, num_beams=NUM_BEAMS),
        prompts,
    )
    _, heading = timed(head.predict, vectors)
    equal = np.mean(
        [text == str(best) for text, best in zip(written, scores.argmax(1), strict=True)]
    )
    print(
        f"label: beam search {num_rows / searching:.1f}, scores {num_rows / scoring:.1f}, "
        f"encoder alone {num_rows / encoding:.1f}, head on vectors {num_rows / heading:.0f} "
        f"rows / CPU s; {equal:.2f} of labels equal"
    )
    return searching / scoring


def encode(labeler: T5Labeler, texts: Sequence[str]) -> Any:
    """Vectors of prompts by the labeler's encoder."""
    vectors, _ = encode_texts(
        labeler.model.get_encoder(),
        tokenizer=labeler.tokenizer,
        texts=texts,
        token_budget=16_384,
        max_tokens=512,
    )
    return vectors


def generate(model: Any, tokenizer: Any, prompts: Sequence[str], **settings: Any) -> list[str]:
    """The plain loop: batches in order of arrival, the library's own search."""
    answers: list[str] = []
    for batch in batches_of(prompts):
        with torch.inference_mode():
            output = model.generate(**pad(tokenizer, batch), **settings)
        answers += tokenizer.batch_decode(output, skip_special_tokens=True)
    return answers


def batches_of(rows: Sequence[Any]) -> list[Sequence[Any]]:
    """Rows in order of arrival."""
    return [rows[start : start + BATCH_SIZE] for start in range(0, len(rows), BATCH_SIZE)]


def pad(tokenizer: Any, texts: Sequence[str]) -> dict[str, torch.Tensor]:
    """A padded batch."""
    batch = tokenizer(list(texts), return_tensors="pt", padding=True)
    return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}


def timed(function: Callable[[Any], Any], argument: Any) -> tuple[Any, float]:
    """What a function gives, and the CPU seconds of this process that it took."""
    started = time.process_time()
    result = function(argument)
    return result, time.process_time() - started


if __name__ == "__main__":
    sys.exit(main())
