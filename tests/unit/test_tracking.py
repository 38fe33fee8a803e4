import pytest

from raycrp.run import RunFolder
from raycrp.tracking import Tracker, read_metrics


def open_tracker(tmp_path, *, start_step=0):
    run = RunFolder(str(tmp_path), "run")
    return Tracker(run, path="train/metrics.jsonl", events_dir="events", start_step=start_step)


def steps_and_losses(tmp_path):
    lines = read_metrics(RunFolder(str(tmp_path), "run"), "train/metrics.jsonl")
    return [(line["step"], line["loss"]) for line in lines]


def test_metrics_are_there_while_training_goes_on(tmp_path):
    with open_tracker(tmp_path) as tracker:
        tracker.log(1, {"loss": 2.5, "epoch": 0.1})
        assert steps_and_losses(tmp_path) == [(1, 2.5)]


def test_a_resumed_training_replaces_the_steps_it_does_again(tmp_path):
    with open_tracker(tmp_path) as tracker:
        for step in (10, 20, 30):
            tracker.log(step, {"loss": float(step)})
    with open_tracker(tmp_path, start_step=20) as tracker:
        tracker.log(30, {"loss": 31.0})
    assert steps_and_losses(tmp_path) == [(10, 10.0), (20, 20.0), (30, 31.0)]


def test_a_line_cut_short_is_left_out(tmp_path):
    with open_tracker(tmp_path) as tracker:
        tracker.log(10, {"loss": 1.0})
    path = tmp_path / "run/train/metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 20, "lo')
    assert steps_and_losses(tmp_path) == [(10, 1.0)]


def test_an_undeclared_metric_is_refused(tmp_path):
    with open_tracker(tmp_path) as tracker, pytest.raises(ValueError, match="los"):
        tracker.log(1, {"los": 1.0})


def test_events_can_be_read_by_tensorboard(tmp_path):
    with open_tracker(tmp_path) as tracker:
        tracker.log(3, {"loss": 0.5})
    (path,) = (tmp_path / "run/events").iterdir()
    assert path.name.startswith("events.out.tfevents")
    assert b"train/loss" in path.read_bytes()


def test_lines_that_storage_refused_are_written_once_it_is_back(tmp_path, caplog):
    with open_tracker(tmp_path) as tracker:
        tracker.log(1, {"loss": 3.0})
        (tmp_path / "run/train").rename(tmp_path / "away")
        tracker.log(2, {"loss": 2.0})
        assert "cannot be written" in caplog.text
        (tmp_path / "away").rename(tmp_path / "run/train")
        tracker.log(3, {"loss": 1.0})
        assert steps_and_losses(tmp_path) == [(1, 3.0), (2, 2.0), (3, 1.0)]
