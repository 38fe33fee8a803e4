import errno
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raycrp.errors import TrainError
from raycrp.run import RunFolder
from raycrp.schemas import Split
from raycrp.train import token_store
from raycrp.train.batches import Collator, SpecialIds
from raycrp.train.token_store import read_tokens
from raycrp.train.tokens import TOKENS, TOKENS_DIR, Texts, TokenTable

NUM_ROWS = 640
ROWS_PER_SHARD = 16
NUM_SPELLINGS = 2


def texts(rng, number):
    return [
        [rng.integers(5, 99, rng.integers(1, 30)).tolist() for _ in range(NUM_SPELLINGS)]
        for _ in range(number)
    ]


def make_table(*, seed=0):
    """Rows of the training split, their ids in no order."""
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "row_id": rng.permutation(NUM_ROWS) * 3,
            "split": [Split.TRAIN.value] * NUM_ROWS,
            "task": rng.integers(0, 3, NUM_ROWS),
            "template": rng.integers(0, 12, NUM_ROWS),
            "reaction_type": [None if row % 4 == 0 else row % 7 for row in range(NUM_ROWS)],
            "is_aligned": [row % 5 == 0 for row in range(NUM_ROWS)],
            "input_ids": texts(rng, NUM_ROWS),
            "target_ids": texts(rng, NUM_ROWS),
        },
        schema=TOKENS,
    )


def write(run, table):
    for number, start in enumerate(range(0, table.num_rows, ROWS_PER_SHARD)):
        shard = table.slice(start, ROWS_PER_SHARD)
        run.write_table(f"{TOKENS_DIR}/shard-{number:06d}.parquet", shard)


@pytest.fixture
def run(tmp_path):
    run = RunFolder(str(tmp_path / "storage"), "run")
    write(run, make_table())
    return run


def stores():
    folder = Path(tempfile.gettempdir()) / f"raycrp-tokens-{os.getuid()}"
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


@pytest.fixture
def builds(monkeypatch):
    """Counts how often the shards were read."""
    found = []
    stream = token_store._stream

    def counted(run):
        found.append(run.uri())
        return stream(run)

    monkeypatch.setattr(token_store, "_stream", counted)
    return found


def whole(table):
    """A token table from the shards as a whole, in memory."""
    rows = sorted(table.to_pylist(), key=lambda row: row["row_id"])

    def flat(name):
        lengths = np.array([[len(text) for text in row[name]] for row in rows])
        tokens = [token for row in rows for text in row[name] for token in text]
        starts = np.cumsum(lengths).reshape(lengths.shape) - lengths
        return Texts(np.array(tokens, dtype=np.int32), starts, lengths)

    return TokenTable(
        row_ids=np.array([row["row_id"] for row in rows]),
        tasks=np.array([row["task"] for row in rows]),
        templates=np.array([row["template"] for row in rows]),
        reaction_types=np.array(
            [-1 if row["reaction_type"] is None else row["reaction_type"] for row in rows]
        ),
        inputs=flat("input_ids"),
        targets=flat("target_ids"),
        num_aligned=sum(row["is_aligned"] for row in rows),
    )


class Prefixes:
    def ids(self, *, task, template, reaction_type):
        return np.array([100 + task, 200 + template, 300 + reaction_type], dtype=np.int32)


@pytest.mark.parametrize("limit", [None, 7])
def test_batches_are_those_of_the_tables_as_a_whole(run, limit):
    found, expected = read_tokens(run, Split.TRAIN), whole(make_table())
    assert found.num_aligned == expected.num_aligned == 128
    for name in ("row_ids", "tasks", "templates", "reaction_types"):
        assert getattr(found, name).tolist() == getattr(expected, name).tolist()
    limits = np.full(NUM_ROWS, limit or 99)
    special = SpecialIds(pad=0, eos=1, start=2, blank=None)
    rows = np.random.default_rng(1).permutation(NUM_ROWS)[:200]
    batches = []
    for table in (found, expected):
        cut = TokenTable(
            **{
                **vars(table),
                "inputs": table.inputs.cut(limits, keeps_last=False),
                "targets": table.targets.cut(limits, keeps_last=True),
            }
        )
        collate = Collator(cut, prefixes=Prefixes(), special=special)
        batches.append(collate(rows, templates=cut.templates[rows], passes=rows % 3))
    for name in ("input_ids", "attention_mask", "pooled_mask", "decoder_input_ids", "labels"):
        assert getattr(batches[0], name).tolist() == getattr(batches[1], name).tolist()


