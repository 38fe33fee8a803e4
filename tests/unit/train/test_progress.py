import pytest

from raycrp.errors import DivergedError
from raycrp.train.checkpoint import Progress, next_progress


def run(losses, *, patience=2, num_steps=1_000):
    progress = Progress()
    for number, loss in enumerate(losses, start=1):
        progress = Progress(**{**vars(progress), "step": 10 * number})
        progress = next_progress(progress, loss=loss, num_steps=num_steps, patience=patience)
        if progress.stop_reason:
            break
    return progress


def test_training_stops_when_patience_runs_out():
    progress = run([3.0, 2.0, 2.5, 2.0, 1.0])
    assert progress.step == 40
    assert (progress.best_step, progress.best_loss) == (20, 2.0)
    assert progress.stop_reason == "no lower validation loss in 2 validations"


def test_a_lower_loss_restores_patience():
    progress = run([3.0, 3.5, 2.0, 2.5, 1.0])
    assert (progress.step, progress.best_step, progress.stop_reason) == (50, 50, "")


def test_training_stops_at_the_last_step():
    progress = run([3.0, 2.0, 1.0], num_steps=20)
    assert (progress.step, progress.stop_reason) == (20, "all steps done")


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_never_the_best(loss):
    progress = run([2.0, loss, loss])
    assert progress.best_step == 10
    assert progress.stop_reason


def test_a_first_loss_that_is_no_number_ends_training():
    with pytest.raises(DivergedError, match=r"the loss is nan at step 10; lower train\.learning"):
        run([float("nan"), 2.0])
