import re

import pytest

from raycrp import ray_storage
from raycrp.errors import ClusterError
from raycrp.ray_storage import check_storage
from raycrp.run import RunFolder

pytestmark = pytest.mark.integration


def test_a_place_that_all_see_passes_and_keeps_nothing(local_ray, tmp_path):
    assert check_storage(str(tmp_path)) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_node_that_writes_elsewhere_is_named(local_ray, tmp_path, monkeypatch):
    def write_elsewhere(probe, node_id):
        probe.write_bytes(f"elsewhere-{node_id}", b"node")
        return ""

    monkeypatch.setattr(ray_storage, "_try_node", write_elsewhere)
    with pytest.raises(ClusterError, match="what it wrote is not seen by the driver"):
        check_storage(str(tmp_path))


def test_a_node_that_sees_another_folder_says_so(tmp_path):
    probe = RunFolder(str(tmp_path), "probe")
    assert ray_storage._try_node(probe, "one") == "what the driver wrote is not seen there"


def test_a_place_that_cannot_be_written_is_refused(local_ray):
    with pytest.raises(ClusterError, match=re.escape("'/proc/none' cannot be used")):
        check_storage("/proc/none")
