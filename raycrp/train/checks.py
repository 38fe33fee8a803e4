"""What is refused before any worker starts: settings and clusters that cannot work."""

from raycrp.choices import Precision
from raycrp.config import TrainConfig
from raycrp.errors import TrainError
from raycrp.train.batches import batch_shape
from raycrp.train.memory import CPU_TOKEN_BUDGET


def check_settings(train: TrainConfig) -> None:
    """Refuse settings that do not go together.

    Args:
        train: Settings of training.

    Raises:
        TrainError: Naming the settings and what to change.
    """
    batch_shape(
        train.batch_size,
        micro_batch_size=train.micro_batch_size,
        num_workers=(train.min_workers, train.max_workers),
        token_budget=train.token_budget or CPU_TOKEN_BUDGET,
    )
    if train.precision is Precision.FP16 and train.zero_stage == 0:
        raise TrainError("train.precision fp16 needs train.zero_stage 1, 2 or 3, found 0")
    if train.precision is Precision.BF16 and train.use_gpu and train.zero_stage == 0:
        raise TrainError(
            "train.precision bf16 (which auto takes on GPUs that have it) needs train.zero_stage "
            "1, 2 or 3 on a GPU, found 0"
        )
    if train.offload and train.zero_stage == 0:
        raise TrainError("train.offload needs train.zero_stage 1, 2 or 3, found 0")
    if train.compile and train.zero_stage == 3:
        raise TrainError(
            "train.compile needs whole weights in each pass, which train.zero_stage 3 gathers bit "
            "by bit; use stage 0, 1 or 2, or unset compile"
        )
    if train.ema_decay is not None and train.zero_stage == 3:
        raise TrainError(
            "train.ema_decay needs whole weights on each worker, which train.zero_stage 3 does "
            "not keep; use stage 0, 1 or 2, or leave ema_decay unset"
        )


def check_resources(train: TrainConfig) -> None:
    """Refuse to wait for what the cluster will never have, its autoscaler included.

    Args:
        train: Settings of training.

    Raises:
        ClusterError: If the fewest workers asked for can never start.
    """
    from raycrp.ray_session import check_cluster_has

    needed = {"CPU": train.cpus_per_worker * train.min_workers}
    if train.use_gpu:
        needed["GPU"] = train.min_workers
    check_cluster_has(
        needed,
        who="training",
        what=f"{train.min_workers} workers",
        remedy="lower train.num_workers or add nodes",
    )
