"""Speed of prediction against plain loops: `make bench-predict REAL_DATA=folder`.

Two questions, both in rows per second of CPU time, the same model and rows in the same run:

- Beam search, 5 beams and 5 answers: how much faster is raycrp than a loop over the library's
  ``generate`` on batches of 32 in order of arrival? Both rank by log-probability, so the share of
  equal best answers is printed beside.
- Reaction types: how much faster is the score of every label than a beam search, 5 beams and else
  as the library does by itself, that writes the label? Both start from what the same T5's encoder
  says of the same rows, and this is the ratio of the last line. A second line counts everything
  from the text on: the encoder's pass, which no T5 can do without, bounds what scoring can win
  there, and the bound is printed. A third is the ``head``, from the text and on vectors that the
  embed stage left, which is what a trial of the sweep pays.

The model is a ``tiny`` one trained here for a moment, started as the train stage starts it, so that
its answers end; a trained one is named with ``--model``. The last line is
``predict: vs_plain_generate=x.xx label_vs_beam=x.x``, medians of the repeats; the exit status is 1
where a ratio is below its target.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from transformers.modeling_outputs import BaseModelOutput

from raycrp.choices import Device, Preset, Task
from raycrp.config import Backbone
from raycrp.evaluate.model_folder import find_model
from raycrp.model.annotation import annotation_prompt
from raycrp.model.decode import beam_search, label_token_ids
from raycrp.model.encode import encode_texts, length_batches
from raycrp.model.head import fit_head
from raycrp.model.label_scores import score_paths
from raycrp.model.labeler import T5Labeler, label_names
from raycrp.model.t5 import load_backbone, save_backbone, seeded
from raycrp.model.tokenizers import prepare_tokenizer
from raycrp.model.tuning import TuningSettings, fit_t5_labeler
from raycrp.prompt.templates import compose_prompt, load_templates, prompt_words

DATA_FILE = "full/forward_reaction_prediction.smiles.parquet"
BATCH_SIZE = 32
NUM_BEAMS = 5
MAX_NEW_TOKENS = 128
NUM_TYPES = 10
LABEL_TOKEN_BUDGET = 16_384
LABEL_REPEATS = 9
TARGET_VS_PLAIN = 2.5
TARGET_LABEL = 50.0

Way = Callable[[], tuple[Any, float]]
"""Does the same work in one of several ways; gives what comes out, and the CPU seconds."""


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
        if options.model is None:
            folder = train_model(rows[: options.train_rows], folder=Path(scratch) / "model")
        else:
            folder = find_model(options.model)
        inputs = [row["input"] for row in rows[-options.rows * options.repeats :]]
        vs_plain = compare_beam_searches(folder, inputs=inputs, num_rows=options.rows)
        vs_beam = compare_labels(
            folder,
            inputs=[row["input"] for row in rows],
            num_rows=options.label_rows,
            num_repeats=options.repeats,
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
    tokenizer_dir = folder.parent / "tokenizer"
    prepared.tokenizer.save_pretrained(tokenizer_dir)
    save_backbone(backbone, tokenizer_dir=tokenizer_dir, target=folder, seed=0, starts_copying=True)
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


def compare_labels(
    folder: Path, *, inputs: Sequence[str], num_rows: int, num_repeats: int
) -> float:
    """Median ratio of rows per CPU second, label scores over a beam search of the label."""
    labels = np.array([min(NUM_TYPES - 1, text.count("N")) for text in inputs])
    labeler = fit_t5_labeler(
        folder,
        inputs=inputs[:num_rows],
        labels=labels[:num_rows],
        num_types=NUM_TYPES,
        task=Task.FORWARD,
        valid_inputs=[],
        valid_labels=labels[:0],
        seed=0,
        device=Device.CPU,
        settings=TuningSettings(max_epochs=2, patience=2, batch_size=32, learning_rate=1e-3),
    )
    asked = inputs[-num_rows:]
    prompts = [annotation_prompt(text, task=Task.FORWARD, num_types=NUM_TYPES) for text in asked]
    # Scores after the encoder take hundredths of a second, so that more repeats are needed.
    after = ways_after_encoder(labeler, prompts)
    seconds, _ = repeat_ways(after, num_repeats=max(num_repeats, LABEL_REPEATS))
    ways = ways_from_text(labeler, asked, prompts=prompts)
    ways |= head_ways(labeler, prompts, labels=labels[-num_rows:])
    from_text, found = repeat_ways(ways, num_repeats=num_repeats)
    seconds |= from_text
    written, scores = found["search"], found["scores"]
    best = [str(number) for number in scores.argmax(axis=1)]
    equal = np.mean([text == other for text, other in zip(written, best, strict=True)])
    print(f"labels: {num_rows} rows, {NUM_TYPES} types, {equal:.2f} of labels equal")
    return print_label_ratios(seconds, num_rows=num_rows)


def ways_after_encoder(labeler: T5Labeler, prompts: Sequence[str]) -> dict[str, Way]:
    """The library's search and our scores, both from what the encoder says."""
    model, tokenizer = labeler.model, labeler.tokenizer
    paths = label_token_ids(tokenizer, label_names(NUM_TYPES))

    def search_label(states: torch.Tensor, mask: torch.Tensor) -> Any:
        """Labels by the library's beam search."""
        encoded = BaseModelOutput(last_hidden_state=states)
        output = model.generate(encoder_outputs=encoded, attention_mask=mask, num_beams=NUM_BEAMS)
        return tokenizer.batch_decode(output, skip_special_tokens=True)

    def score(states: torch.Tensor, mask: torch.Tensor) -> Any:
        """Labels by their scores."""
        scores = score_paths(model, states=states, mask=mask, paths=paths)
        return scores.argmax(dim=1).tolist()

    arrived = [pad(tokenizer, batch) for batch in batches_of(prompts)]
    lengths = [len(row) for row in tokenizer(prompts).input_ids]
    by_length = [
        pad(tokenizer, [prompts[place] for place in places])
        for places in length_batches(lengths, token_budget=LABEL_TOKEN_BUDGET)
    ]
    return {
        "search after encoder": lambda: timed_after_encoder(search_label, model, arrived),
        "scores after encoder": lambda: timed_after_encoder(score, model, by_length),
    }


