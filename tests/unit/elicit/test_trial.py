from dataclasses import replace

import numpy as np
import pytest

from raycrp.choices import Device, Encoding, Task
from raycrp.elicit.clusters import KMeansSettings
from raycrp.elicit.final import finish_task
from raycrp.elicit.rows import Basis
from raycrp.elicit.sweep import sweep_fingerprint
from raycrp.elicit.trial import Trial, TrialSettings, read_types, run_trial
from raycrp.model.labeler import load_labeler

TRIAL = Trial(Task.FORWARD, Encoding.CONCAT, 3)


@pytest.fixture
def settings(llm_rt_settings):
    return TrialSettings(
        max_rounds=3,
        patience=2,
        kmeans=KMeansSettings(num_init=1, max_whole_rows=1_000),
        collapse_fraction=0.5,
        run_seed=5,
        llm_rt=replace(llm_rt_settings, has_feedback=True),
    )


def carry_out(settings, *, rows, run):
    reports = []
    record = run_trial(
        TRIAL, rows=rows, settings=settings, run=run, fingerprint="f", report=reports.append
    )
    return record, reports


def test_trial_ids_are_stable():
    assert TRIAL.trial_id == "forward-concat-n3"
    assert TRIAL.seed(5) == Trial(Task.FORWARD, Encoding.CONCAT, 3).seed(5)
    assert TRIAL.seed(5) != TRIAL.seed(6)


def test_a_sweep_goes_on_elsewhere_but_not_with_other_settings(settings, task_rows):
    rows = {Task.FORWARD: task_rows}
    elsewhere = replace(settings, llm_rt=replace(settings.llm_rt, device=Device.CUDA))
    assert sweep_fingerprint(rows, elsewhere) == sweep_fingerprint(rows, settings)
    others = replace(settings, llm_rt=replace(settings.llm_rt, max_tokens=65))
    assert sweep_fingerprint(rows, others) != sweep_fingerprint(rows, settings)


def test_a_trial_reports_every_round_and_keeps_the_best(settings, task_rows, elicit_run):
    record, reports = carry_out(settings, rows=task_rows, run=elicit_run)
    assert [report["round"] for report in reports] == list(range(record["num_rounds"]))
    best = max(reports, key=lambda report: (report["accuracy"], -report["round"]))
    assert record["best_round"] == best["round"]
    assert record["accuracy"] == best["accuracy"]
    assert record["encoder_passes"] == record["num_rounds"] - 1
    assert elicit_run.read_json(TRIAL.done_path) == record
    labeler = load_labeler(elicit_run.local_dir(TRIAL.labeler_path), device=Device.CPU)
    texts = task_rows.inputs.take(task_rows.valid).to_pylist()
    named = labeler.predict(texts).argmax(axis=1)
    types = read_types(TRIAL, run=elicit_run)
    assert (named == types[task_rows.valid]).mean() == pytest.approx(record["accuracy"])


def test_a_trial_run_again_ends_the_same(settings, task_rows, elicit_run):
    first, _ = carry_out(settings, rows=task_rows, run=elicit_run)
    first_types = read_types(TRIAL, run=elicit_run)
    again, _ = carry_out(settings, rows=task_rows, run=elicit_run)
    assert (first_types == read_types(TRIAL, run=elicit_run)).all()
    for record in (first, again):
        for figures in (record, *record["rounds"]):
            for name in ("seconds", "cpu_seconds"):
                figures.pop(name, None)
    assert first == again


