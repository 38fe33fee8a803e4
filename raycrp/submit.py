"""Sending a run to a cluster as a Ray job: checked first, followed, started again when lost."""

import asyncio
import logging
import secrets
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import tenacity

from raycrp.config import Config, load_config
from raycrp.errors import ClusterError, ConfigError
from raycrp.job_client import connect_to_jobs, job_address
from raycrp.plan import Stage
from raycrp.working_tree import EXCLUDES, MAX_BYTES, check_size, files_to_send

logger = logging.getLogger(__name__)

Echo = Callable[[str], None]
"""Shows a line, or a piece of the job's log with its own line ends, to the user."""

SEND_TIMEOUT_S = 120.0
STORAGE_CHECK_TIMEOUT_S = 300.0
RECONNECT_TIMEOUT_S = 900.0

_POLL_S = 1.0
_QUIET_S = 60.0
_LOST_ERRORS = ("JOB_SUPERVISOR_ACTOR_DIED", "JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE")
_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


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


@dataclass(frozen=True)
class Outcome:
    """How a job stands when following it ends.

    Args:
        submission_id: Id of the last attempt.
        status: Ray's word: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
        message: What Ray says about it.
        exit_code: Of the driver; None while it has not ended by itself.
        num_restarts: Times that the driver was lost and started again.
    """

    submission_id: str
    status: str
    message: str
    exit_code: int | None
    num_restarts: int


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
        _send(client, entrypoint, job_id=job_id, options=options)
        echo(_how_to_follow(job_id))
        return _outcome(client, job_id, num_restarts=0)
    try:
        return _run_to_the_end(client, entrypoint, job_id=job_id, options=options, echo=echo)
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


def is_driver_lost(info: Any) -> bool:
    """Whether a job ended because its driver was killed or its node went, not by its own doing.

    Args:
        info: Ray's ``JobDetails``; None where the cluster no longer knows the job.
    """
    if info is None:
        return True
    if info.status != "FAILED":
        return False
    if info.driver_exit_code is None:
        return info.error_type in _LOST_ERRORS
    return bool(info.driver_exit_code < 0 or info.driver_exit_code > 128)


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


def _send(client: Any, entrypoint: Sequence[str], *, job_id: str, options: SubmitOptions) -> None:
    environment = {"working_dir": str(options.working_dir), "excludes": list(EXCLUDES)}
    patiently = tenacity.Retrying(
        retry=tenacity.retry_if_exception_message(match="(?s).*(try again later|status code 503)"),
        stop=tenacity.stop_after_delay(SEND_TIMEOUT_S),
        wait=tenacity.wait_fixed(_POLL_S),
        reraise=True,
    )
    try:
        patiently(
            client.submit_job,
            entrypoint=shlex.join(entrypoint),
            submission_id=job_id,
            runtime_env=environment,
        )
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ClusterError(f"the cluster does not take job {job_id}: {reason}") from error


def _check_storage(
    client: Any, *, storage: str, job_id: str, options: SubmitOptions, echo: Echo
) -> None:
    check_id = f"{job_id}-storage"
    echo(f"checking that all nodes can write to {storage}\n")
    _send(
        client,
        ["python", "-m", "raycrp.storage_check", storage],
        job_id=check_id,
        options=options,
    )
    deadline = time.monotonic() + STORAGE_CHECK_TIMEOUT_S
    while (outcome := _outcome(client, check_id, num_restarts=0)).status not in _ENDED:
        if time.monotonic() > deadline:
            client.stop_job(check_id)
            raise ClusterError(
                f"storage check {check_id} has not ended after {STORAGE_CHECK_TIMEOUT_S:.0f} s "
                f"({outcome.message}); look at the cluster's state (`ray status`)"
            )
        time.sleep(_POLL_S)
    if outcome.status != "SUCCEEDED":
        log = client.get_job_logs(check_id).splitlines()
        said = [line.removeprefix("error: ") for line in log if line.startswith("error: ")]
        reason = " ".join([outcome.message, *log[-1:]])
        raise ClusterError(said[-1] if said else f"storage check {check_id} failed: {reason}")


