"""Jobs on a real Ray head with dashboard and token, started here on ports of its own."""

import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ray.job_submission import JobSubmissionClient
from ray_head import TOKEN, ray_command

from raycrp.errors import ClusterError
from raycrp.submit.send import SubmitOptions, plain_command, submit_entrypoint

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
    deadline = time.monotonic() + 30
    while client.get_job_status(outcome.submission_id) != "STOPPED":
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_the_plain_command_does_the_same(head, tree, client):
    options = SubmitOptions(working_dir=tree)
    command = ["python", "job.py", str(tree.parent)]
    line = plain_command(command, address=head.address, job_id="plain", options=options)
    token_mode, ray, *words = shlex.split(line)
    assert (token_mode, ray) == ("RAY_AUTH_MODE=token", "ray")
    result = subprocess.run(
        ray_command(*words),
        env=head.environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert client.get_job_status("plain") == "SUCCEEDED"
    assert "sees ['job.py']\ndone after all" in client.get_job_logs("plain")


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
