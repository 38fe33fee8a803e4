import threading
from types import SimpleNamespace

import pytest

from raycrp.errors import TrainError
from raycrp.run import RunFolder
from raycrp.train import trainer
from raycrp.train.trainer import FAILURE_FILE, leave_failure

ERROR = TrainError("this torch has no kernels")
FAILURE = {"type": "TrainError", "message": "this torch has no kernels"}


@pytest.fixture
def run(tmp_path):
    return RunFolder(str(tmp_path), "run")


def leave(run, *, rank, patience_s):
    session = SimpleNamespace(rank=rank, world_size=2)
    leave_failure(run, session=session, error=ERROR, patience_s=patience_s)


def test_workers_that_fail_alike_end_without_a_failure(run):
    other = threading.Thread(target=leave, args=(run,), kwargs={"rank": 1, "patience_s": 20})
    other.start()
    leave(run, rank=0, patience_s=20)
    other.join(timeout=20)
    assert not other.is_alive()
    assert run.read_json(FAILURE_FILE) == FAILURE


@pytest.mark.parametrize("rank", [0, 1])
def test_a_worker_that_fails_alone_does_not_leave_the_others_waiting(run, rank):
    with pytest.raises(TrainError, match="no kernels"):
        leave(run, rank=rank, patience_s=0)
    assert run.read_json(FAILURE_FILE) == FAILURE


def test_a_worker_started_after_a_failure_returns_at_once(run, monkeypatch):
    def refuse(_):
        raise AssertionError

    monkeypatch.setattr(trainer, "RaySession", refuse)
    run.write_json(FAILURE_FILE, FAILURE)
    trainer._ray_worker({"settings": SimpleNamespace(run=run)})
