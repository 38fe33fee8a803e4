"""When checkpoints are due; one process stands for all workers."""

from itertools import pairwise

import pytest
import torch

from raycrp.train import due as due_module
from raycrp.train.due import Due, SaveClock
from raycrp.train.trainer import join_single_process_group

pytestmark = pytest.mark.integration


class FakeSession:
    left = None

    def seconds_left(self):
        return self.left


@pytest.fixture
def time_now(monkeypatch):
    """A clock that tests move."""

    class Clock:
        now = 1_000.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(due_module, "time", clock)
    return clock


@pytest.fixture
def make_clock(time_now):
    join_single_process_group(use_gpu=False)

    def make(*, every_steps=None, every_s=None):
        session = FakeSession()
        device = torch.device("cpu")
        clock = SaveClock(session, every_steps=every_steps, every_s=every_s, device=device)
        return clock, session

    return make


def walk(clock, time_now, *, steps, step_s=1.0, start=0):
    """What is due after each of these steps, for those where something is."""
    found = {}
    for step in range(start + 1, start + steps + 1):
        time_now.now += step_s
        due = clock.due(step)
        if due.saves:
            clock.note_saved(seconds=0.0)
            found[step] = due
    return found


def test_checkpoints_by_steps(make_clock, time_now):
    clock, _ = make_clock(every_steps=4)
    assert list(walk(clock, time_now, steps=10)) == [4, 8]


def test_checkpoints_by_time_come_within_a_look(make_clock, time_now):
    clock, _ = make_clock(every_s=10)
    steps = list(walk(clock, time_now, steps=30))
    assert len(steps) in (2, 3)
    assert all(10 <= later - earlier <= 13 for earlier, later in pairwise([0, *steps]))


def test_a_notice_is_answered_at_once_and_again_before_the_end(make_clock, time_now):
    clock, session = make_clock()
    found = {}
    for step in range(1, 41):
        session.left = None if step < 10 else 60.0 - (step - 10)
        found |= walk(clock, time_now, steps=1, start=step - 1)
    first, *rest = found.items()
    assert first[0] in (10, 11, 12)
    assert first[1] == Due(saves=True, is_notice=True)
    assert rest == []
    for step in range(41, 71):
        session.left = 60.0 - (step - 10)
        found |= walk(clock, time_now, steps=1, start=step - 1)
    (_, last) = list(found.items())[1:][0]
    assert len(found) == 2
    assert last.is_notice
    # The node has some ten seconds left; the workers wait for a minute longer than that.
    assert 60 < last.waits_s < 75


def test_a_notice_with_little_time_waits_at_once(make_clock, time_now):
    clock, session = make_clock()
    session.left = 5.0
    due = clock.due(1)
    assert (due.saves, due.is_notice) == (True, True)
    assert due.waits_s == 65.0
