import json
import math
from dataclasses import replace

import pytest

from raycrp.choices import InstructionChoice, SelectBy
from raycrp.config import TrainConfig
from raycrp.errors import DivergedError
from raycrp.run import RunFolder
from raycrp.train import search, trainer
from raycrp.train.search import SearchTrial, _choose, _run_trial, _take_over
from raycrp.train.setup import WorkerSettings
from raycrp.train.trials import TRIALS_FILE


@pytest.fixture
def settings(tmp_path):
    run = RunFolder(str(tmp_path), "run")
    return WorkerSettings(run, TrainConfig(), InstructionChoice.FIXED, refresh_steps=None, seed=0)


@pytest.fixture
def reports(monkeypatch):
    reports = []
    monkeypatch.setattr(search.tune, "report", reports.append)
    monkeypatch.setattr(search, "_Reporter", lambda train: None)
    return reports


def test_a_trial_that_diverges_ends_as_a_weak_one(settings, reports, monkeypatch):
    def diverge(own, *, callbacks):
        raise DivergedError("the loss is nan at step 10")

    monkeypatch.setattr(trainer, "train_model", diverge)
    bad, good = trials = [SearchTrial(1.0, 16), SearchTrial(0.001, 16)]
    own = bad.settings(settings).run
    own.write_bytes("train/metrics.jsonl", b'{"step": 10, "loss": NaN}\n')
    for _ in range(2):  # As it ends, and as a search that is started anew finds it.
        config = {"trial": bad.name}
        _run_trial(config, settings=settings, trials={trial.name: trial for trial in trials})
    expected = {"cost": math.inf, "validation_loss": math.inf, "validation_exact": 0.0}
    expected |= {"step": 10, "rows_seen": 160}
    assert reports == [expected, expected]

    other = good.settings(settings).run
    other.write_bytes("train/metrics.jsonl", b'{"step": 20, "validation_loss": 0.5}\n')
    other.write_json("train/result.json", {})
    assert _choose(settings, trials) == good
    first = settings.run.read_table(TRIALS_FILE).to_pylist()[0]
    assert (first["is_finished"], first["step"], first["best_loss"]) == (False, 10, None)


@pytest.mark.parametrize(("rule", "best"), [("loss", 0), ("exact", 1)])
def test_the_best_trial_is_by_the_rule_of_the_best_weights(settings, reports, rule, best):
    train = settings.train.model_copy(update={"select_by": SelectBy(rule)})
    settings = replace(settings, train=train)
    trials = [SearchTrial(0.1, 16), SearchTrial(0.2, 16), SearchTrial(0.3, 16)]
    curves = [[(1.0, 0.2), (1.5, 0.4)], [(2.0, 0.6), (1.9, 0.5)], [(1.4, 0.6), (0.5, 0.6)]]
    for trial, curve in zip(trials, curves, strict=True):
        own = trial.settings(settings).run
        lines = [
            {"step": 10 * step, "validation_loss": loss, "validation_exact": exact}
            for step, (loss, exact) in enumerate(curve, start=1)
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        own.write_bytes("train/metrics.jsonl", text.encode())
        if trial is not trials[2]:
            own.write_json("train/result.json", {})
    assert _choose(settings, trials) == trials[best]
    rows = settings.run.read_table(TRIALS_FILE).to_pylist()
    assert [row["best_step"] for row in rows] == ([10, 20, 20] if rule == "loss" else [20, 10, 20])
    assert [row["best_exact"] for row in rows][1] == (0.5 if rule == "loss" else 0.6)
    own = trials[0].settings(settings)
    own.run.write_json("train/stopped.json", {"step": 20})
    _run_trial({"trial": trials[0].name}, settings=settings, trials={trials[0].name: trials[0]})
    costs = [report["cost"] for report in reports]
    assert costs == ([1.0, 1.5] if rule == "loss" else pytest.approx([-0.2, -0.4], abs=1e-6))


def test_the_best_trial_s_files_take_the_place_of_others(tmp_path):
    run = RunFolder(str(tmp_path), "run")
    trial = RunFolder(run.uri("train/search"), "trial")
    line = b'{"step": 1}\n'
    files = {
        "train/best/config.json": b"{}",
        "tensorboard/train/events": b"e",
        "train/metrics.jsonl": line,
        "train/result.json": b"{}",
    }
    for path, data in files.items():
        trial.write_bytes(path, data)
    for _ in range(2):
        run.write_bytes("train/best/old", b"")
        _take_over(run, trial)
        assert run.list_names("train/best") == ["config.json"]
        assert {path: run.read_bytes(path) for path in files} == files
