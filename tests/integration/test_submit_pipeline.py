"""The pipeline as jobs: by Ray's own command, by raycrp submit, stopped, and gone on with."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ray_head import Head, ray_command

import raycrp
from raycrp.run import RunFolder
from raycrp.status import describe_run

pytestmark = [pytest.mark.integration, pytest.mark.e2e, pytest.mark.slow]

TIMEOUT_S = 300
CONFIG = """
run: {name: tiny, num_cpus: 2}
data:
  {num_reactions: 60, tasks: [forward], rt_valid_fraction: 0.1, rt_test_fraction: 0.1,
   num_processes: 1}
embed: {rows_per_shard: 64}
elicit: {encodings: [concat], num_clusters: [3, 4]}
"""


@pytest.fixture(scope="module")
def head():
    head = Head()
    yield head
    head.stop()


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A checkout: the package and a configuration."""
    tree = tmp_path_factory.mktemp("tree")
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(raycrp.__file__).parent, tree / "raycrp", ignore=skipped)
    (tree / "tiny.yaml").write_text(CONFIG)
    return tree


@pytest.fixture(scope="module")
def call(head, tree):
    """Run a command from the checkout, as a person with the token would."""

    def _call(*command):
        environment = head.environment | {"COLUMNS": "200"}
        # The code that the job runs is what was sent.
        environment.pop("PYTHONPATH", None)
        return subprocess.run(
            command,
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    return _call


def raycrp_command(*words):
    return [sys.executable, "-m", "raycrp", *words]


def wait_until(condition):
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_run_goes_from_job_to_job(call, tmp_path_factory):
    storage = tmp_path_factory.mktemp("storage")
    run = RunFolder(str(storage), "tiny")
    settings = ["tiny.yaml", f"run.storage={storage}"]

    plain = ["job", "submit", "--submission-id", "plain", "--working-dir", "."]
    result = call(*ray_command(*plain, "--", "python", "-m", "raycrp", "data", *settings))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "SUCCEEDED" in call(*ray_command("job", "status", "plain")).stdout
    assert "data: finished" in call(*ray_command("job", "logs", "plain")).stdout

    result = call(*raycrp_command("submit", *settings, "--until", "elicit", "--no-wait"))
    assert result.returncode == 0, result.stdout + result.stderr
    job_id = re.search(r"ray job stop (tiny-\S+)", result.stdout).group(1)
    wait_until(lambda: run.exists("embed/_STARTED.json"))
    call(*ray_command("job", "stop", job_id))
    wait_until(lambda: "STOPPED" in call(*ray_command("job", "status", job_id)).stdout)
    assert not run.exists("elicit/_SUCCESS.json")

    result = call(*raycrp_command("submit", *settings, "--until", "elicit"))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "done already: data" in result.stdout
    assert "elicit: finished" in result.stdout
    assert "SUCCEEDED" in result.stdout.splitlines()[-1]
    text = describe_run(str(storage), "tiny")
    assert "elicit: 2 of 2 trials done" in text
    assert re.search(r"^data +done +60 ", text, re.MULTILINE)
    assert os.listdir(storage) == ["tiny"]  # noqa: PTH208
