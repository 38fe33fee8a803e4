import sys

import pytest

from raycrp.errors import ConfigError
from raycrp.mlflow_run import EXPERIMENT, MlflowRun, check_mlflow
from raycrp.run import RunFolder
from raycrp.tracking import Tracker


def history(uri, name):
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    (run,) = client.search_runs([experiment.experiment_id])
    values = client.get_metric_history(run.info.run_id, name)
    return run, [(value.step, value.value) for value in values]


@pytest.fixture
def uri(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    # Newer releases ask to be told that a folder will do.
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return (tmp_path / "mlruns").as_uri()


def make_tracker(tmp_path, uri, *, start_step=0):
    return Tracker(
        RunFolder(str(tmp_path), "demo"),
        events_dir="events",
        start_step=start_step,
        mlflow_uri=uri,
        settings={"batch_size": 32},
    )


def test_a_resumed_training_goes_on_in_the_same_run(tmp_path, uri):
    tracker = make_tracker(tmp_path, uri)
    tracker.log(10, {"loss": 2.5, "epoch": 1})
    tracker.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert history(uri, "loss")[0].info.status == "RUNNING"
    with make_tracker(tmp_path, uri, start_step=10) as tracker:
        tracker.log(20, {"loss": 1.5})
    run, losses = history(uri, "loss")
    assert losses == [(10, 2.5), (20, 1.5)]
    assert (run.info.run_name, run.info.status) == ("demo", "FINISHED")
    assert run.data.params == {"batch_size": "32"}


def test_a_server_that_fails_does_not_end_training(tmp_path, uri, caplog):
    (tmp_path / "mlruns").write_text("not a folder")
    run = MlflowRun(RunFolder(str(tmp_path), "demo"), uri=uri, settings={})
    run.log(1, {"loss": 1.0})
    run.close()
    assert "training goes on" in caplog.text


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ConfigError, match=r"pip install 'raycrp\[mlflow\]'"):
        check_mlflow()
