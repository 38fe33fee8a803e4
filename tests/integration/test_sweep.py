"""The elicit stage on a small made-up run: search, resume, refusals."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from raycrp.choices import Device, Preset, Task
from raycrp.config import Backbone, Config
from raycrp.elicit.basis import share_reactions
from raycrp.elicit.rows import load_task_rows
from raycrp.elicit.stage import run_elicit
from raycrp.elicit.stored_vectors import StoredVectors
from raycrp.errors import ElicitError
from raycrp.model.encode import TextEncoder
from raycrp.model.labeler import load_labeler
from raycrp.model.t5 import build_tokenizer, save_backbone
from raycrp.run import RunFolder
from raycrp.schemas import REACTION_TYPES, RT_CARDS, TASK_ROWS, TRIALS, embeddings_schema

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("local_ray")]

NUM_ROWS = 300
GROUPS = {"O": "=O", "N": "NC(C)=O", "Br": "O", "C(=O)O": "C(=O)OC", "c1ccccc1": "C1CCCCC1"}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Rows, a tiny encoder and its vectors, as the stages before would leave them."""
    run = RunFolder(str(tmp_path_factory.mktemp("runs")), "source")
    texts = [make_reaction(i) for i in range(NUM_ROWS)]
    with run.new_local_dir("data/tokenizer") as folder:
        build_tokenizer([text for pair in texts for text in pair], words=[]).save_pretrained(folder)
    with run.new_local_dir("embed/llm_rt") as folder:
        save_backbone(
            Backbone(preset=Preset.TINY),
            tokenizer_dir=run.local_dir("data/tokenizer"),
            target=folder,
            seed=0,
        )
    write_rows(run, texts)
    write_vectors(run, texts)
    return run


