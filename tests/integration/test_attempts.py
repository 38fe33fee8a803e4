"""A step that fails at each attempt stops the run."""

import pytest

from raycrp.errors import TrainError
from raycrp.run import RunFolder
from raycrp.tracking import METRICS_FILE
from raycrp.train.attempts import ATTEMPTS_FILE, StepGuard
from raycrp.train.restarts import read_restarts
from raycrp.train.trainer import join_single_process_group

pytestmark = pytest.mark.integration


@pytest.fixture
def run(tmp_path):
    join_single_process_group(use_gpu=False)
    return RunFolder(str(tmp_path), "run")


def attempt(run, *, steps):
    """An attempt that goes through these steps and dies in the last."""
    guard = StepGuard(run, rank=0, rows_of=lambda step: [step, 7])
    guard.start()
    for step in steps:
        guard.enter(step)
    return guard


def test_the_same_step_failing_three_times_stops_the_run(run):
    for _ in range(3):
        attempt(run, steps=[5])
    with pytest.raises(TrainError, match=r"step 6 was under way .* failed 3 times.* row_id 5, 7;"):
        attempt(run, steps=[5])


def test_steps_near_a_failed_one_are_noted_each(run):
    attempt(run, steps=[5])
    attempt(run, steps=[3, 4, 5, 6])
    noted = run.read_json(ATTEMPTS_FILE)
    assert (noted["failed"], noted["step"]) == ([5], 6)


def test_failures_at_different_steps_go_on(run):
    for step in range(6):
        attempt(run, steps=[step])
    assert run.read_json(ATTEMPTS_FILE)["failed"] == [0, 1, 2, 3, 4]


def test_finished_training_forgets(run):
    attempt(run, steps=[5]).finish()
    assert not run.exists(ATTEMPTS_FILE)


def test_a_restart_is_recorded_with_what_it_cost(run):
    attempt(run, steps=[7])
    run.write_bytes(METRICS_FILE, b'{"step": 9, "loss": 1.0}\n')
    guard = StepGuard(run, rank=0, world_size=3, rows_of=lambda step: [step])
    guard.begin()
    guard.start(5)
    assert read_restarts(run) == []
    guard.enter(5)
    guard.enter(6)
    (restart,) = read_restarts(run)
    assert (restart.step_reached, restart.step_resumed, restart.steps_lost) == (9, 5, 4)
    assert restart.num_workers == 3
    assert 0 <= restart.seconds < 5


def test_a_restart_with_no_step_left_is_recorded_as_it_ends(run):
    attempt(run, steps=[3, 4])
    guard = StepGuard(run, rank=0, rows_of=lambda step: [step])
    guard.start(5)
    assert read_restarts(run) == []
    guard.finish()
    (restart,) = read_restarts(run)
    assert (restart.step_resumed, restart.steps_lost) == (5, 0)


def test_starts_that_never_come_to_a_step_end_the_run(run):
    for _ in range(10):
        StepGuard(run, rank=0, rows_of=lambda step: [step]).begin()
    with pytest.raises(TrainError, match="started 10 times without coming to a step"):
        StepGuard(run, rank=0, rows_of=lambda step: [step]).begin()


def test_a_step_forgives_the_starts_before_it(run):
    for step in range(15):
        guard = StepGuard(run, rank=0, rows_of=lambda step: [step])
        guard.begin()
        guard.start()
        guard.enter(step)
    assert run.read_json(ATTEMPTS_FILE)["num_starts"] == 0
