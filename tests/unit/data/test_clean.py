import pytest

import raycrp.data.clean as clean
import raycrp.data.molecule_reader as molecule_reader
from raycrp.choices import Notation, Task
from raycrp.data.clean import CleanRow, RejectedRow, clean_rows
from raycrp.data.read import SourceRow
from raycrp.data.rejects import RejectReason
from raycrp.errors import DataError
from raycrp.schemas import Split


def run_clean(rows, tasks=tuple(Task), max_molecule_chars=100):
    return list(
        clean_rows(rows, tasks=tasks, max_molecule_chars=max_molecule_chars, num_processes=1)
    )


def task_row(task, input_text, output_text, **fields):
    return SourceRow(0, "a", task=task, input=input_text, output=output_text, **fields)


@pytest.mark.parametrize(
    ("task", "input_text", "output_text", "expected"),
    [
        (Task.FORWARD, "OC.CC(O)=O.[Na+]", "COC(C)=O", ("CC(=O)O.CO.[Na+]", "COC(C)=O")),
        (Task.RETROSYNTHESIS, "COC(C)=O", "OC.CC(O)=O", ("COC(C)=O", "CC(=O)O.CO")),
        (Task.REAGENT, "OC.CC(O)=O>>COC(C)=O", "[Na+].O", ("CC(=O)O.CO>>COC(C)=O", "O.[Na+]")),
    ],
)
def test_task_rows_are_canonical(task, input_text, output_text, expected):
    [row] = run_clean([task_row(task, input_text, output_text, split=Split.TEST)])
    assert isinstance(row, CleanRow)
    assert (row.text.input, row.text.output) == expected
    assert (row.task, row.split, row.is_derived, row.is_repaired) == (
        task,
        Split.TEST,
        False,
        False,
    )


@pytest.mark.parametrize(
    ("task", "input_text", "output_text", "reason"),
    [
        (Task.FORWARD, "C1", "O", RejectReason.UNPARSABLE_MOLECULE),
        (Task.FORWARD, "C", "null", RejectReason.UNPARSABLE_MOLECULE),
        (Task.FORWARD, "C>>O", "O", RejectReason.BAD_REACTION),
        (Task.RETROSYNTHESIS, "C", "C>>O", RejectReason.BAD_REACTION),
        (Task.REAGENT, "C.O", "N", RejectReason.BAD_REACTION),
        (Task.REAGENT, "C>>O", "", RejectReason.EMPTY_OUTPUT),
        (Task.FORWARD, "C", " ", RejectReason.EMPTY_OUTPUT),
        (Task.FORWARD, "", "C", RejectReason.EMPTY_MOLECULE),
        (Task.FORWARD, "C.OC", "CO", RejectReason.NO_REACTION),
        (Task.RETROSYNTHESIS, "CO", "C.OC", RejectReason.NO_REACTION),
        (Task.REAGENT, "C>>CO", "OC", RejectReason.NO_REACTION),
        (Task.FORWARD, "CCO\nO", "C", RejectReason.WHITESPACE),
        (Task.FORWARD, "C" * 101, "C", RejectReason.MOLECULE_TOO_LONG),
    ],
)
def test_unusable_rows_keep_their_texts_and_a_reason(task, input_text, output_text, reason):
    [row] = run_clean([task_row(task, input_text, output_text)])
    assert isinstance(row, RejectedRow)
    assert (row.reason, row.input, row.output) == (reason, input_text, output_text)


def test_a_reaction_gives_a_row_for_each_task_asked_for():
    reaction = SourceRow(0, "a", input="CO.[CH3:1][Cl:2]>>[CH3:1][NH2:3]", is_reaction=True)
    rows = run_clean([reaction], tasks=(Task.REAGENT, Task.FORWARD))
    assert [(row.task, row.text.input, row.text.output) for row in rows] == [
        (Task.REAGENT, "CCl>>CN", "CO"),
        (Task.FORWARD, "CCl.CO", "CN"),
    ]
    assert {row.mapped_reaction for row in rows} == {"[CH3:1][Cl:2]>CO>[CH3:1][NH2:3]"}
    assert all(row.is_derived and not row.is_repaired for row in rows)


def test_a_bad_reaction_is_rejected_once_for_each_task():
    rows = run_clean([SourceRow(0, "a", input="C>>C1", is_reaction=True)])
    assert [row.reason for row in rows] == [RejectReason.UNPARSABLE_MOLECULE] * 3
    assert [row.task for row in rows] == list(Task)


def test_a_reaction_without_reagents_lacks_only_its_reagent_row():
    rows = run_clean([SourceRow(0, "a", input="CCl.N>>CN", is_reaction=True)])
    assert [isinstance(row, CleanRow) for row in rows] == [True, True, False]
    assert (rows[2].task, rows[2].reason) == (Task.REAGENT, RejectReason.EMPTY_OUTPUT)


def test_rows_of_a_task_not_asked_for_are_set_aside():
    [row] = run_clean([task_row(Task.REAGENT, "C>>O", "N")], tasks=(Task.FORWARD,))
    assert row.reason is RejectReason.OTHER_TASK


@pytest.mark.parametrize(
    ("input_text", "is_repaired"),
    [("CO", False), (" CO", True), ("[OH\u2212]", True), ("[CH3:1]O", True)],
)
def test_mended_rows_are_marked(input_text, is_repaired):
    [row] = run_clean([task_row(Task.FORWARD, input_text, "C=O")])
    assert row.is_repaired is is_repaired


def test_rows_come_in_the_order_of_the_source_whatever_the_chunks(monkeypatch):
    source = [
        SourceRow(n, "a", task=Task.FORWARD, input="C" * (n + 1), output="O" if n % 3 else "x")
        for n in range(20)
    ]
    whole = run_clean(source)
    monkeypatch.setattr(clean, "_CHUNK_ROWS", 3)
    assert run_clean(source) == whole
    assert [row.source_row for row in whole] == list(range(20))


@pytest.mark.parametrize(
    ("declared", "text", "other"),
    [(Notation.SMILES, "[C][Branch1][C][O][=O]", "selfies"), (Notation.SELFIES, "CCO", "smiles")],
)
def test_a_wrong_notation_is_named_with_the_right_one(declared, text, other):
    rows = [task_row(Task.FORWARD, text, text, notation=declared) for _ in range(30)]
    with pytest.raises(DataError, match=f"look like '{other}'.*set data.notation={other}"):
        run_clean(rows)


def test_many_broken_rows_are_no_matter_of_notation():
    rows = [task_row(Task.FORWARD, "C1", "C") for _ in range(30)]
    assert {row.reason for row in run_clean(rows)} == {RejectReason.UNPARSABLE_MOLECULE}


def test_each_distinct_molecule_is_read_once(monkeypatch):
    read = []

    def spy(texts, **settings):
        read.extend(texts)
        return original(texts, **settings)

    original = molecule_reader.canonicalise_all
    monkeypatch.setattr(molecule_reader, "canonicalise_all", spy)
    rows = [task_row(Task.FORWARD, "OC.C", "CN"), task_row(Task.RETROSYNTHESIS, "CN", "OC.C")]
    assert len(run_clean(rows * 3)) == 6
    assert sorted(read) == ["C", "CN", "OC"]


def test_a_full_memory_of_molecules_changes_nothing(monkeypatch):
    rows = [task_row(Task.FORWARD, "OC.C", "CN"), task_row(Task.FORWARD, "OC.CC", "CN")]
    expected = run_clean(rows)
    monkeypatch.setattr(molecule_reader, "_MAX_CACHED", 1)
    assert run_clean(rows) == expected
