"""Answers to a file or a folder of inputs, block by block, by Ray Data; killed jobs go on.

Beside the output, a folder ``OUTPUT.work`` keeps what is done: the inputs cut into blocks, and one
file of answers a block. The blocks depend on the inputs alone, a file appears whole or not at all,
and the output is put together last, so that the same command, whenever it was killed, ends with
the same rows. The driver never holds more than a block.
"""

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import ray

from raycrp.choices import Device, OutputFormat
from raycrp.data.files import digest_files
from raycrp.errors import DataError
from raycrp.evaluate.answers import Prediction, Rejection, describe_predictions
from raycrp.evaluate.calibration import CALIBRATION_FILE
from raycrp.evaluate.inputs import InputRow, InputSource, find_folder, iter_inputs
from raycrp.evaluate.model_folder import MODEL_FILE, ModelFolder, find_model
from raycrp.evaluate.outputs import answers_table, encode_answers, split_rejects
from raycrp.evaluate.predict import Predictor
from raycrp.evaluate.predict_settings import JobSettings, PredictSettings
from raycrp.evaluate.target import Outcome, PredictionTarget
from raycrp.ray_data import map_shards
from raycrp.ray_session import connected_ray
from raycrp.ray_storage import check_storage
from raycrp.run import RunFolder
from raycrp.schemas import ANSWERED, ASKED

logger = logging.getLogger(__name__)

_INPUTS, _NEW_INPUTS, _ANSWERS, _JOB = "inputs", "inputs.new", "answers", "job.json"
_NO_INPUTS = "no inputs: give SMILES, or a file with --input"
_BROKEN_ROW = "broken_row"
_PRINTED_TOGETHER = 64


def print_predictions(
    model: Path,
    source: InputSource,
    *,
    settings: PredictSettings,
    device: Device,
    file_format: OutputFormat,
    stream: TextIO,
    problems: TextIO,
) -> Outcome:
    """Answer here and now, without Ray, a chunk of rows at a time.

    Args:
        model: The exported model.
        source: Where inputs come from.
        settings: What decides the answers.
        device: Where the models run.
        file_format: ``table`` for people, ``csv`` or ``jsonl``.
        stream: Where answers go; in a table rejected rows go there too.
        problems: Where a line for each rejected row goes otherwise.

    Returns:
        How many rows were answered and rejected.

    Raises:
        ModelError: If the folder is no model, or does not know the task.
        DataError: If the inputs cannot be read, or cannot be printed so.
    """
    if file_format is OutputFormat.PARQUET:
        raise DataError("Parquet cannot be printed; give --output FILE.parquet")
    ModelFolder(model).check_task(settings.task)
    answerer: BlockAnswerer | None = None
    outcome = Outcome()
    without_rows: list[str] = []
    inputs = iter_inputs(source, without_rows=without_rows)
    for first_row, rows in _chunks(inputs, size=_PRINTED_TOGETHER):
        answerer = answerer or BlockAnswerer(model, settings, device)
        predictions = answerer.predict(rows, first_row=first_row)
        table = answers_table(predictions, rows=rows, first_row=first_row)
        if file_format is OutputFormat.TABLE:
            names = [row.id for row in rows]
            stream.write(f"{describe_predictions(predictions, names=names)}\n\n")
        else:
            answered, rejected = split_rejects(table)
            for row in rejected.to_pylist():
                problems.write(f"rejected: row {row['row']}: {row['reject_detail']}\n")
            is_first = first_row == 0
            text = encode_answers(answered, file_format=file_format, has_header=is_first)
            stream.write(text.decode())
        outcome = outcome.plus(table)
    if answerer is None:
        raise DataError(_NO_INPUTS)
    return replace(outcome, without_rows=tuple(without_rows))


