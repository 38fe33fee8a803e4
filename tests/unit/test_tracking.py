import json
import math
import tempfile

import pytest

from raycrp import tracking
from raycrp.choices import SelectBy
from raycrp.run import RunFolder
from raycrp.tracking import (
    Tracker,
    best_validation,
    copy_metrics,
    metrics_files,
    read_metrics,
    validation_cost,
)


def open_tracker(tmp_path, *, start_step=0, **options):
    run = RunFolder(str(tmp_path), "run")
    return Tracker(run, events_dir="events", start_step=start_step, **options)


def steps_and_losses(tmp_path):
    lines = read_metrics(RunFolder(str(tmp_path), "run"))
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


def test_a_validation_that_is_still_owed_is_not_there_twice(tmp_path):
    with open_tracker(tmp_path) as tracker:
        for step in (10, 20):
            tracker.log(step, {"loss": 1.0})
            tracker.log(step, {"validation_loss": 2.0, "validation_exact": 0.0})
    for owes_validation, num_lines in ((False, 4), (True, 3)):
        with open_tracker(tmp_path, start_step=20, owes_validation=owes_validation):
            lines = read_metrics(RunFolder(str(tmp_path), "run"))
            assert len(lines) == num_lines
    assert [("loss" in line, line["step"]) for line in lines] == [
        (True, 10),
        (False, 10),
        (True, 20),
    ]


def test_values_that_are_no_numbers_are_left_out(tmp_path):
    with open_tracker(tmp_path) as tracker:
        tracker.log(1, {"loss": math.nan, "gradient_norm": math.inf, "epoch": 0.5})
        tracker.log(1, {"validation_loss": math.inf, "validation_exact": 0.0})
    run = RunFolder(str(tmp_path), "run")
    (path,) = metrics_files(run)

    def refuse(name):
        raise AssertionError(name)

    lines = [json.loads(text, parse_constant=refuse) for text in run.read_bytes(path).splitlines()]
    names = [set(line) - {"step", "seconds"} for line in lines]
    assert names == [{"epoch"}, {"validation_exact"}]
    (events,) = (tmp_path / "run/events").iterdir()
    assert b"train/epoch" in events.read_bytes()
    assert b"train/gradient_norm" not in events.read_bytes()


def test_lines_of_an_older_version_lose_what_is_no_number(tmp_path):
    run = RunFolder(str(tmp_path), "run")
    run.write_bytes("train/metrics.jsonl", b'{"step": 1, "loss": 2, "gradient_norm": Infinity}\n')
    with open_tracker(tmp_path, start_step=1):
        assert run.read_bytes("train/metrics.jsonl") == b'{"step": 1, "loss": 2}\n'


LINES = [
    {"step": 10, "loss": 9.0},
    {"step": 10, "validation_loss": 3.0, "validation_exact": 0.0},
    {"step": 20, "validation_loss": 2.0, "validation_exact": 0.25},
    {"step": 30, "validation_loss": 2.5, "validation_exact": 0.5},
    {"step": 40, "validation_loss": 2.4, "validation_exact": 0.5},
    {"step": 50, "validation_loss": 2.4, "validation_exact": 0.5},
    {"step": 60, "validation_exact": 1.0},
    {"step": 70, "validation_loss": math.nan, "validation_exact": 1.0},
]


@pytest.mark.parametrize(("rule", "step"), [(SelectBy.LOSS, 20), (SelectBy.EXACT, 40)])
def test_the_best_validation_is_by_the_rule_and_the_earliest_of_equals(rule, step):
    best = best_validation(LINES, select_by=rule)
    assert best["step"] == step
    assert best_validation(LINES[:1], select_by=rule) is None


def test_no_loss_outweighs_one_more_right_answer():
    few = {"validation_loss": 1e-6, "validation_exact": 500_000 / 1_000_000}
    more = {"validation_loss": 1e6, "validation_exact": 500_001 / 1_000_000}
    costs = [validation_cost(line, select_by=SelectBy.EXACT) for line in (few, more)]
    assert costs[1] < costs[0]


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


