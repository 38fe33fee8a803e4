"""The search over step size and batch, on a minute model: Ray Train inside Ray Tune."""

import shutil
from pathlib import Path

import pytest
import ray
from run_folders import make_config, write_prompted_run

from raycrp.choices import InstructionChoice
from raycrp.errors import TrainError
from raycrp.run import RunFolder
from raycrp.tracking import METRICS_FILE, read_metrics
from raycrp.train.search import search_training, search_trials
from raycrp.train.setup import WorkerSettings
from raycrp.train.trials import RESULT_FILE, SEARCH_DIR, TRIALS_FILE

pytestmark = [pytest.mark.integration, pytest.mark.slow]

TRAIN = {
    "num_workers": 1,
    "max_steps": 8,
    "eval_every_steps": 2,
    "log_every_steps": 1,
    "search": {
        "learning_rate": [1e-3, 1e-6, 3e-3],
        "batch_size": [16],
        "first_rung": 0.25,
        "reduction": 3,
        "max_concurrent_trials": 1,
    },
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    config = make_config(folder, train=TRAIN)
    run = write_prompted_run(config, num_train=60, num_validation=6)
    return WorkerSettings(
        run=run,
        train=config.train,
        instruction=InstructionChoice.ADAPTIVE,
        refresh_steps=5,
        seed=0,
    )


@pytest.fixture(scope="module")
def found(settings):
    """The best trial's settings, after a search on one CPU."""
    # Without the dashboard Ray Train does not give back the CPUs of a trial that was stopped.
    ray.init(num_cpus=1, include_dashboard=True, dashboard_port=0, logging_level="warning")
    yield search_training(settings)
    ray.shutdown()


def curve(run):
    return [line for line in read_metrics(run) if "validation_loss" in line]


def trial_runs(settings):
    return {
        trial.learning_rate: trial.settings(settings).run
        for trial in search_trials(settings.train.search)
    }


def test_the_best_trial_becomes_the_model(settings, found):
    rows = settings.run.read_table(TRIALS_FILE).to_pylist()
    assert [row["learning_rate"] for row in rows] == [1e-3, 1e-6, 3e-3]
    finished = [row for row in rows if row["is_finished"]]
    best = min(finished, key=lambda row: row["best_loss"])
    assert found.learning_rate == best["learning_rate"] != 1e-6
    assert found.search is None
    assert settings.run.read_json(RESULT_FILE)["best_loss"] == pytest.approx(
        best["best_loss"], abs=1e-8
    )
    assert settings.run.exists("train/best/model.safetensors")
    assert curve(settings.run)[-1]["step"] == 8
    assert settings.run.list_names("tensorboard/train")


def test_asha_stops_the_weak_trial_at_the_first_rung(settings, found):
    weak = trial_runs(settings)[1e-6]
    assert not weak.exists(RESULT_FILE)
    assert weak.read_json("train/stopped.json")["step"] < 8


def test_a_killed_search_goes_on_without_training_finished_trials_again(settings, found, tmp_path):
    shutil.copytree(settings.run.path(), tmp_path / "test")
    run = RunFolder(str(tmp_path), "test")
    again = WorkerSettings(**{**vars(settings), "run": run})
    run.delete(TRIALS_FILE)
    broken = trial_runs(again)[3e-3]
    whole = curve(broken)
    broken.delete(RESULT_FILE)
    broken.delete("train/stopped.json")
    times = {
        rate: Path(trial.path(METRICS_FILE)).stat().st_mtime_ns
        for rate, trial in trial_runs(again).items()
        if rate != 3e-3
    }
    assert search_training(again) == found
    assert [line["validation_loss"] for line in curve(broken)][: len(whole)] == [
        line["validation_loss"] for line in whole
    ]
    for rate, time_ns in times.items():
        path = Path(trial_runs(again)[rate].path(METRICS_FILE))
        assert path.stat().st_mtime_ns == time_ns
    assert len(run.list_names(f"{SEARCH_DIR}/ray")) == 2


def test_a_search_in_one_process_is_refused(settings):
    train = settings.train.model_copy(update={"launcher": "local"})
    with pytest.raises(TrainError, match=r"train.search needs train.launcher ray"):
        search_training(WorkerSettings(**{**vars(settings), "train": train}))
