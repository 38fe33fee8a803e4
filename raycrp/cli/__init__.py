"""The command line: each command loads the configuration and calls one function.

Ray, torch and RDKit are imported inside the commands, so that ``--help`` answers at once.
"""

import sys

import typer

from raycrp.cli import cluster, predict, stages, studies, watch
from raycrp.errors import RaycrpError

COMMANDS = (
    stages.run,
    stages.validate,
    stages.settings,
    predict.predict,
    studies.compare,
    studies.audit,
    studies.ablate,
    cluster.submit,
    watch.status,
    watch.board,
    cluster.doctor,
)
"""In the order of ``--help``; the commands of single stages follow."""

app = typer.Typer(
    name="raycrp",
    help="Train chemical reaction models that elicit their own reaction types (SLM4CRP), on Ray.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for _command in COMMANDS:
    app.command()(_command)
for _stage in stages.STAGE_HELP:
    app.command(name=_stage, rich_help_panel=stages.STAGE_PANEL)(stages.stage_command(_stage))


def main() -> None:
    """Run the command line; what a user can act on ends in one line and exit code 2."""
    try:
        app()
    except RaycrpError as error:
        cause = getattr(error, "cause", None)
        message = str(cause if isinstance(cause, RaycrpError) else error)
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)
