"""Run folders as stages leave them, in any state, made by hand."""

import json
import math
from pathlib import Path

import pyarrow as pa

from raycrp.config import Config, dump_yaml
from raycrp.run import RunFolder
from raycrp.tracking import SEGMENT_LINES

STAGES = ("data", "embed", "elicit", "annotate", "prompt", "train", "evaluate", "report")


class BoardRun:
    """Writes what a run writes, one event at a time."""

    def __init__(self, storage, *, encodings, counts, tasks=("forward",), **elicit):
        self.folder = RunFolder(str(storage), "demo")
        self.tasks, self.encodings, self.counts = tasks, encodings, counts
        config = Config.model_validate(
            {
                "data": {"tasks": list(tasks)},
                "elicit": {"encodings": list(encodings), "num_clusters": list(counts), **elicit},
                "train": {"max_epochs": 10},
            }
        )
        self.folder.write_bytes("config.yaml", dump_yaml(config).encode())
        self._rounds = {}

    def start(self, stage):
        self.folder.write_json(f"{stage}/_STARTED.json", {"digest": stage})

    def finish(self, stage):
        self.start(stage)
        summary = {"rows_in": 1000, "rows_out": 1000, "rejected": 0, "seconds": 1.0}
        self.folder.write_json(f"{stage}/_SUCCESS.json", {"digest": stage, "summary": summary})

    def pairs(self):
        return [(t, e, n) for t in self.tasks for e in self.encodings for n in self.counts]

    def add_round(self, task, encoding, count, accuracy, *, has_collapsed=False, is_probe=False):
        name = trial_id(task, encoding, count) + ("-probe" if is_probe else "")
        lines = self._rounds.setdefault(name, [])
        line = {
            "trial_id": name,
            "task": task,
            "encoding": encoding,
            "num_clusters": count,
            "is_probe": is_probe,
            "round": len(lines),
            "accuracy": accuracy,
            "accuracy_low": accuracy - 0.04,
            "accuracy_high": accuracy + 0.04,
            "majority_rate": 1.2 / count,
            "kappa": accuracy - 0.1,
            "information_bits": accuracy * math.log2(count),
            "effective_types": 0.9 * count,
            "smallest_share": 0.4 / count,
            "has_collapsed": has_collapsed,
            "seconds": 2.0,
        }
        lines.append(line)

    def write_rounds(self, *, rest=""):
        lines = [json.dumps(line) + "\n" for lines in self._rounds.values() for line in lines]
        self.folder.write_bytes("elicit/rounds.jsonl", ("".join(lines) + rest).encode())

    def end_trial(self, task, encoding, count, *, is_probe=False):
        name = trial_id(task, encoding, count) + ("-probe" if is_probe else "")
        self.folder.write_json(f"elicit/tune/done/{name}.json", {})

    def run_sweep(self, *, num_ended):
        """So many trials with two rounds ended; the next two are in their first."""
        self.start("elicit")
        for place, pair in enumerate(self.pairs()[: num_ended + 2]):
            accuracy = 0.95 - 0.03 * self.counts.index(pair[2]) - 0.02 * (place % 3)
            self.add_round(*pair, accuracy - 0.02)
            if place < num_ended:
                self.add_round(*pair, accuracy)
                self.end_trial(*pair)
        self.write_rounds()

    def write_training(self, num_steps, *, validation_every=10_000):
        """A line a step, in the segments that the tracker makes of them."""
        self.start("train")
        for number, first in enumerate(range(1, num_steps + 1, SEGMENT_LINES)):
            with self.segment(number).open("w", encoding="utf-8") as stream:
                for step in range(first, min(first + SEGMENT_LINES, num_steps + 1)):
                    stream.write(training_line(step, num_steps))
                    if step % validation_every == 0:
                        stream.write(validation_line(step, num_steps))

    def segment(self, number):
        name = f"metrics.{number:06d}.jsonl" if number else "metrics.jsonl"
        return Path(self.folder.path(f"train/{name}"))

    def write_cards(self, task, encoding, count):
        columns = {
            "task": [task] * count,
            "encoding": [encoding] * count,
            "num_types": [count] * count,
            "reaction_type": list(range(count)),
            "name": [f"amide formation {n}" for n in range(count)],
            "size": [100 + n for n in range(count)],
            "share": [1 / count] * count,
            "frequent_changes": [[{"name": "C-N formed", "share": 0.91}]] * count,
            "specific_changes": [[{"name": "carboxylic acid lost", "lift": 7.5}]] * count,
            "central": [["CC(=O)O.CN>>CC(=O)NC"]] * count,
        }
        self.folder.write_table("elicit/rt_cards.parquet", pa.table(columns))


def trial_id(task, encoding, count):
    return f"{task}-{encoding}-n{count}"


def training_line(step, num_steps):
    loss = 4 * math.exp(-3 * step / num_steps) + 0.4
    return (
        f'{{"step": {step}, "seconds": {0.3 * step:.6f}, "loss": {loss:.9f}, '
        f'"samples_per_s": {90 + step % 20}, "workers": {2 + (3 * step > num_steps)}, '
        f'"epoch": {10 * step / num_steps:.6f}}}\n'
    )


def validation_line(step, num_steps):
    loss = 3.6 * math.exp(-3 * step / num_steps) + 0.5
    return (
        f'{{"step": {step}, "seconds": {0.3 * step:.6f}, "validation_loss": {loss:.9f}, '
        f'"validation_accuracy": 0.59, "validation_loss_forward": {loss + 0.1:.9f}, '
        f'"validation_loss_retrosynthesis": {loss - 0.1:.9f}}}\n'
    )