def ways_from_text(
    labeler: T5Labeler, asked: Sequence[str], *, prompts: Sequence[str]
) -> dict[str, Way]:
    """The library's search, our scores, and the encoder's pass that bounds what they can win."""
    model, tokenizer = labeler.model, labeler.tokenizer
    return {
        "search": lambda: timed(
            lambda texts: generate(model, tokenizer, texts, num_beams=NUM_BEAMS), prompts
        ),
        "scores": lambda: timed(labeler.scores, asked),
        "encoder": lambda: timed(lambda texts: encode(labeler, texts), prompts),
    }


def head_ways(labeler: T5Labeler, prompts: Sequence[str], *, labels: Any) -> dict[str, Way]:
    """The head from the text on, and on vectors that are there already."""
    vectors = encode(labeler, prompts)
    head = fit_head(
        vectors,
        labels,
        num_types=NUM_TYPES,
        valid_vectors=vectors[:0],
        valid_labels=labels[:0],
        seed=0,
        max_epochs=2,
    )
    return {
        "head": lambda: timed(lambda texts: head.predict(encode(labeler, texts)), prompts),
        "head on vectors": lambda: timed(head.predict, vectors),
    }


@torch.inference_mode()
def timed_after_encoder(
    decode: Callable[[torch.Tensor, torch.Tensor], Any],
    model: Any,
    batches: Sequence[dict[str, torch.Tensor]],
) -> tuple[None, float]:
    """CPU seconds of what comes after the encoder's pass over each batch."""
    seconds = 0.0
    for batch in batches:
        states = model.get_encoder()(**batch).last_hidden_state
        started = time.process_time()
        decode(states, batch["attention_mask"])
        seconds += time.process_time() - started
    return None, seconds


def repeat_ways(
    ways: Mapping[str, Way], *, num_repeats: int
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """CPU seconds of each way and repeat, one way after the other, and what each gives.

    A first round warms up and is not counted.
    """
    for way in ways.values():
        way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, Any] = {}
    for _ in range(num_repeats):
        for name, way in ways.items():
            found[name], spent = way()
            seconds[name].append(spent)
    return seconds, found


def print_label_ratios(seconds: Mapping[str, list[float]], *, num_rows: int) -> float:
    """Print rates, and ratios to the beam search; gives that of scores after the encoder."""

    def ratio(slow: str, fast: str) -> float:
        """Median over repeats of the seconds of one way over those of another."""
        pairs = zip(seconds[slow], seconds[fast], strict=True)
        return statistics.median(one / other for one, other in pairs)

    for name, spent in seconds.items():
        print(f"{name:>20} {num_rows / statistics.median(spent):>12.1f} rows / CPU s")
    decoding = ratio("search after encoder", "scores after encoder")
    pairs = zip(seconds["search after encoder"], seconds["scores after encoder"], strict=True)
    spread = sorted(one / other for one, other in pairs)
    print(
        f"after the encoder: scores {decoding:.1f} times the beam search, median of {len(spread)} "
        f"repeats from {spread[0]:.1f} to {spread[-1]:.1f}"
    )
    print(
        f"with the encoder: scores {ratio('search', 'scores'):.2f}, "
        f"head {ratio('search', 'head'):.2f} times the beam search; "
        f"the encoder alone bounds it at {ratio('search', 'encoder'):.2f}"
    )
    print(f"head on cached vectors: {ratio('search', 'head on vectors'):.0f} times the beam search")
    return decoding


def encode(labeler: T5Labeler, texts: Sequence[str]) -> Any:
    """Vectors of prompts by the labeler's encoder."""
    vectors, _ = encode_texts(
        labeler.model.get_encoder(),
        tokenizer=labeler.tokenizer,
        texts=texts,
        token_budget=LABEL_TOKEN_BUDGET,
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
