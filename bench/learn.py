"""How a training learnt: `python -m bench.learn RUN`, after `raycrp run tune_configs/learn.yaml`.

Prints, for each validation, the CPU minutes spent on training steps so far (all workers, without
validation and start), the losses and the share of exact greedy answers; then the test split's
exact match with its interval. The last line is
``learn: cpu_min=x forward=0.xxx retrosynthesis=0.xxx reagent=0.xxx``.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from raycrp.choices import Task
from raycrp.run import RunFolder
from raycrp.tracking import read_metrics


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the curve and the scores of a finished run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("run_folder", type=Path)
    folder = parser.parse_args(arguments).run_folder
    run = RunFolder(str(folder.parent), folder.name)
    batch_size = OmegaConf.load(folder / "config.yaml").train.batch_size
    minutes = print_curve(read_metrics(run), batch_size=batch_size)
    scores = run.read_json("evaluate/scores.json")
    exact = {task: scores[task.value]["strict"]["exact_top1"] for task in Task}
    for task, score in exact.items():
        found, low, high = (score[name] for name in ("value", "low", "high"))
        print(f"{task}: {found:.3f} [{low:.3f}, {high:.3f}], {score['num_rows']} test rows")
    shares = " ".join(f"{task}={score['value']:.3f}" for task, score in exact.items())
    print(f"learn: cpu_min={minutes:.1f} {shares}")
    return 0


def print_curve(lines: Sequence[Mapping[str, Any]], *, batch_size: int) -> float:
    """One row a validation.

    Args:
        lines: Of the training log, in order.
        batch_size: Rows of a step.

    Returns:
        CPU minutes of all steps together.
    """
    cpu_s, last_step = 0.0, 0
    print("| CPU min | step | validation loss | " + " | ".join(f"{t} exact" for t in Task) + " |")
    print("|---:" * (3 + len(Task)) + "|")
    for line in lines:
        if "samples_per_cpu_s" in line:
            cpu_s += (line["step"] - last_step) * batch_size / line["samples_per_cpu_s"]
            last_step = line["step"]
        if "validation_loss" in line:
            exact = [line.get(f"validation_exact_{task}", float("nan")) for task in Task]
            cells = [f"{cpu_s / 60:.1f}", str(line["step"]), f"{line['validation_loss']:.4f}"]
            print("| " + " | ".join(cells + [f"{share:.3f}" for share in exact]) + " |")
    return cpu_s / 60


if __name__ == "__main__":
    sys.exit(main())
