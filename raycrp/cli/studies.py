"""``compare``, ``audit`` and ``ablate``: what runs are worth, and why."""

from typing import Annotated

import typer

from raycrp.cli.arguments import (
    ConfigArguments,
    RunArgument,
    Verbose,
    configure_logging,
    load_settings,
)


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
    from raycrp.status import open_run

    comparison = compare_runs(
        open_run(first), open_run(second), num_resamples=num_resamples, seed=seed
    )
    if as_json:
        print(json.dumps(comparison_as_json(comparison), indent=2))
    else:
        print(comparison_as_markdown(comparison))


def audit(
    run_folder: RunArgument,
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
    from raycrp.plan import read_run_config
    from raycrp.status import open_run

    run = open_run(run_folder)
    config = read_run_config(run)
    configure_logging(verbose)
    from raycrp.audit.stage import MARKDOWN_PATH, check_finished, run_audit
    from raycrp.ray_session import connected_ray
    from raycrp.report.stage import REPORT_PATH, run_report

    check_finished(run)
    with connected_ray(num_cpus=config.run.num_cpus):
        run_audit(config, run, max_rows=max_rows)
    if run.exists(REPORT_PATH):
        run_report(config, run)
    print(run.read_bytes(MARKDOWN_PATH).decode())


def ablate(arguments: ConfigArguments, verbose: Verbose = False) -> None:
    """Train and score the paper's rows: its Tables 1 and 2, made here.

    No RT, RT, RT with adaptive instructions at the best N and at a second
    N; single-task and multi-task; with several seeds; all on the same data
    as one Ray Tune run. Each model has a run folder of its own under
    ablate/trials, which shares data, reaction types and annotations with
    the others. Repeat the command to go on after an interruption.

    Example: raycrp ablate tune_configs/demo_ablate.yaml
    """
    config = load_settings(arguments)
    configure_logging(verbose)
    from raycrp.ablate.sweep import run_ablation
    from raycrp.ablate.tables import JSON_PATH, MARKDOWN_PATH

    run = run_ablation(config)
    print(run.read_bytes(MARKDOWN_PATH).decode())
    print(f"ablate: {run.uri(MARKDOWN_PATH)}, {run.uri(JSON_PATH)}")
