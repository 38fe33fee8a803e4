"""Jobs on a real Ray head with dashboard and token, started here on ports of its own."""

import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ray.job_submission import JobSubmissionClient
from ray_head import TOKEN, ray_command

import raycrp
from raycrp.errors import ClusterError
from raycrp.run import RunFolder
from raycrp.status import describe_run
from raycrp.submit.send import SubmitOptions, submit_entrypoint

pytestmark = pytest.mark.integration

CONFIG = str(Path(__file__).parents[2] / "tune_configs" / "demo.yaml")
JOB = """
import os, pathlib, signal, sys
print("address", bool(os.environ.get("RAY_ADDRESS")), "token", os.environ.get("RAY_AUTH_MODE"))
print("sees", sorted(p.name for p in pathlib.Path().iterdir()), flush=True)
first_time = pathlib.Path(sys.argv[1])
if not first_time.exists():
    first_time.touch()
    os.kill(os.getpid(), signal.SIGKILL)
print("done after all")
"""


RAYCRP = [sys.executable, "-m", "raycrp"]
SMALLER = ["data.num_reactions=60", "data.tasks=[forward]"]
TIMEOUT_S = 600


@pytest.fixture(scope="module")
def client(head):
    return JobSubmissionClient(head.address, headers={"Authorization": f"Bearer {TOKEN}"})


@pytest.fixture
def tree(tmp_path):
    """A working tree with code, and data that stays here."""
    folder = tmp_path / "tree"
    for name in ("data", "runs"):
        (folder / name).mkdir(parents=True)
        (folder / name / "large").write_bytes(b"0" * 1000)
    (folder / "job.py").write_text(JOB)
    return folder


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """The package and a configuration, as a person has them."""
    folder = tmp_path_factory.mktemp("checkout")
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(raycrp.__file__).parent, folder / "raycrp", ignore=skipped)
    target = folder / "tests" / "e2e" / "tiny.yaml"
    target.parent.mkdir(parents=True)
    shutil.copy(Path(__file__).parents[1] / "e2e" / "tiny.yaml", target)
    return folder


