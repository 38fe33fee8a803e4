"""Real names of reactions by the package ``reactionclassifier``, where it is installed."""

import logging
from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raycrp.chem.reactions import task_reaction
from raycrp.choices import Task
from raycrp.run import RunFolder

PACKAGE = "reactionclassifier"
ROWS = "data/rows/train"

logger = logging.getLogger(__name__)


def name_reactions(
    run: RunFolder, *, rows: Iterable[int], num_rows: int, seed: int
) -> dict[int, str]:
    """Name the reactions of some training rows.

    Args:
        run: The run folder.
        rows: Ids of the rows to choose from.
        num_rows: How many are tried; 0 for none.
        seed: Seed of the choice.

    Returns:
        Name by row id, such as ``Amidation using Carboxylic Acids``, where one of the package's
        templates confirms it; none where the package is not installed.
    """
    if num_rows == 0 or find_spec(PACKAGE) is None:
        return {}
    ordered = np.array(sorted(rows), dtype=np.int64)
    chosen = np.random.default_rng(seed).permutation(ordered)[:num_rows]
    classifier: Any = import_module(PACKAGE).ReactionClassifier()
    names = {}
    for row, reaction in _read_reactions(run, chosen).items():
        if name := classifier.classify(reaction).reaction_name:
            # From the broad to the narrow; the broadest is as fine as ten types can tell apart.
            names[row] = str(name).split(" | ")[0]
    logger.info("report: %s names %d of %d reactions", PACKAGE, len(names), len(chosen))
    return names


def _read_reactions(run: RunFolder, rows: np.ndarray[Any, np.dtype[np.int64]]) -> dict[int, str]:
    columns = ["row_id", "task", "input", "output"]
    wanted, reactions = pa.array(rows), {}
    for name in run.list_names(ROWS):
        table = run.read_table(f"{ROWS}/{name}", columns=columns)
        for row in table.filter(pc.is_in(table["row_id"], wanted)).to_pylist():
            reaction = task_reaction(
                Task(row["task"]), input_text=row["input"], output_text=row["output"]
            )
            reactions[row["row_id"]] = f"{reaction.reactants}>>{reaction.product}"
    return reactions
