"""Over 50 steps: ZeRO stages and numbers of workers agree, and a resume may change the number."""

import shutil
from pathlib import Path

import pytest
from run_folders import make_config, write_prompted_run

from raycrp.choices import InstructionChoice
from raycrp.run import RunFolder
from raycrp.tracking import read_metrics
from raycrp.train.checkpoint import stored_checkpoints
from raycrp.train.session import CHECKPOINT_FOLDERS
from raycrp.train.setup import WorkerSettings
from raycrp.train.trainer import train_model
from raycrp.train.trials import RESULT_FILE

pytestmark = [pytest.mark.integration, pytest.mark.slow]

NUM_STEPS = 50
TRAIN = {
    "num_workers": 2,
    "batch_size": 16,
    "micro_batch_size": 8,
    "max_steps": NUM_STEPS,
    "eval_every_steps": 25,
    "log_every_steps": 1,
    "learning_rate": 3e-4,
    "num_checkpoints": 5,
}


@pytest.fixture(scope="module")
def prompted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    write_prompted_run(make_config(folder), num_train=60, num_validation=6)
    return Path(folder) / "test"


def make_settings(folder, **train):
    return WorkerSettings(
        run=RunFolder(str(folder.parent), folder.name),
        train=make_config(folder.parent, train=TRAIN | train).train,
        instruction=InstructionChoice.ADAPTIVE,
        refresh_steps=5,
        seed=0,
    )


@pytest.fixture(scope="module")
def train_once(prompted, local_ray, tmp_path_factory):
    """The run folder of a whole training; each kind is trained once."""
    done = {}

    def train(*, launcher, zero_stage):
        key = (launcher, zero_stage)
        if key not in done:
            folder = tmp_path_factory.mktemp("whole") / f"{launcher}-{zero_stage}"
            shutil.copytree(prompted, folder)
            train_model(make_settings(folder, launcher=launcher, zero_stage=zero_stage))
            done[key] = folder
        return done[key]

    return train


def losses(folder):
    lines = read_metrics(RunFolder(str(folder.parent), folder.name))
    return {
        (line["step"], name): line[name]
        for line in lines
        for name in ("loss", "validation_loss")
        if name in line
    }


def assert_same_losses(folder, expected, *, tolerance):
    found = losses(folder)
    assert found.keys() == expected.keys()
    assert len([key for key in found if key[1] == "loss"]) == NUM_STEPS
    assert max(abs(found[key] - expected[key]) for key in expected) <= tolerance


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_two_workers_train_like_one_process(train_once, zero_stage):
    one = losses(train_once(launcher="local", zero_stage=2))
    assert_same_losses(train_once(launcher="ray", zero_stage=zero_stage), one, tolerance=1e-4)


@pytest.mark.parametrize("zero_stage", [1, 2, 3])
@pytest.mark.parametrize(("before", "after"), [("ray", "local"), ("local", "ray")])
def test_training_goes_on_at_another_size(train_once, tmp_path, zero_stage, before, after):
    whole = train_once(launcher=before, zero_stage=zero_stage)
    shutil.copytree(whole, tmp_path / "run")
    settings = make_settings(tmp_path / "run", launcher=after, zero_stage=zero_stage)
    newest, older = stored_checkpoints(settings.run, folders=CHECKPOINT_FOLDERS)
    shutil.rmtree(newest.path)
    assert older.path.startswith(str(tmp_path))
    settings.run.delete(RESULT_FILE)
    train_model(settings)
    lines = read_metrics(settings.run)
    workers = [line["workers"] for line in lines if "workers" in line]
    sizes = {"ray": 2, "local": 1}
    assert workers == [sizes[before]] * 25 + [sizes[after]] * 25
    assert_same_losses(tmp_path / "run", losses(whole), tolerance=1e-4)