def test_rows_of_other_splits_in_a_shard_are_told_apart(run):
    table = make_table(seed=1).slice(0, 5)
    names = pa.array([Split.TRAIN, Split.VALIDATION, Split.TEST, Split.VALIDATION, Split.TRAIN])
    at = table.schema.get_field_index("split")
    mixed = table.set_column(at, TOKENS.field("split"), names).cast(TOKENS)
    run.write_table(f"{TOKENS_DIR}/shard-000040.parquet", mixed)
    ids = mixed["row_id"].to_pylist()
    assert read_tokens(run, Split.VALIDATION).row_ids.tolist() == sorted([ids[1], ids[3]])
    assert read_tokens(run, Split.TRAIN).num_rows == NUM_ROWS + 2


def test_shards_stream_few_at_a_time(run, monkeypatch):
    table = pa.concat_tables([make_table()] * 4)
    write(run, table)
    before = pa.total_allocated_bytes()
    rows, held = [], []
    add = token_store._SplitWriter.add

    def noted(writer, batch):
        rows.append(batch.num_rows)
        held.append(pa.total_allocated_bytes() - before)
        add(writer, batch)

    monkeypatch.setattr(token_store._SplitWriter, "add", noted)
    read_tokens(run, Split.TRAIN)
    assert sum(rows) == 4 * NUM_ROWS
    assert max(rows) == ROWS_PER_SHARD
    assert max(held) < table.nbytes / 3


def test_tokens_are_mapped_and_cannot_be_changed(run):
    table = read_tokens(run, Split.TRAIN)
    for array in (table.inputs.tokens, table.targets.tokens, table.inputs.lengths):
        assert not array.flags.owndata
        assert not array.flags.writeable


def test_workers_of_a_node_build_it_once_and_leave_nothing_else(run, builds):
    with ThreadPoolExecutor(4) as pool:
        tables = list(pool.map(lambda _: read_tokens(run, Split.TRAIN), range(4)))
    assert {table.num_rows for table in tables} == {NUM_ROWS}
    assert len(builds) == 1
    assert len(stores()) == 1


def test_new_shards_of_a_run_take_the_place_of_the_old(run, builds):
    before = read_tokens(run, Split.TRAIN)
    write(run, make_table(seed=1))
    after = read_tokens(run, Split.TRAIN)
    expected = whole(make_table(seed=1))
    assert after.targets.ids(7).tolist() == expected.targets.ids(7).tolist()
    assert before.targets.ids(7).tolist() == whole(make_table()).targets.ids(7).tolist()
    assert len(builds) == 2
    assert len(stores()) == 1


def test_runs_of_one_name_in_other_storages_are_told_apart(run, tmp_path, builds):
    other = RunFolder(str(tmp_path / "elsewhere"), "run")
    shutil.copytree(run.path(), other.path())
    for each in (run, other, run, other):
        assert read_tokens(each, Split.TRAIN).num_rows == NUM_ROWS
    assert builds == [run.uri(), other.uri()]


def test_a_cut_off_build_does_not_pass_for_whole(run, builds, monkeypatch):
    with monkeypatch.context() as context:
        # As a killed process leaves it.
        context.setattr(token_store.shutil, "rmtree", lambda *_, **__: None)
        context.setattr(token_store._SplitWriter, "index", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            read_tokens(run, Split.TRAIN)
    assert [name[:10] for name in stores()] == [".building."]
    assert read_tokens(run, Split.TRAIN).num_rows == NUM_ROWS
    assert len(builds) == 2
    assert len(stores()) == 1
    assert not stores()[0].startswith(".")


def test_the_stores_of_a_few_runs_are_kept(run, tmp_path, builds):
    runs = [RunFolder(str(tmp_path / "storage"), f"run-{number}") for number in range(6)]
    for each in runs:
        shutil.copytree(run.path(), each.path())
        read_tokens(each, Split.TRAIN)
        read_tokens(runs[0], Split.TRAIN)
    assert len(stores()) == 4
    assert len(builds) == 6


def test_a_full_disk_is_named_with_the_remedy(run, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(token_store._SplitWriter, "add", full)
    with pytest.raises(TrainError, match=r"raycrp-tokens-.* has no room .*set TMPDIR"):
        read_tokens(run, Split.TRAIN)
    assert stores() == []


def test_a_run_without_shards_is_refused(tmp_path):
    with pytest.raises(TrainError, match="the train split has no rows"):
        read_tokens(RunFolder(str(tmp_path), "run"), Split.TRAIN)
