import pyarrow as pa
import pytest

from raycrp.choices import Task
from raycrp.data.report import count_splits, count_tokens, iter_texts, leak_rows, report_text
from raycrp.data.split import SharedReactions
from raycrp.run import RunFolder
from raycrp.schemas import TASK_ROWS, RtSplit, Split


class CharacterTokenizer:
    """One token a character; ``?`` is unknown."""

    unk_token_id = 2

    def __call__(self, texts, **_):
        return {"input_ids": [[2 if c == "?" else 5 for c in text] for text in texts]}


def row(number, split, task, input_text, output_text, *, key, rt_split=None):
    values = [number, "a", key, task, split, rt_split, input_text, output_text, None]
    return dict(zip(TASK_ROWS.names, values, strict=True))


@pytest.fixture
def run(tmp_path):
    run = RunFolder(str(tmp_path), "run")
    train = [
        row(n, Split.TRAIN, Task.FORWARD, "C" * (n + 1), "O", key=f"k{n}", rt_split=RtSplit.TRAIN)
        for n in range(10)
    ]
    train[9]["rt_split"] = RtSplit.TEST
    tests = [
        row(10, Split.TEST, Task.FORWARD, "C" * 50, "O?", key="t"),
        row(11, Split.TEST, Task.REAGENT, "C>>C", "N", key="t"),
    ]
    for split, rows in ((Split.TRAIN, train), (Split.VALIDATION, []), (Split.TEST, tests)):
        table = pa.Table.from_pylist(rows, schema=TASK_ROWS)
        run.write_table(f"data/rows/{split}/part-00000.parquet", table)
    return run


def test_lengths_and_unknown_tokens_over_all_splits(run):
    counts = count_tokens(run, tokenizer=CharacterTokenizer())
    # Lengths 1..10 and 50: the 6th, 10th and 11th smallest of 11 reach 50, 90 and 99 percent.
    assert counts.lengths[Task.FORWARD]["input"] == {"p50": 6, "p90": 10, "p99": 50, "max": 50}
    assert counts.lengths[Task.REAGENT]["output"] == {"p50": 1, "p90": 1, "p99": 1, "max": 1}
    assert Task.RETROSYNTHESIS not in counts.lengths
    # Inputs 55 + 50 + 4, outputs 10 + 2 + 1; one "?".
    assert counts.unk_rate == pytest.approx(1 / 122)


def test_rows_and_reactions_by_split(run):
    counts = count_splits(run)
    assert counts.rows[Split.TEST] == {Task.FORWARD: 1, Task.RETROSYNTHESIS: 0, Task.REAGENT: 1}
    assert counts.reactions == {Split.TRAIN: 10, Split.VALIDATION: 0, Split.TEST: 1}
    assert counts.rt_reactions == {RtSplit.TRAIN: 9, RtSplit.VALID: 0, RtSplit.TEST: 1}


def test_texts_of_one_split_alone(run):
    assert sorted(iter_texts(run, Split.TEST)) == sorted(["C" * 50, "O?", "C>>C", "N"])


def test_the_text_says_what_happened():
    shared = SharedReactions((Split.TRAIN, Task.REAGENT), (Split.TEST, Task.FORWARD), 3, 0)
    text = report_text(
        {
            "rows_in": 1_200,
            "rows_out": 1_000,
            "rejected": 150,
            "not_sampled": 50,
            "repaired": 2,
            "repeated_ids": 1,
            "splits": {"train": {"reactions": 400, "rows": {"forward": 1_000, "reagent": 0}}},
            "rt_splits": {"rt_train": 392},
            "rejected_by_reason": {"leak": 150},
            "reject_examples": {"leak": "row 3: its reaction is in a test split"},
            "tokens": {"forward": {"input": {"p50": 4, "max": 9}, "output": {"p50": 2, "max": 3}}},
            "unk_rate": 0.0,
            "leak_table": leak_rows([shared]),
        }
    )
    assert text.splitlines() == [
        "data report",
        "  rows in 1,200 = kept 1,000 + rejected 150 + not sampled 50 (repaired 2, repeated ids 1)",
        "  train: 400 reactions; rows: forward 1,000",
        "  of train: rt_train 392 reactions",
        "  rejected leak: 150 (first: row 3: its reaction is in a test split)",
        "  tokens, forward: input p50 4 max 9; output p50 2 max 3",
        "  <unk> rate 0.000000",
        "  shared reactions: train reagent with test forward: 3, left 0",
    ]
