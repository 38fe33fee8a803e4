"""How far reaction types agree with true classes, where a data set has them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq

from raycrp.choices import Task
from raycrp.run import RunFolder
from raycrp.schemas import Split

TRUTH_PATH = "data/truth.parquet"
_MAX_ROWS = 20_000
_MAX_CLASSES = 1_000


@dataclass(frozen=True)
class TypeProfile:
    """What one reaction type consists of.

    Args:
        reaction_type: Number of the type.
        num_rows: Rows with it.
        top_class: Its most frequent true class.
        top_share: Share of the rows with that class.
    """

    reaction_type: int
    num_rows: int
    top_class: str
    top_share: float


@dataclass(frozen=True)
class Agreement:
    """Reaction types against true classes, on the rows of one source.

    Args:
        task: The task.
        truth: Name of the column of true classes.
        source: Where the reaction types come from.
        num_rows: Rows with both.
        num_classes: Different true classes among them.
        ami: Adjusted mutual information; 0 is chance, 1 the same partition.
        profiles: Make-up of each reaction type, largest first.
    """

    task: str
    truth: str
    source: str
    num_rows: int
    num_classes: int
    ami: float
    profiles: Sequence[TypeProfile]


def measure_agreement(run: RunFolder, *, seed: int) -> list[Agreement]:
    """Compare clusters of training rows, and types named on test rows, with true classes.

    Args:
        run: The run folder.
        seed: Seed of the choice of rows, where there are very many.

    Returns:
        For each task, column of truth and source one agreement; none without true classes.
    """
    if not run.exists(TRUTH_PATH):
        return []
    sources = {
        "k-means, training rows": _cluster_types(run),
        "LLM-RT, test rows": _named_types(run),
    }
    wanted = {row for types in sources.values() for rows in types.values() for row in rows}
    return [
        _compare(types[task], classes, task=task, truth=truth, source=source, seed=seed)
        for truth, classes in _read_truth(run, wanted).items()
        for task in Task
        for source, types in sources.items()
        if len(types.get(task, {}).keys() & classes.keys()) > 1
    ]


def _compare(
    types: Mapping[int, int],
    classes: Mapping[int, str],
    *,
    task: Task,
    truth: str,
    source: str,
    seed: int,
) -> Agreement:
    from sklearn.metrics import adjusted_mutual_info_score

    rows = np.array(sorted(types.keys() & classes.keys()))
    if len(rows) > _MAX_ROWS:
        rows = np.random.default_rng(seed).choice(rows, _MAX_ROWS, replace=False)
    pairs = [(types[row], classes[row]) for row in rows.tolist()]
    named, true = zip(*pairs, strict=True)
    return Agreement(
        task=task.value,
        truth=truth,
        source=source,
        num_rows=len(pairs),
        num_classes=len(set(true)),
        ami=float(adjusted_mutual_info_score(true, named)),
        profiles=_profiles(pairs),
    )


def _profiles(pairs: Sequence[tuple[int, str]]) -> list[TypeProfile]:
    counts: dict[int, Counter[str]] = {}
    for reaction_type, name in pairs:
        counts.setdefault(reaction_type, Counter())[name] += 1
    profiles = []
    for reaction_type, classes in counts.items():
        (top_class, top_count), total = classes.most_common(1)[0], classes.total()
        profiles.append(TypeProfile(reaction_type, total, top_class, top_count / total))
    return sorted(profiles, key=lambda profile: (-profile.num_rows, profile.reaction_type))


def _cluster_types(run: RunFolder) -> dict[Task, dict[int, int]]:
    folder = "elicit/reaction_types"
    names = set(run.list_names(folder))
    return {
        task: _pairs(run, f"{folder}/{task}.parquet") for task in Task if f"{task}.parquet" in names
    }


def _named_types(run: RunFolder) -> dict[Task, dict[int, int]]:
    folder = f"annotate/{Split.TEST}"
    if not run.list_names(folder):
        return {}
    table = run.read_table(folder, columns=["row_id", "task", "reaction_type"])
    types: dict[Task, dict[int, int]] = {}
    for row, task, number in zip(*(table[n].to_pylist() for n in table.column_names), strict=True):
        types.setdefault(Task(task), {})[row] = number
    return types


def _pairs(run: RunFolder, path: str) -> dict[int, int]:
    table = run.read_table(path, columns=["row_id", "reaction_type"])
    return dict(zip(table["row_id"].to_pylist(), table["reaction_type"].to_pylist(), strict=True))


def _read_truth(run: RunFolder, wanted: set[int]) -> dict[str, dict[int, str]]:
    """True classes by column and row; columns that name no classes are left out."""
    columns: dict[str, dict[int, str]] = {}
    with pq.ParquetFile(run.path(TRUTH_PATH), filesystem=run.filesystem) as file:
        for batch in file.iter_batches():
            rows, names, values = (batch.column(i).to_pylist() for i in range(3))
            for row, name, value in zip(rows, names, values, strict=True):
                if value is not None and row in wanted:
                    columns.setdefault(name, {})[row] = value
    return {
        name: classes
        for name, classes in columns.items()
        if 1 < len(set(classes.values())) <= _MAX_CLASSES
    }
