from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from raycrp.audit import questions as module
from raycrp.audit.oracle import fit_oracle
from raycrp.audit.questions import (
    QUESTIONS,
    QuestionAnswerer,
    list_conditions,
    source_types,
    write_questions,
)
from raycrp.choices import AuditSource, Device
from raycrp.config import Config
from raycrp.model.decode import Hypothesis
from raycrp.run import RunFolder

PREDICTED, ORACLE = np.array([0, 1, 2, 2]), np.array([1, 1, 2, 0])


def types(source):
    return source_types(source, predicted=PREDICTED, oracle=ORACLE, constant=2, seed=3)


def test_each_source_names_what_it_says():
    assert types(AuditSource.PREDICTED) == [0, 1, 2, 2]
    assert types(AuditSource.NONE) == [None] * 4
    assert types(AuditSource.CONSTANT) == [2] * 4
    assert types(AuditSource.ORACLE) == [1, 1, 2, 0]


def test_shuffling_keeps_how_often_each_type_is_named():
    many = np.arange(100) % 7
    shuffled = source_types(AuditSource.SHUFFLED, predicted=many, oracle=many, constant=0, seed=3)
    assert sorted(shuffled) == sorted(many.tolist())
    assert shuffled != many.tolist()


@pytest.mark.parametrize(
    ("prompt", "names"),
    [
        ({}, [*AuditSource, "random instructions", "fixed instructions"]),
        ({"instruction": "fixed"}, [*AuditSource, "random instructions"]),
        ({"use_reaction_type": False}, ["own", "random instructions", "fixed instructions"]),
    ],
)
def test_conditions_are_five_sources_and_the_controls(prompt, names):
    conditions = list_conditions(Config.model_validate({"prompt": prompt}))
    assert [each.name for each in conditions] == names


def test_prompts_that_come_out_alike_are_asked_once(tmp_path):
    run = RunFolder(str(tmp_path), "run")
    conditions = list_conditions(Config.model_validate({"prompt": {"instruction": "fixed"}}))
    asked = write_questions(
        run,
        tasks=["forward"] * 2,
        inputs=["CCO", "CCN"],
        row_ids=[5, 6],
        types={
            "predicted": [0, 1],
            "none": [None, None],
            "shuffled": [1, 0],
            "constant": [0, 0],
            "oracle": [0, 2],
            "random instructions": [0, 1],
        },
        conditions=conditions,
        seed=0,
    )
    assert asked["predicted"] == [0, 1]
    assert asked["constant"][0] == asked["oracle"][0] == 0
    assert asked["none"] == [2, 3]
    rows = {row["question"]: row for row in run.read_table("audit/questions").to_pylist()}
    assert len(rows) == len({number for numbers in asked.values() for number in numbers})
    oracle = rows[asked["oracle"][1]]
    assert (oracle["input"], oracle["reaction_type"]) == ("CCN", 2)
    assert oracle["template_id"] == "forward-01"
    assert rows[asked["random instructions"][0]]["template_id"] != "forward-00"


@pytest.mark.parametrize(
    ("fusion", "prompt"),
    [
        ("text", "Predict the product of this reaction. The reaction type is F1. CCO"),
        ("hidden", "Predict the product of this reaction.</s> The reaction type is F1.</s> CCO"),
    ],
)
def test_prompts_are_put_together_as_the_model_was_trained(tmp_path, monkeypatch, fusion, prompt):
    run = RunFolder(str(tmp_path), "run")
    run.write_json("model/config.json", {})
    model = SimpleNamespace(
        config=SimpleNamespace(raycrp_fusion=fusion), device=SimpleNamespace(type="cpu")
    )
    asked = []

    def beam_search(model, tokenizer, prompts, **_):
        asked.extend(prompts)
        return [[Hypothesis("C", -0.1, (1,))] for _ in prompts]

    loaded = model, SimpleNamespace(eos_token="</s>")
    monkeypatch.setattr(module, "load_backbone", lambda folder, device: loaded)
    monkeypatch.setattr(module, "beam_search", beam_search)
    answerer = QuestionAnswerer(run, section=Config().evaluate, device=Device.CPU)
    row = {"question": 0, "task": "forward", "input": "CCO", "reaction_type": 1}
    rows = [row | {"template_id": "forward-01"}]
    assert answerer(pa.Table.from_pylist(rows, QUESTIONS))["predictions"].to_pylist() == [["C"]]
    assert asked == [prompt]


def test_the_oracle_names_the_nearest_centre():
    codes = np.array([[0, 0], [0, 1], [9, 9], [9, 8]], dtype=np.float32)
    oracle = fit_oracle(codes, labels=np.array([4, 4, 7, 7]))
    assert oracle.consistency == 1
    assert oracle.name(np.array([[1, 1], [8, 8]], dtype=np.float32)).tolist() == [4, 7]
    mixed = fit_oracle(codes, labels=np.array([4, 7, 7, 7]))
    assert mixed.consistency == 0.75
