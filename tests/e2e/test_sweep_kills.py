"""The driver of a sweep killed at ten random moments; the sweep ends like an unbroken one."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raycrp.run import RunFolder

pytestmark = [pytest.mark.e2e, pytest.mark.chaos]

NUM_KILLS = 10
NUM_TRIALS = 40
TIMEOUT_S = 1_200
DONE = "elicit/tune/done"
SETTINGS = """
run: {name: sweep, num_cpus: 2}
data:
  num_reactions: 150
  tasks: [forward]
  rt_valid_fraction: 0.1
  rt_test_fraction: 0.1
  num_processes: 1
elicit:
  encodings: [output, difference, concat, change]
  num_clusters: [2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
  max_rounds: 2
  tuning_epochs: 1
"""


def start(stage, storage):
    """The command, as a process of its own."""
    log = (storage / "command.log").open("ab")
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    command = [sys.executable, "-m", "raycrp", stage, str(storage / "sweep.yaml")]
    return subprocess.Popen(
        [*command, f"run.storage={storage}"], stdout=log, stderr=log, env=environment
    )


def finish(stage, storage):
    process = start(stage, storage)
    try:
        assert process.wait(TIMEOUT_S) == 0, (storage / "command.log").read_text()[-4000:]
    finally:
        process.kill()
    return RunFolder(str(storage), "sweep")


def kill_after(num_done, *, delay_s, storage):
    """Start the command and SIGKILL it so long after so many trials are done."""
    run = RunFolder(str(storage), "sweep")
    process = start("elicit", storage)
    deadline = time.monotonic() + TIMEOUT_S
    while len(run.list_names(DONE)) < num_done:
        assert process.poll() is None, (storage / "command.log").read_text()[-4000:]
        assert time.monotonic() < deadline, f"no {num_done} trials after {TIMEOUT_S} s"
        time.sleep(0.05)
    time.sleep(delay_s)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return {path.name: path.stat().st_mtime_ns for path in Path(run.path(DONE)).glob("*.json")}


def results_of(run):
    """All that a sweep leaves, without times."""
    tables = {
        name: run.read_table(f"elicit/{name}")
        for name in ("trials.parquet", "rt_cards.parquet", "reaction_types/forward.parquet")
    }
    for trial in run.list_names("elicit/tune/kept"):
        tables[trial] = run.read_table(f"elicit/tune/kept/{trial}/reaction_types.parquet")
    return {
        name: table.select([each for each in table.column_names if "seconds" not in each])
        for name, table in tables.items()
    }


def test_a_sweep_killed_ten_times_ends_like_an_unbroken_one(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    (whole / "sweep.yaml").write_text(SETTINGS)
    finish("embed", whole)
    shutil.copytree(whole, broken)
    expected = results_of(finish("elicit", whole))
    chance = random.Random(7)
    seen = {}
    for num_done in [*sorted(chance.sample(range(NUM_TRIALS), NUM_KILLS - 1)), NUM_TRIALS]:
        delay_s = 0.0 if num_done == NUM_TRIALS else chance.uniform(0, 2)
        done = kill_after(num_done, delay_s=delay_s, storage=broken)
        print(f"killed with {len(done)} of {NUM_TRIALS} trials done")  # noqa: T201
        assert seen.items() <= done.items(), "a finished trial ran again"
        seen = done
    results = results_of(finish("elicit", broken))
    trials = results["trials.parquet"]["trial_id"].to_pylist()
    assert len(trials) == len(set(trials)) == NUM_TRIALS
    assert results.keys() == expected.keys()
    for name, table in expected.items():
        assert results[name].equals(table), name
