"""``run``, ``validate``, ``settings``, and a command for each stage."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from raycrp.cli.arguments import (
    ConfigArguments,
    Verbose,
    configure_logging,
    load_settings,
    split_arguments,
)
from raycrp.errors import ConfigError

if TYPE_CHECKING:
    from raycrp.plan import Stage
    from raycrp.run import RunFolder

STAGE_PANEL = "One stage, and what it needs before it"
STAGE_HELP = {
    "data": "Read, clean and split the reactions.",
    "embed": "Embed inputs and outputs of the training rows with LLM-RT.",
    "elicit": "Search encoding x N for reaction types (Algorithm 1).",
    "annotate": "Name every row's reaction type from its input alone.",
    "prompt": "Choose instructions and fuse them with the reaction types.",
    "train": "Fine-tune LLM-CRP with Ray Train and DeepSpeed.",
    "evaluate": "Predict the test split and score it.",
    "report": "Write the HTML report.",
}


def run(
    arguments: ConfigArguments,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would run, and start nothing.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Carry out all stages, leaving out those that are done."""
    if dry_run:
        from raycrp.data.read import inputs_digest
        from raycrp.plan import describe_plan

        config = load_settings(arguments)
        print(describe_plan(config, inputs_digest=inputs_digest(config.data)))
        return
    _run_until("report", arguments, verbose)


def validate(arguments: ConfigArguments) -> None:
    """Check configurations, each YAML file on its own, and say what is wrong."""
    from raycrp.config import load_config

    paths, overrides = split_arguments(arguments)
    problems = []
    for path in paths:
        try:
            load_config([path], overrides)
        except ConfigError as error:
            problems.append(f"{path}:\n  " + str(error).replace("\n", "\n  "))
        else:
            print(f"{path}: ok")
    if problems:
        raise ConfigError("\n".join(problems))


def settings(
    sections: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SECTION]...", help="Such as train; all of them if none is named."),
    ] = None,
) -> None:
    """Print every setting with its default and what it means, as YAML to start from."""
    from raycrp.config.reference import describe_settings

    print(describe_settings(sections or ()))


def stage_command(stage: str) -> Callable[..., None]:
    """The command that carries out a stage and what it needs.

    Args:
        stage: Name of the stage.
    """

    def command(arguments: ConfigArguments, verbose: Verbose = False) -> None:
        """Stands for the stage's own words, which ``--help`` shows."""
        _run_until(stage, arguments, verbose)

    command.__doc__ = STAGE_HELP[stage]
    return command


def _run_until(stage: str, arguments: list[str], verbose: bool) -> None:
    config = load_settings(arguments)
    configure_logging(verbose)
    from raycrp.pipeline import run_pipeline
    from raycrp.plan import Stage

    _print_outcome(run_pipeline(config, until=Stage(stage)), Stage(stage))


def _print_outcome(run: "RunFolder", stage: "Stage") -> None:
    if stage in ("evaluate", "report"):
        print(run.read_bytes("evaluate/scores.md").decode())
    print(f"{stage}: {run.uri('report/index.html' if stage == 'report' else stage)}")
