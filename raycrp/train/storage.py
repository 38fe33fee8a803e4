"""Waits for storage that fails for a while, so that no work is lost to it."""

import logging
import time
from collections.abc import Callable

import tenacity

from raycrp.errors import RunError
from raycrp.prompt.stage import LLM_CRP_DIR
from raycrp.run import RunFolder

_PATIENCE_S = 600.0
_LONGEST_WAIT_S = 15.0
_THERE = f"{LLM_CRP_DIR}/config.json"

logger = logging.getLogger(__name__)


def wait_for_storage(
    run: RunFolder, *, source: RunFolder, rank: int, patience_s: float = _PATIENCE_S
) -> None:
    """Return once the run folder can be read and written; every worker calls this for its node.

    A folder that is not mounted looks empty, and training would begin anew in it; so something
    is read that must be there.

    Args:
        run: The run folder that is written to.
        source: The run folder with the prompt stage done, often the same.
        rank: Number of this worker.
        patience_s: Seconds after which it is taken to be lost.

    Raises:
        OSError: If storage does not come back in time.
        RunError: If it comes back without the run's files.
    """
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type((OSError, RunError)),
        wait=tenacity.wait_exponential(multiplier=0.5, max=_LONGEST_WAIT_S),
        stop=tenacity.stop_after_delay(patience_s),
        before_sleep=_say_first(run),
        reraise=True,
    )
    retrying(_touch, run, source=source, rank=rank)


def _touch(run: RunFolder, *, source: RunFolder, rank: int) -> None:
    source.read_bytes(_THERE)
    run.write_bytes(f"train/probes/{rank:05d}", str(time.time()).encode())


def _say_first(run: RunFolder) -> Callable[[tenacity.RetryCallState], None]:
    def say(state: tenacity.RetryCallState) -> None:
        """Warn of the first failure, not of those that follow it."""
        if state.attempt_number == 1 and state.outcome is not None:
            logger.warning("%s fails, waiting: %s", run.uri(), state.outcome.exception())

    return say
