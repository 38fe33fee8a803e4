"""Sources of reactions, read as a stream of rows that nothing has been done to yet."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from raycrp.choices import DataSource, Notation, Task
from raycrp.config import DataConfig, ReactionColumns
from raycrp.data.files import (
    BrokenRow,
    DataFile,
    Row,
    digest_files,
    find_paths,
    id_text,
    iter_csv,
    iter_files,
    iter_json,
    iter_lines,
    iter_parquet,
)
from raycrp.data.rejects import RejectReason
from raycrp.errors import DataError
from raycrp.schemas import Split

Truth = tuple[tuple[str, str | None], ...]

_TASKS = {
    "forward reaction prediction": Task.FORWARD,
    "retrosynthesis": Task.RETROSYNTHESIS,
    "reagent prediction": Task.REAGENT,
    "forward": Task.FORWARD,
    "reagent": Task.REAGENT,
}
_OTHER_TASKS = frozenset(
    {
        "description guided molecule design",
        "molecular description generation",
        "molecule description generation",
        "property prediction",
    }
)
_SPLITS = {
    "train": Split.TRAIN,
    "training": Split.TRAIN,
    "valid": Split.VALIDATION,
    "validation": Split.VALIDATION,
    "val": Split.VALIDATION,
    "dev": Split.VALIDATION,
    "test": Split.TEST,
}
_KNOWN_FIELDS = frozenset({"instruction", "input", "output", "metadata", "id", "notation"})
_LINE_SUFFIXES = frozenset({".smi", ".smiles", ".rsmi", ".txt", ""})


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A row as the source has it.

    Args:
        number: Position in the source, from 0.
        source_id: Its identifier, or one made from the position.
        task: The task; None for a whole reaction, or where it is not known.
        split: The split that the source marks; None where it marks none.
        input: Input of the task, or the whole reaction as ``reactants>reagents>product``.
        output: Output of the task; empty for a whole reaction.
        notation: How molecules are written.
        mapped_reaction: The reaction with atom maps, where the source has it apart.
        truth: Names and values for reports alone.
        is_reaction: Whether the row is a whole reaction, from which all tasks are derived.
        fault: Why the row cannot be used, with what was found; None where nothing is wrong yet.
    """

    number: int
    source_id: str
    task: Task | None = None
    split: Split | None = None
    input: str = ""
    output: str = ""
    notation: Notation = Notation.SMILES
    mapped_reaction: str | None = None
    truth: Truth = ()
    is_reaction: bool = False
    fault: tuple[RejectReason, str] | None = None


class _RowFaultError(Exception):
    """Carries a fault from a field to its row."""

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(reason, detail)
        self.fault = (reason, detail)


def inputs_digest(data: DataConfig) -> str:
    """Digest of what the source holds: file contents, or the identity of a pinned source.

    Raises:
        DataError: If a file is missing.
    """
    if data.source is DataSource.CORPUS:
        return hashlib.sha256(b"corpus").hexdigest()
    if data.source is DataSource.HUB:
        identity = json.dumps([data.hub.repo_id, data.hub.revision, *data.hub.files])
        return hashlib.sha256(identity.encode()).hexdigest()
    return digest_files(find_paths(data.paths))


def read_rows(data: DataConfig, *, seed: int) -> Iterator[SourceRow]:
    """All rows of the source, in its order.

    Args:
        data: Which source, and how it is written.
        seed: Seed of the source ``corpus``.

    Raises:
        DataError: If a file is missing, empty, or not in the declared form.
    """
    if data.source is DataSource.CORPUS:
        yield from _read_corpus(data.num_reactions, seed=seed)
    elif data.source is DataSource.REACTIONS:
        yield from _read_reactions(data)
    else:
        yield from _read_mol_instructions(data)


def _read_corpus(num_reactions: int, *, seed: int) -> Iterator[SourceRow]:
    from raycrp.chem.corpus import generate_corpus

    for number, made in enumerate(generate_corpus(num_reactions, seed=seed)):
        yield SourceRow(
            number,
            f"corpus-{number}",
            input=f"{made.reactants}>{made.reagents}>{made.product}",
            mapped_reaction=made.mapped_reaction,
            is_reaction=True,
            truth=(("template", made.template), ("reaction_class", made.reaction_class)),
        )


def _read_mol_instructions(data: DataConfig) -> Iterator[SourceRow]:
    notation = data.notation or Notation.SMILES
    number = 0
    for path in _local_paths(data):
        for file in iter_files(path):
            for row in _iter_instruction_rows(file):
                yield _instruction_row(row, number=number, notation=notation)
                number += 1


