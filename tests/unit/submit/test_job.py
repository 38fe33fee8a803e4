import asyncio
from types import SimpleNamespace

import pytest

from raycrp.errors import ClusterError
from raycrp.submit import job
from raycrp.submit.job import is_driver_lost


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
    """Run a job on a scripted cluster; returns the outcome and what was shown."""
    monkeypatch.setattr(job, "POLL_S", 0.001)

    def _follow(cluster, *, max_restarts=3):
        shown = []
        outcome = job.run_job(
            cluster,
            ["run", "it"],
            job_id="demo-1",
            working_dir=tmp_path,
            max_restarts=max_restarts,
            echo=shown.append,
        )
        return outcome, "".join(shown)

    return _follow


class TestFollowing:
    def test_a_broken_log_connection_goes_on_where_it_was(self, follow):
        tails = [["one\n", "two\n", OSError("cut")], ["one\ntwo\n", "three\n"]]
        outcome, shown = follow(Cluster(([RUNNING, RUNNING, DONE], tails, "one\ntwo\nthree\n")))
        assert outcome.status == "SUCCEEDED"
        assert shown.startswith("one\ntwo\nthree\n\njob demo-1: ")

    def test_what_the_connection_missed_is_shown_at_the_end(self, follow):
        _, shown = follow(Cluster(([RUNNING, DONE], [["one\n"]], "one\ntwo\n")))
        assert shown.startswith("one\ntwo\n\njob demo-1: ")

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
        monkeypatch.setattr(job, "RECONNECT_TIMEOUT_S", 0.01)
        with pytest.raises(ClusterError, match="has not answered for 0 s: gone"):
            follow(Cluster(([OSError("gone")], [], "")))

    def test_a_cluster_that_is_still_starting_is_asked_again(self, follow):
        busy = RuntimeError("Request failed with status code 500: No agent, try again later..")
        cluster = Cluster(busy, busy, ([DONE], [], ""))
        outcome, _ = follow(cluster)
        assert (outcome.status, outcome.num_restarts, len(cluster.sent)) == ("SUCCEEDED", 0, 1)

    def test_a_job_that_is_refused_is_not_sent_again(self, follow):
        cluster = Cluster(RuntimeError("status code 500: id is taken"), ([DONE], [], ""))
        with pytest.raises(ClusterError, match=r"does not take job demo-1: .*id is taken"):
            follow(cluster)
        assert cluster.sent == []

    def test_silence_is_broken_by_a_sign_of_life(self, follow, monkeypatch):
        monkeypatch.setattr(job, "_QUIET_S", 0.01)

        class Slow(Cluster):
            async def tail_job_logs(self, job_id):
                await asyncio.sleep(0.05)
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
