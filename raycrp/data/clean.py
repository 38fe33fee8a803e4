"""Source rows into clean task rows; a row that cannot be used keeps its reason.

Rows flow through in chunks, so that memory holds distinct molecules but never all rows.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

from raycrp.chem.molecules import FaultError, atom_maps, looks_like, split_molecules
from raycrp.chem.reactions import (
    Reaction,
    ReactionError,
    ReactionFault,
    RoleTexts,
    TaskText,
    check_no_arrow,
    split_reaction,
    split_reagent_input,
    task_rows,
)
from raycrp.choices import Notation, Task
from raycrp.data.molecule_reader import MoleculeReader
from raycrp.data.read import SourceRow, Truth
from raycrp.data.rejects import RejectReason
from raycrp.errors import DataError
from raycrp.schemas import Split

_CHUNK_ROWS = 4_096
_MIN_NOTATION_ROWS = 20
_WRONG_NOTATION_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class CleanRow:
    """A task row of canonical SMILES.

    Args:
        source_row: Position of its row in the source.
        source_id: Identifier of its row in the source.
        task: The task.
        split: The split that the source marks, or None.
        text: Input and output.
        reaction: What the row tells of its reaction.
        is_derived: Whether the row comes from a whole reaction, whose roles are known.
        is_repaired: Whether something harmless was mended, such as a typographic dash.
        mapped_reaction: The reaction with atom maps, where there are any.
        truth: Names and values for reports alone.
    """

    source_row: int
    source_id: str
    task: Task
    split: Split | None
    text: TaskText
    reaction: Reaction
    is_derived: bool
    is_repaired: bool
    mapped_reaction: str | None
    truth: Truth


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that cannot be used, with the texts as they were found."""

    source_row: int
    source_id: str
    task: Task | None
    split: Split | None
    input: str
    output: str
    reason: RejectReason
    detail: str
    is_derived: bool


def clean_rows(
    rows: Iterable[SourceRow],
    *,
    tasks: Sequence[Task],
    max_molecule_chars: int,
    num_processes: int | None = None,
) -> Iterator[CleanRow | RejectedRow]:
    """Clean task rows and rejected ones, in the order of the source.

    A task row gives one row; a whole reaction gives one for each task.

    Args:
        rows: Rows of the source.
        tasks: Tasks to make rows for; rows of other tasks are rejected as ``other_task``.
        max_molecule_chars: Longest SMILES of one molecule.
        num_processes: Worker processes; all CPUs if None.

    Raises:
        DataError: If the molecules are evidently written in another notation than declared.
    """
    watch = _NotationWatch()
    waiting: deque[list[_Draft]] = deque()
    with closing(
        MoleculeReader(max_chars=max_molecule_chars, num_processes=num_processes)
    ) as reader:
        for chunk in _chunks(rows):
            drafts = [_draft_row(row, tasks) for row in chunk]
            reader.request(key for draft in drafts for key in draft.molecules())
            waiting.append(drafts)
            if len(waiting) > 1:
                yield from _finish_chunk(waiting.popleft(), reader, tasks, watch)
        while waiting:
            yield from _finish_chunk(waiting.popleft(), reader, tasks, watch)
    watch.check()


@dataclass(slots=True)
class _Draft:
    """A source row taken apart, its molecules not read yet."""

    row: SourceRow
    roles: RoleTexts | None = None
    fault: tuple[RejectReason, str] | None = None

    def molecules(self) -> Iterator[tuple[Notation, str]]:
        """Molecule texts of all roles, each with its notation."""
        if self.roles is not None:
            for side in (self.roles.reactants, self.roles.reagents, self.roles.product):
                for text in side:
                    yield self.row.notation, text


def _chunks(rows: Iterable[SourceRow]) -> Iterator[list[SourceRow]]:
    iterator = iter(rows)
    while chunk := list(islice(iterator, _CHUNK_ROWS)):
        yield chunk


def _draft_row(row: SourceRow, tasks: Sequence[Task]) -> _Draft:
    if row.fault is not None:
        return _Draft(row, fault=row.fault)
    if not row.is_reaction and row.task not in tasks:
        return _Draft(row, fault=(RejectReason.OTHER_TASK, f"{row.task} is not in data.tasks"))
    try:
        return _Draft(row, roles=_split_roles(row))
    except FaultError as error:
        return _Draft(row, fault=(RejectReason(error.reason), error.detail))


