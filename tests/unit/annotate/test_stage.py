"""What names a reaction type never sees an output."""

import numpy as np
import pyarrow as pa
import pytest

from raycrp.annotate import stage
from raycrp.annotate.stage import RowAnnotator
from raycrp.choices import Device, Preset, Task
from raycrp.config import Backbone
from raycrp.model.encode import TextEncoder
from raycrp.model.head import fit_head
from raycrp.model.labeler import HeadLabeler
from raycrp.model.t5 import build_tokenizer, save_backbone
from raycrp.run import RunFolder
from raycrp.schemas import ANNOTATIONS, TASK_ROWS

INPUTS = ["CCO.CN", "CC(=O)Cl.N", "c1ccccc1", "CC>>CO", "CC(=O)O", "F/C=C\\F"]


def task_rows(outputs):
    tasks = [Task.FORWARD, Task.RETROSYNTHESIS, Task.REAGENT] * 2
    rows = [
        {
            "row_id": number,
            "source_id": str(number),
            "reaction_key": str(number),
            "task": task.value,
            "split": "test",
            "rt_split": None,
            "input": INPUTS[number],
            "output": output,
            "mapped_reaction": output,
        }
        for number, (task, output) in enumerate(zip(tasks, outputs, strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=TASK_ROWS)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder with a labeler for each task, each with another head."""
    storage = tmp_path_factory.mktemp("annotate")
    build_tokenizer(INPUTS, words=[]).save_pretrained(storage / "tokenizer")
    save_backbone(
        Backbone(preset=Preset.TINY),
        tokenizer_dir=storage / "tokenizer",
        target=storage / "model",
        seed=0,
    )
    encoder = TextEncoder(storage / "model", device=Device.CPU, token_budget=64, max_tokens=64)
    for seed, task in enumerate(Task):
        head = fit_head(
            encoder.encode(INPUTS),
            np.arange(6) % 3,
            num_types=3,
            valid_vectors=np.zeros((0, encoder.dim), np.float32),
            valid_labels=np.zeros(0, np.int64),
            seed=seed,
            max_epochs=2,
        )
        HeadLabeler(encoder, head=head).save(storage / "run" / stage.LABELERS_DIR / task.value)
    return RunFolder(str(storage), "run")


def test_outputs_of_noise_change_no_bit(run):
    annotator = RowAnnotator(run, device=Device.CPU)
    rng = np.random.default_rng(0)
    noise = ["".join(rng.choice(list("CNOF()=#"), size=20)) for _ in INPUTS]
    first, other = annotator(task_rows(["CC"] * 6)), annotator(task_rows(noise))
    added = ["reaction_type", "probabilities"]
    assert first.schema.names == ANNOTATIONS.names
    assert first.select(added).equals(other.select(added))
    assert other["output"].to_pylist() == noise


def test_what_names_a_type_is_given_task_and_input_alone(run, monkeypatch):
    seen = []
    name_types = RowAnnotator._name_types

    def spy(self, rows):
        seen.append(rows.column_names)
        return name_types(self, rows)

    monkeypatch.setattr(RowAnnotator, "_name_types", spy)
    RowAnnotator(run, device=Device.CPU)(task_rows(["CC"] * 6))
    assert seen == [["task", "input"]]


def test_each_row_is_named_by_the_labeler_of_its_task(run):
    annotated = RowAnnotator(run, device=Device.CPU)(task_rows(["CC"] * 6))
    for number, task in enumerate(annotated["task"].to_pylist()):
        labeler = stage.load_labeler(
            run.local_dir(f"{stage.LABELERS_DIR}/{task}"), device=Device.CPU
        )
        [expected] = labeler.predict([INPUTS[number]])
        found = annotated["probabilities"][number].as_py()
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert annotated["reaction_type"][number].as_py() == expected.argmax()
