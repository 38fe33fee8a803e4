"""The command line: each command loads the configuration and calls one function.

Ray, torch and RDKit are imported inside the commands, so that ``--help`` answers at once.
"""

import logging
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from raycrp.errors import ConfigError, RaycrpError

if TYPE_CHECKING:
    from raycrp.config import Config
    from raycrp.plan import Stage
    from raycrp.run import RunFolder

Choice = TypeVar("Choice", bound=StrEnum)

app = typer.Typer(
    name="raycrp",
    help="Train chemical reaction models that elicit their own reaction types (SLM4CRP), on Ray.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

ConfigArguments = Annotated[
    list[str],
    typer.Argument(
        metavar="CONFIG... [section.key=value ...]",
        help="YAML files, merged in order, and single settings; later ones win.",
        show_default=False,
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")]

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


def main() -> None:
    """Run the command line; what a user can act on ends in one line and exit code 2."""
    try:
        app()
    except RaycrpError as error:
        cause = getattr(error, "cause", None)
        message = str(cause if isinstance(cause, RaycrpError) else error)
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)


@app.command()
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

        config = _load(arguments)
        print(describe_plan(config, inputs_digest=inputs_digest(config.data)))
        return
    _run_until("report", arguments, verbose)


@app.command()
def validate(arguments: ConfigArguments) -> None:
    """Check configurations, each YAML file on its own, and say what is wrong."""
    from raycrp.config import load_config

    paths, overrides = _split_arguments(arguments)
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


@app.command()
def predict(
    model: Annotated[str, typer.Argument(metavar="RUN_OR_MODEL", help="Run or model folder.")],
    task: Annotated[
        str, typer.Option(help="forward, retrosynthesis or reagent.", show_default=False)
    ],
    smiles: Annotated[
        list[str] | None, typer.Argument(metavar="[SMILES]...", help="Inputs.")
    ] = None,
    input_path: Annotated[
        str | None,
        typer.Option(
            "--input",
            help="File (SMILES lines, CSV, JSON Lines, Parquet), folder of files, or - for "
            "standard input, one SMILES a line.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="File (.csv, .jsonl, .parquet) or folder; a job that can be killed and repeated. "
            "The terminal if unset."
        ),
    ] = None,
    file_format: Annotated[
        str | None,
        typer.Option("--format", help="csv, jsonl or parquet; table for the terminal."),
    ] = None,
    column: Annotated[str | None, typer.Option(help="Column of the input in tables.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Column of the rows' names.")] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Different answers for each input.")] = 5,
    num_beams: Annotated[int, typer.Option(min=1, help="Beams of the search.")] = 5,
    num_reaction_types: Annotated[
        int, typer.Option(min=1, help="Most probable reaction types ranked together.")
    ] = 1,
    num_spellings: Annotated[
        int, typer.Option(min=1, help="Spellings of each input that vote.")
    ] = 1,
    round_trip: Annotated[
        bool, typer.Option(help="Ask the forward task what comes of answers to retrosynthesis.")
    ] = True,
    max_output_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest answer; that of training if unset.")
    ] = None,
    rows_per_block: Annotated[int, typer.Option(min=1, help="Rows of a block of a job.")] = 1_024,
    num_actors: Annotated[int, typer.Option(min=1, help="Actors of a job.")] = 1,
    gpus_per_actor: Annotated[float, typer.Option(min=0, help="GPUs of each actor.")] = 0,
    num_cpus: Annotated[
        int | None, typer.Option(min=1, help="CPUs of a Ray started here; all if unset.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    verbose: Verbose = False,
) -> None:
    """Predict products, reactants or reagents: of molecules given, a file, or a folder."""
    from raycrp.choices import Device, OutputFormat
    from raycrp.evaluate.inputs import InputSource
    from raycrp.evaluate.model_folder import find_model
    from raycrp.evaluate.predict_job import (
        JobSettings,
        PredictSettings,
        print_predictions,
        run_predict_job,
    )

    source = InputSource(smiles or (), input_path, column, id_column)
    written = None if file_format is None else _choice(OutputFormat, file_format, "--format")
    place = _choice(Device, device, "--device")
    settings = PredictSettings(
        task=task,
        top_k=top_k,
        num_beams=num_beams,
        num_reaction_types=num_reaction_types,
        num_spellings=num_spellings,
        round_trip=round_trip,
        max_output_tokens=max_output_tokens,
    )
    if output is None:
        outcome = print_predictions(
            find_model(model),
            source,
            settings=settings,
            device=place,
            file_format=written or OutputFormat.TABLE,
            stream=sys.stdout,
        )
    else:
        _configure_logging(verbose)
        outcome = run_predict_job(
            find_model(model),
            source,
            output=output,
            file_format=written,
            settings=settings,
            job=JobSettings(rows_per_block, num_actors, gpus_per_actor, num_cpus, place),
        )
    print(f"predict: {outcome.describe()}", file=sys.stdout if output else sys.stderr)
    if not outcome.num_answered:
        raise typer.Exit(code=2)


@app.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="RUN_A", help="Run folder, a path or URI.")],
    second: Annotated[str, typer.Argument(metavar="RUN_B", help="Another one.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON instead of Markdown.")
    ] = False,
    num_resamples: Annotated[
        int, typer.Option("--resamples", min=100, help="Bootstrap draws behind each interval.")
    ] = 2_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws.")] = 0,
) -> None:
    """Show how far two runs are apart in every score: RUN_B minus RUN_A.

    Both must have been scored on the same test data. Rows are matched, and
    every difference is paired by reaction and has a 95 % interval, so that
    it is sharper than the intervals of the two runs suggest.

    Example: raycrp compare runs/plain runs/with-types
    """
    import json

    from raycrp.compare.runs import compare_runs, comparison_as_json, comparison_as_markdown
    from raycrp.status import parse_run

    comparison = compare_runs(
        parse_run(first), parse_run(second), num_resamples=num_resamples, seed=seed
    )
    if as_json:
        print(json.dumps(comparison_as_json(comparison), indent=2))
    else:
        print(comparison_as_markdown(comparison))


