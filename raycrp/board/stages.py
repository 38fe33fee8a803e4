"""Where each stage of a run stands, read from its folder alone."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyarrow import fs

from raycrp.plan import GRAPH, Stage
from raycrp.run import STARTED, SUCCESS, RunFolder

DONE, OUTDATED, UNDER_WAY, WAITING = "done", "outdated", "under way", "waiting"


@dataclass(frozen=True)
class StageView:
    """One stage as its folder shows it.

    Args:
        stage: The stage.
        state: ``done``; ``outdated`` where a stage that it needs is not done; ``under way``;
            ``waiting``.
        summary: What it reported when it finished.
        started_at: When it started, in seconds since 1970; None if it has not.
    """

    stage: Stage
    state: str
    summary: Mapping[str, Any]
    started_at: float | None


def stage_views(run: RunFolder) -> list[StageView]:
    """All stages in order, as the run folder shows them.

    Args:
        run: The run folder.
    """
    views: dict[Stage, StageView] = {}
    for stage in Stage:
        done = _read_marker(run, f"{stage}/{SUCCESS}")
        started_at = _modified_at(run, f"{stage}/{STARTED}")
        state = WAITING if started_at is None else UNDER_WAY
        if done is not None:
            is_fresh = all(views[need].state == DONE for need in GRAPH[stage].needs)
            state = DONE if is_fresh else OUTDATED
        views[stage] = StageView(stage, state, done["summary"] if done else {}, started_at)
    return list(views.values())


def _read_marker(run: RunFolder, relative: str) -> Any:
    """A marker's contents; None while it is not there, or not yet whole in a copy."""
    if not run.exists(relative):
        return None
    try:
        return run.read_json(relative)
    except json.JSONDecodeError:
        return None


def _modified_at(run: RunFolder, relative: str) -> float | None:
    info = run.filesystem.get_file_info(run.path(relative))
    return None if info.type == fs.FileType.NotFound else info.mtime_ns / 1e9
