"""Embed and annotate: the same bits in one process, with two Ray actors, and after a kill."""

import numpy as np
import pyarrow as pa
import pytest

from raycrp.annotate.stage import run_annotate
from raycrp.choices import Device, Task
from raycrp.config import Config
from raycrp.embed.stage import run_embed
from raycrp.model.encode import TextEncoder
from raycrp.model.head import fit_head
from raycrp.model.labeler import HeadLabeler
from raycrp.model.t5 import build_tokenizer
from raycrp.run import RunFolder
from raycrp.schemas import ANNOTATIONS, TASK_ROWS, embeddings_schema

pytestmark = pytest.mark.integration
NUM_TYPES = 3


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The stages carried out in this process; the run and both summaries."""
    run, config = _data_run(tmp_path_factory.mktemp("one"), num_actors=0)
    embedded = run_embed(config, run)
    _save_labelers(run)
    return run, embedded, run_annotate(config, run)


def test_embed_writes_a_vector_pair_for_each_training_row_and_no_other(finished):
    run, summary, _ = finished
    vectors = run.read_table("embed/train")
    assert vectors.schema.equals(embeddings_schema(128))
    assert sorted(vectors["row_id"].to_pylist()) == list(range(60))
    assert run.list_names("embed") == ["llm_rt", "train"]
    assert summary["rows_in"] == summary["rows_out"] == 60
    assert summary["dim"] == 128
    assert summary["encoder_passes"] == 1


def test_embed_counts_texts_that_are_cut(finished):
    # Two inputs of the 60 training rows have 40 carbons, more than the limit of 24 tokens.
    _, summary, _ = finished
    assert summary["truncated_texts"] == 2


def test_a_vector_is_that_of_its_own_text(finished):
    run, _, _ = finished
    table, vectors = run.read_table("data/rows/train"), run.read_table("embed/train")
    place = vectors["row_id"].to_pylist().index(7)
    encoder = TextEncoder(
        run.local_dir("embed/llm_rt"), device=Device.CPU, token_budget=64, max_tokens=24
    )
    alone = encoder.encode([table["input"][7].as_py(), table["output"][7].as_py()])
    np.testing.assert_allclose(vectors["input_vector"][place].as_py(), alone[0], atol=1e-5)
    np.testing.assert_allclose(vectors["output_vector"][place].as_py(), alone[1], atol=1e-5)


def test_annotate_keeps_the_rows_and_adds_type_and_probabilities(finished):
    run, _, summary = finished
    for split, num_rows in (("train", 60), ("validation", 6), ("test", 9)):
        annotated = run.read_table(f"annotate/{split}")
        assert annotated.schema.equals(ANNOTATIONS)
        rows = annotated.select(TASK_ROWS.names).sort_by("row_id")
        assert rows.equals(run.read_table(f"data/rows/{split}").sort_by("row_id"))
        probabilities = np.array(annotated["probabilities"].to_pylist())
        assert probabilities.shape == (num_rows, NUM_TYPES)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
        assert annotated["reaction_type"].to_pylist() == probabilities.argmax(axis=1).tolist()
    assert summary["rows_in"] == summary["rows_out"] == 75
    counts = summary["reaction_types"]["forward"]["train"]
    assert sum(counts.values()) == 20


@pytest.mark.usefixtures("local_ray")
def test_two_actors_give_the_same_bits_as_one_process(finished, tmp_path):
    run, _, _ = finished
    other, config = _data_run(tmp_path, num_actors=2)
    run_embed(config, other)
    _save_labelers(other)
    run_annotate(config, other)
    for folder in ("embed/train", "annotate/train", "annotate/validation", "annotate/test"):
        assert len(run.list_names(folder)) > 1
        assert other.list_names(folder) == run.list_names(folder)
        for name in run.list_names(folder):
            path = f"{folder}/{name}"
            assert other.read_table(path).equals(run.read_table(path)), path


def test_a_lost_shard_comes_back_with_the_same_bits(finished):
    run, before, _ = finished
    config = _config(run.storage, num_actors=0)
    lost = {path: run.read_table(path) for path in ("embed/train/shard-000001.parquet",)}
    for path in lost:
        run.delete(path)
    after = run_embed(config, run)
    assert {**after, "seconds": 0} == {**before, "seconds": 0}
    for path, table in lost.items():
        assert run.read_table(path).equals(table)


def _config(storage, *, num_actors):
    return Config.model_validate(
        {
            "run": {"name": "test", "storage": str(storage)},
            "embed": {"rows_per_shard": 16, "max_tokens": 24, "num_actors": num_actors},
            "annotate": {"rows_per_shard": 5, "num_actors": num_actors},
        }
    )


def _data_run(folder, *, num_actors):
    config = _config(folder, num_actors=num_actors)
    run = RunFolder(config.run.storage, config.run.name)
    first = 0
    for split, num_rows in (("train", 60), ("validation", 6), ("test", 9)):
        table = _task_rows(split, first=first, num_rows=num_rows)
        run.write_table(f"data/rows/{split}/part-00000.parquet", table)
        first += num_rows
    smiles = run.read_table("data/rows/train")["input"].to_pylist()
    with run.new_local_dir("data/tokenizer") as target:
        build_tokenizer(smiles, words=["Predict the product."]).save_pretrained(target)
    return run, config


def _task_rows(split, *, first, num_rows):
    rows = []
    for row_id in range(first, first + num_rows):
        number, task = row_id // 3, list(Task)[row_id % 3]
        tail = "C" * 40 if row_id in (30, 33) else "C" * (number % 9)
        rows.append(
            {
                "row_id": row_id,
                "source_id": f"s{row_id}",
                "reaction_key": f"k{number}",
                "task": task.value,
                "split": split,
                "rt_split": "rt_train" if split == "train" else None,
                "input": f"O{tail}.ClC[C@H](N)C" if number % 2 else f"N{tail}c1ccccc1",
                "output": f"CC(=O)O{'N' * (number % 4)}",
                "mapped_reaction": None,
            }
        )
    return pa.Table.from_pylist(rows, schema=TASK_ROWS)


def _save_labelers(run):
    encoder = TextEncoder(
        run.local_dir("embed/llm_rt"), device=Device.CPU, token_budget=256, max_tokens=24
    )
    rng = np.random.default_rng(0)
    for task in Task:
        head = fit_head(
            rng.normal(size=(30, encoder.dim)).astype(np.float32),
            rng.integers(0, NUM_TYPES, size=30),
            num_types=NUM_TYPES,
            valid_vectors=np.zeros((0, encoder.dim), np.float32),
            valid_labels=np.zeros(0, np.int64),
            seed=0,
            max_epochs=1,
        )
        with run.new_local_dir(f"elicit/labelers/{task}") as folder:
            HeadLabeler(encoder, head=head).save(folder)
