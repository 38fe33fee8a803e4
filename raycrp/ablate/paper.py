"""The paper's Tables 1 and 2, to stand beside ours."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from raycrp.choices import AblationRow

PAPER_FILE = "paper.yaml"


@dataclass(frozen=True)
class PaperRow:
    """A row of the paper's tables.

    Args:
        model: The paper's name of the model.
        row: The row of ours that it stands beside; None where we train none like it.
        is_single: Whether a row over all tasks is of single-task models.
        scores: Score by metric, block ``published``.
    """

    model: str
    row: AblationRow | None
    is_single: bool
    scores: Mapping[str, float]


@cache
def load_paper() -> Mapping[str, tuple[PaperRow, ...]]:
    """The paper's rows: Table 1 by task, Table 2 under ``all``."""
    text = (files("raycrp.ablate") / PAPER_FILE).read_text(encoding="utf-8")
    tables: dict[str, Any] = yaml.safe_load(text)
    groups = {**tables["single_task"], "all": tables["multi_task"]}
    return {
        group: tuple(_parse_row(entry, metrics=tables["metrics"]) for entry in entries)
        for group, entries in groups.items()
    }


def _parse_row(entry: Mapping[str, Any], *, metrics: list[str]) -> PaperRow:
    return PaperRow(
        model=entry["model"],
        row=AblationRow(entry["row"]) if "row" in entry else None,
        is_single=entry.get("single", False),
        scores=dict(zip(metrics, entry["scores"], strict=True)),
    )