@pytest.fixture(scope="module")
def call(head, checkout):
    """Run a command from the checkout, with the token."""
    environment = head.environment | {"COLUMNS": "200"}
    # The code that the job runs is what was sent.
    environment.pop("PYTHONPATH", None)

    def _call(*command):
        return subprocess.run(
            command,
            cwd=checkout,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    return _call


def wait_until(condition):
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def send(head, tree, monkeypatch):
    """Submit a command with the token, and return how it ended and what was shown."""
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(head.token_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)

    def _send(*entrypoint, storage=None, **options):
        shown = []
        outcome = submit_entrypoint(
            entrypoint,
            name="trial",
            storage=storage,
            options=SubmitOptions(address=head.address, working_dir=tree, **options),
            echo=shown.append,
        )
        return outcome, "".join(shown)

    return _send


def test_a_lost_driver_is_started_again_and_followed_to_the_end(send, client, tmp_path):
    storage = tmp_path / "storage"
    outcome, shown = send("python", "job.py", str(tmp_path / "first"), storage=str(storage))
    assert (outcome.status, outcome.exit_code, outcome.num_restarts) == ("SUCCEEDED", 0, 1)
    assert outcome.submission_id.endswith("-r1")
    assert "the driver was lost" in shown
    assert shown.count("done after all") == 1
    assert shown.count("address True token token") == 2
    assert "sees ['job.py']" in shown
    assert client.get_job_info(outcome.submission_id.removesuffix("-r1")).status == "FAILED"
    assert list(storage.iterdir()) == []


def test_a_driver_that_fails_by_itself_is_not_started_again(send):
    outcome, shown = send("python", "-c", "import sys; print('bad input'); sys.exit(2)")
    assert (outcome.status, outcome.exit_code, outcome.num_restarts) == ("FAILED", 2, 0)
    assert shown.splitlines().count("bad input") == 1


def test_a_job_can_be_left_alone_and_stopped(send, client):
    outcome, shown = send("sleep", "300", waits=False)
    assert outcome.status in ("PENDING", "RUNNING")
    assert f"ray job logs --follow {outcome.submission_id}" in shown
    assert client.stop_job(outcome.submission_id)
    wait_until(lambda: client.get_job_status(outcome.submission_id) == "STOPPED")


def test_a_run_is_stopped_and_the_plain_command_goes_on_with_it(
    call, client, checkout, tmp_path_factory
):
    run = RunFolder(str(tmp_path_factory.mktemp("storage")), "tiny")
    settings = ["tests/e2e/tiny.yaml", f"run.storage={run.storage}", *SMALLER]
    result = call(*RAYCRP, "submit", *settings, "--until", "embed", "--no-wait")
    assert result.returncode == 0, result.stderr
    line, *_ = result.stdout.splitlines()
    job_id = re.search(r"ray job stop (tiny-\S+)", result.stdout).group(1)
    wait_until(lambda: run.exists("embed/_STARTED.json"))
    assert client.get_job_status(job_id) == "RUNNING"
    client.stop_job(job_id)
    wait_until(lambda: client.get_job_status(job_id) == "STOPPED")
    assert "data: finished" in client.get_job_logs(job_id)
    assert not run.exists("embed/_SUCCESS.json")

    token_mode, ray, *words = shlex.split(line.replace("--no-wait ", "").replace(job_id, "plain"))
    assert (token_mode, ray) == ("RAY_AUTH_MODE=token", "ray")
    result = call(*ray_command(*words))
    assert result.returncode == 0, result.stdout + result.stderr
    assert client.get_job_status("plain") == "SUCCEEDED"
    log = client.get_job_logs("plain")
    assert "done already: data" in log
    assert "embed: finished" in log
    assert log.splitlines()[-1] in result.stdout
    text = describe_run(run.storage, run.name)
    assert re.search(r"^data +done +60 .*\nembed +done .*\nelicit +waiting$", text, re.MULTILINE)


@pytest.mark.slow
def test_a_whole_run_ends_with_its_report(call, tmp_path_factory):
    run = RunFolder(str(tmp_path_factory.mktemp("storage")), "tiny")
    result = call(*RAYCRP, "submit", "tests/e2e/tiny.yaml", f"run.storage={run.storage}")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "SUCCEEDED" in result.stdout.splitlines()[-1]
    assert run.exists("report/index.html")
    text = describe_run(run.storage, run.name)
    assert "elicit: 8 of 8 trials done" in text
    assert "train: step 8\n" in text
    again = call(*RAYCRP, "submit", "tests/e2e/tiny.yaml", f"run.storage={run.storage}")
    assert (
        "done already: data, embed, elicit, annotate, prompt, train, evaluate, report"
        in again.stdout
    )


def test_storage_that_nodes_cannot_write_to_stops_it_before_it_starts(send, client):
    with pytest.raises(ClusterError, match=r"run.storage '/proc/none' cannot be used"):
        send("python", "job.py", storage="/proc/none")
    assert not [job for job in client.list_jobs() if job.entrypoint == "python job.py"]


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (None, "asks for a token, and none was found here"),
        ("f" * 64, "refuses the token of this machine"),
    ],
)
def test_without_a_token_or_with_a_wrong_one_it_is_refused(head, client, tmp_path, token, message):
    num_jobs = len(client.list_jobs())
    # A process of its own: Ray keeps the first token that a process has read.
    hidden = ("RAY_AUTH_TOKEN_PATH", "RAY_AUTH_TOKEN", "RAY_AUTH_MODE")
    environment = {name: text for name, text in head.environment.items() if name not in hidden}
    environment["HOME"] = str(tmp_path)
    if token is not None:
        environment["RAY_AUTH_TOKEN"] = token
    result = subprocess.run(
        [
            *(sys.executable, "-m", "raycrp", "submit", CONFIG),
            *(f"run.storage={tmp_path}", "--address", head.address),
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert result.returncode == 2, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert len(client.list_jobs()) == num_jobs
