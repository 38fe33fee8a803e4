"""Training that asks for a GPU which torch does not see."""

import pytest
import ray
import torch
from run_folders import make_config, write_prompted_run

from raycrp.choices import InstructionChoice
from raycrp.errors import TrainError
from raycrp.train.setup import WorkerSettings
from raycrp.train.trainer import train_model

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
]


def test_what_to_install_is_said_where_ray_cannot_connect_its_workers(tmp_path):
    config = make_config(tmp_path, train={"num_workers": 1, "use_gpu": True, "max_steps": 2})
    settings = WorkerSettings(
        run=write_prompted_run(config, num_train=8, num_validation=2),
        train=config.train,
        instruction=InstructionChoice.FIXED,
        refresh_steps=None,
        seed=0,
    )
    ray.init(num_cpus=2, num_gpus=1, include_dashboard=False, logging_level="ERROR")
    try:
        with pytest.raises(TrainError, match=r"^train\.use_gpu is true, but torch .* sees no GPU"):
            train_model(settings)
    finally:
        ray.shutdown()
