import json
import time

import pyarrow as pa
import pytest

from raycrp.board.snapshot import CARDS_FILE, ROUNDS_FILE, Follower, RunReader
from raycrp.board.sweep import TrialState
from raycrp.config import Config, dump_yaml
from raycrp.errors import RunError
from raycrp.run import RunFolder


@pytest.fixture
def run(tmp_path):
    run = RunFolder(str(tmp_path), "demo")
    config = Config.model_validate(
        {
            "data": {"tasks": ["forward"]},
            "elicit": {"encodings": ["concat"], "num_clusters": [4, 6]},
        }
    )
    run.write_bytes("config.yaml", dump_yaml(config).encode())
    return run


def round_line(count, accuracy, **more):
    return {
        "trial_id": f"forward-concat-n{count}",
        "task": "forward",
        "encoding": "concat",
        "num_clusters": count,
        "is_probe": False,
        "round": 0,
        "accuracy": accuracy,
        "majority_rate": 0.25,
        "kappa": 0.5,
        "information_bits": 1.0,
        **more,
    }


def write_rounds(run, *lines, rest=""):
    run.write_bytes(ROUNDS_FILE, ("".join(json.dumps(x) + "\n" for x in lines) + rest).encode())


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"no run at .*/none"):
        RunReader(RunFolder(str(tmp_path), "none"))


def test_an_empty_folder_is_shown_as_one(tmp_path):
    (tmp_path / "demo").mkdir()
    snapshot = RunReader(RunFolder(str(tmp_path), "demo")).read()
    assert (snapshot.settings, snapshot.sweep.trials, snapshot.problems) == ({}, (), ())


def test_a_line_on_its_way_is_left_out(run):
    write_rounds(run, round_line(4, 0.8), rest='{"trial_id": "forward-concat-n6", "accu')
    snapshot = RunReader(run).read()
    assert [trial.best is not None for trial in snapshot.sweep.trials] == [True, False]
    assert snapshot.problems == ()


@pytest.mark.parametrize("relative", [CARDS_FILE, "config.yaml"])
def test_what_was_read_before_stands_while_a_file_is_half_written(run, relative):
    run.write_table(CARDS_FILE, pa.table({"task": ["forward"], "reaction_type": [0]}))
    reader = RunReader(run)
    before = reader.read()
    assert len(before.cards) == 1
    whole = run.read_bytes(relative)
    run.write_bytes(relative, whole[: len(whole) // 2] + b"\n: [")
    during = reader.read()
    assert during.problems == (relative,)
    assert (during.cards, during.settings) == (before.cards, before.settings)
    run.write_bytes(relative, whole)
    assert reader.read() == before


def test_a_marker_cut_short_is_a_stage_under_way(run):
    run.write_json("elicit/_STARTED.json", {})
    run.write_bytes("elicit/_SUCCESS.json", b'{"digest": "x", "summ')
    views = {view.stage.value: view.state for view in RunReader(run).read().stages}
    assert views["elicit"] == "under way"


def test_rounds_that_a_killed_driver_did_not_write_come_from_the_done_files(run):
    write_rounds(run, round_line(4, 0.8))
    record = {**round_line(6, 0.7), "rounds": [round_line(6, 0.7)]}
    run.write_json("elicit/tune/done/forward-concat-n6.json", record)
    trial = RunReader(run).read().sweep.trials[1]
    assert (trial.state, trial.best["accuracy"]) == (TrialState.DONE, 0.7)


def test_the_newest_attempt_says_what_has_started(run):
    for attempt, trial in ((0, 4), (1, 6)):
        folder = f"elicit/tune/ray/attempt-{attempt:03d}/forward-concat-n{trial}"
        run.write_bytes(f"{folder}/params.json", b"{}")
    states = [trial.state for trial in RunReader(run).read().sweep.trials]
    assert states == [TrialState.WAITING, TrialState.RUNNING]


def test_the_version_grows_only_when_something_has_changed(run):
    follower = Follower(RunReader(run), interval_s=0.01)
    follower.start()
    try:
        time.sleep(0.1)
        assert follower.latest()[0] == 0
        write_rounds(run, round_line(4, 0.8))
        deadline = time.monotonic() + 5
        while follower.latest()[0] == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert follower.latest()[1].sweep.choices["forward"].trial.num_clusters == 4
    finally:
        follower.stop()
