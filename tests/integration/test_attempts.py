"""A step that fails at each attempt stops the run."""

import pytest

from raycrp.errors import TrainError
from raycrp.run import RunFolder
from raycrp.train.attempts import ATTEMPTS_FILE, StepGuard
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
    assert run.read_json(ATTEMPTS_FILE) == {"failed": [5], "step": 6}


def test_failures_at_different_steps_go_on(run):
    for step in range(6):
        attempt(run, steps=[step])
    assert run.read_json(ATTEMPTS_FILE)["failed"] == [0, 1, 2, 3, 4]


def test_finished_training_forgets(run):
    attempt(run, steps=[5]).finish()
    assert not run.exists(ATTEMPTS_FILE)