def run_predict_job(
    model: Path | str,
    source: InputSource,
    *,
    output: Path | str,
    file_format: OutputFormat | None,
    settings: PredictSettings,
    job: JobSettings,
) -> Outcome:
    """Answer all inputs into a file or folder; the same call goes on where a killed one stopped.

    Args:
        model: The exported model, or its run folder, a path or a URI that each node reads.
        source: Where inputs come from.
        output: A file, whose ending tells its form, or a folder of one file a block; the folder
            may be a URI on storage that all nodes can write to.
        file_format: Form of the files in a folder; Parquet if None.
        settings: What decides the answers.
        job: How it is carried out.

    Returns:
        How many rows were answered and rejected; their sum is the number of rows read.

    Raises:
        ModelError: If the folder is no model, or does not know the task.
        DataError: If the inputs cannot be read, or the output is there already.
        ClusterError: If a node of the cluster does not see the folder of the output.
    """
    started = time.monotonic()
    exported = find_model(model)
    ModelFolder(exported).check_task(settings.task)
    target = PredictionTarget(output, file_format=file_format)
    _check_apart(target, source=source)
    work = RunFolder(target.folder.storage, f"{target.folder.name}.work")
    where = target.folder.uri()
    without_rows: list[str] = []
    rows = iter_inputs(source, without_rows=without_rows)
    digest = _read_inputs(work, rows, model=exported, settings=settings, job=job)
    state: dict[str, Any] = work.read_json(_JOB) if work.exists(_JOB) else {}
    if state.get("digest") != digest:
        if target.folder.exists():
            work.delete(_NEW_INPUTS)
            raise DataError(f"{where} is there already; delete it or give another --output")
        state = _start(work, digest=digest)
    work.delete(_NEW_INPUTS)
    if state["is_done"] and not target.folder.exists():
        raise DataError(f"{where} was written and is gone; delete {work.uri()} to answer again")
    if not state["is_done"]:
        everywhere = str(model) if "://" in str(model) else str(exported.resolve())
        _answer_blocks(
            work,
            model=everywhere,
            settings=settings,
            job=job,
            is_remote_possible=not target.is_file,
        )
        outcome = target.write(_answered_blocks(work))
        state |= {"is_done": True, "num_answered": outcome.num_answered}
        state["reasons"] = outcome.reasons
        work.write_json(_JOB, state)
    for folder in (_INPUTS, _ANSWERS):
        work.delete(folder)
    logger.info("predict: %s, %.1f s", where, time.monotonic() - started)
    return Outcome(state["num_answered"], state["reasons"], tuple(without_rows))


class BlockAnswerer:
    """Answers blocks of inputs; built once per actor.

    Args:
        model: The exported model, or a URI of its run folder.
        settings: What decides the answers.
        device: Where the models run.
    """

    def __init__(self, model: Path | str, settings: PredictSettings, device: Device) -> None:
        self._settings = settings
        self._predictor = Predictor(
            find_model(model),
            device=device,
            num_beams=settings.num_beams,
            num_reaction_types=settings.num_reaction_types,
            num_spellings=settings.num_spellings,
            max_output_tokens=settings.max_output_tokens,
        )

    def __call__(self, table: pa.Table) -> pa.Table:
        """A block's rows with their answers, in their order."""
        rows = [
            InputRow(row["input"], row["id"], row["broken"])
            for row in table.select(["input", "id", "broken"]).to_pylist()
        ]
        first_row = table["row"][0].as_py()
        predictions = self.predict(rows, first_row=first_row)
        return answers_table(predictions, rows=rows, first_row=first_row)

    def predict(self, rows: Sequence[InputRow], *, first_row: int) -> list[Prediction]:
        """Predictions for rows that follow each other; broken ones are rejected.

        Args:
            rows: The rows.
            first_row: Number of the first one.
        """
        predictions = self._predictor.predict(
            [None if row.broken is not None else row.text for row in rows],
            task=self._settings.task,
            top_k=self._settings.top_k,
            row_ids=range(first_row, first_row + len(rows)),
            round_trip=self._settings.round_trip,
        )
        return [
            each
            if row.broken is None
            else replace(each, rejection=Rejection(_BROKEN_ROW, row.broken))
            for row, each in zip(rows, predictions, strict=True)
        ]


