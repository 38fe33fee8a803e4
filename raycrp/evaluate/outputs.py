"""Answers in the forms that files hold: CSV, JSON Lines, Parquet."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raycrp.choices import OutputFormat, Task
from raycrp.evaluate.answers import Prediction
from raycrp.evaluate.inputs import InputRow
from raycrp.prompt.templates import reaction_type_name
from raycrp.schemas import ANSWERED, PREDICTION_REJECTS

_ANSWER_FIELDS = (
    "smiles",
    "log_probability",
    "confidence",
    "is_valid",
    "is_input",
    "has_new_atoms",
    "passes_round_trip",
)
_CSV_FIELDS = ("row", "id", "input", "task", "rank", *_ANSWER_FIELDS, "reaction_types", "template")
_REJECT_FIELDS = tuple(PREDICTION_REJECTS.names)
_DIGITS = 5


def answers_table(
    predictions: Sequence[Prediction], *, rows: Sequence[InputRow], first_row: int
) -> pa.Table:
    """Predictions as a table, rejected rows with their reason among the others.

    Args:
        predictions: One a row.
        rows: What was read.
        first_row: Number of the first row.

    Returns:
        A table of the schema ``ANSWERED``.
    """
    values = [
        _answered_row(prediction, row=row, number=first_row + place)
        for place, (prediction, row) in enumerate(zip(predictions, rows, strict=True))
    ]
    return pa.Table.from_pylist(values, schema=ANSWERED)


def split_rejects(table: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The answered rows of a table, and the rejected ones with their reasons."""
    is_answered = pc.is_null(table["reject_reason"])
    kept = [name for name in ANSWERED.names if not name.startswith("reject_")]
    rejects = table.filter(pc.invert(is_answered))
    return table.filter(is_answered).select(kept), rejects.select(PREDICTION_REJECTS.names)


def encode_answers(table: pa.Table, *, file_format: OutputFormat, has_header: bool = True) -> bytes:
    """Answered rows as a file, or as a piece of one.

    In CSV each answer is a line, its input repeated; elsewhere each input is a row.

    Args:
        table: From ``split_rejects``.
        file_format: The form.
        has_header: Whether CSV begins with the names of its columns.
    """
    if file_format is OutputFormat.CSV:
        lines = (line for row in table.to_pylist() for line in _csv_lines(row))
        return _encode_csv(lines, fields=_CSV_FIELDS, has_header=has_header)
    return _encode(table, file_format=file_format)


def encode_rejects(table: pa.Table, *, file_format: OutputFormat, has_header: bool = True) -> bytes:
    """Rejected rows as a file, or as a piece of one.

    Args:
        table: From ``split_rejects``.
        file_format: The form.
        has_header: Whether CSV begins with the names of its columns.
    """
    if file_format is OutputFormat.CSV:
        return _encode_csv(iter(table.to_pylist()), fields=_REJECT_FIELDS, has_header=has_header)
    return _encode(table, file_format=file_format)


def _encode(table: pa.Table, *, file_format: OutputFormat) -> bytes:
    if file_format is OutputFormat.PARQUET:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        return bytes(sink.getvalue().to_pybytes())
    lines = (json.dumps(row, ensure_ascii=False) for row in table.to_pylist())
    return "".join(f"{line}\n" for line in lines).encode()


def _encode_csv(
    lines: Iterator[dict[str, Any]], *, fields: Sequence[str], has_header: bool
) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    if has_header:
        writer.writeheader()
    writer.writerows(lines)
    return text.getvalue().encode()


def _csv_lines(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    types = ";".join(
        each["name"] if each["probability"] is None else f"{each['name']}:{each['probability']:.4f}"
        for each in row["reaction_types"]
    )
    head = {name: row[name] for name in ("row", "id", "input", "task", "template")}
    for rank, answer in enumerate(row["answers"], start=1):
        yield {**head, **answer, "rank": rank, "reaction_types": types}


def _answered_row(prediction: Prediction, *, row: InputRow, number: int) -> dict[str, Any]:
    rejection = prediction.rejection
    return {
        "row": number,
        "id": row.id,
        "input": row.text,
        "task": prediction.task.value,
        "reaction_types": _types(prediction, prediction.task),
        "template": prediction.template_id,
        "answers": [
            {name: _rounded(getattr(answer, name)) for name in _ANSWER_FIELDS}
            for answer in prediction.answers
        ],
        "reject_reason": None if rejection is None else str(rejection.reason),
        "reject_detail": prediction.problem,
    }


def _types(prediction: Prediction, task: Task) -> list[dict[str, Any]]:
    probabilities = prediction.reaction_type_probabilities
    return [
        {
            "name": reaction_type_name(task, number),
            "probability": None if probabilities is None else _rounded(probabilities[number]),
        }
        for number in prediction.reaction_types_used
    ]


def _rounded(value: Any) -> Any:
    return round(value, _DIGITS) if isinstance(value, float) else value
