import threading
from types import SimpleNamespace

import pytest
from ray.exceptions import ActorDiedError, RayTaskError
from ray.train import ControllerError, TrainingFailedError
from torch.distributed import DistNetworkError

from raycrp.errors import TrainError
from raycrp.run import RunFolder
from raycrp.train import trainer
from raycrp.train.trainer import FAILURE_FILE, fit_despite_failures, leave_failure

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


@pytest.fixture
def fit(run, monkeypatch):
    """Fits that end with the given errors, one after the other, and then well; counts them."""

    def start(*ends):
        ends, fits = list(ends), []

        def one_fit():
            fits.append(None)
            if ends:
                raise ends.pop(0)

        monkeypatch.setattr(trainer, "_make_trainer", lambda *_, **__: SimpleNamespace(fit=one_fit))
        monkeypatch.setattr(trainer, "wait_for_storage", lambda *_, **__: None)
        train = SimpleNamespace(num_checkpoints=1)
        fit_despite_failures(SimpleNamespace(run=run, source=run, train=train), longest_wait_s=0)
        return len(fits)

    return start


def test_storage_that_fails_under_rays_controller_is_tried_again(fit):
    gone = ControllerError(OSError("not a directory"))
    assert fit(gone, gone) == 3


@pytest.mark.parametrize(
    "error",
    [
        ActorDiedError(),
        RayTaskError("init", "traceback", DistNetworkError("reset")).as_instanceof_cause(),
    ],
)
def test_a_node_that_goes_while_workers_are_connected_ends_nothing(fit, error):
    assert fit(ControllerError(error)) == 2


@pytest.mark.parametrize(
    "error", [ControllerError(ValueError("no such policy")), TrainingFailedError("worker died")]
)
def test_other_failures_end_training_at_once(fit, error):
    with pytest.raises(TrainingFailedError):
        fit(error, error)


def test_storage_that_fails_again_and_again_ends_training(fit):
    with pytest.raises(ControllerError, match="not a directory"):
        fit(*[ControllerError(OSError("not a directory"))] * 20)
