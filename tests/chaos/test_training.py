"""Training survives what happens to clusters: it ends with all steps, and little is done twice."""

import shutil
import tempfile
import time
from pathlib import Path

import pytest
from harness import INTERVAL, Training, drain, kill, storage_away
from ray.cluster_utils import Cluster
from run_folders import make_config, write_prompted_run

pytestmark = pytest.mark.chaos

NOTICE_S = 30
# Ray holds what a killed driver had reserved for an elastic training back for three minutes.
FIXED = {"num_workers": 2}
# Workers outlive a killed driver for seconds, in which they must not come to the end.
SLOW = FIXED | {"pause_s": 0.5}


@pytest.fixture(scope="module")
def prompted(tmp_path_factory):
    """A run folder as the prompt stage leaves it."""
    folder = tmp_path_factory.mktemp("runs")
    write_prompted_run(make_config(folder), num_train=60, num_validation=6)
    return Path(folder) / "test"


class Nodes:
    """A cluster of a head without CPUs and two nodes of one CPU; lost ones are replaced."""

    def __init__(self):
        self.cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
        )
        self.workers = []
        self.fill()

    def add(self):
        node = self.cluster.add_node(num_cpus=1)
        self.workers.append(node)
        return node

    def remove(self, node):
        self.workers.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)

    def fill(self):
        while len(self.workers) < 2:
            self.add()


@pytest.fixture(scope="module")
def nodes():
    with tempfile.TemporaryDirectory(prefix="rc-") as folder, pytest.MonkeyPatch.context() as patch:
        # Where other Rays of this machine do not look for a cluster to join.
        patch.setenv("RAY_TMPDIR", folder)
        # Ray's own default gives way to everything else, and then its time limits pass.
        patch.setenv("RAY_worker_niceness", "0")
        started = Nodes()
        yield started
        started.cluster.shutdown()


@pytest.fixture
def start(nodes, prompted, tmp_path):
    """A training that has begun, on two nodes."""
    trainings = []

    def make(*, is_full=True, **settings):
        if is_full:
            nodes.fill()
        shutil.copytree(prompted, tmp_path / "run")
        training = Training(tmp_path / "run", address=nodes.cluster.address, **settings)
        trainings.append(training)
        training.start()
        return training

    yield make
    for training in trainings:
        training.kill_driver()


def lost(training):
    return sum(restart.steps_lost for restart in training.restarts)


def test_a_killed_worker(start):
    training = start(**FIXED)
    training.wait_for_step(INTERVAL + 5)
    kill(training.worker_processes()[0])
    training.finish("worker killed")
    assert 0 < lost(training) <= INTERVAL


def test_a_killed_driver(start):
    training = start(**SLOW)
    training.wait_for_step(INTERVAL + 5)
    training.kill_driver()
    training.start()
    training.finish("driver killed, command repeated")
    assert 0 < lost(training) <= INTERVAL


@pytest.mark.parametrize("harm", ["truncated", "flipped bytes"])
def test_a_damaged_newest_checkpoint(start, harm):
    training = start(**SLOW)
    training.wait_for_step(2 * INTERVAL + 5)
    training.kill_driver()
    time.sleep(2)
    path = max(training.newest_checkpoint().rglob("*.pt"), key=lambda each: each.stat().st_size)
    data = bytearray(path.read_bytes())
    if harm == "truncated":
        path.write_bytes(data[: len(data) // 2])
    else:
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data)
    training.start()
    training.finish(f"newest checkpoint: {harm}")
    assert INTERVAL < lost(training) <= 2 * INTERVAL
    assert "is damaged, trying an older one" in training.whole_log()


def test_storage_that_fails_for_a_while(start):
    training = start(**FIXED)
    training.wait_for_step(INTERVAL + 5)
    with storage_away(training.folder):
        time.sleep(12)
    # Workers wait for storage; Ray's controller starts anew where it was about to write.
    training.finish("storage away for 12 s", restarts_allowed=(0, 1))
    assert lost(training) <= INTERVAL


def test_storage_that_fails_under_rays_controller(start):
    training = start(**FIXED)
    training.wait_for_step(5)
    # What Ray writes at the first checkpoint cannot be written there.
    (training.folder / "train/ray/llm_crp/checkpoint_manager_snapshot.json").mkdir()
    training.finish("storage fails under Ray's controller")
    assert lost(training) <= INTERVAL
    assert "storage failed under Ray's controller" in training.whole_log()


def test_a_node_that_goes_with_notice(start, nodes):
    training = start(max_steps=150, pause_s=0.2, checkpoint_every_steps=1_000)
    training.wait_for_step(5)
    assert training.num_workers() == 2
    leaving = nodes.workers[-1]
    drain(nodes.cluster.address, leaving.node_id, seconds=NOTICE_S)
    time.sleep(NOTICE_S)
    nodes.remove(leaving)
    training.finish("node drained with notice")
    assert lost(training) == 0
    assert training.num_workers() == 1


def test_an_added_node(start, nodes):
    if len(nodes.workers) > 1:
        nodes.remove(nodes.workers[-1])
    training = start(is_full=False, max_steps=300, resize_interval_s=5)
    training.wait_for_step(5)
    assert training.num_workers() == 1
    nodes.add()
    training.finish("node added")
    assert lost(training) <= INTERVAL
    assert training.num_workers() == 2


def test_a_lost_node(start, nodes):
    training = start()
    training.wait_for_step(INTERVAL + 5)
    nodes.remove(nodes.workers[-1])
    training.finish("node lost")
    assert 0 < lost(training) <= INTERVAL
    assert training.num_workers() == 1
