from dataclasses import replace

import numpy as np
import pytest

from raycrp.choices import Device, LabelerKind
from raycrp.elicit.llm_rt import build_llm_rt
from raycrp.model.labeler import load_labeler

LABELS = np.array([i % 2 for i in range(40)])
KINDS = pytest.mark.parametrize(
    ("kind", "has_feedback"),
    [(LabelerKind.HEAD, False), (LabelerKind.HEAD, True), (LabelerKind.T5, True)],
    ids=["frozen-head", "tuned-head", "t5"],
)


@pytest.fixture
def llm_rt(kind, has_feedback, llm_rt_settings, task_rows, elicit_run):
    settings = replace(llm_rt_settings, kind=kind, has_feedback=has_feedback)
    return build_llm_rt(task_rows, num_types=2, settings=settings, run=elicit_run)


@KINDS
def test_what_is_saved_names_as_in_the_trial(llm_rt, task_rows, tmp_path):
    llm_rt.train(LABELS, seed=1)
    named = llm_rt.name(task_rows.test)
    assert named.shape == (8, 2)
    assert named.sum(axis=1) == pytest.approx(np.ones(8), abs=1e-5)
    llm_rt.save(tmp_path)
    saved = load_labeler(tmp_path, device=Device.CPU)
    texts = task_rows.inputs.take(task_rows.test).to_pylist()
    assert saved.predict(texts) == pytest.approx(named, abs=1e-5)


@KINDS
def test_a_second_round_goes_on_from_the_first(llm_rt, has_feedback, task_rows):
    llm_rt.train(LABELS, seed=1)
    first = inputs_of(llm_rt.embed())
    llm_rt.train(LABELS, seed=2)
    second = inputs_of(llm_rt.embed())
    shared = inputs_of(task_rows.vectors)
    assert first.shape == second.shape == shared.shape
    assert llm_rt.learns_vectors == has_feedback
    assert np.array_equal(first, shared) != has_feedback
    assert np.array_equal(first, second) != has_feedback


def inputs_of(vectors):
    return vectors.take_inputs(np.arange(vectors.num_rows))
