"""How Ray connects the training workers, once each one's GPU is known to be of use."""

from dataclasses import dataclass
from typing import Any

from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend

from raycrp.config import TrainConfig
from raycrp.errors import TrainError
from raycrp.train.setup import check_gpu


@dataclass
class CheckedTorchConfig(TorchConfig):
    """Ray's configuration of torch, with a look at the GPUs before workers are connected.

    A torch without CUDA, or without the driver that it needs, fails in Ray's own set-up, before
    the training function could say what to install.

    Args:
        train: Settings of training.
    """

    train: TrainConfig | None = None

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        """What connects the workers."""
        return _CheckedBackend


class _CheckedBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        """Look at each worker's GPU, then connect them."""
        problems = worker_group.execute(gpu_problem, backend_config.train)
        if any(problems):
            raise TrainError(max(problems))
        super().on_start(worker_group, backend_config)


def gpu_problem(train: TrainConfig) -> str:
    """What is wrong with this worker's GPU, with the remedy; empty where nothing is.

    Args:
        train: Settings of training.
    """
    try:
        check_gpu(train)
    except TrainError as error:
        return str(error)
    return ""
