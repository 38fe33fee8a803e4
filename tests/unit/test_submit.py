import re
import shlex
from types import SimpleNamespace

import pytest

from raycrp import submit
from raycrp.config import load_config
from raycrp.errors import ClusterError, ConfigError
from raycrp.plan import Stage
from raycrp.submit import (
    SubmitOptions,
    check_settings,
    is_driver_lost,
    new_submission_id,
    plain_command,
    submit_run,
)


class Cluster:
    """Job server made of scripts: what each attempt's polls see, and pieces of its log."""

    def __init__(self, *attempts):
        self._attempts = list(attempts)
        self.sent = []

    def submit_job(self, *, entrypoint, submission_id, runtime_env):
        if isinstance(self._attempts[0], Exception):
            raise self._attempts.pop(0)
        self.sent.append((submission_id, entrypoint))
        self._polls, self._tails, self._log = self._attempts.pop(0)

    def get_job_info(self, job_id):
        poll = self._polls.pop(0) if len(self._polls) > 1 else self._polls[0]
        if isinstance(poll, Exception):
            raise poll
        return poll

    async def tail_job_logs(self, job_id):
        for piece in self._tails.pop(0):
            if isinstance(piece, Exception):
                raise piece
            yield piece

    def get_job_logs(self, job_id):
        return self._log


def state(status, *, exit_code=None, error_type=None):
    return SimpleNamespace(
        status=status, message="said so", driver_exit_code=exit_code, error_type=error_type
    )


RUNNING, DONE = state("RUNNING"), state("SUCCEEDED", exit_code=0)
KILLED = state("FAILED", exit_code=-9)
FORGOTTEN = RuntimeError("Request failed with status code 404: no such job.")


@pytest.fixture
def follow(monkeypatch, tmp_path):
    """Submit to a scripted cluster; returns the outcome and what was shown after the command."""
    monkeypatch.setattr(submit, "_POLL_S", 0.001)

    def _follow(cluster, **options):
        monkeypatch.setattr(submit, "connect_to_jobs", lambda address: cluster)
        shown = []
        outcome = submit.submit_entrypoint(
            ["run", "it"],
            name="demo",
            storage=None,
            options=SubmitOptions(working_dir=tmp_path, **options),
            echo=shown.append,
        )
        return outcome, "".join(shown[1:])

    return _follow


class TestFollowing:
    def test_a_broken_log_connection_goes_on_where_it_was(self, follow):
        tails = [["one\n", "two\n", OSError("cut")], ["one\ntwo\n", "three\n"]]
        outcome, shown = follow(Cluster(([RUNNING, RUNNING, DONE], tails, "one\ntwo\nthree\n")))
        assert outcome.status == "SUCCEEDED"
        assert shown.startswith("one\ntwo\nthree\n\njob demo-")

    def test_what_the_connection_missed_is_shown_at_the_end(self, follow):
        _, shown = follow(Cluster(([RUNNING, DONE], [["one\n"]], "one\ntwo\n")))
        assert shown.startswith("one\ntwo\n\njob demo-")

    @pytest.mark.parametrize("last", [KILLED, FORGOTTEN])
    def test_a_lost_driver_is_sent_again_with_the_same_command(self, follow, last):
        cluster = Cluster(([last], [], ""), ([DONE], [], ""))
        outcome, _ = follow(cluster)
        first, second = cluster.sent
        assert (outcome.status, outcome.num_restarts) == ("SUCCEEDED", 1)
        assert second == (f"{first[0]}-r1", first[1])

    def test_restarts_are_bounded(self, follow):
        cluster = Cluster(*[([KILLED], [], "")] * 3)
        outcome, _ = follow(cluster, max_restarts=2)
        assert (outcome.status, outcome.num_restarts, len(cluster.sent)) == ("FAILED", 2, 3)

    def test_a_cluster_that_comes_back_is_waited_for(self, follow):
        outcome, shown = follow(Cluster(([OSError("gone"), OSError("gone"), DONE], [], "")))
        assert outcome.status == "SUCCEEDED"
        assert shown.count("the cluster does not answer") == 1

    def test_a_cluster_that_stays_away_ends_it(self, follow, monkeypatch):
        monkeypatch.setattr(submit, "RECONNECT_TIMEOUT_S", 0.01)
        with pytest.raises(ClusterError, match="has not answered for 0 s: gone"):
            follow(Cluster(([OSError("gone")], [], "")))

    def test_a_cluster_that_is_still_starting_is_asked_again(self, follow):
        busy = RuntimeError("Request failed with status code 500: No agent, try again later..")
        cluster = Cluster(busy, busy, ([DONE], [], ""))
        outcome, _ = follow(cluster)
        assert (outcome.status, outcome.num_restarts, len(cluster.sent)) == ("SUCCEEDED", 0, 1)

    def test_a_job_that_is_refused_is_not_sent_again(self, follow):
        cluster = Cluster(RuntimeError("status code 500: id is taken"), ([DONE], [], ""))
        with pytest.raises(ClusterError, match=r"does not take job demo-.*: .*id is taken"):
            follow(cluster)
        assert cluster.sent == []

    def test_silence_is_broken_by_a_sign_of_life(self, follow, monkeypatch):
        monkeypatch.setattr(submit, "_QUIET_S", 0.01)

        class Slow(Cluster):
            async def tail_job_logs(self, job_id):
                await submit.asyncio.sleep(0.05)
                yield "late\n"

        _, shown = follow(Slow(([RUNNING, DONE], [], "late\n")))
        assert "running for 0 min, quiet for 0 s" in shown
        assert shown.count("late") == 1


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        (None, True),
        (KILLED, True),
        (state("FAILED", exit_code=137), True),
        (state("FAILED", exit_code=1), False),
        (state("FAILED", exit_code=2), False),
        (state("FAILED", error_type="JOB_SUPERVISOR_ACTOR_DIED"), True),
        (state("FAILED", error_type="RUNTIME_ENV_SETUP_FAILURE"), False),
        (state("STOPPED", exit_code=-15), False),
        (DONE, False),
    ],
)
def test_a_killed_driver_is_told_from_one_that_failed(info, expected):
    assert is_driver_lost(info) is expected


