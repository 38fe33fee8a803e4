"""USPTO-50K as the measurements of elicitation take it."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from raycrp.choices import Task

DATA_FILE = "uspto50k.parquet"
TASK = Task.RETROSYNTHESIS


def take_reactions(data_dir: Path, *, target: Path, num_rows: int | None) -> Path:
    """Write a fixed random choice of the reactions, in their order.

    Args:
        data_dir: Folder of real reactions.
        target: File to write; left alone where it is there.
        num_rows: Reactions at most; all if None.

    Returns:
        The target.
    """
    table = pq.read_table(data_dir / DATA_FILE)
    if num_rows is not None and num_rows < table.num_rows:
        places = np.random.default_rng(0).choice(table.num_rows, num_rows, replace=False)
        table = table.take(np.sort(places))
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, target)
    return target