def _local_paths(data: DataConfig) -> list[str]:
    if data.source is DataSource.HUB:
        from raycrp.data.hub import download_files

        return download_files(data.hub)
    return find_paths(data.paths)


def _iter_instruction_rows(file: DataFile) -> Iterator[Row | BrokenRow]:
    num_rows = num_broken = 0
    for row in iter_parquet(file) if file.is_parquet else iter_json(file):
        if isinstance(row, dict) and num_rows == num_broken:
            _require_instruction_fields(row, file.name)
        num_rows += 1
        num_broken += isinstance(row, BrokenRow)
        yield row
    if num_rows == num_broken:
        found = f"none of its {num_rows} lines is a JSON row" if num_rows else "no rows"
        raise DataError(f"{file.name}: expected a JSON array, JSON Lines or Parquet: {found}")


def _require_instruction_fields(row: Row, name: str) -> None:
    wanted = ("input", "output", "metadata")
    if not any(field in row for field in wanted):
        raise DataError(
            f"{name}: expected rows with {', '.join(wanted)}; found {', '.join(map(str, row))} "
            "(tables of reactions are read by data.source=reactions)"
        )


def _instruction_row(row: Row | BrokenRow, *, number: int, notation: Notation) -> SourceRow:
    if isinstance(row, BrokenRow):
        return _broken_row(row, number)
    texts = [row.get(name) for name in ("input", "output")]
    input_text, output_text = (text if isinstance(text, str) else "" for text in texts)
    fields: dict[str, Any] = {"source_id": f"row-{number}"}
    fault = None
    try:
        fields["source_id"] = _parse_id(row.get("id"), default=f"row-{number}")
        fields["task"], fields["split"] = _parse_metadata(row.get("metadata"))
        fields["notation"] = _parse_notation(row.get("notation"), default=notation)
        _require_texts(row, ("input", "output"))
    except _RowFaultError as error:
        fault = error.fault
    return SourceRow(
        number=number,
        input=input_text,
        output=output_text,
        truth=tuple((name, _to_text(row[name])) for name in row if name not in _KNOWN_FIELDS),
        fault=fault,
        **fields,
    )


def _parse_metadata(metadata: Any) -> tuple[Task, Split | None]:
    if not isinstance(metadata, dict) or "task" not in metadata:
        detail = f"expected metadata with task and split, found {_to_text(metadata)}"
        raise _RowFaultError(RejectReason.BAD_METADATA, detail)
    task = metadata["task"]
    name = " ".join(str(task).replace("_", " ").replace("-", " ").lower().split())
    if name in _OTHER_TASKS:
        raise _RowFaultError(RejectReason.OTHER_TASK, name)
    if not isinstance(task, str) or name not in _TASKS:
        raise _RowFaultError(RejectReason.UNKNOWN_TASK, f"task {_to_text(task)!r}")
    return _TASKS[name], _parse_split(metadata.get("split"))


def _parse_split(value: Any) -> Split | None:
    if value is None or value == "":
        return None
    split = _SPLITS.get(value.strip().lower()) if isinstance(value, str) else None
    if split is None:
        raise _RowFaultError(RejectReason.UNKNOWN_SPLIT, f"split {_to_text(value)!r}")
    return split


def _parse_id(value: Any, *, default: str) -> str:
    text = id_text(value)
    if text is None:
        return default
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not (isinstance(value, str) or is_whole):
        raise _RowFaultError(RejectReason.BAD_ID, f"id {_to_text(value)}")
    return text


def _parse_notation(value: Any, *, default: Notation) -> Notation:
    if value is None:
        return default
    if value not in tuple(Notation):
        raise _RowFaultError(RejectReason.BAD_NOTATION, f"notation {_to_text(value)!r}")
    return Notation(value)


def _require_texts(row: Row, names: tuple[str, ...]) -> None:
    for name in names:
        if not isinstance(row.get(name), str):
            found = "nothing" if row.get(name) is None else type(row[name]).__name__
            raise _RowFaultError(
                RejectReason.MISSING_FIELD, f"{name}: expected text, found {found}"
            )


def _read_reactions(data: DataConfig) -> Iterator[SourceRow]:
    notation = data.notation or Notation.SMILES
    number = 0
    for path in find_paths(data.paths):
        for file in iter_files(path):
            for row in _iter_reaction_rows(file, columns=data.columns):
                yield _reaction_row(row, number=number, columns=data.columns, notation=notation)
                number += 1


