"""How good elicited reaction types are, and what they cost: `make bench-elicit REAL_DATA=folder`.

Four tables, made by the stage and its functions on USPTO-50K, whose ten true classes it never sees:

- agreement of ten clusters with the true classes, one row an encoding;
- block-wise k-means against k-means on all rows at once;
- what can be named from the product alone;
- the paper's whole grid (4 encodings, N = 3 to 12) on 2,000 reactions, and the halving search on
  the same rows: CPU time, accuracy, passes of the encoder.

The last line is ``elicit: ami_best=... ami_fingerprint_kmeans=... ami_paper_best=... grid_cpu_s=...
search_cpu_s=... search_gap=...``; the exit status is 1 where a figure misses its target. With
``--work`` a killed run goes on where it was.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.elicit_agreement import AgreementBench, best_of_paper
from bench.elicit_cost import CostBench, Costs
from raycrp.choices import Encoding

TARGET_AMI = 0.45


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, and say whether the targets are met."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("data_dir", type=Path, help="folder of real reactions")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--rows", type=int, default=None, help="reactions at most; all if not given"
    )
    parser.add_argument("--rounds", type=int, default=2, help="feedback rounds of the cost table")
    parser.add_argument("--counts", type=int, nargs="+", default=range(3, 13), help="N of the grid")
    parser.add_argument("--part", choices=("all", "agreement", "cost"), default="all")
    parser.add_argument("--work", type=Path, default=None, help="folder that is kept")
    parser.add_argument("--backbone", default=None, help="local T5 in place of a new tiny one")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="raycrp-bench-") as scratch:
        folder = (options.work or Path(scratch)).resolve()
        amis = measure_agreement(options, folder) if options.part != "cost" else {}
        costs = measure_costs(options, folder) if options.part != "agreement" else None
    if not amis or costs is None:
        return 0
    best = max(amis.values())
    paper = amis[best_of_paper(amis)]
    fingerprint = amis[Encoding.FINGERPRINT]
    print(
        f"elicit: ami_best={best:.3f} ami_fingerprint_kmeans={fingerprint:.3f} "
        f"ami_paper_best={paper:.3f} grid_cpu_s={costs.grid_cpu_s:.1f} "
        f"search_cpu_s={costs.search_cpu_s:.1f} search_gap={costs.gap:.3f}"
    )
    is_met = best >= TARGET_AMI and best > max(fingerprint, paper) and costs.are_met
    return int(not is_met)


def measure_agreement(options: argparse.Namespace, folder: Path) -> dict[Encoding, float]:
    """Mean AMI by encoding; its tables are printed."""
    bench = AgreementBench(
        options.data_dir.resolve(),
        folder,
        max_rows=options.rows,
        num_seeds=options.seeds,
        backbone=options.backbone,
    )
    return bench.compare_encodings()


def measure_costs(options: argparse.Namespace, folder: Path) -> Costs:
    """Costs of the searches; their table is printed."""
    bench = CostBench(
        options.data_dir.resolve(),
        folder,
        counts=options.counts,
        num_rounds=options.rounds,
        backbone=options.backbone,
    )
    return bench.compare_searches()


if __name__ == "__main__":
    sys.exit(main())