@pytest.mark.parametrize("max_rounds", [1, 2])
def test_the_chosen_trial_is_kept_and_scored_once(max_rounds, settings, task_rows, elicit_run):
    has_feedback = max_rounds > 1
    settings = replace(
        settings,
        max_rounds=max_rounds,
        llm_rt=replace(settings.llm_rt, has_feedback=has_feedback),
    )
    elicit_run.delete("elicit")
    carry_out(settings, rows=task_rows, run=elicit_run)
    assert elicit_run.exists(TRIAL.labeler_path) == has_feedback
    final = finish_task(TRIAL, rows=task_rows, settings=settings, run=elicit_run, num_folds=0)
    scores = final["test"]
    assert final["cross_fit"] is None
    labeler = load_labeler(elicit_run.local_dir("elicit/labelers/forward"), device=Device.CPU)
    named = labeler.predict(task_rows.inputs.take(task_rows.test).to_pylist()).argmax(axis=1)
    types = elicit_run.read_table("elicit/reaction_types/forward.parquet")
    assert types["row_id"].to_pylist() == task_rows.row_ids.tolist()
    expected = np.mean(named == types["reaction_type"].to_numpy()[task_rows.test])
    assert scores["accuracy"] == pytest.approx(expected)
    assert scores["num_rows"] == len(task_rows.test)


def test_cross_fitted_types_are_kept_and_scored(settings, task_rows, elicit_run):
    frozen = replace(settings.llm_rt, has_feedback=False)
    settings = replace(settings, max_rounds=1, llm_rt=frozen)
    elicit_run.delete("elicit")
    carry_out(settings, rows=task_rows, run=elicit_run)
    rows = replace(task_rows, test=np.array([], dtype=np.int64))
    final = finish_task(TRIAL, rows=rows, settings=settings, run=elicit_run, num_folds=3)
    assert final["test"] is None
    table = elicit_run.read_table("elicit/cross_fitted/forward.parquet")
    types = read_types(TRIAL, run=elicit_run)
    assert table["row_id"].to_pylist() == task_rows.row_ids.tolist()
    expected = np.mean((table["reaction_type"].to_numpy() == types)[:32])
    assert final["cross_fit"]["accuracy"] == pytest.approx(expected)
    assert final["cross_fit"]["num_rows"] == 32


def test_a_row_whose_reaction_is_not_clustered_is_named_from_its_input(
    settings, task_rows, elicit_run
):
    frozen = replace(settings.llm_rt, has_feedback=False)
    settings = replace(settings, max_rounds=1, llm_rt=frozen)
    elicit_run.delete("elicit")
    places = np.arange(40)[::-1].copy()
    places[[3, 5]] = -1
    train = np.array([i for i in task_rows.train if i not in (3, 5)])
    basis = Basis(task=Task.RETROSYNTHESIS, vectors=task_rows.vectors, places=places)
    rows = replace(task_rows, basis=basis, train=train)
    carry_out(settings, rows=rows, run=elicit_run)
    clustered = read_types(TRIAL, run=elicit_run)
    assert np.flatnonzero(clustered < 0).tolist() == [3, 5]
    finish_task(TRIAL, rows=rows, settings=settings, run=elicit_run, num_folds=0)
    table = elicit_run.read_table("elicit/reaction_types/forward.parquet")
    final = table["reaction_type"].to_numpy()
    labeler = load_labeler(elicit_run.local_dir("elicit/labelers/forward"), device=Device.CPU)
    named = labeler.predict(rows.inputs.take([3, 5]).to_pylist()).argmax(axis=1)
    assert final[[3, 5]].tolist() == named.tolist()
    kept = np.flatnonzero(clustered >= 0)
    assert (final[kept] == clustered[kept]).all()


def test_tasks_that_share_reactions_share_their_types(settings, task_rows, elicit_run):
    frozen = replace(settings.llm_rt, has_feedback=False)
    settings = replace(settings, max_rounds=1, llm_rt=frozen)
    order = np.random.default_rng(0).permutation(40)
    carry_out(settings, rows=task_rows, run=elicit_run)
    other = replace(TRIAL, task=Task.REAGENT)
    rows = replace(
        task_rows,
        task=Task.REAGENT,
        basis=Basis(task=Task.FORWARD, vectors=task_rows.vectors, places=order),
    )
    run_trial(
        other, rows=rows, settings=settings, run=elicit_run, fingerprint="f", report=lambda _: None
    )
    expected = read_types(TRIAL, run=elicit_run)[order]
    assert (read_types(other, run=elicit_run) == expected).all()
