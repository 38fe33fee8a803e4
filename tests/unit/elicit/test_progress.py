import json
from types import SimpleNamespace

import pytest

from raycrp import prometheus
from raycrp.choices import Encoding, SelectionRule, Task
from raycrp.elicit import progress
from raycrp.elicit.progress import ROUNDS, SweepBoard
from raycrp.elicit.select import Selection
from raycrp.elicit.trial import Trial, describe_trial
from raycrp.errors import ElicitError
from raycrp.run import RunFolder

TRIALS = [Trial(Task.FORWARD, encoding, 3) for encoding in (Encoding.CONCAT, Encoding.OUTPUT)]
FIGURES = {
    "accuracy": 0.8,
    "accuracy_low": 0.7,
    "accuracy_high": 0.9,
    "kappa": 0.6,
    "information_bits": 1.5,
    "effective_types": 2.5,
    "seconds": 4.0,
}


@pytest.fixture
def run(tmp_path):
    return RunFolder(str(tmp_path), "run")


@pytest.fixture
def shown(monkeypatch):
    """Metrics as they are set, with their checks, and no Ray."""
    values = {}

    def keep(name, value, **tags):
        assert set(tags) == set(prometheus.METRICS[name].tag_keys)
        values[name, *sorted(tags.values())] = value

    monkeypatch.setattr(prometheus, "set_gauge", keep)
    monkeypatch.setattr(progress, "set_gauge", keep)
    monkeypatch.setattr(progress, "observe", keep)
    return values


def make_board(run):
    return SweepBoard(TRIALS, run=run, selection=Selection(SelectionRule.ACCURACY), fingerprint="f")


def write_done(run, trial, **changes):
    rounds = [{"round": 0, **FIGURES}]
    record = {**describe_trial(trial), **FIGURES, "rounds": rounds, "fingerprint": "f", **changes}
    run.write_json(trial.done_path, record)


class TuneTrial(SimpleNamespace):
    def __str__(self):
        return self.name


def counts(shown):
    return {
        state: shown["raycrp_trials", *sorted(("run", state))]
        for state in ("waiting", "running", "failed", "done")
    }


def test_a_trial_is_counted_from_start_to_end(run, shown):
    board = make_board(run)
    trial = TuneTrial(name=TRIALS[0].trial_id)
    assert counts(shown) == {"waiting": 2, "running": 0, "failed": 0, "done": 0}
    board.on_trial_start(0, [], trial)
    assert counts(shown) == {"waiting": 1, "running": 1, "failed": 0, "done": 0}
    board.on_trial_result(0, [], trial, {"round": 0, **FIGURES})
    tags = sorted(("run", "forward", "concat", "3"))
    assert shown["raycrp_trial_accuracy", *tags] == 0.8
    assert shown["raycrp_trial_information_bits", *tags] == 1.5
    write_done(run, TRIALS[0])
    board.on_trial_complete(0, [], trial)
    assert counts(shown) == {"waiting": 1, "running": 0, "failed": 0, "done": 1}
    assert shown["raycrp_trial_seconds", "run"] == 4.0


def test_a_trial_that_fails_is_counted_as_failed_until_it_starts_again(run, shown):
    board = make_board(run)
    trial = TuneTrial(name=TRIALS[0].trial_id)
    board.on_trial_start(0, [], trial)
    board.on_trial_error(0, [], trial)
    assert counts(shown) == {"waiting": 1, "running": 0, "failed": 1, "done": 0}
    board.on_trial_start(0, [], trial)
    assert counts(shown) == {"waiting": 1, "running": 1, "failed": 0, "done": 0}


def test_rounds_of_running_and_finished_trials_are_written(run):
    write_done(run, TRIALS[0])
    board = make_board(run)
    assert board.missing_trials() == [TRIALS[1]]
    board.on_trial_result(0, [], TuneTrial(name=TRIALS[1].trial_id), {"round": 0, **FIGURES})
    lines = [json.loads(line) for line in run.read_bytes(ROUNDS).splitlines()]
    assert [line["trial_id"] for line in lines] == [trial.trial_id for trial in TRIALS]


def test_a_trial_that_starts_again_has_each_round_once(run, monkeypatch):
    monkeypatch.setattr(progress, "_WRITE_INTERVAL_S", -1)
    board = make_board(run)
    trial = TuneTrial(name=TRIALS[0].trial_id)
    for number in (0, 1, 0, 1):
        board.on_trial_result(0, [], trial, {"round": number, **FIGURES})
    lines = [json.loads(line) for line in run.read_bytes(ROUNDS).splitlines()]
    assert [line["round"] for line in lines] == [0, 1]


def test_a_trial_of_other_settings_is_refused_in_one_line(run):
    write_done(run, TRIALS[0], fingerprint="other")
    with pytest.raises(ElicitError, match="other settings or data") as caught:
        make_board(run)
    assert "\n" not in str(caught.value)
