"""One job of a cluster: sent, followed until it ends, its end told from the loss of its driver."""

import asyncio
import shlex
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tenacity

from raycrp.errors import ClusterError
from raycrp.submit.working_tree import EXCLUDES

Echo = Callable[[str], None]
"""Shows a line, or a piece of the job's log with its own line ends, to the user."""

SEND_TIMEOUT_S = 120.0
RECONNECT_TIMEOUT_S = 900.0
POLL_S = 1.0
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")

_QUIET_S = 60.0
_LOST_ERRORS = ("JOB_SUPERVISOR_ACTOR_DIED", "JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE")


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


def run_job(
    client: Any,
    entrypoint: Sequence[str],
    *,
    job_id: str,
    working_dir: Path,
    max_restarts: int,
    echo: Echo,
) -> Outcome:
    """Send a command and follow it to its end; sent again where its driver was lost.

    Args:
        client: A ``JobSubmissionClient``.
        entrypoint: The command and its arguments.
        job_id: The submission id; later attempts have a number behind it.
        working_dir: The working tree.
        max_restarts: Times that it is sent again.
        echo: Shows lines to the user.

    Returns:
        How the last attempt ended.

    Raises:
        ClusterError: If the cluster does not take the job, or does not answer.
    """
    attempt_id = job_id
    for num_restarts in range(max_restarts + 1):
        send_job(client, entrypoint, job_id=attempt_id, working_dir=working_dir)
        info = _follow(client, attempt_id, echo=echo)
        outcome = _read_outcome(info, attempt_id, num_restarts)
        if not is_driver_lost(info):
            break
        if num_restarts < max_restarts:
            attempt_id = f"{job_id}-r{num_restarts + 1}"
            echo(f"\nthe driver was lost ({outcome.message}); going on as {attempt_id}\n")
    echo(f"\njob {outcome.submission_id}: {outcome.status}, {outcome.message}\n")
    return outcome


def send_job(client: Any, entrypoint: Sequence[str], *, job_id: str, working_dir: Path) -> None:
    """Send a command with the working tree; a cluster that is busy is asked again.

    Args:
        client: A ``JobSubmissionClient``.
        entrypoint: The command and its arguments.
        job_id: The submission id.
        working_dir: The working tree.

    Raises:
        ClusterError: If the cluster does not take it.
    """
    environment = {"working_dir": str(working_dir), "excludes": list(EXCLUDES)}
    patiently = tenacity.Retrying(
        retry=tenacity.retry_if_exception_message(match="(?s).*(try again later|status code 503)"),
        stop=tenacity.stop_after_delay(SEND_TIMEOUT_S),
        wait=tenacity.wait_fixed(POLL_S),
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


def job_outcome(client: Any, job_id: str) -> Outcome:
    """How a job stands now.

    Args:
        client: A ``JobSubmissionClient``.
        job_id: The submission id.

    Raises:
        ClusterError: If the cluster does not answer.
    """
    return _read_outcome(_job_info(client, job_id, echo=lambda line: None), job_id, 0)


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


def _follow(client: Any, job_id: str, *, echo: Echo) -> Any:
    """Show the log until the job has ended; what was shown is not shown again after a break."""
    started = time.monotonic()
    num_shown = 0
    while True:
        info = _job_info(client, job_id, echo=echo)
        if info is None or info.status in ENDED:
            break
        if info.status == "RUNNING":
            num_shown = asyncio.run(_tail(client, job_id, skip=num_shown, since=started, echo=echo))
        time.sleep(POLL_S)
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
        time.sleep(POLL_S)


def _read_outcome(info: Any, job_id: str, num_restarts: int) -> Outcome:
    if info is None:
        return Outcome(job_id, "FAILED", "the cluster no longer knows the job", None, num_restarts)
    status = str(getattr(info.status, "value", info.status))
    message = (info.message or "").partition(", last available logs")[0].strip()
    return Outcome(job_id, status, message, info.driver_exit_code, num_restarts)
