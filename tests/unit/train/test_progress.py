from dataclasses import replace

import pytest

from raycrp.choices import SelectBy
from raycrp.errors import DivergedError
from raycrp.train.checkpoint import Progress, next_progress

NAN, INF = float("nan"), float("inf")


def run(losses, *, exact=None, select_by=SelectBy.LOSS, patience=2, num_steps=1_000):
    progress = Progress()
    exact = exact or [0.0] * len(losses)
    for number, (loss, share) in enumerate(zip(losses, exact, strict=True), start=1):
        progress = replace(progress, step=10 * number, owes_validation=True)
        progress = next_progress(
            progress,
            metrics={"validation_loss": loss, "validation_exact": share},
            select_by=select_by,
            num_steps=num_steps,
            patience=patience,
        )
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
    assert not progress.owes_validation


def test_training_stops_at_the_last_step():
    progress = run([3.0, 2.0, 1.0], num_steps=20)
    assert (progress.step, progress.stop_reason) == (20, "all steps done")


def test_a_loss_that_rises_under_better_answers_is_no_reason_to_stop_by_exact_match():
    losses, exact = [3.0, 2.0, 2.5, 2.6, 2.7], [0.0, 0.1, 0.2, 0.25, 0.3]
    by_exact = run(losses, exact=exact, select_by=SelectBy.EXACT)
    assert (by_exact.best_step, by_exact.best_loss, by_exact.best_exact) == (50, 2.7, 0.3)
    assert by_exact.stop_reason == ""
    by_loss = run(losses, exact=exact)
    assert (by_loss.step, by_loss.best_step, by_loss.best_exact) == (40, 20, 0.1)


def test_by_exact_match_a_lower_loss_at_fewer_answers_is_worse():
    progress = run([3.0, 1.0, 0.5, 0.1], exact=[0.5, 0.4, 0.499, 0.9], select_by=SelectBy.EXACT)
    assert (progress.step, progress.best_step) == (30, 10)
    assert "no higher validation exact match" in progress.stop_reason


def test_equal_exact_matches_are_told_apart_by_their_losses():
    progress = run([3.0, 2.0, 1.9, 1.8, 1.85, 1.8], exact=[0.0] * 6, select_by=SelectBy.EXACT)
    assert (progress.step, progress.best_step, progress.best_loss) == (60, 40, 1.8)


@pytest.mark.parametrize("select_by", SelectBy)
@pytest.mark.parametrize("loss", [NAN, INF])
def test_a_loss_that_is_no_number_is_never_the_best(loss, select_by):
    progress = run([2.0, loss, loss], exact=[0.1, 1.0, 1.0], select_by=select_by)
    assert (progress.best_step, progress.best_loss, progress.best_exact) == (10, 2.0, 0.1)
    assert progress.stop_reason


@pytest.mark.parametrize("select_by", SelectBy)
def test_a_first_loss_that_is_no_number_ends_training(select_by):
    with pytest.raises(DivergedError, match=r"the loss is nan at step 10; lower train\.learning"):
        run([NAN, 2.0], select_by=select_by)


@pytest.mark.parametrize("select_by", SelectBy)
def test_progress_of_an_older_checkpoint_is_gone_on_with(select_by):
    noted = {"step": 10, "best_loss": 2.0, "best_step": 10, "num_worse": 0, "stop_reason": ""}
    progress = next_progress(
        replace(Progress(**noted), step=20),
        metrics={"validation_loss": 1.5, "validation_exact": 0.0},
        select_by=select_by,
        num_steps=100,
        patience=2,
    )
    assert (progress.best_step, progress.best_loss) == (20, 1.5)
