"""What is refused before any worker starts: settings and clusters that cannot work."""

from raycrp.choices import Precision
from raycrp.config import TrainConfig
from raycrp.errors import ClusterError, TrainError
from raycrp.train.batches import batch_shape


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
        token_budget=train.token_budget,
    )
    if train.precision is Precision.FP16 and train.zero_stage == 0:
        raise TrainError("train.precision fp16 needs train.zero_stage 1, 2 or 3, found 0")
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
    import ray
    from ray._private.state import state

    now = ray.cluster_resources()
    # None where there is no autoscaler, or one that does not say what it may add.
    later = state.get_max_resources_from_cluster_config() or {}
    needed = {"CPU": train.cpus_per_worker * train.min_workers}
    if train.use_gpu:
        needed["GPU"] = train.min_workers
    for kind, amount in needed.items():
        most = max(now.get(kind, 0), later.get(kind, 0))
        if amount > most:
            scaled = f" and may grow to {later[kind]:g}" if later.get(kind) else ""
            raise ClusterError(
                f"training asks for {amount:g} {kind} ({train.min_workers} workers), the cluster "
                f"has {now.get(kind, 0):g}{scaled}; lower train.num_workers or add nodes"
            )
