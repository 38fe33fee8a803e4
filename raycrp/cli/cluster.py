"""``submit`` and ``doctor``: a run as a job of a cluster, and whether a machine is fit."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raycrp.cli.arguments import ConfigArguments, split_arguments
from raycrp.errors import ConfigError

if TYPE_CHECKING:
    from raycrp.plan import Stage


def submit(
    arguments: ConfigArguments,
    address: Annotated[
        str | None,
        typer.Option(help="Job server; RAY_API_SERVER_ADDRESS or http://127.0.0.1:8265 if unset."),
    ] = None,
    working_dir: Annotated[Path, typer.Option(help="Working tree to send.")] = Path(),
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Return once the job is sent.")
    ] = False,
    max_restarts: Annotated[
        int, typer.Option(min=0, help="Times a lost driver is started again.")
    ] = 3,
    max_size_mib: Annotated[int, typer.Option(min=1, help="Largest working tree sent.")] = 100,
    until: Annotated[
        str | None, typer.Option(metavar="STAGE", help="Last stage wanted, such as elicit.")
    ] = None,
) -> None:
    """Send a run to a Ray cluster as a job, and follow it."""
    from raycrp.submit.send import SubmitOptions, submit_run

    paths, overrides = split_arguments(arguments)
    options = SubmitOptions(
        address=address,
        working_dir=working_dir,
        waits=not no_wait,
        max_restarts=max_restarts,
        max_bytes=max_size_mib * 2**20,
    )
    outcome = submit_run(
        paths,
        overrides,
        options=options,
        echo=lambda text: print(text, end="", flush=True),
        until=_parse_stage(until) if until else None,
    )
    if not no_wait and outcome.status != "SUCCEEDED":
        raise typer.Exit(code=2 if outcome.exit_code == 2 else 1)


def doctor() -> None:
    """Check Python, torch, Ray, DeepSpeed, memory, disk and the cluster; exit 1 on trouble."""
    from raycrp.doctor import run_checks

    checks = run_checks()
    for check in checks:
        print(f"{'ok  ' if check.is_ok else 'FAIL'}  {check.name:<10} {check.detail}")
        if not check.is_ok:
            print(f"      {'':<10} remedy: {check.remedy}")
    if not all(check.is_ok for check in checks):
        raise typer.Exit(code=1)


def _parse_stage(name: str) -> "Stage":
    from raycrp.plan import Stage

    try:
        return Stage(name)
    except ValueError:
        raise ConfigError(f"no stage '{name}'; there are {', '.join(Stage)}") from None
