"""The board as one HTML file that needs neither server nor network."""

import json
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

from raycrp.board.figures import METRICS
from raycrp.board.markup import to_html
from raycrp.board.page import (
    FIRST_METRIC,
    GRAPH_SETTINGS,
    page_children,
    shared_parts,
    sweep_figures,
    task_parts,
    training_figures,
)
from raycrp.board.snapshot import RunReader, Snapshot
from raycrp.board.stages import DONE
from raycrp.plan import Stage
from raycrp.run import RunFolder

BOARD_PATH = "report/board.html"

_ASSETS = Path(__file__).parent / "assets"
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: raycrp board</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
{body}
<script>{plotly}</script>
<script type="application/json" id="board-data">{data}</script>
<script>{script}</script>
</body>
</html>
"""


def export_board(run: RunFolder) -> int:
    """Write ``report/board.html`` of a run.

    Args:
        run: The run folder.

    Returns:
        Size of the page in bytes.
    """
    snapshot = RunReader(run).read()
    # The page is part of the report, which is done once it can be read.
    stages = [
        replace(view, state=DONE) if view.stage is Stage.REPORT else view
        for view in snapshot.stages
    ]
    page = render_board(replace(snapshot, stages=stages)).encode()
    run.write_bytes(BOARD_PATH, page)
    return len(page)


def render_board(snapshot: Snapshot) -> str:
    """The board as HTML text; the switches work by a few lines of script.

    Args:
        snapshot: The run.
    """
    from plotly.offline import get_plotlyjs

    tasks = list(snapshot.sweep.tasks)
    by_task = {task: task_parts(snapshot, task=task) for task in tasks}
    first = tasks[0] if tasks else ""
    parts = shared_parts(snapshot) | (by_task[first] if tasks else task_parts(snapshot, task=""))
    graphs = sweep_figures(snapshot, task=first, metric=FIRST_METRIC) | training_figures(snapshot)
    data = {
        "settings": GRAPH_SETTINGS,
        "training": training_figures(snapshot),
        "sweep": {task: _figures_of(snapshot, task) for task in tasks},
        "parts": {
            task: {name: to_html(part) for name, part in by_task[task].items()} for task in tasks
        },
    }
    return _PAGE.format(
        title=escape(snapshot.run_name),
        style=(_ASSETS / "board.css").read_text(),
        body=to_html(page_children(parts, tasks=tasks, graphs=graphs)),
        plotly=get_plotlyjs(),
        # Within a script element no text may look like its end.
        data=json.dumps(data).replace("<", "\\u003c"),
        script=(Path(__file__).parent / "export.js").read_text(),
    )


def _figures_of(snapshot: Snapshot, task: str) -> dict[str, Any]:
    return {name: sweep_figures(snapshot, task=task, metric=name) for name in METRICS}