class TestSettings:
    @pytest.fixture
    def load(self, tmp_path):
        def _load(*overrides):
            path = tmp_path / "mine.yaml"
            path.write_text("run: {name: demo}\n")
            return load_config([path], overrides)

        return _load

    @pytest.mark.parametrize("storage", ["runs", "./runs", "~/runs"])
    def test_storage_inside_the_job_is_refused(self, load, storage):
        with pytest.raises(ConfigError, match="would be lost with the job"):
            check_settings(load(f"run.storage={storage}"), files={})

    @pytest.mark.parametrize("storage", ["/mnt/runs", "s3://bucket/raycrp", "gs://b"])
    def test_shared_storage_passes(self, load, storage):
        check_settings(load(f"run.storage={storage}"), files={})

    def test_data_must_go_along_or_be_named_where_all_see_it(self, load):
        config = load(
            "run.storage=/r", "data.source=reactions", "data.paths=[s3://b/*.csv,x/*.csv]"
        )
        check_settings(config, files={"x/a.csv": 1})
        with pytest.raises(ConfigError, match=re.escape("data.paths 'x/*.csv' does not go along")):
            check_settings(config, files={"y/a.csv": 1})

    @pytest.mark.parametrize("place", ["outside", "ignored"])
    def test_a_config_that_does_not_go_along_is_named(self, tmp_path, place):
        tree = tmp_path / "tree"
        (tree / "data").mkdir(parents=True)
        path = tmp_path / "a.yaml" if place == "outside" else tree / "data" / "a.yaml"
        path.write_text("run: {name: demo, storage: /mnt/runs}\n")
        with pytest.raises(ConfigError, match=r"a\.yaml does not go along"):
            submit_run([str(path)], [], options=SubmitOptions(working_dir=tree), echo=print)

    @pytest.mark.parametrize(("until", "word"), [(None, "run"), (Stage.ELICIT, "elicit")])
    def test_a_run_is_sent_with_paths_as_the_job_sees_them(
        self, tmp_path, monkeypatch, until, word
    ):
        cluster = Cluster(([DONE], [], ""))
        monkeypatch.setattr(submit, "connect_to_jobs", lambda address: cluster)
        (tmp_path / "configs").mkdir()
        (tmp_path / "configs" / "a.yaml").write_text("run: {name: demo}\n")
        options = SubmitOptions(working_dir=tmp_path, checks_storage=False, waits=False)
        overrides = ["run.storage=/mnt/r", "data.paths=['/mnt/a b.zip']"]
        path = str(tmp_path / "configs" / "a.yaml")
        submit_run([path], overrides, options=options, echo=len, until=until)
        [(job_id, entrypoint)] = cluster.sent
        assert shlex.split(entrypoint) == (
            ["python", "-m", "raycrp", word, "configs/a.yaml", *overrides]
        )
        assert job_id.startswith("demo-")


def test_the_plain_command_survives_a_shell():
    line = plain_command(
        ["python", "-c", "print('a b')"], address="http://h:1", job_id="x", options=SubmitOptions()
    )
    words = shlex.split(line)
    assert words[:4] == ["RAY_AUTH_MODE=token", "ray", "job", "submit"]
    assert words[words.index("--") + 1 :] == ["python", "-c", "print('a b')"]
    assert words[words.index("--address") + 1] == "http://h:1"


def test_submission_ids_can_be_read_and_are_never_the_same():
    ids = {new_submission_id("demo") for _ in range(20)}
    assert len(ids) == 20
    assert all(re.fullmatch(r"demo-\d{8}-\d{6}-[0-9a-f]{4}", name) for name in ids)
