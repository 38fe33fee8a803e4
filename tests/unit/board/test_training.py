import json
from pathlib import Path

import pytest

from raycrp.board.training import TrainingLog, seconds_left
from raycrp.choices import SelectBy
from raycrp.run import RunFolder
from raycrp.tracking import METRICS_FILE, metrics_files


@pytest.fixture
def run(tmp_path):
    return RunFolder(str(tmp_path), "demo")


def step(number, **more):
    return {"step": number, "seconds": number, "loss": 1 / number, "epoch": number / 10, **more}


def write(run, lines, *, rest=""):
    text = "".join(json.dumps(line) + "\n" for line in lines) + rest
    run.write_bytes(METRICS_FILE, text.encode())


def append(run, text):
    with Path(run.path(METRICS_FILE)).open("a", encoding="utf-8") as stream:
        stream.write(text)


def steps(view):
    return [line["step"] for line in view.steps]


def test_no_log_is_an_empty_view(run):
    view = TrainingLog(run).read()
    assert (view.steps, view.validations, view.last, view.best) == ((), (), None, None)


def test_only_what_is_new_is_read(run):
    write(run, [step(1), step(2)])
    log = TrainingLog(run)
    assert steps(log.read()) == [1, 2]
    append(run, json.dumps(step(3)) + "\n")
    assert steps(log.read()) == [1, 2, 3]
    assert steps(log.read()) == [1, 2, 3]


def test_a_line_without_its_end_waits_for_it(run):
    whole = json.dumps(step(2))
    write(run, [step(1)], rest=whole[:20])
    log = TrainingLog(run)
    assert steps(log.read()) == [1]
    append(run, whole[20:] + "\n")
    assert steps(log.read()) == [1, 2]


def test_a_line_that_a_crash_cut_short_is_left_out(run):
    write(run, [step(1)], rest='{"step": 2, "lo\n' + json.dumps(step(3)) + "\n\xff\n[]\n7\n")
    assert steps(TrainingLog(run).read()) == [1, 3]


@pytest.mark.parametrize("after", [[step(1), step(2)], [step(1), *map(step, range(20, 30))]])
def test_a_log_written_anew_is_read_anew(run, after):
    write(run, [step(1), step(2), step(3)])
    log = TrainingLog(run)
    log.read()
    write(run, after)
    assert steps(log.read()) == [line["step"] for line in after]


def test_a_log_that_was_deleted_leaves_nothing(run):
    write(run, [step(1)])
    log = TrainingLog(run)
    log.read()
    run.delete(METRICS_FILE)
    assert log.read().steps == ()


def write_segments(run, *segments):
    for path in metrics_files(run):
        run.delete(path)
    names = [METRICS_FILE, "train/metrics.000001.jsonl", "train/metrics.000002.jsonl"]
    for name, lines in zip(names, segments, strict=False):
        run.write_bytes(name, "".join(json.dumps(line) + "\n" for line in lines).encode())


def test_segments_are_followed_one_after_the_other(run, monkeypatch):
    write_segments(run, [step(1), step(2)])
    log = TrainingLog(run)
    assert steps(log.read()) == [1, 2]
    append(run, json.dumps(step(3)) + "\n")
    run.write_bytes("train/metrics.000001.jsonl", json.dumps(step(4)).encode() + b"\n")
    assert steps(log.read()) == [1, 2, 3, 4]
    run.write_bytes("train/metrics.000002.jsonl", json.dumps(step(5)).encode() + b"\n")
    assert steps(log.read()) == [1, 2, 3, 4, 5]
    taken = []
    monkeypatch.setattr(log, "_take", lambda text, **_: taken.append(text))
    run.write_bytes("train/metrics.000002.jsonl", (json.dumps(step(5)) + "\n{}\n").encode())
    log.read()
    assert taken == [b"{}"]


@pytest.mark.parametrize(
    "after",
    [
        [[step(1), step(2)], [step(3, loss=9)]],
        [[step(1), step(2)], [step(3), step(4, loss=9)], [step(5)]],
        [[step(1)]],
        [[step(1), step(2)]],
        [],
    ],
)
def test_segments_that_a_resume_cut_are_read_anew(run, after):
    write_segments(run, [step(1), step(2)], [step(3), step(4)], [step(5)])
    log = TrainingLog(run)
    assert steps(log.read()) == [1, 2, 3, 4, 5]
    write_segments(run, *after)
    assert list(log.read().steps) == [line for segment in after for line in segment]


def test_a_long_log_keeps_few_points_its_last_line_and_the_best_validation(run):
    lines = []
    for number in range(1, 10_001):
        lines.append(step(number))
        if number % 10 == 0:
            loss = 0.25 if number == 4_440 else 0.5
            lines.append({"step": number, "seconds": number, "validation_loss": loss})
    write(run, lines)
    view = TrainingLog(run, max_points=100).read()
    assert 80 <= len(view.steps) <= 202
    assert 50 <= len(view.validations) <= 202
    assert view.stride >= 64
    assert view.last["step"] == 10_000
    assert view.best["step"] == 4_440
    assert steps(view) == sorted(steps(view))


def test_the_best_validation_is_by_the_rule_however_long_the_log_is(run):
    lines = [
        {"step": n, "seconds": n, "validation_loss": 2.0, "validation_exact": 0.5}
        for n in range(1, 2_001)
    ]
    lines[700] |= {"validation_loss": 2.5, "validation_exact": 0.75}
    lines[900] |= {"validation_loss": 1.5}
    write(run, lines)
    log = TrainingLog(run, max_points=100)
    assert log.read().best["step"] == 901
    assert log.read(select_by=SelectBy.EXACT).best["step"] == 701
    assert log.read(select_by=SelectBy.LOSS).best["step"] == 901


def test_points_stay_few_while_the_log_grows(run):
    write(run, [])
    log = TrainingLog(run, max_points=100)
    for block in range(30):
        numbers = range(1 + 100 * block, 101 + 100 * block)
        append(run, "".join(json.dumps(step(number)) + "\n" for number in numbers))
        view = log.read()
        assert len(view.steps) <= 202
        assert view.last["step"] == numbers[-1]
    gaps = {b - a for a, b in zip(steps(view)[:-1], steps(view)[1:-1], strict=False)}
    assert gaps == {view.stride}


def test_time_left_of_the_present_attempt(run):
    # 10 steps an epoch; the attempt did steps 20 to 30 in 5 s, and 70 steps are to come.
    write(run, [step(10, seconds=900), step(20, seconds=2), step(30, seconds=7)])
    settings = {"max_epochs": 10, "max_steps": None}
    view = TrainingLog(run).read()
    assert seconds_left(view, train=settings) == pytest.approx(35)
    assert seconds_left(view, train={**settings, "max_steps": 40}) == pytest.approx(5)


def test_many_segments_of_object_storage_are_read_in_order(run, monkeypatch):
    monkeypatch.setattr(RunFolder, "is_local", False)
    Path(run.path("train")).mkdir(parents=True)
    for number in range(40):
        name = f"train/metrics.{number:06d}.jsonl" if number else METRICS_FILE
        text = json.dumps(step(2 * number + 1)) + "\n" + json.dumps(step(2 * number + 2)) + "\n"
        run.write_bytes(name, text.encode())
    log = TrainingLog(run)
    assert steps(log.read()) == list(range(1, 81))
    run.write_bytes("train/metrics.000040.jsonl", (json.dumps(step(81)) + "\n").encode())
    assert log.read().last["step"] == 81
