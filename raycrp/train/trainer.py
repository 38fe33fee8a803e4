"""Scaling, failure and checkpoint policy: how the workers are started."""

import logging
import os
import time
from collections.abc import Sequence
from typing import Any

import tenacity
import torch

from raycrp import errors
from raycrp.choices import Launcher
from raycrp.config import TrainConfig
from raycrp.errors import RaycrpError, TrainError
from raycrp.mlflow_run import check_mlflow
from raycrp.run import RunFolder
from raycrp.train.checks import check_resources, check_settings
from raycrp.train.ray_folder import tidy_ray_folder
from raycrp.train.session import RAY_DIR, RAY_RUN_NAME, LocalSession, RaySession, Session
from raycrp.train.setup import WorkerSettings, check_gpu
from raycrp.train.storage import wait_for_storage
from raycrp.train.worker import run_worker

FAILURE_FILE = "train/failure.json"
_FAILURES_DIR = "train/failures"
_ALIKE_S = 30.0
_POLL_S = 0.2
_MAX_FITS = 10

logger = logging.getLogger(__name__)


def train_model(settings: WorkerSettings, *, callbacks: Sequence[Any] = ()) -> None:
    """Train LLM-CRP to the end, going on from what an earlier attempt left.

    Args:
        settings: What to train and how.
        callbacks: Ray Train's, which hear of each checkpoint.

    Raises:
        TrainError: If training cannot start or go on.
    """
    check_settings(settings.train)
    if settings.train.mlflow_uri is not None:
        check_mlflow()
    if settings.train.launcher is Launcher.LOCAL:
        _train_in_process(settings)
    else:
        _train_on_ray(settings, callbacks=callbacks)


def _train_in_process(settings: WorkerSettings) -> None:
    from raycrp.train.deepspeed import prepare_process

    check_gpu(settings.train)
    prepare_process(use_gpu=settings.train.use_gpu)
    join_single_process_group(use_gpu=settings.train.use_gpu)
    session = LocalSession(settings.run, num_checkpoints=settings.train.num_checkpoints)
    try:
        run_worker(settings, session=session)
    except torch.OutOfMemoryError as error:
        raise TrainError(
            "the GPU ran out of memory; repeat the command, which goes on with smaller passes"
        ) from error


def _train_on_ray(settings: WorkerSettings, *, callbacks: Sequence[Any]) -> None:
    from ray.train import TrainingFailedError

    check_resources(settings.train)
    for leftover in (FAILURE_FILE, _FAILURES_DIR):
        settings.run.delete(leftover)
    try:
        fit_despite_failures(settings, callbacks=callbacks)
    except TrainingFailedError as error:
        if not settings.run.exists(FAILURE_FILE):
            failure = getattr(error, "controller_failure", None)
            if isinstance(failure, TrainError):
                raise failure from error
            raise TrainError(f"training failed: {_first_lines(error)}") from error
    if settings.run.exists(FAILURE_FILE):
        failure = settings.run.read_json(FAILURE_FILE)
        raise getattr(errors, failure["type"], TrainError)(failure["message"])


def fit_despite_failures(
    settings: WorkerSettings, *, callbacks: Sequence[Any] = (), longest_wait_s: float = 15.0
) -> None:
    """Fit with Ray Train, anew where its controller gave up over what passes by itself.

    It writes which checkpoints there are, and does not try that twice where storage fails; nor
    does it start workers again where a node went while they were being connected.

    Args:
        settings: What to train and how.
        callbacks: Ray Train's.
        longest_wait_s: Seconds between attempts at most.

    Raises:
        ray.train.TrainingFailedError: If training fails otherwise, or so again and again.
        OSError: If storage does not come back.
    """

    def fit() -> None:
        """One attempt, from the newest checkpoint that is whole."""
        wait_for_storage(settings.run, source=settings.source, rank=0)
        tidy_ray_folder(settings.run, num_checkpoints=settings.train.num_checkpoints)
        _make_trainer(settings, callbacks=callbacks).fit()

    tenacity.Retrying(
        retry=tenacity.retry_if_exception(_may_pass),
        wait=tenacity.wait_exponential(max=longest_wait_s),
        stop=tenacity.stop_after_attempt(_MAX_FITS),
        before_sleep=_say_failed,
        reraise=True,
    )(fit)


def _may_pass(error: BaseException) -> bool:
    from ray.exceptions import RayActorError
    from ray.train import ControllerError
    from torch.distributed import DistNetworkError, DistStoreError

    passing = (OSError, RayActorError, DistNetworkError, DistStoreError)
    return isinstance(error, ControllerError) and isinstance(error.controller_failure, passing)


