"""Times that training's workers started anew, as the run folder tells of them."""

import json
from dataclasses import dataclass

from raycrp.run import RunFolder

RESTARTS_FILE = "train/restarts.jsonl"


@dataclass(frozen=True)
class Restart:
    """One time that the workers started anew; a line of ``train/restarts.jsonl``.

    Args:
        time: When training went on, in seconds since 1970.
        step_reached: Optimiser steps done before, as far as that was noted.
        step_resumed: Optimiser steps of the checkpoint that training went on from.
        num_workers: Workers from then on.
        seconds: From the last life sign to the first step after it.
    """

    time: float
    step_reached: int
    step_resumed: int
    num_workers: int
    seconds: float

    @property
    def steps_lost(self) -> int:
        """Steps done again."""
        return max(0, self.step_reached - self.step_resumed)


def read_restarts(run: RunFolder) -> list[Restart]:
    """All restarts of a run's training, in order.

    Args:
        run: The run folder.
    """
    if not run.exists(RESTARTS_FILE):
        return []
    return parse_restarts(run.read_bytes(RESTARTS_FILE))


def parse_restarts(data: bytes) -> list[Restart]:
    """Restarts from the bytes of their file.

    Args:
        data: One JSON object a line.
    """
    return [Restart(**json.loads(line)) for line in data.decode().splitlines()]