def _check_apart(target: PredictionTarget, *, source: InputSource) -> None:
    """Refuse an output where the same command would next time find it among its inputs."""
    folder = None if source.path is None else find_folder(source.path)
    if folder is None:
        return
    is_inside = f"{target.folder.path()}/".startswith(f"{folder[1].rstrip('/')}/")
    if is_inside and folder[0] == target.folder.filesystem:
        raise DataError(
            f"{target.folder.uri()} lies in the folder of the inputs, {source.path}; give another "
            "--output"
        )


def _read_inputs(
    work: RunFolder,
    inputs: Iterator[InputRow],
    *,
    model: Path,
    settings: PredictSettings,
    job: JobSettings,
) -> str:
    """Cut the inputs into blocks; digest of all that decides the answers."""
    digest = hashlib.sha256(repr((settings, job.rows_per_block)).encode())
    digest.update(_model_digest(model).encode())
    work.delete(_NEW_INPUTS)
    for number, (first_row, rows) in enumerate(_chunks(inputs, size=job.rows_per_block)):
        table = _asked_table(rows, first_row=first_row)
        digest.update(json.dumps([(row.text, row.id, row.broken) for row in rows]).encode())
        work.write_table(f"{_NEW_INPUTS}/part-{number:06d}.parquet", table)
    if not work.exists(_NEW_INPUTS):
        raise DataError(_NO_INPUTS)
    return digest.hexdigest()


def _start(work: RunFolder, *, digest: str) -> dict[str, Any]:
    """A job's first state; what other inputs or settings left goes."""
    # The state first: cut off in between, these inputs must not pass for those of before.
    for name in (_JOB, _ANSWERS, _INPUTS):
        work.delete(name)
    _move(work, _NEW_INPUTS, _INPUTS)
    state = {"digest": digest, "is_done": False}
    work.write_json(_JOB, state)
    return state


def _answer_blocks(
    work: RunFolder,
    *,
    model: str,
    settings: PredictSettings,
    job: JobSettings,
    is_remote_possible: bool,
) -> None:
    arguments = {"model": model, "settings": settings, "device": job.device}
    # Ray would take longer to start than a single block takes to answer.
    is_small = len(work.list_names(_INPUTS)) == 1 and not job.gpus_per_actor
    num_actors = 0 if is_small else job.num_actors
    with connected_ray(num_cpus=job.num_cpus) if num_actors else nullcontext():
        if num_actors and len(ray.nodes()) > 1:
            check_storage(
                work.storage,
                what="the folder of --output",
                is_remote_possible=is_remote_possible,
            )
        map_shards(
            work,
            tables={_INPUTS: _ANSWERS},
            function=BlockAnswerer,
            arguments=arguments,
            schema=ANSWERED,
            rows_per_shard=job.rows_per_block,
            num_actors=num_actors,
            gpus_per_actor=job.gpus_per_actor,
        )


def _answered_blocks(work: RunFolder) -> Iterator[pa.Table]:
    return (work.read_table(f"{_ANSWERS}/{name}") for name in work.list_names(_ANSWERS))


def _asked_table(rows: Sequence[InputRow], *, first_row: int) -> pa.Table:
    values = [
        {"row": first_row + place, "id": row.id, "input": row.text, "broken": row.broken}
        for place, row in enumerate(rows)
    ]
    return pa.Table.from_pylist(values, schema=ASKED)


def _chunks(rows: Iterator[InputRow], *, size: int) -> Iterator[tuple[int, list[InputRow]]]:
    first_row = 0
    while chunk := list(islice(rows, size)):
        yield first_row, chunk
        first_row += len(chunk)


def _move(work: RunFolder, source: str, target: str) -> None:
    """File by file, since object storage has no folders to move."""
    work.filesystem.create_dir(work.path(target), recursive=True)
    for name in work.list_names(source):
        work.filesystem.move(work.path(f"{source}/{name}"), work.path(f"{target}/{name}"))


def _model_digest(model: Path) -> str:
    names = [MODEL_FILE, CALIBRATION_FILE]
    paths = [model / name for name in names] + sorted(model.rglob("*.safetensors"))
    return digest_files([str(path) for path in paths if path.exists()])
