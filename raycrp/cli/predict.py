"""``predict``: answers of a trained model, to the terminal or as a job."""

import sys
from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, TypeVar

import typer

from raycrp.choices import Device, OutputFormat
from raycrp.cli.arguments import Verbose, configure_logging, parse_choice
from raycrp.evaluate.predict_settings import JobSettings, PredictSettings

Settings = TypeVar("Settings", PredictSettings, JobSettings)

_Model = Annotated[str, typer.Argument(metavar="RUN_OR_MODEL", help="Run or model folder.")]
_Smiles = Annotated[list[str] | None, typer.Argument(metavar="[SMILES]...", help="Inputs.")]
_Input = Annotated[
    str | None,
    typer.Option(
        "--input",
        help="File (SMILES lines, CSV, JSON Lines, Parquet) or folder of files, a path or a URI; "
        "- for standard input, one SMILES a line.",
    ),
]
_Output = Annotated[
    str | None,
    typer.Option(
        help="File (.csv, .jsonl, .parquet) or folder, also at a URI such as s3://bucket/name; a "
        "job that can be killed and repeated. The terminal if unset."
    ),
]
_Format = Annotated[
    str | None, typer.Option("--format", help="csv, jsonl or parquet; table for the terminal.")
]
_Column = Annotated[str | None, typer.Option(help="Column of the input in tables.")]
_IdColumn = Annotated[str | None, typer.Option(help="Column of the rows' names.")]
_DeviceName = Annotated[str, typer.Option(help="auto, cpu or cuda.")]

_Task = Annotated[str, typer.Option(help="forward, retrosynthesis or reagent.", show_default=False)]
_TopK = Annotated[int, typer.Option(min=1, help="Different answers for each input.")]
_NumBeams = Annotated[int, typer.Option(min=1, help="Beams of the search.")]
_NumReactionTypes = Annotated[
    int,
    typer.Option(
        min=1,
        help="Most probable reaction types ranked together; beams beyond --top-k look for answers "
        "under all of them.",
    ),
]
_NumSpellings = Annotated[int, typer.Option(min=1, help="Spellings of each input that vote.")]
_RoundTrip = Annotated[
    bool, typer.Option(help="Ask the forward task what comes of answers to retrosynthesis.")
]
_MaxOutputTokens = Annotated[
    int | None, typer.Option(min=1, help="Longest answer; that of training if unset.")
]

_RowsPerBlock = Annotated[int, typer.Option(min=1, help="Rows of a block of a job.")]
_NumActors = Annotated[int, typer.Option(min=0, help="Actors of a job; 0 works here, without Ray.")]
_GpusPerActor = Annotated[float, typer.Option(min=0, help="GPUs of each actor.")]
_NumCpus = Annotated[
    int | None, typer.Option(min=1, help="CPUs of a Ray started here; all if unset.")
]


def predict(
    context: typer.Context,
    model: _Model,
    task: _Task,
    smiles: _Smiles = None,
    input_path: _Input = None,
    output: _Output = None,
    file_format: _Format = None,
    column: _Column = None,
    id_column: _IdColumn = None,
    top_k: _TopK = PredictSettings.top_k,
    num_beams: _NumBeams = PredictSettings.num_beams,
    num_reaction_types: _NumReactionTypes = PredictSettings.num_reaction_types,
    num_spellings: _NumSpellings = PredictSettings.num_spellings,
    round_trip: _RoundTrip = PredictSettings.round_trip,
    max_output_tokens: _MaxOutputTokens = PredictSettings.max_output_tokens,
    rows_per_block: _RowsPerBlock = JobSettings.rows_per_block,
    num_actors: _NumActors = JobSettings.num_actors,
    gpus_per_actor: _GpusPerActor = JobSettings.gpus_per_actor,
    num_cpus: _NumCpus = JobSettings.num_cpus,
    device: _DeviceName = JobSettings.device.value,
    verbose: Verbose = False,
) -> None:
    """Predict products, reactants or reagents: of molecules given, a file, or a folder."""
    from raycrp.evaluate.inputs import InputSource
    from raycrp.evaluate.model_folder import find_model
    from raycrp.evaluate.predict_job import print_predictions, run_predict_job

    source = InputSource(smiles or (), input_path, column, id_column)
    written = (
        None if file_format is None else parse_choice(OutputFormat, file_format, option="--format")
    )
    place = parse_choice(Device, device, option="--device")
    settings = _settings(PredictSettings, context.params)
    if output is None:
        form = written or OutputFormat.TABLE
        outcome = print_predictions(
            find_model(model),
            source,
            settings=settings,
            device=place,
            file_format=form,
            stream=sys.stdout,
            problems=sys.stderr,
        )
    else:
        configure_logging(verbose)
        job = _settings(JobSettings, context.params | {"device": place})
        outcome = run_predict_job(
            model, source, output=output, file_format=written, settings=settings, job=job
        )
    print(f"predict: {outcome.describe()}", file=sys.stdout if output else sys.stderr)
    if not outcome.num_answered:
        raise typer.Exit(code=2)


def _settings(kind: type[Settings], options: Mapping[str, Any]) -> Settings:
    """Options bear the names of the settings that they become."""
    return kind(**{field.name: options[field.name] for field in fields(kind)})
