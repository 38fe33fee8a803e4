"""What the elicited reaction types stand for, as the report shows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raycrp.chem.changes import ChangeKind
from raycrp.report.drawings import draw_molecules
from raycrp.run import RunFolder

CARDS_PATH = "elicit/rt_cards.parquet"

_MAX_CHANGES = 4
_COLUMNS: Mapping[str, frozenset[ChangeKind]] = {
    "bonds": frozenset({ChangeKind.BOND_MADE, ChangeKind.BOND_BROKEN, ChangeKind.BOND_CHANGED}),
    "rings": frozenset({ChangeKind.RING_MADE, ChangeKind.RING_OPENED}),
    "groups": frozenset({ChangeKind.GROUP_GAINED, ChangeKind.GROUP_LOST}),
}


@dataclass(frozen=True)
class TypeCard:
    """One reaction type.

    Args:
        reaction_type: Number of the type.
        name: Its short name.
        size: Rows with it.
        share: Share of all rows.
        changes: Name and share of its most frequent changes, by what changes.
        specific: Name and lift of the changes that set it apart.
        central: Its most central reactions.
        drawing: Precursors and product of the first of them that can be drawn.
    """

    reaction_type: int
    name: str
    size: int
    share: float
    changes: Mapping[str, Sequence[tuple[str, float]]]
    specific: Sequence[tuple[str, float]]
    central: Sequence[str]
    drawing: tuple[Sequence[str], Sequence[str]] | None


@dataclass(frozen=True)
class TypeTable:
    """The reaction types of one task, or of tasks that share them.

    Args:
        title: The tasks.
        encoding: The chosen encoding.
        cards: One a type; sizes are those of the first task.
    """

    title: str
    encoding: str
    cards: Sequence[TypeCard]


def read_types(run: RunFolder) -> list[TypeTable]:
    """The tables of all tasks; none where elicit has not finished.

    Args:
        run: The run folder.
    """
    if not run.exists(CARDS_PATH):
        return []
    by_task: dict[str, list[Mapping[str, Any]]] = {}
    for row in run.read_table(CARDS_PATH).to_pylist():
        by_task.setdefault(row["task"], []).append(row)
    shared: dict[tuple[Any, ...], list[str]] = {}
    for task, rows in by_task.items():
        shared.setdefault(tuple((row["name"], *row["central"]) for row in rows), []).append(task)
    return [
        TypeTable(
            title=", ".join(tasks),
            encoding=by_task[tasks[0]][0]["encoding"],
            cards=[_card(row) for row in by_task[tasks[0]]],
        )
        for tasks in shared.values()
    ]


def _card(row: Mapping[str, Any]) -> TypeCard:
    return TypeCard(
        reaction_type=row["reaction_type"],
        name=row["name"],
        size=row["size"],
        share=row["share"],
        changes={
            column: [
                (change["name"], change["share"])
                for change in row["frequent_changes"]
                if change["kind"] in kinds
            ][:_MAX_CHANGES]
            for column, kinds in _COLUMNS.items()
        },
        specific=[(c["name"], c["lift"]) for c in row["specific_changes"]][:_MAX_CHANGES],
        central=row["central"],
        drawing=next(filter(None, map(_draw, row["central"])), None),
    )


def _draw(reaction: str) -> tuple[Sequence[str], Sequence[str]] | None:
    before, _, after = reaction.split(">")
    drawings = draw_molecules(before), draw_molecules(after)
    return drawings if all(drawings) else None