def _run_to_the_end(
    client: Any, entrypoint: Sequence[str], *, job_id: str, options: SubmitOptions, echo: Echo
) -> Outcome:
    attempt_id = job_id
    for num_restarts in range(options.max_restarts + 1):
        _send(client, entrypoint, job_id=attempt_id, options=options)
        info = _follow(client, attempt_id, echo=echo)
        outcome = _read_outcome(info, attempt_id, num_restarts)
        if not is_driver_lost(info):
            break
        if num_restarts < options.max_restarts:
            attempt_id = f"{job_id}-r{num_restarts + 1}"
            echo(f"\nthe driver was lost ({outcome.message}); going on as {attempt_id}\n")
    echo(f"\njob {outcome.submission_id}: {outcome.status}, {outcome.message}\n")
    return outcome


def _follow(client: Any, job_id: str, *, echo: Echo) -> Any:
    """Show the log until the job has ended; what was shown is not shown again after a break."""
    started = time.monotonic()
    num_shown = 0
    while True:
        info = _job_info(client, job_id, echo=echo)
        if info is None or info.status in _ENDED:
            break
        if info.status == "RUNNING":
            num_shown = asyncio.run(_tail(client, job_id, skip=num_shown, since=started, echo=echo))
        else:
            time.sleep(_POLL_S)
    if info is not None:
        with suppress(RuntimeError, OSError):
            echo(client.get_job_logs(job_id)[num_shown:])
    return info


async def _tail(client: Any, job_id: str, *, skip: int, since: float, echo: Echo) -> int:
    """Show the log as it grows, and a sign of life where it does not.

    Returns:
        Number of characters of the log that have been shown by now.
    """
    import aiohttp

    num_seen = 0
    pieces = aiter(client.tail_job_logs(job_id))
    waiting = asyncio.ensure_future(anext(pieces, None))
    with suppress(RuntimeError, OSError, aiohttp.ClientError):
        while True:
            done, _ = await asyncio.wait({waiting}, timeout=_QUIET_S)
            if not done:
                minutes = (time.monotonic() - since) / 60
                echo(f"[{job_id}: running for {minutes:.0f} min, quiet for {_QUIET_S:.0f} s]\n")
                continue
            piece = waiting.result()
            if piece is None:
                break
            echo(piece[max(0, skip - num_seen) :])
            num_seen += len(piece)
            waiting = asyncio.ensure_future(anext(pieces, None))
    return max(skip, num_seen)


def _job_info(client: Any, job_id: str, *, echo: Echo) -> Any:
    """Ray's details of a job, waiting for a head that has gone; None if it forgot the job."""
    deadline = time.monotonic() + RECONNECT_TIMEOUT_S
    is_told = False
    while True:
        try:
            return client.get_job_info(job_id)
        except OSError as error:
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"the cluster has not answered for {RECONNECT_TIMEOUT_S:.0f} s: {error}; once "
                    "it is back, the same command goes on where the run left off"
                ) from error
            if not is_told:
                echo("\nthe cluster does not answer; waiting for it\n")
            is_told = True
        except RuntimeError as error:
            if "404" in str(error):
                return None
            raise ClusterError(f"job {job_id}: {str(error).splitlines()[0]}") from error
        time.sleep(_POLL_S)


def _outcome(client: Any, job_id: str, *, num_restarts: int) -> Outcome:
    return _read_outcome(_job_info(client, job_id, echo=lambda line: None), job_id, num_restarts)


def _read_outcome(info: Any, job_id: str, num_restarts: int) -> Outcome:
    if info is None:
        return Outcome(job_id, "FAILED", "the cluster no longer knows the job", None, num_restarts)
    status = str(getattr(info.status, "value", info.status))
    message = (info.message or "").partition(", last available logs")[0].strip()
    return Outcome(job_id, status, message, info.driver_exit_code, num_restarts)


def _how_to_follow(job_id: str) -> str:
    return f"  ray job logs --follow {job_id}\n  ray job status {job_id}\n  ray job stop {job_id}\n"