def test_events_that_storage_refused_are_there_once_it_is_back(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(tracking, "EVENTS_EVERY_S", 0.0)

    def refuse(*_, **__):
        raise OSError("storage is gone")

    with open_tracker(tmp_path) as tracker:
        with monkeypatch.context() as patch:
            patch.setattr(tracking, "copy_folder", refuse)
            for step in range(1, 31):
                tracker.log(step, {"loss": 0.5})
        assert "events cannot be written: storage is gone" in caplog.text
        tracker.flush()
        (path,) = (tmp_path / "run/events").iterdir()
        assert path.read_bytes().count(b"train/loss") == 30


def test_lines_that_storage_refused_are_written_once_it_is_back(tmp_path, caplog):
    with open_tracker(tmp_path) as tracker:
        tracker.log(1, {"loss": 3.0})
        (tmp_path / "run/train").rename(tmp_path / "away")
        tracker.log(2, {"loss": 2.0})
        assert "cannot be written" in caplog.text
        (tmp_path / "away").rename(tmp_path / "run/train")
        tracker.log(3, {"loss": 1.0})
        assert steps_and_losses(tmp_path) == [(1, 3.0), (2, 2.0), (3, 1.0)]


NUM_STEPS = 10


@pytest.fixture
def short_segments(monkeypatch):
    monkeypatch.setattr(tracking, "SEGMENT_LINES", 3)


def train(run, *, start_step=0, num_steps=NUM_STEPS, sign=1):
    """Log a line a step; a flush after every second one."""
    with Tracker(run, events_dir="events", start_step=start_step) as tracker:
        for step in range(start_step + 1, num_steps + 1):
            tracker.log(step, {"loss": float(sign * step)})
            if step % 2 == 0:
                tracker.flush()


def losses(run):
    return [line["loss"] for line in read_metrics(run)]


@pytest.mark.usefixtures("short_segments")
def test_a_long_training_is_cut_into_segments(tmp_path):
    run = RunFolder(str(tmp_path), "run")
    train(run)
    names = ["metrics.000001.jsonl", "metrics.000002.jsonl", "metrics.jsonl"]
    assert run.list_names("train") == names
    assert run.read_bytes("train/metrics.jsonl").count(b"\n") == 4
    assert run.read_bytes("train/metrics.000002.jsonl").count(b"\n") == 2
    assert losses(run) == list(range(1, NUM_STEPS + 1))


@pytest.mark.usefixtures("short_segments")
@pytest.mark.parametrize("start_step", range(NUM_STEPS + 1))
def test_a_resumed_training_has_each_step_once(tmp_path, start_step):
    run = RunFolder(str(tmp_path), "run")
    train(run)
    train(run, start_step=start_step, sign=-1)
    kept, again = range(1, start_step + 1), range(start_step + 1, NUM_STEPS + 1)
    assert losses(run) == [*kept, *(-step for step in again)]


@pytest.mark.usefixtures("short_segments")
@pytest.mark.parametrize("num_changes", range(4))
def test_a_resume_that_is_killed_loses_and_doubles_nothing(tmp_path, monkeypatch, num_changes):
    run = RunFolder(str(tmp_path), "run")
    train(run)
    left = iter(range(num_changes))

    def dying(change):
        def changed(*arguments):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return change(*arguments)

        return changed

    with monkeypatch.context() as patch:
        for name in ("delete", "write_bytes"):
            patch.setattr(RunFolder, name, dying(getattr(RunFolder, name)))
        if num_changes < 3:
            with pytest.raises(KeyboardInterrupt):
                Tracker(run, events_dir="events", start_step=3)
        else:
            Tracker(run, events_dir="events", start_step=3)
    train(run, start_step=3, sign=-1)
    assert losses(run) == [1, 2, 3, *range(-4, -NUM_STEPS - 1, -1)]


@pytest.mark.usefixtures("short_segments")
def test_a_file_of_an_older_version_is_gone_on_with(tmp_path):
    run = RunFolder(str(tmp_path), "run")
    lines = [json.dumps({"step": step, "loss": float(step)}) + "\n" for step in range(1, 9)]
    run.write_bytes("train/metrics.jsonl", "".join(lines).encode())
    train(run, start_step=8)
    assert losses(run) == list(range(1, NUM_STEPS + 1))
    assert run.read_bytes("train/metrics.jsonl").decode() == "".join(lines)


@pytest.mark.parametrize("num_steps", [100, 1_000])
def test_what_a_flush_writes_does_not_grow_with_the_steps(tmp_path, monkeypatch, num_steps):
    monkeypatch.setattr(tracking, "SEGMENT_LINES", 20)
    written = []
    plain = RunFolder.write_bytes

    def counted(self, path, data):
        written.append(data.count(b"\n"))
        plain(self, path, data)

    monkeypatch.setattr(RunFolder, "write_bytes", counted)
    train(RunFolder(str(tmp_path), "run"), num_steps=num_steps)
    assert len(written) > num_steps / 2
    assert max(written) <= 22


@pytest.mark.usefixtures("short_segments")
def test_object_storage_has_all_that_was_flushed(tmp_path, monkeypatch):
    monkeypatch.setattr(RunFolder, "is_local", False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    run = RunFolder(str(tmp_path), "run")
    for name in ("train", "events"):
        (tmp_path / "run" / name).mkdir(parents=True)
    killed = Tracker(run, events_dir="events", start_step=0)
    for step in range(1, 9):
        killed.log(step, {"loss": float(step)})
        if step == 7:
            killed.flush()
    assert losses(run) == [1, 2, 3, 4, 5, 6, 7]
    events = [run.read_bytes(f"events/{name}") for name in run.list_names("events")]
    assert sum(data.count(b"train/loss") for data in events) == 7
    train(run, start_step=7)
    assert losses(run) == list(range(1, NUM_STEPS + 1))


@pytest.mark.usefixtures("short_segments")
def test_metrics_take_the_place_of_others(tmp_path):
    first, second = (RunFolder(str(tmp_path), name) for name in ("a", "b"))
    train(first)
    train(second, num_steps=5, sign=-1)
    copy_metrics(second, first)
    assert losses(first) == losses(second) == [-1, -2, -3, -4, -5]
