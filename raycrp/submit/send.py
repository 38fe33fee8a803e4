"""A run or another command sent to a cluster, once what it needs has been checked."""

import secrets
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from raycrp.config import Config, load_config
from raycrp.errors import ClusterError, ConfigError
from raycrp.plan import Stage
from raycrp.submit.client import connect_to_jobs, job_address
from raycrp.submit.job import ENDED, POLL_S, Echo, Outcome, job_outcome, run_job, send_job
from raycrp.submit.working_tree import EXCLUDES, MAX_BYTES, check_size, files_to_send

STORAGE_CHECK_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class SubmitOptions:
    """How a job is sent and followed.

    Args:
        address: URL of the job server; Ray's own variables, then this machine, if None.
        working_dir: The working tree that goes along.
        waits: Whether to follow the job until it ends.
        max_restarts: Times the same command is sent again after its driver was lost.
        checks_storage: Whether all nodes first try to write to the storage.
        max_bytes: Largest working tree that is sent.
    """

    address: str | None = None
    working_dir: Path = field(default_factory=Path)
    waits: bool = True
    max_restarts: int = 3
    checks_storage: bool = True
    max_bytes: int = MAX_BYTES


def submit_run(
    paths: Sequence[str],
    overrides: Sequence[str],
    *,
    options: SubmitOptions,
    echo: Echo,
    until: Stage | None = None,
) -> Outcome:
    """Send ``raycrp run`` to a cluster.

    Args:
        paths: YAML files inside the working tree.
        overrides: ``section.key=value`` settings.
        until: The last stage wanted; all if None.
        options: How it is sent and followed.
        echo: Shows lines to the user.

    Returns:
        How the job stands.

    Raises:
        ConfigError: If the settings are wrong, or name files that the cluster will not have.
        ClusterError: If the cluster, the working tree or the storage cannot be used.
    """
    config = load_config(paths, overrides)
    sizes = files_to_send(options.working_dir)
    check_settings(config, files=sizes)
    inside = [_path_inside(path, tree=options.working_dir, files=sizes) for path in paths]
    return submit_entrypoint(
        ["python", "-m", "raycrp", until.value if until else "run", *inside, *overrides],
        name=config.run.name,
        storage=config.run.storage,
        options=options,
        echo=echo,
    )


def submit_entrypoint(
    entrypoint: Sequence[str],
    *,
    name: str,
    storage: str | None,
    options: SubmitOptions,
    echo: Echo,
) -> Outcome:
    """Send any command to a cluster.

    Args:
        entrypoint: The command and its arguments.
        name: Begins the submission id.
        storage: Folder or URI that all nodes must be able to write to; not checked if None.
        options: How it is sent and followed.
        echo: Shows lines to the user.

    Returns:
        How the job stands.

    Raises:
        ClusterError: If the cluster, the working tree or the storage cannot be used.
    """
    check_size(files_to_send(options.working_dir), max_bytes=options.max_bytes)
    address = job_address(options.address)
    client = connect_to_jobs(address)
    job_id = new_submission_id(name)
    echo(plain_command(entrypoint, address=address, job_id=job_id, options=options) + "\n")
    if storage is not None and options.checks_storage:
        _check_storage(client, storage=storage, job_id=job_id, options=options, echo=echo)
    if not options.waits:
        send_job(client, entrypoint, job_id=job_id, working_dir=options.working_dir)
        echo(_how_to_follow(job_id))
        return job_outcome(client, job_id)
    try:
        return run_job(
            client,
            entrypoint,
            job_id=job_id,
            working_dir=options.working_dir,
            max_restarts=options.max_restarts,
            echo=echo,
        )
    except KeyboardInterrupt:
        echo("\nThe job goes on without this terminal.\n" + _how_to_follow(job_id))
        raise


def plain_command(
    entrypoint: Sequence[str], *, address: str, job_id: str, options: SubmitOptions
) -> str:
    """The line for a shell that does the same, without the checks.

    Args:
        entrypoint: The command and its arguments.
        address: URL of the job server.
        job_id: The submission id.
        options: How it is sent.
    """
    environment = '{"excludes": [' + ", ".join(f'"{pattern}"' for pattern in EXCLUDES) + "]}"
    words = ["ray", "job", "submit", "--address", address, "--submission-id", job_id]
    words += ["--working-dir", str(options.working_dir), "--runtime-env-json", environment]
    words += [] if options.waits else ["--no-wait"]
    return "RAY_AUTH_MODE=token " + shlex.join([*words, "--", *entrypoint])


def new_submission_id(name: str) -> str:
    """An id that a person can read and nobody else has, such as ``demo-20260131-184501-3f9c``.

    Args:
        name: Name of the run.
    """
    return f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def check_settings(config: Config, *, files: Mapping[str, int]) -> None:
    """Refuse settings that would work here but not on a cluster.

    Args:
        config: The resolved configuration.
        files: The working tree as it will be sent.

    Raises:
        ConfigError: If the storage or a data file is on this machine alone.
    """
    storage = config.run.storage
    if "://" not in storage and not Path(storage).is_absolute():
        raise ConfigError(
            f"run.storage '{storage}' is relative to the working tree and would be lost with the "
            "job; give object storage (run.storage=s3://BUCKET/raycrp) or an absolute path of a "
            "folder that all nodes share"
        )
    for path in config.data.paths:
        is_local = "://" not in path and not Path(path).is_absolute()
        if is_local and not any(fnmatch(name, path) for name in files):
            raise ConfigError(
                f"data.paths '{path}' does not go along with the code; bring it to storage that "
                "all nodes see, and name it there (s3://, gs://, or an absolute path)"
            )


def _path_inside(path: str, *, tree: Path, files: Mapping[str, int]) -> str:
    try:
        inside = Path(path).resolve().relative_to(tree.resolve()).as_posix()
    except ValueError:
        inside = ""
    if inside not in files:
        raise ConfigError(
            f"config file {path} does not go along: it must be inside the working tree "
            f"{tree.resolve()} and not left out by .gitignore or .rayignore"
        )
    return inside


def _check_storage(
    client: Any, *, storage: str, job_id: str, options: SubmitOptions, echo: Echo
) -> None:
    check_id = f"{job_id}-storage"
    echo(f"checking that all nodes can write to {storage}\n")
    send_job(
        client,
        ["python", "-m", "raycrp.ray_storage", storage],
        job_id=check_id,
        working_dir=options.working_dir,
    )
    deadline = time.monotonic() + STORAGE_CHECK_TIMEOUT_S
    while (outcome := job_outcome(client, check_id)).status not in ENDED:
        if time.monotonic() > deadline:
            client.stop_job(check_id)
            raise ClusterError(
                f"storage check {check_id} has not ended after {STORAGE_CHECK_TIMEOUT_S:.0f} s "
                f"({outcome.message}); look at the cluster's state (`ray status`)"
            )
        time.sleep(POLL_S)
    if outcome.status != "SUCCEEDED":
        log = client.get_job_logs(check_id).splitlines()
        said = [line.removeprefix("error: ") for line in log if line.startswith("error: ")]
        reason = " ".join([outcome.message, *log[-1:]])
        raise ClusterError(said[-1] if said else f"storage check {check_id} failed: {reason}")


def _how_to_follow(job_id: str) -> str:
    return f"  ray job logs --follow {job_id}\n  ray job status {job_id}\n  ray job stop {job_id}\n"
