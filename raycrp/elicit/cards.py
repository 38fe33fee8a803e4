"""What each reaction type stands for: the table ``RT_CARDS``, made when the search has ended."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from raycrp.arrays import IntArray
from raycrp.chem.changes import reaction_changes
from raycrp.chem.reactions import Reaction, task_reaction
from raycrp.chem.summaries import ChangeShare, TypeSummary, name_types
from raycrp.choices import Task
from raycrp.elicit.feedback import derive_seed
from raycrp.elicit.final import TYPES
from raycrp.elicit.rows import TaskRows
from raycrp.elicit.trial import Trial, read_distances
from raycrp.run import RunFolder
from raycrp.schemas import RT_CARDS

Card = dict[str, Any]

CARDS = "elicit/rt_cards.parquet"
NO_REACTIONS = "no reactions"

_MAX_REACTIONS = 1_000
# Of a type: shares are then within .03, and a hundred types take minutes and not hours.
_NUM_SHOWN = 12
_NUM_CENTRAL = 10


def write_cards(
    best: Mapping[Task, Trial],
    *,
    rows: Mapping[Task, TaskRows],
    run: RunFolder,
    seed: int,
    cpus: float,
) -> None:
    """Describe the reaction types of each task's best trial in ``CARDS``.

    Args:
        best: The chosen trial of each task, whose reaction types are written.
        rows: D_train by task.
        run: The run folder, with an absolute storage.
        seed: Seed of the choice of reactions, where a type has very many.
        cpus: CPUs for each task.
    """
    remote: Any = ray.remote
    job = remote(num_cpus=cpus)(describe_types)
    described = {
        task: each.task if each.basis is None else each.basis.task for task, each in rows.items()
    }
    started = {
        task: job.remote(best[task], rows=ray.put(rows[task]), run=run, seed=seed)
        for task in dict.fromkeys(described.values())
    }
    cards = {task: ray.get(reference) for task, reference in started.items()}
    table = [
        {**card, **own}
        for task, trial in best.items()
        for card, own in zip(cards[described[task]], _sizes(trial, run), strict=True)
    ]
    run.write_table(CARDS, pa.Table.from_pylist(table, schema=RT_CARDS))


def describe_types(trial: Trial, *, rows: TaskRows, run: RunFolder, seed: int) -> list[Card]:
    """What each reaction type of a trial changes, and its most central reactions.

    Args:
        trial: The trial, whose reaction types are written.
        rows: D_train of its task.
        run: The run folder, with an absolute storage.
        seed: Seed of the choice of reactions, where a type has very many.

    Returns:
        A card a type, by type, without what ``RT_CARDS`` says of a task's own rows.
    """
    labels = _read_labels(trial.task, run)
    distances = read_distances(trial, run=run)
    random = np.random.default_rng(derive_seed(seed, "cards", trial.task))
    sampled, places = [], []
    for label in range(trial.num_clusters):
        inside = np.flatnonzero(labels == label)
        sampled.append(np.sort(random.permutation(inside)[:_MAX_REACTIONS]))
        places.append(inside[np.argsort(distances[inside], kind="stable")])
    summaries = _summarise(np.concatenate(sampled), labels=labels, rows=rows)
    return [
        {**_describe(summaries.get(label)), "central": _central(ordered, rows=rows)}
        for label, ordered in enumerate(places)
    ]


def _summarise(places: IntArray, *, labels: IntArray, rows: TaskRows) -> dict[int, TypeSummary]:
    changes = [
        reaction_changes(reaction.reactants, product=reaction.product)
        for reaction in _reactions(places, rows=rows)
    ]
    sizes = dict(enumerate(np.bincount(labels).tolist()))
    summaries = name_types(
        changes, labels=labels[places].tolist(), num_shown=_NUM_SHOWN, sizes=sizes
    )
    return {summary.label: summary for summary in summaries}


def _describe(summary: TypeSummary | None) -> Card:
    if summary is None:
        return {"name": NO_REACTIONS, "frequent_changes": [], "specific_changes": []}
    return {
        "name": summary.name,
        "frequent_changes": [{**_change(each), "share": each.share} for each in summary.frequent],
        "specific_changes": [
            {**_change(each), "lift": each.lift, "share": each.share} for each in summary.specific
        ],
    }


def _change(share: ChangeShare) -> Card:
    return {"name": share.change.text, "kind": share.change.kind.value}


def _central(ordered: IntArray, *, rows: TaskRows) -> list[str]:
    """Different reactions closest to the centre."""
    found: dict[str, None] = {}
    for start in range(0, len(ordered), _NUM_CENTRAL):
        for reaction in _reactions(ordered[start : start + _NUM_CENTRAL], rows=rows):
            found[f"{reaction.reactants}>{reaction.reagents}>{reaction.product}"] = None
        if len(found) >= _NUM_CENTRAL:
            break
    return list(found)[:_NUM_CENTRAL]


def _reactions(places: IntArray, *, rows: TaskRows) -> list[Reaction]:
    texts = (rows.inputs.take(places).to_pylist(), rows.outputs.take(places).to_pylist())
    return [
        task_reaction(rows.task, input_text=source, output_text=target)
        for source, target in zip(*texts, strict=True)
    ]


def _sizes(trial: Trial, run: RunFolder) -> Sequence[Card]:
    """What a card says of a task's own rows."""
    labels = _read_labels(trial.task, run)
    sizes = np.bincount(labels, minlength=trial.num_clusters)
    return [
        {
            "task": trial.task.value,
            "encoding": trial.encoding.value,
            "num_types": trial.num_clusters,
            "reaction_type": label,
            "size": size,
            "share": size / len(labels),
        }
        for label, size in enumerate(sizes.tolist())
    ]


def _read_labels(task: Task, run: RunFolder) -> IntArray:
    table = run.read_table(f"{TYPES}/{task}.parquet", columns=["reaction_type"])
    return np.asarray(table["reaction_type"].to_numpy(), dtype=np.int64)
