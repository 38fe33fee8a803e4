import pytest
import torch

from raycrp.choices import InstructionChoice, Precision
from raycrp.config import TrainConfig
from raycrp.errors import TrainError
from raycrp.train import setup
from raycrp.train.setup import WorkerSettings, agreed_precision
from raycrp.train.trainer import train_model
from raycrp.train.worker import run_worker

V100, A100 = (7, 0), (8, 0)
TRAIN = TrainConfig(use_gpu=True)


@pytest.fixture
def gpus(monkeypatch):
    """A worker with the first of these GPUs, and others with the rest."""

    def put(*capabilities):
        def all_gather_object(found, mine):
            found[:] = [mine, *capabilities[1:]]

        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capabilities[0])
        monkeypatch.setattr(setup.dist, "get_world_size", lambda: len(capabilities))
        monkeypatch.setattr(setup.dist, "all_gather_object", all_gather_object)

    return put


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ((A100, A100), Precision.BF16),
        ((A100, V100), Precision.FP16),
        ((V100, A100), Precision.FP16),
    ],
)
def test_all_workers_train_in_what_the_weakest_gpu_has(gpus, capabilities, expected):
    gpus(*capabilities)
    assert agreed_precision(TRAIN) is expected


def test_a_training_goes_on_in_the_format_of_its_checkpoint(gpus):
    gpus(A100, A100)
    assert agreed_precision(TRAIN, before="fp16") is Precision.FP16
    assert agreed_precision(TRAIN, before="") is Precision.BF16
    gpus(A100, V100)
    with pytest.raises(TrainError, match="began in bf16"):
        agreed_precision(TRAIN, before="bf16")


def test_a_torch_without_kernels_is_refused_before_workers_talk_to_each_other(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: V100)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_80"])
    settings = WorkerSettings(None, TRAIN, InstructionChoice.FIXED, refresh_steps=None, seed=0)
    with pytest.raises(TrainError, match=r"no kernels .* cu126"):
        run_worker(settings, session=None)


def test_a_gpu_that_torch_does_not_see_is_told_in_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    local = TrainConfig(use_gpu=True, launcher="local")
    settings = WorkerSettings(None, local, InstructionChoice.FIXED, refresh_steps=None, seed=0)
    with pytest.raises(TrainError, match=r"torch .* sees no GPU here; .*cu126$"):
        train_model(settings)


def test_compiling_without_a_compiler_says_what_to_install(monkeypatch):
    monkeypatch.setattr(setup.shutil, "which", lambda name: None)
    with pytest.raises(TrainError, match=r"needs a C compiler.*apt-get install g\+\+"):
        setup.check_machine(TrainConfig(compile=True))