def make_reaction(number):
    """A chain whose functional group says which reaction it undergoes."""
    before, after = list(GROUPS.items())[number * number // 7 % len(GROUPS)]
    chain = "C" * (2 + number % 7) + "(F)" * (number // 5 % 2) + "C"
    return chain + before, chain + after


def write_rows(run, texts):
    rows = [
        {
            "row_id": 7 * i,
            "source_id": str(i),
            "reaction_key": str(i),
            "task": "forward",
            "split": "train",
            "rt_split": "rt_valid" if i % 10 == 3 else "rt_test" if i % 10 == 7 else "rt_train",
            "input": texts[i][0],
            "output": texts[i][1],
            "mapped_reaction": None,
        }
        for i in range(len(texts))
    ]
    run.write_table("data/rows/train/part-00000.parquet", pa.Table.from_pylist(rows, TASK_ROWS))


def write_vectors(run, texts):
    encoder = TextEncoder(
        run.local_dir("embed/llm_rt"), device=Device.CPU, token_budget=4_096, max_tokens=64
    )
    inputs, outputs = (encoder.encode(list(side)) for side in zip(*texts, strict=True))
    table = pa.table(
        {
            "row_id": np.arange(len(texts)) * 7,
            "input_vector": list(inputs),
            "output_vector": list(outputs),
        },
        schema=embeddings_schema(encoder.dim),
    )
    for shard, first in enumerate((200, 0, 100)):
        run.write_table(f"embed/train/shard-{shard:06d}.parquet", table.slice(first, 100))


def copy_of(source, tmp_path):
    run = RunFolder(str(tmp_path), "copy")
    for folder in ("data", "embed"):
        with run.new_local_dir(folder) as target:
            pa.fs.copy_files(source.path(folder), str(target))
    return run


def make_config(**elicit):
    settings = {
        "encodings": ["concat", "difference"],
        "num_clusters": [3, 5],
        "max_concurrent_trials": 1,
        **elicit,
    }
    return Config.model_validate(
        {
            "run": {"seed": 4, "device": "cpu"},
            "data": {"tasks": ["forward"]},
            "embed": {"token_budget": 4096, "max_tokens": 64},
            "elicit": settings,
        }
    )


RESULT_COLUMNS = [name for name in TRIALS.names if name not in ("seconds", "cpu_seconds")]


def results_of(run):
    trials = run.read_table("elicit/trials.parquet").select(RESULT_COLUMNS).to_pylist()
    types = run.read_table("elicit/reaction_types/forward.parquet").to_pylist()
    return trials, types


@pytest.fixture(scope="module")
def unbroken(source, tmp_path_factory):
    run = copy_of(source, tmp_path_factory.mktemp("unbroken"))
    summary = run_elicit(make_config(), run)
    return run, summary


def test_a_sweep_leaves_its_tables(unbroken):
    run, summary = unbroken
    table = run.read_table("elicit/trials.parquet")
    assert table.schema == TRIALS
    assert table["trial_id"].to_pylist() == [
        "forward-concat-n3",
        "forward-concat-n5",
        "forward-difference-n3",
        "forward-difference-n5",
    ]
    assert sum(table["is_best"].to_pylist()) == 1
    types = run.read_table("elicit/reaction_types/forward.parquet")
    assert types.schema == REACTION_TYPES
    assert types["row_id"].to_pylist() == [7 * i for i in range(NUM_ROWS)]
    chosen = summary["tasks"]["forward"]
    assert set(types["reaction_type"].to_pylist()) == set(range(chosen["num_clusters"]))
    assert summary["rows_in"] == summary["rows_out"] == NUM_ROWS
    assert summary["encoder_passes"] == {"shared": 1, "feedback": 0}
    assert json.loads(run.read_bytes("elicit/summary.json")) == summary["tasks"]
    cards = run.read_table("elicit/rt_cards.parquet")
    assert cards.schema == RT_CARDS
    assert cards["reaction_type"].to_pylist() == list(range(chosen["num_clusters"]))
    assert sum(cards["size"].to_pylist()) == NUM_ROWS
    assert all(cards["central"].to_pylist())
    assert len(run.read_bytes("elicit/rounds.jsonl").splitlines()) == 4
    for trial in table["trial_id"].to_pylist():
        files = run.list_names(f"elicit/tune/ray/attempt-000/{trial}")
        assert any(name.startswith("events.out.tfevents") for name in files), "no TensorBoard"


def test_the_saved_labeler_names_test_rows_as_reported(unbroken, source):
    run, summary = unbroken
    labeler = load_labeler(run.local_dir("elicit/labelers/forward"), device=Device.CPU)
    rows = source.read_table("data/rows/train").to_pylist()
    places = [i for i, row in enumerate(rows) if row["rt_split"] == "rt_test"]
    probabilities = labeler.predict([rows[i]["input"] for i in places])
    types = run.read_table("elicit/reaction_types/forward.parquet")["reaction_type"].to_numpy()
    chosen = summary["tasks"]["forward"]
    assert probabilities.shape == (len(places), chosen["num_clusters"])
    accuracy = (probabilities.argmax(axis=1) == types[places]).mean()
    assert accuracy == pytest.approx(chosen["test"]["accuracy"])
    assert chosen["test"]["num_rows"] == len(places) == NUM_ROWS // 10


def test_a_killed_sweep_runs_only_what_is_missing(unbroken, source, tmp_path, capfd):
    finished, _ = unbroken
    run = RunFolder(str(tmp_path), "killed")
    for folder in ("data", "embed", "elicit"):
        with run.new_local_dir(folder) as target:
            pa.fs.copy_files(finished.path(folder), str(target))
    for leftover in ("trials.parquet", "summary.json", "reaction_types", "labelers"):
        run.delete(f"elicit/{leftover}")
    run.delete("elicit/tune/done/forward-concat-n5.json")
    run.delete("elicit/tune/done/forward-difference-n3.json")
    run.delete("elicit/tune/kept/forward-difference-n3")
    run.write_bytes("elicit/tune/ray/attempt-000/tuner.pkl", b"cut")
    run_elicit(make_config(), run)
    assert capfd.readouterr().out == "", "Ray Tune prints"
    started = run.list_names("elicit/tune/ray/attempt-001")
    assert [name for name in started if name.startswith("forward-")] == [
        "forward-concat-n5",
        "forward-difference-n3",
    ]
    assert results_of(run) == results_of(finished)


def test_done_trials_of_other_settings_are_refused(unbroken):
    run, _ = unbroken
    with pytest.raises(ElicitError, match="other settings or data"):
        run_elicit(make_config(kmeans_num_init=7), run)


def test_blocks_of_the_object_store_hold_the_same_vectors(source):
    rows = [
        load_task_rows(source, tasks=[Task.FORWARD], max_whole_rows=limit)[Task.FORWARD]
        for limit in (NUM_ROWS, NUM_ROWS - 1)
    ]
    whole, stored = (task_rows.vectors for task_rows in rows)
    places = np.random.default_rng(0).permutation(NUM_ROWS)[:50]
    assert isinstance(stored, StoredVectors)
    assert np.array_equal(stored.take_inputs(places), whole.take_inputs(places))
    blocks = list(stored.blocks())
    places = np.concatenate([block.places for block in blocks])
    assert sorted(places) == list(range(NUM_ROWS))
    outputs = np.concatenate([block.outputs for block in blocks])
    assert np.array_equal(outputs, whole.outputs[places])


def test_tasks_share_the_reactions_of_the_first(source):
    forward = load_task_rows(source, tasks=[Task.FORWARD], max_whole_rows=NUM_ROWS)[Task.FORWARD]
    keys = forward.reaction_keys.to_pylist()[::-1]
    keys[0] = "a reaction of no forward row"
    reagent = replace(forward, task=Task.REAGENT, reaction_keys=pa.chunked_array([keys]))
    shared = share_reactions({Task.FORWARD: forward, Task.REAGENT: reagent})
    basis = shared[Task.REAGENT].basis
    assert basis.task is Task.FORWARD
    assert basis.places.tolist() == [-1, *range(NUM_ROWS - 2, -1, -1)]
    assert shared[Task.FORWARD].basis.places.tolist() == list(range(NUM_ROWS))
    assert 0 in forward.train
    assert shared[Task.REAGENT].train.tolist() == forward.train.tolist()[1:]
    (block,) = basis.vectors.blocks()
    assert np.array_equal(block.outputs, forward.vectors.outputs)
