"""What ranking over reaction types and spellings brings: `python -m bench.ranking RUN`.

Answers test rows of a run four times with the same model and as many beams in total: plainly, under
the three most probable reaction types, with two spellings that vote, and with
both. Prints scores, and differences to the plain search with 95 % intervals paired over reactions.
The last line is ``ranking: top5_plain=0.xxx top5_types=0.xxx difference=+0.xxx [low, high]``; the
exit status is 1 where the whole interval lies below 0.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from raycrp.choices import Task
from raycrp.evaluate.bootstrap import (
    Estimate,
    bootstrap_differences,
    bootstrap_intervals,
    ratio_of_sums,
)
from raycrp.evaluate.model_folder import find_model
from raycrp.evaluate.molecule_metrics import (
    Answers,
    num_distinct_valid,
    read_molecules,
    strict_exact,
)
from raycrp.evaluate.predict import Predictor
from raycrp.run import RunFolder

TOP_K = 5
METRICS = ("top1", "top3", "top5", "distinct")
RESAMPLES = {"num_resamples": 2_000, "seed": 0}


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer, print the table, and say whether reaction types make it worse."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("run", help="run folder with a trained model")
    parser.add_argument("--rows", type=int, default=100, help="rows of each task at most")
    parser.add_argument("--beams", type=int, default=6, help="beams in total")
    parser.add_argument("--types", type=int, default=3, help="reaction types")
    parser.add_argument("--splits", nargs="+", default=["test"], help="splits to answer")
    parser.add_argument("--tasks", nargs="+", default=list(Task), help="tasks to answer")
    parser.add_argument("--no-spellings", action="store_true", help="reaction types alone")
    parser.add_argument("--max-output-tokens", type=int, default=128)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = read_rows(options.run, splits=options.splits, tasks=options.tasks, num_rows=options.rows)
    half = options.beams // 2
    ways = {
        "plain": {"num_beams": options.beams},
        f"{options.types} types": {
            "num_beams": options.beams,
            "num_reaction_types": options.types,
        },
    }
    if not options.no_spellings:
        ways["2 spellings"] = {"num_beams": half, "num_spellings": 2}
        ways["both"] = ways["2 spellings"] | {"num_reaction_types": options.types}
    scored, answered, clusters = {}, {}, [row["reaction_key"] for row in rows]
    for name, settings in ways.items():
        predictor = Predictor(
            find_model(options.run), max_output_tokens=options.max_output_tokens, **settings
        )
        started = time.process_time()
        # More answers than the beams of one spelling would widen the search.
        top_k = min(TOP_K, settings["num_beams"])
        answered[name] = answer(predictor, rows, top_k=top_k)
        seconds = time.process_time() - started
        scored[name] = estimates(answered[name], rows)
        print(f"{name}: {len(rows) / seconds:.2f} rows / CPU s", flush=True)
    difference = print_table(scored, clusters=clusters)
    return int(difference.high < 0)


def read_rows(
    path: str, *, splits: Sequence[str], tasks: Sequence[str], num_rows: int
) -> list[dict[str, Any]]:
    """Prompted rows of a run, the first of each task."""
    storage, _, name = path.rstrip("/").rpartition("/")
    run = RunFolder(storage or ".", name)
    columns = ["row_id", "reaction_key", "task", "input", "output"]
    rows = [
        row for split in splits for row in run.read_table(f"prompt/{split}", columns).to_pylist()
    ]
    rows.sort(key=lambda row: row["row_id"])
    return [row for task in tasks for row in [r for r in rows if r["task"] == task][:num_rows]]


def answer(predictor: Predictor, rows: Sequence[dict[str, Any]], *, top_k: int) -> list[list[str]]:
    """Different answers to each row, best first."""
    answers: list[list[str]] = []
    for task in dict.fromkeys(row["task"] for row in rows):
        inputs = [row["input"] for row in rows if row["task"] == task]
        found = predictor.predict(inputs, task=task, top_k=top_k)
        answers += [distinct(each.raw_answers) for each in found]
    return answers


def distinct(texts: Sequence[str]) -> list[str]:
    """Texts without those that mean the same molecules as an earlier one."""
    kept: dict[Any, str] = {}
    for text in texts:
        kept.setdefault(read_molecules(text) or text, text)
    return list(kept.values())


def estimates(answers: Sequence[Sequence[str]], rows: Sequence[dict[str, Any]]) -> list[Estimate]:
    """Scores as functions of sums over rows, in the order of ``METRICS``."""
    block = Answers([row["output"] for row in rows], [row[:TOP_K] for row in answers])
    values = [strict_exact(block, top=top) for top in (1, 3, 5)] + [num_distinct_valid(block)]
    ones = np.ones(len(rows))
    return [Estimate(np.stack([value, ones], axis=1), ratio_of_sums) for value in values]


def print_table(scored: Mapping[str, list[Estimate]], *, clusters: Sequence[str]) -> Any:
    """Scores and paired differences; gives that of the types in the top five."""
    plain = scored["plain"]
    print(f"{len(clusters)} rows, {len(set(clusters))} reactions")
    print(f"{'':<14}" + "".join(f"{name:>26}" for name in METRICS))
    differences = {}
    for name, own in scored.items():
        intervals = bootstrap_intervals(own, clusters=clusters, **RESAMPLES)
        print(f"{name:<14}" + "".join(f"{show(each):>26}" for each in intervals))
        if name != "plain":
            differences[name] = bootstrap_differences(plain, own, clusters=clusters, **RESAMPLES)
            print(f"{'  minus plain':<14}" + "".join(f"{show(d):>26}" for d in differences[name]))
    found = next(iter(differences.values()))[METRICS.index("top5")]
    values = [
        bootstrap_intervals(scored[name], clusters=clusters, **RESAMPLES)[2].value
        for name in list(scored)[:2]
    ]
    print(
        f"ranking: top5_plain={values[0]:.3f} top5_types={values[1]:.3f} "
        f"difference={found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
    )
    return found


def show(interval: Any) -> str:
    """Value and interval."""
    return f"{interval.value:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


if __name__ == "__main__":
    sys.exit(main())
