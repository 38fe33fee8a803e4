"""A fake cluster, a training on it, and ways to harm both."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Container
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from raycrp.run import RunFolder
from raycrp.tracking import read_metrics
from raycrp.train.restarts import read_restarts
from raycrp.train.trials import RESULT_FILE

DRIVER = Path(__file__).with_name("driver.py")
WAIT_S = 400
INTERVAL = 10
TRAIN = {
    "launcher": "ray",
    "num_workers": [1, 2],
    "resize_interval_s": 300,
    "batch_size": 16,
    "max_steps": 40,
    "eval_every_steps": 20,
    "checkpoint_every_steps": INTERVAL,
    "log_every_steps": 1,
    "learning_rate": 3e-4,
    "num_checkpoints": 4,
    "patience": 100,
}


@dataclass(frozen=True)
class Outcome:
    """A line of the table."""

    event: str
    steps_lost: int
    seconds: float


OUTCOMES: list[Outcome] = []


class Training:
    """A training in a subprocess, in a run folder of its own."""

    def __init__(self, folder: Path, *, address: str, pause_s: float = 0.1, **train):
        self.run = RunFolder(str(folder.parent), folder.name)
        self.folder = folder
        self._log = folder.with_suffix(".log")
        self._spec = folder.with_suffix(".json")
        self._address = address
        self._driver: subprocess.Popen | None = None
        self.expect(pause_s=pause_s, **train)

    def expect(self, *, pause_s: float = 0.1, **train) -> None:
        """Settings of the next start."""
        self._spec.write_text(
            json.dumps(
                {
                    "address": self._address,
                    "storage": str(self.folder.parent),
                    "name": self.folder.name,
                    "train": TRAIN | train,
                    "pause_s": pause_s,
                }
            )
        )
        self.num_steps = (TRAIN | train)["max_steps"]

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._driver = subprocess.Popen(
                [sys.executable, str(DRIVER), str(self._spec)], stdout=log, stderr=log
            )

    def kill_driver(self) -> None:
        self._driver.kill()
        self._driver.wait()

    def wait_for_step(self, step: int) -> None:
        """Wait until so many steps are done."""
        self.wait_until(lambda: self.last_step() >= step, f"step {step}")

    def wait_until(self, condition, what: str) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            assert self._driver.poll() is None, f"ended before {what}: {self.log()}"
            assert time.monotonic() < deadline, f"no {what} in {WAIT_S} s: {self.log()}"
            time.sleep(0.05)

    def finish(self, event: str, *, restarts_allowed: Container[int] = (1,)) -> None:
        """Wait for the end; check it, and add a line to the table."""
        assert self._driver.wait(timeout=WAIT_S) == 0, self.log()
        result = self.run.read_json(RESULT_FILE)
        assert (result["step"], result["stop_reason"]) == (self.num_steps, "all steps done")
        steps = [line["step"] for line in self.lines() if "loss" in line]
        assert steps == list(range(1, self.num_steps + 1))
        assert self.run.exists("train/best/model.safetensors")
        restarts = read_restarts(self.run)
        OUTCOMES.append(
            Outcome(
                event,
                steps_lost=sum(restart.steps_lost for restart in restarts),
                seconds=max((restart.seconds for restart in restarts), default=0.0),
            )
        )
        assert len(restarts) in restarts_allowed, (restarts, self.log())

    @property
    def restarts(self):
        return read_restarts(self.run)

    def lines(self):
        return read_metrics(self.run)

    def last_step(self) -> int:
        lines = self.lines()
        return lines[-1]["step"] if lines else 0

    def num_workers(self) -> int:
        """Workers of the newest step."""
        return [line for line in self.lines() if "workers" in line][-1]["workers"]

    def worker_processes(self) -> list[psutil.Process]:
        """Processes of this cluster's training workers, those of other clusters left out."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            command = " ".join(process.info["cmdline"] or [])
            if "RayTrainWorker" in command and is_ours(process):
                found.append(process)
        return found

    def newest_checkpoint(self) -> Path:
        paths = self.folder.glob("train/ray/llm_crp/checkpoint_*/manifest-00000.json")
        return max(paths, key=lambda path: json.loads(path.read_text())["step"]).parent

    def log(self) -> str:
        """The end of what the command printed."""
        return self.whole_log()[-6_000:]

    def whole_log(self) -> str:
        return self._log.read_text()


def is_ours(process: psutil.Process) -> bool:
    """Whether a Ray worker hangs below a raylet that this process started."""
    try:
        return any(parent.pid == os.getpid() for parent in process.parents())
    except psutil.NoSuchProcess:
        return False


def drain(address: str, node_id: str, *, seconds: int) -> None:
    """As the spot watcher does it."""
    command = [str(Path(sys.executable).with_name("ray")), "drain-node", "--address", address]
    command += ["--node-id", node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    command += ["--reason-message", "spot notice", "--deadline-remaining-seconds", str(seconds)]
    subprocess.run(command, check=True, capture_output=True)


@contextmanager
def storage_away(folder: Path):
    """The run folder fails all that is asked of it inside the block."""
    away = folder.with_suffix(".away")
    folder.rename(away)
    folder.touch()
    try:
        yield
    finally:
        folder.unlink()
        away.rename(folder)


def kill(process: psutil.Process) -> None:
    os.kill(process.pid, signal.SIGKILL)
