from types import SimpleNamespace

import pytest
from ray import tune

from raycrp.errors import ElicitError
from raycrp.ray_tune import run_trials
from raycrp.run import RunFolder


@pytest.fixture
def run_two(tmp_path, monkeypatch):
    """Two trials of which so many have ended when Ray Tune returns."""

    def run(*, num_terminated, errors=()):
        results = SimpleNamespace(errors=list(errors), num_terminated=num_terminated)
        monkeypatch.setattr(tune, "Tuner", lambda *_, **__: SimpleNamespace(fit=lambda: results))
        run_trials(
            lambda config: None,
            points=["a", "b"],
            name_of=str,
            resources={"cpu": 1},
            tune_config=tune.TuneConfig(),
            callback=tune.Callback(),
            run=RunFolder(str(tmp_path), "run"),
            folder="tune",
            error=ElicitError,
        )

    return run


def test_an_interrupted_sweep_is_not_taken_for_a_finished_one(run_two):
    run_two(num_terminated=2)
    with pytest.raises(KeyboardInterrupt):
        run_two(num_terminated=1)


def test_a_failed_trial_is_named_before_what_did_not_run(run_two):
    with pytest.raises(ElicitError, match="1 of 2 trials failed, the first with: no memory"):
        run_two(num_terminated=0, errors=[RuntimeError("trial a\nno memory")])
