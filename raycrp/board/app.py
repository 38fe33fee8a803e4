"""The served board: a Dash application that follows a run folder."""

import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dash
from dash import dcc, html

from raycrp.board.markup import to_html
from raycrp.board.page import (
    FIRST_METRIC,
    page_children,
    shared_parts,
    sweep_figures,
    task_parts,
    training_figures,
)
from raycrp.board.snapshot import (
    LOCAL_INTERVAL_S,
    REMOTE_INTERVAL_S,
    Follower,
    RunReader,
    Snapshot,
)
from raycrp.choices import Task
from raycrp.errors import RunError
from raycrp.run import RunFolder

LOOPBACK = ("127.0.0.1", "localhost", "::1")

_TICK_MS = 2_000
_TEXTS = (
    *("head", "notice", "stages", "counts", "sweep-empty", "training-empty", "training-lead"),
    "choice",
)
# Thousands of table cells: as components Dash takes minutes to change them, as text no time.
_LARGE_TEXTS = ("trials", "cards")
_SHOW_LARGE_TEXTS = """parts => {
    for (const [id, html] of Object.entries(parts)) document.getElementById(id).innerHTML = html;
}"""
_FIGURES = ("heat", "lines", "loss", "validation", "speed", "workers")


def serve_board(run: RunFolder, *, host: str, port: int, echo: Callable[[str], None]) -> None:
    """Serve the board of a run until it is interrupted.

    Args:
        run: The run folder.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        echo: Shows a line to the user.

    Raises:
        RunError: If there is no such run, or the port is taken.
    """
    from werkzeug.serving import make_server

    interval_s = LOCAL_INTERVAL_S if run.is_local else REMOTE_INTERVAL_S
    follower = Follower(RunReader(run), interval_s=interval_s)
    app = make_app(follower, hosts=LOOPBACK if host in LOOPBACK else None)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    _check_free(host, port)
    server = make_server(host, port, app.server, threaded=True)
    if host not in LOOPBACK:
        echo(f"whoever reaches {host}:{server.server_port} reads this run: there is no password")
    echo(f"board of {run.uri()}: http://{host}:{server.server_port}/ (Ctrl-C ends it)")
    follower.start()
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        echo("ended")
    finally:
        follower.stop()
        server.server_close()


def make_app(follower: Follower, *, hosts: tuple[str, ...] | None = None) -> Any:
    """The Dash application.

    Args:
        follower: Where its snapshots come from.
        hosts: Names by which it may be asked for; any if None. On loopback this keeps other sites'
            pages from reading the board through a name of theirs that leads here.
    """
    app = dash.Dash(
        __name__,
        title="raycrp board",
        update_title="",
        assets_folder=str(Path(__file__).parent / "assets"),
        serve_locally=True,
        # The layout is read at each request; it need not lie in the page a second time.
        suppress_callback_exceptions=True,
    )
    app.index_string = app.index_string.replace("<html>", '<html lang="en">')
    app.layout = lambda: _layout(follower)
    _add_updates(app, follower)
    if hosts is not None:
        _refuse_other_hosts(app, hosts)
    return app


def _layout(follower: Follower) -> Any:
    version, snapshot = follower.latest()
    tasks = _tasks(snapshot)
    parts = shared_parts(snapshot) | task_parts(snapshot, task=tasks[0])
    large = {name: to_html(parts[name]) for name in _LARGE_TEXTS}
    parts |= dict.fromkeys(_LARGE_TEXTS)
    graphs = sweep_figures(snapshot, task=tasks[0], metric=FIRST_METRIC)
    graphs |= training_figures(snapshot)
    return html.Div(
        [
            *page_children(parts, tasks=tasks, graphs=graphs),
            dcc.Store(id="version", data=version),
            dcc.Store(id="large-texts", data=large),
            dcc.Interval(id="tick", interval=_TICK_MS),
        ]
    )


def _add_updates(app: Any, follower: Follower) -> None:
    outputs = [dash.Output(name, "children") for name in _TEXTS]
    outputs += [dash.Output(name, "figure") for name in _FIGURES]
    app.clientside_callback(_SHOW_LARGE_TEXTS, dash.Input("large-texts", "data"))

    # A look is small and apart from the rest: of two requests for the same outputs Dash drops the
    # earlier answer, and a viewer's choice must not be lost to the next tick.
    @app.callback(  # type: ignore[untyped-decorator]
        dash.Output("version", "data"),
        dash.Input("tick", "n_intervals"),
        dash.State("version", "data"),
        prevent_initial_call=True,
    )
    def look(_ticks: int, known: int) -> int:
        """Number of the newest snapshot, where the page does not show it yet."""
        version, _ = follower.latest()
        if version == known:
            raise dash.exceptions.PreventUpdate
        return version

    @app.callback(  # type: ignore[untyped-decorator]
        *outputs,
        dash.Output("large-texts", "data"),
        dash.Input("version", "data"),
        dash.Input("task", "value"),
        dash.Input("metric", "value"),
        prevent_initial_call=True,
    )
    def update(_version: int, task: str, metric: str) -> Any:
        """All texts and figures, of the newest snapshot."""
        _, snapshot = follower.latest()
        parts = shared_parts(snapshot) | task_parts(snapshot, task=task)
        graphs = sweep_figures(snapshot, task=task, metric=metric) | training_figures(snapshot)
        texts = [parts[name] for name in _TEXTS]
        large = {name: to_html(parts[name]) for name in _LARGE_TEXTS}
        return *texts, *(graphs[name] for name in _FIGURES), large

    @app.callback(  # type: ignore[untyped-decorator]
        dash.Output("task", "options"),
        dash.Input("version", "data"),
        dash.State("task", "options"),
        prevent_initial_call=True,
    )
    def name_tasks(_version: int, known: list[dict[str, str]]) -> Any:
        """Tasks to choose from, where they have changed."""
        tasks = _tasks(follower.latest()[1])
        options = [{"label": task, "value": task} for task in tasks]
        return dash.no_update if options == known else options


def _tasks(snapshot: Snapshot) -> list[str]:
    return list(snapshot.sweep.tasks) or [task.value for task in Task]


def _refuse_other_hosts(app: Any, hosts: tuple[str, ...]) -> None:
    from flask import abort, request

    @app.server.before_request  # type: ignore[untyped-decorator]
    def check() -> None:
        """Refuse a request under a host name that is not ours."""
        if urlsplit(f"//{request.host}").hostname not in hosts:
            abort(403)


def _check_free(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise RunError(
                f"the board cannot listen on {host}:{port}: {error.strerror}; give another --port"
            ) from error
