"""The audit of a run made up by hand, whose test labels leak or do not; without Ray."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from run_folders import write_minute_t5

from raycrp.audit.stage import JSON_PATH, MARKDOWN_PATH, run_audit
from raycrp.choices import Device, Preset, Task
from raycrp.config import Backbone, Config
from raycrp.errors import RunError
from raycrp.model.encode import TextEncoder
from raycrp.model.head import fit_head
from raycrp.model.labeler import HeadLabeler, load_labeler
from raycrp.model.t5 import save_backbone
from raycrp.model.tokenizers import prepare_tokenizer
from raycrp.plan import read_run_config
from raycrp.prompt.templates import prompt_words, reaction_type_name
from raycrp.run import RunFolder
from raycrp.schemas import PROMPTS, REACTION_TYPES, TASK_ROWS, TRUTH, Split

pytestmark = pytest.mark.integration

NUM_TYPES = 3
STARTS, ENDS = ("O", "S", "N"), ("Br", "C#N", "c1ccccc1")
COUNTS = {Split.TRAIN: 240, Split.VALIDATION: 60, Split.TEST: 80}
LIMITS = {"device": Device.CPU, "token_budget": 4_096, "max_tokens": 64}


def make_rows():
    """Reactions whose product shows a class that the reactant gives away in three of five rows."""
    generator = np.random.default_rng(0)
    rows = []
    for split, count in COUNTS.items():
        for _ in range(count):
            row_id = len(rows)
            truth = int(generator.integers(NUM_TYPES))
            shown = truth if generator.random() < 0.4 else int(generator.integers(NUM_TYPES))
            chain = "C" * int(generator.integers(2, 9))
            rows.append(
                {
                    "row_id": row_id,
                    "source_id": str(row_id),
                    "reaction_key": f"k{row_id}",
                    "task": Task.FORWARD.value,
                    "split": split.value,
                    "rt_split": "rt_train" if split is Split.TRAIN else None,
                    "input": f"{chain}{STARTS[shown]}",
                    "output": f"{chain}{ENDS[truth]}",
                    "mapped_reaction": None,
                    "truth": truth,
                }
            )
    return rows


ROWS = make_rows()


def rows_of(split):
    return [row for row in ROWS if row["split"] == split]


def write_model(run):
    texts = [row[side] for row in ROWS for side in ("input", "output")]
    prepared = prepare_tokenizer(
        Backbone(preset=Preset.TINY), smiles=texts, words=prompt_words([Task.FORWARD])
    )
    with run.new_local_dir("data/tokenizer") as folder:
        prepared.tokenizer.save_pretrained(folder)
    write_minute_t5(Path(run.path("minute_t5")))
    names = [reaction_type_name(Task.FORWARD, number) for number in range(NUM_TYPES)]
    for target, new_tokens in (("embed/llm_rt", []), ("model", names)):
        with run.new_local_dir(target) as folder:
            save_backbone(
                Backbone(name_or_path=run.path("minute_t5")),
                tokenizer_dir=run.local_dir("data/tokenizer"),
                target=folder,
                seed=0,
                new_tokens=new_tokens,
            )
    encoder = TextEncoder(run.local_dir("embed/llm_rt"), **LIMITS)
    train, valid = rows_of(Split.TRAIN), rows_of(Split.VALIDATION)
    head = fit_head(
        encoder.encode([row["input"] for row in train]),
        np.array([row["truth"] for row in train]),
        num_types=NUM_TYPES,
        valid_vectors=encoder.encode([row["input"] for row in valid]),
        valid_labels=np.array([row["truth"] for row in valid]),
        seed=0,
    )
    HeadLabeler(encoder, head=head).save(Path(run.path("model/llm_rt/forward")))
    card = {
        "format": 1,
        "tasks": ["forward"],
        "use_reaction_type": True,
        "train_reaction_type": "cluster",
        "instruction": "adaptive",
        "num_types": {"forward": NUM_TYPES},
        "backbone": "minute",
        "seed": 0,
        "training": {"num_parameters": 1, "step": 0, "batch_size": 1},
    }
    run.write_json("model/raycrp.json", card)


def write_prompts(run, types):
    rows = [
        {
            **{name: row[name] for name in PROMPTS.names if name in row},
            "template_id": "forward-01",
            "reaction_type": int(rt),
            "rt_source": "predicted",
            "prompt": "unused",
        }
        for row, rt in zip(rows_of(Split.TEST), types, strict=True)
    ]
    run.write_table("prompt/test/shard-0.parquet", pa.Table.from_pylist(rows, PROMPTS))


def make_run(folder, *, leaks, with_labels=False):
    """A run whose test RTs are named from the inputs, or computed from the outputs."""
    settings = {
        "run": {"name": "run", "storage": str(folder), "device": "cpu"},
        "data": {"tasks": ["forward"]},
        "embed": {"num_actors": 0},
        "elicit": {"encodings": ["change"], "num_clusters": [NUM_TYPES]},
        "evaluate": {
            "num_actors": 0,
            "num_beams": 2,
            "top_k": 2,
            "max_output_tokens": 8,
            "num_resamples": 200,
        },
    }
    config = Config.model_validate(settings)
    run = RunFolder(str(folder), "run")
    run.write_bytes("config.yaml", json.dumps(config.model_dump(mode="json")).encode())
    for split in Split:
        table = pa.Table.from_pylist(rows_of(split), TASK_ROWS)
        run.write_table(f"data/rows/{split}/part-0.parquet", table)
    clusters = [{**row, "reaction_type": row["truth"]} for row in rows_of(Split.TRAIN)]
    run.write_table(
        "elicit/reaction_types/forward.parquet", pa.Table.from_pylist(clusters, REACTION_TYPES)
    )
    summary = {"forward": {"encoding": "change", "num_clusters": NUM_TYPES, "best_round": 0}}
    run.write_json("elicit/summary.json", summary)
    write_model(run)
    labeler = load_labeler(Path(run.path("model/llm_rt/forward")), device=Device.CPU)
    test = rows_of(Split.TEST)
    named = labeler.predict([row["input"] for row in test]).argmax(axis=1)
    write_prompts(run, [row["truth"] for row in test] if leaks else named)
    if with_labels:
        labels = [
            {"row_id": row["row_id"], "name": "reaction_label", "value": f"class {row['truth']}"}
            for row in ROWS
        ]
        run.write_table("data/truth.parquet", pa.Table.from_pylist(labels, TRUTH))
    return config, run


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    config, run = make_run(tmp_path_factory.mktemp("clean"), leaks=False)
    run_audit(config, run)
    return config, run


def leak_of(found, labels):
    return next(each for each in found["leaks"] if each["labels"].startswith(labels))


def test_a_clean_run_is_called_clean_and_its_oracle_is_not(clean):
    _, run = clean
    found = run.read_json(JSON_PATH)
    assert found["leak_verdict"].startswith("No leak found")
    mine = leak_of(found, "RTs of test prompts")
    assert (mine["leaks"], mine["reproduced"]) == (False, 1.0)
    assert mine["test"]["output_gain"]["low"] <= 0
    assert leak_of(found, "oracle")["leaks"]
    assert found["oracle_consistency"]["forward"] > 0.95


def test_labels_computed_from_the_output_are_called_a_leak(tmp_path):
    config, run = make_run(tmp_path, leaks=True, with_labels=True)
    run_audit(config, run)
    found = run.read_json(JSON_PATH)
    assert found["leak_verdict"].startswith("LEAK: ")
    mine = leak_of(found, "RTs of test prompts")
    assert mine["leaks"]
    assert mine["reproduced"] < 0.9
    assert mine["test"]["output_gain"]["low"] > 0
    assert leak_of(found, "labels of the data (reaction_label)")["leaks"]
    # The oracle found by centres is what the planted labels say.
    table = {row[0]: row[1] for row in found["source_table"][1:]}
    assert table["oracle"] == table["predicted"]


def test_the_audit_ends_with_the_sources_and_a_sentence(clean):
    _, run = clean
    lines = run.read_bytes(MARKDOWN_PATH).decode().rstrip().splitlines()
    assert lines[-1].startswith("In the task forward, RTs taken from the answer itself")
    names = [line.split("|")[1].strip() for line in lines[-10:] if line.startswith("|")]
    assert names[-7:] == [
        "predicted",
        "none",
        "shuffled",
        "constant",
        "oracle",
        "random instructions",
        "fixed instructions",
    ]


def test_prompts_of_the_sources_are_what_they_say(clean):
    _, run = clean
    questions = run.read_table("audit/questions").to_pylist()
    inputs = {row["input"] for row in rows_of(Split.TEST)}
    untyped = [each for each in questions if each["reaction_type"] is None]
    assert {each["input"] for each in untyped} == inputs
    assert len({(each["input"], each["reaction_type"], each["template_id"]) for each in questions})
    assert len(questions) < 7 * COUNTS[Split.TEST]


def test_an_interrupted_audit_goes_on_and_a_finished_one_is_left_alone(clean, tmp_path):
    config, run = clean
    before = run.read_json(JSON_PATH)
    stamp = Path(run.path(JSON_PATH)).stat().st_mtime_ns
    run_audit(config, run)
    assert Path(run.path(JSON_PATH)).stat().st_mtime_ns == stamp
    described = Path(run.path("audit/described/shard-000000.parquet")).stat().st_mtime_ns
    for name in ("_SUCCESS.json", "audit.json", "answers/shard-000000.parquet"):
        run.delete(f"audit/{name}")
    run_audit(config, run)
    assert run.read_json(JSON_PATH) == before
    shard = Path(run.path("audit/described/shard-000000.parquet"))
    assert shard.stat().st_mtime_ns == described


def test_no_oracle_reaches_the_other_folders(clean):
    _, run = clean
    assert not run.exists("annotate")
    assert set(run.list_names("prompt")) == {"test"}


def test_what_is_no_run_or_not_trained_is_refused(tmp_path):
    run = RunFolder(str(tmp_path), "none")
    with pytest.raises(RunError, match="no run folder"):
        read_run_config(run)
    with pytest.raises(RunError, match="no trained model"):
        run_audit(Config(), run)