def _split_roles(row: SourceRow) -> RoleTexts:
    if row.is_reaction:
        return split_reaction(row.input, notation=row.notation)
    check_no_arrow(row.output, what="output")
    if not row.output.strip():
        raise ReactionError(ReactionFault.EMPTY_OUTPUT, "no output")
    output = tuple(split_molecules(row.output, notation=row.notation))
    if row.task is Task.REAGENT:
        roles = split_reagent_input(row.input, notation=row.notation)
        return RoleTexts(roles.reactants, output, roles.product)
    check_no_arrow(row.input, what="input")
    given = tuple(split_molecules(row.input, notation=row.notation))
    if row.task is Task.FORWARD:
        return RoleTexts(given, (), output)
    return RoleTexts(output, (), given)


def _finish_chunk(
    drafts: Sequence[_Draft],
    reader: MoleculeReader,
    tasks: Sequence[Task],
    watch: "_NotationWatch",
) -> Iterator[CleanRow | RejectedRow]:
    reader.collect()
    for draft in drafts:
        reaction = None
        if draft.roles is not None:
            try:
                reaction = reader.reaction(draft.roles, notation=draft.row.notation)
            except FaultError as error:
                draft.fault = (RejectReason(error.reason), error.detail)
        watch.note(draft)
        yield from _task_rows(draft, reaction, tasks)
    if watch.num_rows >= _CHUNK_ROWS:
        watch.check()


def _task_rows(
    draft: _Draft, reaction: Reaction | None, tasks: Sequence[Task]
) -> Iterator[CleanRow | RejectedRow]:
    row_tasks = tasks if draft.row.is_reaction else [draft.row.task]
    if reaction is None or draft.roles is None:
        assert draft.fault is not None
        for task in row_tasks:
            yield _rejected(draft.row, task, *draft.fault)
        return
    texts = task_rows(reaction)
    is_repaired = _is_repaired(draft.row)
    mapped = draft.row.mapped_reaction
    if mapped is None and draft.row.is_reaction and draft.roles.has_maps:
        mapped = draft.roles.smiles
    for task in row_tasks:
        assert task is not None
        if texts[task].output:
            yield _clean(draft.row, task, texts[task], reaction, is_repaired, mapped)
        else:
            detail = "the reaction has no reagents"
            yield _rejected(draft.row, task, RejectReason.EMPTY_OUTPUT, detail)


def _clean(
    row: SourceRow,
    task: Task,
    text: TaskText,
    reaction: Reaction,
    is_repaired: bool,
    mapped: str | None,
) -> CleanRow:
    return CleanRow(
        source_row=row.number,
        source_id=row.source_id,
        task=task,
        split=row.split,
        text=text,
        reaction=reaction,
        is_derived=row.is_reaction,
        is_repaired=is_repaired,
        mapped_reaction=mapped,
        truth=row.truth,
    )


def _rejected(row: SourceRow, task: Task | None, reason: RejectReason, detail: str) -> RejectedRow:
    return RejectedRow(
        source_row=row.number,
        source_id=row.source_id,
        task=task,
        split=row.split,
        input=row.input,
        output=row.output,
        reason=reason,
        detail=detail,
        is_derived=row.is_reaction,
    )


def _is_repaired(row: SourceRow) -> bool:
    for text in (row.input, row.output):
        # Clean SMILES is ASCII: anything else in a row that is kept was mended.
        if not text.isascii() or " " in text or text != text.strip():
            return True
    return not row.is_reaction and bool(atom_maps(row.input + row.output))


class _NotationWatch:
    """Notices that molecules are written in another notation than declared."""

    def __init__(self) -> None:
        self.num_rows = 0
        self._num_unparsable = 0
        self._looks: Counter[Notation | None] = Counter()
        self._declared = Notation.SMILES
        self._example = ""

    def note(self, draft: _Draft) -> None:
        """Take a row into account."""
        if draft.row.fault is not None:
            return
        self.num_rows += 1
        if draft.fault is not None and draft.fault[0] is RejectReason.UNPARSABLE_MOLECULE:
            self._num_unparsable += 1
            self._declared = draft.row.notation
            self._looks[looks_like(draft.row.input)] += 1
            self._example = self._example or draft.row.input[:60]

    def check(self) -> None:
        """Complain where most rows fail and look like the other notation.

        Raises:
            DataError: Naming the notation that the text looks like.
        """
        if self.num_rows < _MIN_NOTATION_ROWS or not self._looks:
            return
        [(look, count)] = self._looks.most_common(1)
        is_other = look is not None and look is not self._declared
        if is_other and count > _WRONG_NOTATION_SHARE * self.num_rows:
            raise DataError(
                f"data.notation is '{self._declared}', but {self._num_unparsable} of "
                f"{self.num_rows} rows cannot be read so and look like '{look}' "
                f"(such as {self._example}...); set data.notation={look}"
            )