def _say_failed(state: tenacity.RetryCallState) -> None:
    error: Any = state.outcome.exception() if state.outcome else None
    what = "storage" if isinstance(error.controller_failure, OSError) else "a worker"
    logger.warning("%s failed under Ray's controller, which starts anew: %s", what, error)


def _make_trainer(settings: WorkerSettings, *, callbacks: Sequence[Any]) -> Any:
    import ray.train
    from ray.train.torch import TorchTrainer

    from raycrp.train.backend import CheckedTorchConfig

    train = settings.train
    return TorchTrainer(
        _ray_worker,
        train_loop_config={"settings": settings},
        scaling_config=ray.train.ScalingConfig(**_scaling(train)),
        torch_config=CheckedTorchConfig(backend="nccl" if train.use_gpu else "gloo", train=train),
        run_config=ray.train.RunConfig(**_policies(settings), callbacks=list(callbacks)),
    )


def _scaling(train: TrainConfig) -> dict[str, Any]:
    resources = {"CPU": train.cpus_per_worker, **({"GPU": 1.0} if train.use_gpu else {})}
    return {
        "num_workers": train.num_workers,
        "use_gpu": train.use_gpu,
        "resources_per_worker": resources,
        "elastic_resize_monitor_interval_s": train.resize_interval_s,
    }


def _policies(settings: WorkerSettings) -> dict[str, Any]:
    import ray.train

    train = settings.train
    return {
        "name": RAY_RUN_NAME,
        "storage_path": settings.run.uri(RAY_DIR),
        "failure_config": ray.train.FailureConfig(max_failures=train.max_failures),
        "checkpoint_config": ray.train.CheckpointConfig(num_to_keep=train.num_checkpoints),
        "logging_config": ray.train.LoggingConfig(log_level="WARNING"),
    }


def _ray_worker(config: dict[str, Any]) -> None:
    from raycrp.train.deepspeed import prepare_process

    settings: WorkerSettings = config["settings"]
    if settings.run.exists(FAILURE_FILE):
        return
    _show_our_log_lines()
    prepare_process(use_gpu=settings.train.use_gpu)
    session = RaySession(settings.run)
    try:
        run_worker(settings, session=session)
    except RaycrpError as error:
        leave_failure(settings.run, session=session, error=error)


def leave_failure(
    run: RunFolder, *, session: Session, error: RaycrpError, patience_s: float = _ALIKE_S
) -> None:
    """Leave an error for the driver, which raises it: trying again would end the same way.

    Where all workers fail alike, Ray sees no failure. Where one fails alone, the others wait for
    it in a collective, so Ray has to end them; started anew, they find the error and return.

    Args:
        run: The run folder.
        session: The launcher.
        error: What this worker failed with.
        patience_s: Seconds to wait for the other workers' failures.

    Raises:
        RaycrpError: The error itself, if others do not fail.
    """
    failure = {"type": type(error).__name__, "message": str(error)}
    run.write_json(f"{_FAILURES_DIR}/{session.rank:05d}.json", failure)
    deadline = time.monotonic() + patience_s
    while len(run.list_names(_FAILURES_DIR)) < session.world_size:
        if time.monotonic() >= deadline:
            run.write_json(FAILURE_FILE, failure)
            raise error
        time.sleep(_POLL_S)
    if session.rank == 0:
        run.write_json(FAILURE_FILE, failure)


def _show_our_log_lines() -> None:
    # Ray sends a worker's output to the driver; only our own lines are for people.
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    for name in list(logging.root.manager.loggerDict):
        if "/ray/train/" in name:  # Some of Ray's loggers have their file's name.
            logging.getLogger(name).setLevel(logging.WARNING)
    ours = logging.getLogger("raycrp")
    if not ours.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        ours.addHandler(handler)
        ours.setLevel(logging.INFO)
        ours.propagate = False


def join_single_process_group(*, use_gpu: bool) -> None:
    """Make this process the only one of a process group, which lasts as long as the process.

    DeepSpeed keeps the groups that it has seen, so a second training here needs the same one.

    Args:
        use_gpu: Whether this process trains on a GPU.
    """
    import torch.distributed as dist
    from torch._C._distributed_c10d import HashStore

    if dist.is_initialized():
        return
    os.environ.update({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"})
    dist.init_process_group("nccl" if use_gpu else "gloo", store=HashStore(), rank=0, world_size=1)


def _first_lines(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " | ".join([*lines[:1], *lines[-1:]]) if lines else type(error).__name__
