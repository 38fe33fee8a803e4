"""The command of a chaos test: train a prepared run folder on a cluster that is there.

Usage: python driver.py SPEC, a JSON file with storage, name, train and pause_s.
"""

import json
import sys
import time
from pathlib import Path

import ray

from raycrp.choices import InstructionChoice
from raycrp.config import Config
from raycrp.run import RunFolder
from raycrp.train import trainer
from raycrp.train.setup import WorkerSettings

REFRESH_STEPS = 5


def main(spec_path: str) -> None:
    spec = json.loads(Path(spec_path).read_text())
    config = Config.model_validate({"train": spec["train"]})
    settings = WorkerSettings(
        run=RunFolder(spec["storage"], spec["name"]),
        train=config.train,
        instruction=InstructionChoice.ADAPTIVE,
        refresh_steps=REFRESH_STEPS,
        seed=0,
    )
    trainer._ray_worker = paced(trainer._ray_worker, pause_s=spec["pause_s"])
    # Ray waits so long for workers on a node that it does not know to be lost.
    environment = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20"}
    ray.init(
        address=spec["address"], logging_level="warning", runtime_env={"env_vars": environment}
    )
    trainer.train_model(settings)


def paced(train, *, pause_s):
    """The worker function with a pause in each step, so that there is time to do harm in."""

    def worker(config):
        from raycrp.train.worker import Worker

        plain = Worker.train_step

        def step(self):
            time.sleep(pause_s)
            plain(self)

        Worker.train_step = step
        try:
            train(config)
        finally:
            Worker.train_step = plain

    return worker


if __name__ == "__main__":
    main(sys.argv[1])