def _iter_reaction_rows(file: DataFile, *, columns: ReactionColumns) -> Iterator[Row | BrokenRow]:
    if not file.is_parquet and file.suffix in _LINE_SUFFIXES:
        yield from (_line_row(line, columns) for line in iter_lines(file))
        return
    readers: dict[str, Callable[[DataFile], Iterator[Row | BrokenRow]]] = {
        ".csv": iter_csv,
        ".tsv": lambda file: iter_csv(file, delimiter="\t"),
        ".tab": lambda file: iter_csv(file, delimiter="\t"),
        ".json": iter_json,
        ".jsonl": iter_json,
    }
    if not file.is_parquet and file.suffix not in readers:
        known = ", ".join(sorted([*readers, *filter(None, _LINE_SUFFIXES), ".parquet"]))
        raise DataError(f"{file.name}: unknown file ending '{file.suffix}'; known: {known}")
    rows = iter_parquet(file) if file.is_parquet else readers[file.suffix](file)
    is_checked, broken = False, list[str]()
    for row in rows:
        if isinstance(row, BrokenRow) and not is_checked:
            broken.append(row.detail)
        elif isinstance(row, dict) and not is_checked:
            _require_columns(row, columns, file.name)
            is_checked = True
        yield row
    if not is_checked:
        found = "the file holds no rows"
        if broken:
            found = f"none of its {len(broken)} rows can be read: {broken[0]}"
        raise DataError(f"{file.name}: {found}")


def _line_row(line: str | BrokenRow, columns: ReactionColumns) -> Row | BrokenRow:
    if isinstance(line, BrokenRow):
        return line
    # A line is the reaction, then whatever names it, an extension in bars (CXSMILES) left out.
    reaction, _, rest = line.strip().partition("\t" if "\t" in line.strip() else " ")
    names = [part for part in rest.split() if not part.startswith("|")]
    # Lines have no columns, so that names given for the columns of tables stand for their parts.
    return {
        columns.reaction or "reaction": reaction.strip(),
        columns.id or "id": " ".join(names) or None,
    }


def _require_columns(row: Row, columns: ReactionColumns, name: str) -> None:
    wanted: list[str | None] = [columns.reaction]
    if not columns.reaction:
        wanted = [columns.reactants, columns.reagents, columns.product]
    wanted += [columns.split, columns.id, *columns.truth]
    missing = [column for column in wanted if column and column not in row]
    if missing:
        raise DataError(
            f"{name}: no column {', '.join(missing)}; it has {', '.join(map(str, row))}; "
            "set data.columns to the names it has"
        )


def _reaction_row(
    row: Row | BrokenRow, *, number: int, columns: ReactionColumns, notation: Notation
) -> SourceRow:
    if isinstance(row, BrokenRow):
        return replace(_broken_row(row, number), is_reaction=True)
    fields: dict[str, Any] = {"source_id": f"row-{number}", "is_reaction": True}
    fault = None
    try:
        id_column = columns.id or "id"
        fields["source_id"] = _parse_id(row.get(id_column), default=f"row-{number}")
        fields["split"] = _parse_split(row.get(columns.split)) if columns.split else None
        fields["input"] = _reaction_text(row, columns)
    except _RowFaultError as error:
        fault = error.fault
    truth = tuple((name, _to_text(row.get(name))) for name in columns.truth)
    return SourceRow(number=number, notation=notation, truth=truth, fault=fault, **fields)


def _reaction_text(row: Row, columns: ReactionColumns) -> str:
    whole = columns.reaction or ("reaction" if columns.reactants not in row else None)
    if whole:
        _require_texts(row, (whole,))
        text: str = row[whole]
        return text.split(" |", 1)[0]
    _require_texts(row, (columns.reactants, columns.product))
    reagents = (row.get(columns.reagents) or "") if columns.reagents else ""
    if not isinstance(reagents, str):
        raise _RowFaultError(RejectReason.MISSING_FIELD, f"{columns.reagents}: expected text")
    return f"{row[columns.reactants]}>{reagents}>{row[columns.product]}"


def _broken_row(row: BrokenRow, number: int) -> SourceRow:
    fault = (RejectReason.BROKEN_ROW, row.detail)
    return SourceRow(number, f"row-{number}", input=row.text, fault=fault)


def _to_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, default=str)
