"""``status`` and ``board``: how a run stands, in the terminal and in a browser."""

from typing import Annotated

import typer

from raycrp.cli.arguments import RunArgument


def status(run_folder: RunArgument) -> None:
    """Say how a run stands, from its folder alone."""
    from raycrp.status import describe_run, open_run

    folder = open_run(run_folder)
    print(describe_run(folder.storage, folder.name))


def board(
    run_folder: RunArgument,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8050,
) -> None:
    """Serve a page that follows a run: the sweep, its choice, training."""
    from raycrp.board.app import serve_board
    from raycrp.status import open_run

    serve_board(
        open_run(run_folder), host=host, port=port, echo=lambda text: print(text, flush=True)
    )