@app.command()
def audit(
    run_folder: Annotated[str, typer.Argument(metavar="RUN", help="Run folder, a path or URI.")],
    max_rows: Annotated[
        int | None,
        typer.Option(min=1, help="At most so many of the answered test rows of each task."),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Find out where the gain of a trained model comes from.

    Scores the model on the same test rows under five sources of the
    reaction type (none, predicted, shuffled, constant, oracle) and with
    random and fixed instructions, and measures whether reaction types can
    be read off the answer better than off the input. Where the data came
    with a column reaction_label, those labels are tested too. The tables
    also go to audit/ in the run folder and into its report.

    Example: raycrp audit runs/demo
    """
    from raycrp.status import parse_run

    run = parse_run(run_folder)
    from raycrp.plan import read_run_config

    config = read_run_config(run)
    _configure_logging(verbose)
    from raycrp.audit.stage import MARKDOWN_PATH, run_audit
    from raycrp.report.stage import REPORT_PATH, run_report
    from raycrp.session import connected_ray

    with connected_ray(num_cpus=config.run.num_cpus):
        run_audit(config, run, max_rows=max_rows)
    if run.exists(REPORT_PATH):
        run_report(config, run)
    print(run.read_bytes(MARKDOWN_PATH).decode())


@app.command()
def ablate(arguments: ConfigArguments, verbose: Verbose = False) -> None:
    """Train and score the paper's rows: its Tables 1 and 2, made here.

    No RT, RT, RT with adaptive instructions at the best N and at a second
    N; single-task and multi-task; with several seeds; all on the same data
    as one Ray Tune run. Each model has a run folder of its own under
    ablate/trials, which shares data, reaction types and annotations with
    the others. Repeat the command to go on after an interruption.

    Example: raycrp ablate tune_configs/demo_ablate.yaml
    """
    config = _load(arguments)
    _configure_logging(verbose)
    from raycrp.ablate.sweep import run_ablation
    from raycrp.ablate.tables import JSON_PATH, MARKDOWN_PATH

    run = run_ablation(config)
    print(run.read_bytes(MARKDOWN_PATH).decode())
    print(f"ablate: {run.path(MARKDOWN_PATH)}, {run.path(JSON_PATH)}")


@app.command()
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
    from raycrp.submit import SubmitOptions, submit_run

    paths, overrides = _split_arguments(arguments)
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


@app.command()
def status(
    run_folder: Annotated[str, typer.Argument(metavar="RUN", help="Run folder, a path or URI.")],
) -> None:
    """Say how a run stands, from its folder alone."""
    from raycrp.status import describe_run, parse_run

    folder = parse_run(run_folder)
    print(describe_run(folder.storage, folder.name))


@app.command()
def board(
    run_folder: Annotated[str, typer.Argument(metavar="RUN", help="Run folder, a path or URI.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8050,
) -> None:
    """Serve a page that follows a run: the sweep, its choice, training."""
    from raycrp.board.app import serve_board
    from raycrp.status import parse_run

    serve_board(
        parse_run(run_folder), host=host, port=port, echo=lambda text: print(text, flush=True)
    )


@app.command()
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


def _stage_command(stage: str) -> Callable[..., None]:
    def command(arguments: ConfigArguments, verbose: Verbose = False) -> None:
        _run_until(stage, arguments, verbose)

    command.__doc__ = STAGE_HELP[stage]
    return command


for _stage in STAGE_HELP:
    app.command(name=_stage, rich_help_panel=STAGE_PANEL)(_stage_command(_stage))


def _run_until(stage: str, arguments: list[str], verbose: bool) -> None:
    config = _load(arguments)
    _configure_logging(verbose)
    from raycrp.pipeline import run_pipeline
    from raycrp.plan import Stage

    _print_outcome(run_pipeline(config, until=Stage(stage)), Stage(stage))


def _print_outcome(run: "RunFolder", stage: "Stage") -> None:
    if stage in ("evaluate", "report"):
        print(run.read_bytes("evaluate/scores.md").decode())
    print(f"{stage}: {run.path('report/index.html' if stage == 'report' else stage)}")


def _parse_stage(name: str) -> "Stage":
    from raycrp.plan import Stage

    try:
        return Stage(name)
    except ValueError:
        raise ConfigError(f"no stage '{name}'; there are {', '.join(Stage)}") from None


def _load(arguments: list[str]) -> "Config":
    from raycrp.config import load_config

    paths, overrides = _split_arguments(arguments)
    return load_config(paths, overrides)


def _split_arguments(arguments: list[str]) -> tuple[list[str], list[str]]:
    overrides = [argument for argument in arguments if "=" in argument]
    paths = [argument for argument in arguments if "=" not in argument]
    if not paths:
        raise ConfigError("give at least one YAML file, such as tune_configs/demo.yaml")
    return paths, overrides


def _choice(kind: type[Choice], name: str, option: str) -> Choice:
    if name not in list(kind):
        raise ConfigError(f"{option} {name}: expected one of {', '.join(kind)}")
    return kind(name)


def _configure_logging(verbose: bool) -> None:
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
    )
