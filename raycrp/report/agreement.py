"""How far reaction types agree with true classes, where a data set has them."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from raycrp.choices import Task
from raycrp.evaluate.bootstrap import Interval
from raycrp.report.names import PACKAGE, name_reactions
from raycrp.run import RunFolder
from raycrp.schemas import Split

TRUTH_PATH = "data/truth.parquet"
NAMES_TRUTH = f"names by {PACKAGE}"
_MAX_ROWS = 20_000
_MAX_CLASSES = 1_000
_MAX_COLUMNS = 12
_NORMAL_95 = 1.959963984540054


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
class ConfusionTable:
    """How many rows of each reaction type are of each true class.

    Args:
        classes: Column names, the most frequent class first; the rest under one name.
        rows: Reaction type and its counts by class, largest type first.
    """

    classes: Sequence[str]
    rows: Sequence[tuple[int, Sequence[int]]]


@dataclass(frozen=True)
class Agreement:
    """Reaction types against true classes, on the rows of one source.

    Args:
        task: The task.
        truth: Name of the column of true classes.
        source: Where the reaction types come from.
        num_rows: Rows with both.
        num_classes: Different true classes among them.
        ami: Adjusted mutual information with its 95 % interval; 0 is chance, 1 the same partition.
        v_measure: Harmonic mean of homogeneity and completeness; not adjusted for chance.
        purity: Share of rows whose class is the most frequent one of their type.
        profiles: Make-up of each reaction type, largest first.
        confusion: Rows by type and class.
    """

    task: str
    truth: str
    source: str
    num_rows: int
    num_classes: int
    ami: Interval
    v_measure: float
    purity: float
    profiles: Sequence[TypeProfile]
    confusion: ConfusionTable


def measure_agreement(run: RunFolder, *, seed: int, num_named: int = 0) -> list[Agreement]:
    """Compare clusters of training rows, and types named on test rows, with true classes.

    Args:
        run: The run folder.
        seed: Seed of the choice of rows, where there are very many.
        num_named: Training rows of each task whose reactions are named, as one more truth, where
            the package for it is installed.

    Returns:
        For each task, column of truth and source one agreement; none without true classes.
    """
    sources = {
        "k-means, training rows": _cluster_types(run),
        "LLM-RT, test rows": _named_types(run),
    }
    wanted = {row for types in sources.values() for rows in types.values() for row in rows}
    truths = _read_truth(run, wanted) if run.exists(TRUTH_PATH) else {}
    clusters = sources["k-means, training rows"].values()
    truths[NAMES_TRUTH] = {
        row: name
        for rows in clusters
        for row, name in name_reactions(run, rows=rows, num_rows=num_named, seed=seed).items()
    }
    return [
        _compare(types[task], classes, task=task, truth=truth, source=source, seed=seed)
        for truth, classes in truths.items()
        for task in Task
        for source, types in sources.items()
        if len(types.get(task, {}).keys() & classes.keys()) > 1
    ]


def ami_interval(table: npt.NDArray[np.int64]) -> Interval:
    """Adjusted mutual information of two partitions of the same rows, with its 95 % interval.

    The interval is what another draw of as many rows would give (delta method; what is expected by
    chance counts as known). It does not tell how k-means would differ with another seed.

    Args:
        table: Rows by part of the one and part of the other partition, no part empty.

    Source: N. X. Vinh, J. Epps, J. Bailey, J. Mach. Learn. Res. 2010, 11, 2837, arithmetic mean.
    """
    from sklearn.metrics.cluster import expected_mutual_information

    total = int(table.sum())
    shares = table / total
    first, second = (shares.sum(axis=axis, keepdims=True) for axis in (1, 0))
    is_present = shares > 0
    told = np.where(is_present, np.log(np.where(is_present, shares, 1) / (first * second)), 0)
    surprise = -(np.log(first) + np.log(second)) / 2
    expected = float(expected_mutual_information(table, total))
    span = float((shares * surprise).sum()) - expected
    if span <= 0:
        return Interval(1.0, 1.0, 1.0)
    ami = (float((shares * told).sum()) - expected) / span
    influence = (told - ami * surprise) / span
    variance = float((shares * influence**2).sum() - (shares * influence).sum() ** 2)
    half = _NORMAL_95 * math.sqrt(max(0.0, variance) / total)
    return Interval(ami, ami - half, min(1.0, ami + half))


def _compare(
    types: Mapping[int, int],
    classes: Mapping[int, str],
    *,
    task: Task,
    truth: str,
    source: str,
    seed: int,
) -> Agreement:
    from sklearn.metrics import v_measure_score
    from sklearn.metrics.cluster import contingency_matrix

    rows = np.array(sorted(types.keys() & classes.keys()))
    if len(rows) > _MAX_ROWS:
        rows = np.random.default_rng(seed).choice(rows, _MAX_ROWS, replace=False)
    pairs = [(types[row], classes[row]) for row in rows.tolist()]
    named, true = zip(*pairs, strict=True)
    table = contingency_matrix(named, true).astype(np.int64)
    return Agreement(
        task=task.value,
        truth=truth,
        source=source,
        num_rows=len(pairs),
        num_classes=len(set(true)),
        ami=ami_interval(table),
        v_measure=float(v_measure_score(true, named)),
        purity=float(table.max(axis=1).sum() / table.sum()),
        profiles=_profiles(pairs),
        confusion=_confusion(pairs),
    )


def _confusion(pairs: Sequence[tuple[int, str]]) -> ConfusionTable:
    by_class = Counter(name for _, name in pairs)
    # Equal counts in the order of their names, numbers as numbers.
    classes = sorted(by_class, key=lambda name: (-by_class[name], len(name), name))
    shown, rest = classes[:_MAX_COLUMNS], classes[_MAX_COLUMNS:]
    cells, sizes = Counter(pairs), Counter(number for number, _ in pairs)
    rows = []
    for number in sorted(sizes, key=lambda number: (-sizes[number], number)):
        counts = [cells[number, name] for name in shown]
        rows.append((number, [*counts, sizes[number] - sum(counts)] if rest else counts))
    return ConfusionTable([*shown, f"{len(rest)} others"] if rest else shown, rows)


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
